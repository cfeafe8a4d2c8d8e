"""The rotation in plain torch: the traceable form, and the reference of the fast ones."""

from typing import Literal

import torch
from torch import Tensor

from posenc.kernels.rotate.checks import check

Pairing = Literal["half", "interleaved"]


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, pairing: Pairing, start: int = 0) -> Tensor:
    """Turn each pair (a, b) of a slice of the channels of ``x`` into (a cos - b sin, a sin + b cos).

    Args:
        x: ``(..., seq, head_dim)``.
        cos, sin: ``(..., seq, pairs)``; 2 * pairs channels are rotated, the rest pass through. The arithmetic is done
            in the wider of the dtypes of x and of the tables, and rounded once to that of x.
        pairing: "half" pairs channel c with c + pairs, "interleaved" pairs 2c with 2c + 1, counted from ``start``.
        start: the first channel of the slice.
    """
    end = start + 2 * cos.shape[-1]
    # Widened once and before all else, so that the gradient too is added up wide and rounded once.
    a, b = split_pairs(x[..., start:end].to(torch.promote_types(x.dtype, cos.dtype)), pairing)
    turned = join_pairs(a * cos - b * sin, a * sin + b * cos, pairing).to(x.dtype)
    if start == 0 and end == x.shape[-1]:
        return turned
    return torch.cat((x[..., :start], turned, x[..., end:]), dim=-1)


def split_pairs(x: Tensor, pairing: Pairing) -> tuple[Tensor, Tensor]:
    """The first and the second channel of every pair."""
    if pairing == "half":
        a, b = x.chunk(2, dim=-1)
        return a, b
    return x[..., 0::2], x[..., 1::2]


def join_pairs(a: Tensor, b: Tensor, pairing: Pairing) -> Tensor:
    """The inverse of :func:`split_pairs`."""
    return torch.cat((a, b), dim=-1) if pairing == "half" else torch.stack((a, b), dim=-1).flatten(-2)


def rotate_queries_keys(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    offset: int,
    start: int,
    token_dim: int,
    interleaved: bool,
    inverse: bool,
) -> tuple[Tensor, Tensor]:
    """The arguments of the operators; :func:`rotate` of q and of k by the rows of their positions."""
    check(q, k, cos, sin, positions, offset, start, token_dim)
    pairing: Pairing = "interleaved" if interleaved else "half"
    cos, sin = (rows_of_tokens(table, positions, offset, q.shape[token_dim]) for table in (cos, sin))
    if token_dim == 1:  # every head has the same rows
        cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    elif cos.ndim == 3:
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    if inverse:
        sin = -sin
    return (
        rotate(q, cos, sin, pairing=pairing, start=start),
        rotate(k, cos, sin, pairing=pairing, start=start),
    )


def rows_of_tokens(table: Tensor, positions: Tensor | None, offset: int, tokens: int) -> Tensor:
    """The rows of the tokens, ``(seq, pairs)`` or ``(batch, seq, pairs)``."""
    if positions is None:
        return table if offset == 0 and table.shape[-2] == tokens else table.narrow(-2, offset, tokens)
    if table.ndim == 2:
        return table[positions]
    if positions.ndim == 1:
        return table[:, positions]
    batch = positions.shape[0] if table.shape[0] == 1 else table.shape[0]
    index = positions.long()[..., None].expand(batch, tokens, table.shape[-1])
    return table.expand(batch, -1, -1).gather(1, index)


def fresh(x: Tensor) -> Tensor:
    """Dense and of x's shape, its axes in memory order (0, 1, 2, 3) or (0, 2, 1, 3), whichever x is in."""
    batch, first, second, channels = x.shape
    if x.stride(1) < x.stride(2):
        return x.new_empty(batch, second, first, channels).transpose(1, 2)
    return x.new_empty(x.shape)

"""The rotation in plain torch: the traceable form, and the reference of the fast ones."""

from typing import Literal

import torch
from torch import Tensor

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

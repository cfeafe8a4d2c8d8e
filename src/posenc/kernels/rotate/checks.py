"""What the rotation refuses, for the implementations that do not check by themselves as cpu.cpp does."""

import torch
from torch import Tensor


def check(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    offset: int,
    start: int,
    token_dim: int,
) -> None:
    """The checks of cpu.cpp, in its words."""
    for name, x in (("q", q), ("k", k), ("cos", cos), ("sin", sin)):
        if not isinstance(x, Tensor):  # the dispatcher lets None through
            raise TypeError(f"rotate: got {x!r} for {name}, expected a tensor.")
    if token_dim not in (1, 2):
        raise ValueError(f"rotate: got token_dim {token_dim}, expected 1 or 2.")
    shapes = f"q of shape {tuple(q.shape)} and k of shape {tuple(k.shape)}"
    if q.ndim != 4 or k.ndim != 4:
        raise ValueError(f"rotate: got {shapes}, expected 4 dimensions.")
    if not (q.is_floating_point() and k.is_floating_point()):
        raise ValueError(f"rotate: got q of {q.dtype} and k of {k.dtype}, expected floating point.")
    batch, tokens = q.shape[0], q.shape[token_dim]
    if k.shape[0] != batch or k.shape[token_dim] != tokens:
        raise ValueError(f"rotate: got {shapes}, expected the same batch and number of tokens; rotate them one by one.")
    if cos.ndim not in (2, 3) or cos.shape != sin.shape or (cos.ndim == 3 and cos.shape[0] not in (1, batch)):
        raise ValueError(
            f"rotate: got cos of shape {tuple(cos.shape)} and sin of shape {tuple(sin.shape)}, expected the same, "
            f"(rows, pairs) or ({batch}, rows, pairs)."
        )
    rows, pairs = cos.shape[-2:]
    if start < 0 or any(start + 2 * pairs > x.shape[3] for x in (q, k)):
        raise ValueError(
            f"rotate: got {pairs} pairs of channels from channel {start} on, expected them to fit into {shapes}."
        )
    if any(x.device != q.device for x in (k, cos, sin) + (() if positions is None else (positions,))):
        raise ValueError("rotate: got tensors on several devices, expected all tensors on one.")
    if positions is None:
        if offset < 0 or offset + tokens > rows:
            raise ValueError(
                f"rotate: got {tokens} tokens from row {offset} on of a table of {rows} rows, expected rows within it; "
                "make a longer table."
            )
        return
    if offset != 0:
        raise ValueError(f"rotate: got positions and offset {offset}, expected one of the two; add the offset.")
    if positions.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"rotate: got positions of {positions.dtype}, expected int64 or int32.")
    if tuple(positions.shape) not in ((tokens,), (1, tokens), (batch, tokens)):
        raise ValueError(
            f"rotate: got positions of shape {tuple(positions.shape)}, expected ({tokens},) or ({batch}, {tokens})."
        )
    if positions.is_cpu and positions.numel() and not torch.compiler.is_compiling() and type(positions) is Tensor:
        low, high = (int(bound) for bound in torch.aminmax(positions))
        if low < 0 or high >= rows:
            raise ValueError(
                f"rotate: got positions from {low} to {high}, expected 0 to {rows - 1}, the rows of the table; make a "
                "longer table."
            )


def check_distinct(q: Tensor, k: Tensor) -> None:
    """Refuse to write in place where elements share memory."""
    for name, x in (("q", q), ("k", k)):
        if any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)) and x.numel():
            raise ValueError(
                f"rotate_: got {name} with elements that share memory (was it expanded?), expected distinct ones to "
                "write in place; clone() it."
            )

"""Rows of cos and sin: which ones the tokens of a tensor have, and how a tensor is laid out for the fused operation."""

from typing import NamedTuple

import torch
from torch import Tensor

from posenc.kernels.inputs import is_distributed
from posenc.kernels.rotate.eager import Pairing, rotate
from posenc.kernels.rotate.tables import Tables
from posenc.positions import Positions

#: The dtype of the tables for each dtype of q and k that can be rotated.
TABLE_DTYPES = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}


class Rows(NamedTuple):
    """cos and sin, and which of their rows the tokens have: those from ``first`` on, or ``ids``."""

    cos: Tensor
    sin: Tensor
    first: int = 0
    ids: Tensor | None = None


def of_table(tables: Tables, positions: Positions, x: Tensor, seq_dim: int) -> Rows | None:
    """Rows of a table that equal encodings share, for the tokens of x; None if these positions are none of them."""
    if (dtype := TABLE_DTYPES.get(x.dtype)) is None:
        return None
    tokens, batch = tokens_and_rows(x, seq_dim)
    needed, first, ids = tokens, 0, None
    if type(positions) is int:
        if positions < 0:
            return None
        needed, first = tokens + positions, positions
    elif positions is not None:
        if type(positions) is not Tensor or not (positions.is_cpu and x.is_cpu) or x.ndim < 4:
            return None
        if positions.dtype is not torch.int64 and positions.dtype is not torch.int32:
            return None
        count = positions.numel()
        if not count or tuple(positions.shape) not in ((tokens,), (batch, tokens), (1, tokens)):
            return None
        needed, ids = int(positions.item() if count == 1 else positions.max()) + 1, positions
        if needed < 1:
            return None
    made = tables.get(needed, x.device, dtype)
    return None if made is None else Rows(*made, first, ids)


def tokens_at(x: Tensor, seq_dim: int) -> int:
    """The dimension of the tokens. A head that stands alone, (seq, head_dim), has no other."""
    if x.ndim == 2:
        return 0
    return seq_dim + x.ndim if seq_dim < 0 else seq_dim


def tokens_and_rows(x: Tensor, seq_dim: int) -> tuple[int, int]:
    """How many tokens lie in x, and how many rows of them."""
    index = tokens_at(x, seq_dim)
    if x.ndim == 4:
        return x.shape[index], x.shape[int(index == 0)]
    return x.shape[index], x.shape[0] if x.ndim == 3 and index == 1 else 1


def polar(angle: Tensor, magnitude: Tensor) -> tuple[Tensor, Tensor]:
    """The real and the imaginary part of numbers by which pairs are multiplied."""
    return angle.cos() * magnitude, angle.sin() * magnitude


def plainly(x: Tensor, cos: Tensor, sin: Tensor, pairing: Pairing, start: int, blocks: tuple[int, ...]) -> Tensor:
    """The rotation of a slice in plain torch, by tables that broadcast with x; in blocks of pairs, paired each."""
    if not blocks:
        return rotate(x, cos, sin, pairing=pairing, start=start)
    rest = x.shape[-1] - start - 2 * cos.shape[-1]
    before, *inside, after = x.split((start, *(2 * pairs for pairs in blocks), rest), dim=-1)
    tables = zip(cos.split(blocks, dim=-1), sin.split(blocks, dim=-1), strict=True)
    turned = (rotate(part, *table, pairing=pairing) for part, table in zip(inside, tables, strict=True))
    return torch.cat((before, *turned, after), dim=-1)


def lifted(x: Tensor, seq_index: int) -> tuple[Tensor, int]:
    """``x`` as a view of four dimensions with the batch first, and its axis of tokens: 1 or 2."""
    if x.ndim == 2:  # (seq, head_dim)
        return x[None, None], 2
    if x.ndim == 3:  # (seq, heads, head_dim), or (batch, seq, head_dim)
        return (x[None], 1) if seq_index == 0 else (x[:, None], 2)
    return (x.transpose(0, 1), 1) if seq_index == 0 else (x, seq_index)


def lowered(x: Tensor, ndim: int, seq_index: int) -> Tensor:
    """The inverse of :func:`lifted`."""
    if ndim == 2:
        return x[0, 0]
    if ndim == 3:
        return x[0] if seq_index == 0 else x[:, 0]
    return x.transpose(0, 1) if seq_index == 0 else x


def align(table: Tensor, ndim: int, seq_index: int) -> Tensor:
    """``([rows, [heads,]] seq, pairs)`` as a view that broadcasts with x of ``ndim`` dimensions."""
    if table.ndim == 2:  # the same for all rows and heads
        return table.view(table.shape[0], *[1] * (ndim - 2 - seq_index), table.shape[1])
    if table.ndim == 3:
        table = table[:, None]
    if ndim == 2:
        return table[0, 0]
    if ndim == 3 and seq_index == 0:  # (seq, heads, head_dim)
        return table[0].transpose(0, 1)
    if ndim == 3:  # (batch, seq, head_dim), or (heads, seq, head_dim)
        return table[:, 0] if table.shape[1] == 1 else table[0]
    return {0: table.permute(2, 0, 1, 3), 1: table.transpose(1, 2)}.get(seq_index, table)


def for_tensor(table: Tensor, x: Tensor) -> Tensor:
    """The table as x needs it: replicated over the mesh of a DTensor, else as it is."""
    if not is_distributed(x):
        return table
    from torch.distributed.tensor import DTensor, Replicate

    if not isinstance(x, DTensor) or isinstance(table, DTensor):
        return table
    mesh = x.device_mesh
    return DTensor.from_local(table, mesh, [Replicate()] * mesh.ndim, run_check=False)

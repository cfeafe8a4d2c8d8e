"""A bias that knows distances only, over consecutive positions: one number for each distance, never a matrix.

The bias of T queries and U keys is then a Toeplitz matrix, and reading its table backwards makes it a plain strided
view: with the queries in reverse order, entry (r, c) of a block is ``table[start + r + c]``, strides (1, 1). The view
goes into any attention kernel that takes a mask with strides; nothing of the size of the matrix exists.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from posenc.kernels.precision import may_look

Bias = Callable[[Tensor, Tensor], Tensor]


def consecutive(positions: Tensor) -> bool:
    """Whether positions ``(seq,)`` go up by one from token to token. Values are looked at on the CPU only."""
    if positions.ndim != 1 or not may_look(positions):
        return False
    return positions.shape[0] < 2 or bool((positions.diff() == 1).all())


def by_distance(
    bias: Bias,
    q_positions: Tensor,
    k_positions: Tensor,
    *,
    offset: int = 0,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """The table ``(heads, T + U - 1)`` whose entry n is the bias of query t and key u with n = T - 1 - t + u.

    Args:
        bias: a function of i - j.
        q_positions: consecutive, T of them.
        k_positions: consecutive, U of them.
        offset: index of the last key minus that of the last query; with it, ``causal`` and ``window`` put minus
            infinity at the distances that they take away.
    """
    earlier = bias(q_positions, k_positions[:1])[..., :, 0].flip(-1)  # u = 0, t = T - 1 ... 0
    later = bias(q_positions[:1], k_positions[1:])[..., 0, :]  # t = 0, u = 1 ... U - 1
    table = torch.cat((earlier, later), dim=-1)
    if causal or window is not None:
        back = offset + len(q_positions) - 1 - torch.arange(table.shape[-1], device=table.device)  # in tokens
        hidden = back < 0 if causal else torch.zeros_like(back, dtype=torch.bool)
        if window is not None:
            hidden = hidden | (back >= window) | (back <= -window)
        table = table.masked_fill(hidden, float("-inf"))
    return table


def of_heads(bias: Tensor, heads: int) -> Tensor:
    """A bias without a batch as floating point ``(heads, q_len, k_len)``: that of your own class may broadcast."""
    if bias.ndim != 3 or bias.shape[0] != heads:
        bias = bias.expand(1, heads, *bias.shape[-2:])[0]
    return bias if bias.is_floating_point() else bias.float()


def view(table: Tensor, rows: slice, keys: slice) -> Tensor:
    """The bias ``(1, heads, rows, keys)`` of a block, rows counted from the last query, as a view of the table."""
    heads, length = table.shape
    shape = (1, heads, rows.stop - rows.start, keys.stop - keys.start)
    return table.as_strided(shape, (0, length, 1, 1), table.storage_offset() + rows.start + keys.start)


def add_gradient(table_gradient: Tensor, gradient: Tensor, rows: slice, keys: slice) -> None:
    """The adjoint of :func:`view`: sums ``(batch, heads, rows, keys)`` along its diagonals into the table's."""
    gradient = gradient.sum(dim=0)
    heads, r, c = gradient.shape
    width = r + c - 1
    # Written row by row with one step of delay each, entries of one distance stand in one column.
    delayed = gradient.new_zeros(heads, r * (width + 1))
    delayed.as_strided((heads, r, c), (r * (width + 1), width + 1, 1)).copy_(gradient)
    start = rows.start + keys.start
    table_gradient[:, start : start + width] += delayed[:, : r * width].view(heads, r, width).sum(dim=1)

"""A bias of two positions as a function for FlexAttention."""

import torch
from torch import Tensor

from posenc.kernels.biased_attention.content import ScoreMod
from posenc.kernels.biased_attention.toeplitz import Bias, of_heads
from posenc.kernels.precision import may_keep, may_look


def score_mod(bias: Bias, q_positions: Tensor, k_positions: Tensor, *, heads: int, relative: bool) -> ScoreMod:
    """``score + bias`` in the form ``(score, b, h, q_index, k_index) -> score``.

    A relative bias over whole positions becomes a table of distances, looked up with one index: linear memory, and
    gradients that reach the encoding's parameters through the table. Any other bias is looked up in its dense form, and
    so is every one under torch.compile, where the length of the table is not known.
    """
    whole = not (q_positions.is_floating_point() or k_positions.is_floating_point())
    if relative and whole and _has_values(q_positions) and _has_values(k_positions):
        return _from_distances(lambda i, j: of_heads(bias(i, j), heads), q_positions, k_positions)
    dense = bias(q_positions, k_positions)
    if dense.ndim == 4 and dense.shape[0] > 1:
        each = dense.expand(-1, heads, -1, -1)
        return lambda score, b, h, q_index, k_index: score + each[b, h, q_index, k_index]
    shared = of_heads(dense, heads)  # an index of 0 for the batch would not do: torch 2.10 takes tensors alone
    return lambda score, b, h, q_index, k_index: score + shared[h, q_index, k_index]


def _has_values(positions: Tensor) -> bool:
    """Whether the longest distance can be read, at the price of one wait for the device where it is a GPU."""
    return may_look(positions) or (positions.is_cuda and may_keep())


def _from_distances(bias: Bias, q_positions: Tensor, k_positions: Tensor) -> ScoreMod:
    bounds = torch.stack((q_positions.max() - k_positions.min(), k_positions.max() - q_positions.min()))
    furthest, ahead = (max(int(bound), 0) for bound in bounds.tolist())
    device = q_positions.device
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    behind = bias(torch.arange(furthest + 1, device=device), zero)[..., :, 0]
    before = bias(zero, torch.arange(1, ahead + 1, device=device))[..., 0, :].flip(-1)
    table = torch.cat((before, behind), dim=-1).contiguous()
    i, j = (x if x.ndim == 2 else x[None] for x in (q_positions, k_positions))
    rows = max(i.shape[0], j.shape[0])
    i, j = (x.expand(rows, -1).contiguous() if rows > 1 else x[0].contiguous() for x in (i, j))

    def add(score: Tensor, b: Tensor, h: Tensor, q_index: Tensor, k_index: Tensor) -> Tensor:
        back = i[b, q_index] - j[b, k_index] if rows > 1 else i[q_index] - j[k_index]
        return score + table[h, back + ahead]

    return add

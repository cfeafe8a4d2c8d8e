"""A bias of two positions as a function for FlexAttention."""

import torch
from torch import Tensor

from posenc.kernels.biased_attention.content import ScoreMod
from posenc.kernels.biased_attention.toeplitz import Bias
from posenc.kernels.precision import may_keep, may_look


def score_mod(bias: Bias, q_positions: Tensor, k_positions: Tensor, *, relative: bool) -> ScoreMod:
    """``score + bias`` in the form ``(score, b, h, q_index, k_index) -> score``.

    A relative bias over whole positions becomes a table of distances, looked up with one index: linear memory, and
    gradients that reach the encoding's parameters through the table. Any other bias is looked up in its dense form, and
    so is every one under torch.compile, where the length of the table is not known.
    """
    whole = not (q_positions.is_floating_point() or k_positions.is_floating_point())
    if relative and whole and _has_values(q_positions) and _has_values(k_positions):
        return _from_distances(bias, q_positions, k_positions)
    dense = bias(q_positions, k_positions)
    batched = dense.ndim == 4 and dense.shape[0] > 1
    dense = dense[None] if dense.ndim == 3 else dense

    def add(score: Tensor, b: Tensor, h: Tensor, q_index: Tensor, k_index: Tensor) -> Tensor:
        return score + dense[b if batched else 0, h, q_index, k_index]

    return add


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
    batched = max(q_positions.ndim, k_positions.ndim) == 2
    i = q_positions.expand(1 if q_positions.ndim == 1 else q_positions.shape[0], -1).contiguous()
    j = k_positions.expand(1 if k_positions.ndim == 1 else k_positions.shape[0], -1).contiguous()
    rows = max(i.shape[0], j.shape[0])
    i, j = i.expand(rows, -1).contiguous(), j.expand(rows, -1).contiguous()

    def add(score: Tensor, b: Tensor, h: Tensor, q_index: Tensor, k_index: Tensor) -> Tensor:
        row = b if batched and rows > 1 else 0
        return score + table[h, i[row, q_index] - j[row, k_index] + ahead]

    return add

"""LeViT's attention bias."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posenc.encoding import ScoreEncoding
from posenc.kernels.resample import Resampling, resampled
from posenc.scores._distance import looked_up, working
from posenc.scores._window import check, offsets


@final
class LeViTBias(ScoreEncoding):
    r"""A learned number for each pair of distances (rows, columns) in a grid, without their signs.

    Place: scores. Learned: ``table``. Relative: in rows and columns, not in the patch indices.
    Keys may be cached: yes.

    .. math::  s_{hij} \leftarrow s_{hij} + w_{h,\,|y_i - y_j|\,N + |x_i - x_j|}

    Here :math:`i, j` are the patch indices of query and key, row by row, :math:`y_p = \lfloor p/N \rfloor` and
    :math:`x_p = p \bmod N` are their row and column, :math:`(M, N)` is ``window`` and :math:`w` is ``table``, M N
    numbers for each head. :class:`SwinBias` has about four times as many, because it distinguishes left from right.

    In LeViT's downsampling layers queries come from every second row and column: pass their patch indices in the grid
    of the keys. EfficientFormer and TinyViT have the same bias.

    Args:
        num_heads: number of heads.
        window: rows and columns; LeViT has (14, 14) at first, for images of 224 x 224.

    Shape:
        bias: ``q_positions (q_len,)``, ``k_positions (k_len,)`` -> ``(heads, q_len, k_len)``, all positions below
        rows times columns

    Precision: a number of the table, unrounded.

    Raises:
        ValueError: ``num_heads`` or a side below 1; positions past the window or between places.

    Example:
        >>> bias = LeViTBias(num_heads=2, window=(14, 14))
        >>> every_second = torch.arange(196).view(14, 14)[::2, ::2].flatten()
        >>> bias.bias(every_second, torch.arange(196)).shape
        torch.Size([2, 49, 196])

    Differs from the paper: nothing.

    References:
        Graham et al. LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference. 2021. arXiv:2104.01136,
        section 4.2, attention bias; facebookresearch/LeViT, levit.py.
    """

    def __init__(self, num_heads: int, *, window: Sequence[int] = (14, 14)) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = check("LeViTBias", num_heads, window)
        self.max_positions = self.window[0] * self.window[1]
        self.table = nn.Parameter(torch.empty(num_heads, self.max_positions))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the table to zeros, as LeViT does."""
        nn.init.zeros_(self.table)

    def resized(self, rows: int, columns: int) -> "LeViTBias":
        """A new encoding for another window, with a table interpolated bicubically with antialias, as in TinyViT."""
        other = LeViTBias(self.num_heads, window=(rows, columns)).to(self.table)
        with torch.no_grad():
            same = other.window == self.window
            how = Resampling("bicubic", antialias=True)
            other.table.copy_(self.table if same else resampled(self.table.T, self.window, other.window, how).T)
        return other

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"]:
        dy, dx = offsets("LeViTBias", q_positions, k_positions, self.window)
        return looked_up(working(self.table), dy.abs() * self.window[1] + dx.abs())

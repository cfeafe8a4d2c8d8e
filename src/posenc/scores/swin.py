"""Swin's relative position bias."""

from collections.abc import Sequence
from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posenc.encoding import ScoreEncoding
from posenc.kernels.resample import Resampling, resampled, resampled_geometrically
from posenc.scores._distance import looked_up, working
from posenc.scores._window import check, check_prefix, offsets

Reading = Literal["bicubic", "geometric"]


@final
class SwinBias(ScoreEncoding):
    r"""A learned number for each offset between two patches of a window, and for pairs with a class token.

    Place: scores. Learned: ``table``. Relative: in rows and columns, not in the patch indices.
    Keys may be cached: yes.

    .. math::  s_{hij} \leftarrow s_{hij} + w_{r(i,j),\,h}, \qquad
        r(i,j) = (y_i - y_j + M - 1)(2N - 1) + (x_i - x_j + N - 1)

    Here :math:`i, j` are the patch indices of query and key, row by row, :math:`y_p = \lfloor p/N \rfloor` and
    :math:`x_p = p \bmod N` are their row and column, :math:`(M, N)` is ``window`` and :math:`w` is ``table``.

    With ``prefix=1`` (BEiT) position 0 is a class token, and the patches of the window follow it. Three more rows of
    the table are for pairs without an offset: the class token's query with any patch, any patch's query with the class
    token, and the class token with itself.

    Args:
        num_heads: number of heads.
        window: rows and columns; Swin's (7, 7), or all the patches of an image in BEiT, such as (14, 14).
        prefix: 1 for a class token before the window, 0 for none.

    Shape:
        bias: ``q_positions (q_len,)``, ``k_positions (k_len,)`` -> ``(heads, q_len, k_len)``, all positions below
        prefix + rows times columns

    Precision: a number of the table, unrounded.

    Raises:
        ValueError: ``num_heads`` or a side below 1; a prefix other than 0 and 1; positions past the window, or
            fractional ones.

    Example:
        >>> SwinBias(num_heads=2, window=(7, 7)).bias(torch.arange(49), torch.arange(49)).shape
        torch.Size([2, 49, 49])

    Differs from the paper: nothing. The class token's rows are those of BEiT's code.

    References:
        Liu et al. Swin Transformer: Hierarchical Vision Transformer using Shifted Windows. 2021. arXiv:2103.14030,
        equation 4; microsoft/Swin-Transformer, models/swin_transformer.py.
        Bao et al. BEiT: BERT Pre-Training of Image Transformers. 2021. arXiv:2106.08254; microsoft/unilm, beit.
    """

    def __init__(self, num_heads: int, *, window: Sequence[int] = (7, 7), prefix: int = 0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = check("SwinBias", num_heads, window)
        self.prefix = check_prefix("SwinBias", prefix, most=1)
        self.max_positions = prefix + self.window[0] * self.window[1]
        self._offsets = (2 * self.window[0] - 1) * (2 * self.window[1] - 1)
        self.table = nn.Parameter(torch.empty(self._offsets + 3 * prefix, num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from a normal distribution of standard deviation 0.02."""
        nn.init.trunc_normal_(self.table, std=0.02)

    def resized(self, rows: int, columns: int, *, by: Reading = "bicubic") -> "SwinBias":
        """A new encoding for another window, whose table of offsets is interpolated from this one.

        Args:
            rows: rows of the new window.
            columns: its columns.
            by: "bicubic" is Swin's own code; "geometric" is BEiT's and timm's: they place the old offsets on steps that
                grow by a ratio of up to 1.5 with the distance, and interpolate linearly between them.

        Raises:
            ValueError: a side below 1; another ``by``.
        """
        if by not in get_args(Reading):
            raise ValueError(f"SwinBias: got by={by!r}, expected one of {get_args(Reading)}.")
        other = SwinBias(self.num_heads, window=(rows, columns), prefix=self.prefix).to(self.table)
        old, new = ((2 * window[0] - 1, 2 * window[1] - 1) for window in (self.window, other.window))
        with torch.no_grad():
            offsets, prefix = self.table.split((self._offsets, 3 * self.prefix))
            if old != new:
                even = by == "bicubic"
                offsets = (
                    resampled(offsets, old, new, Resampling("bicubic"))
                    if even
                    else resampled_geometrically(offsets, old, new)
                )
            other.table.copy_(torch.cat((offsets, prefix)))
        return other

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"]:
        dy, dx = offsets("SwinBias", q_positions, k_positions, self.window, prefix=self.prefix)
        rows, columns = self.window
        row = (dy + rows - 1) * (2 * columns - 1) + dx + columns - 1
        if self.prefix:
            from_token, to_token = (q_positions < 1)[..., :, None], (k_positions < 1)[..., None, :]
            row = torch.where(from_token, self._offsets + 2 * to_token.long(), row)
            row = torch.where(to_token & ~from_token, self._offsets + 1, row)
        return looked_up(working(self.table).T, row)

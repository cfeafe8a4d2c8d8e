"""A learned table for the patches of an image."""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, TypedDict, Unpack, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posenc.encoding import EmbeddingEncoding
from posenc.kernels.precision import check_positions, may_look
from posenc.kernels.resample import Mode, Resampling, resampled

Convention = Literal["transformers", "timm", "dinov2", "dinov2_registers", "siglip2", "google"]


CONVENTIONS: dict[str, Resampling] = {
    "transformers": Resampling("bicubic"),
    "timm": Resampling("bicubic", antialias=True),
    "dinov2": Resampling("bicubic", offset=0.1),
    "dinov2_registers": Resampling("bicubic", antialias=True),
    "siglip2": Resampling("bilinear", antialias=True),
    "google": Resampling("bilinear", align_corners=True),
}


class Changes(TypedDict, total=False):
    """The arguments of :meth:`LearnedGrid.resized` besides the new sides."""

    convention: Convention
    mode: Mode | None
    antialias: bool | None
    align_corners: bool | None
    offset: float | None


@final
class LearnedGrid(EmbeddingEncoding):
    r"""A table with one learned row for each patch of an image, and for each token before the patches.

    Place: embeddings. Learned: (prefix + rows x columns) x dim numbers. Relative: no. Keys may be cached: yes.

    .. math::  x_p \leftarrow x_p + W_p, \qquad p = P + yN + x

    Here :math:`p` is the index of a token, :math:`P` is ``prefix``, :math:`y` and :math:`x` are the row and column of a
    patch in ``grid`` :math:`= (M, N)`, and :math:`W` is ``table``; patches are in row-major order.
    This is the ``pos_embed`` of ViT, DeiT, BEiT, CLIP, SigLIP and DINOv2. :meth:`resized` does what these models do for
    images of another size.

    Args:
        dim: channels of the embedding.
        grid: rows and columns of patches; (14, 14) is an image of 224 x 224 in patches of 16.
        prefix: rows of the table for tokens before the patches: 1 for a class token, 0 for none or for one that gets
            no code.
        std: standard deviation of the normal distribution of the initial rows, which is cut at two standard
            deviations; 0.02 as in timm.

    Shape:
        x ``(batch, seq, dim)`` -> the same. Positions are indices into the table, ``(seq,)`` or ``(batch, seq)``;
        without positions, the tokens are the prefix and then all patches, row by row.

    Precision: the sum in float32, rounded once to the dtype of x.

    Raises:
        ValueError: an index past the table, or between two rows; a grid that is no pair of sides of at least 1; x of
            another width; bad positions.

    Example:
        >>> import torch
        >>> vit = LearnedGrid(dim=8, grid=(14, 14), prefix=1)
        >>> vit.on_embeddings(torch.zeros(1, 197, 8)).shape
        torch.Size([1, 197, 8])
        >>> vit.resized(20, 24, convention="timm").table.shape
        torch.Size([481, 8])

    Differs from the paper: nothing. The paper resizes its table for larger images and does not say how;
    :meth:`resized` has six ways that are in use.

    References:
        Dosovitskiy et al. An Image is Worth 16x16 Words. 2020. arXiv:2010.11929, equation 1 and section 3.2.
    """

    def __init__(self, dim: int, *, grid: Sequence[int] = (14, 14), prefix: int = 0, std: float = 0.02) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"LearnedGrid: got dim {dim}, expected at least 1.")
        if not 0 <= std <= 1e30:
            raise ValueError(f"LearnedGrid: got std {std}, expected 0 or above, and small enough for float32.")
        self.dim = dim
        self.grid = _pair("grid", grid)
        if prefix < 0:
            raise ValueError(
                f"LearnedGrid: got prefix {prefix}, expected 0 or above: the number of tokens before the patches."
            )
        self.prefix = prefix
        self.std = std
        self.max_positions = prefix + self.grid[0] * self.grid[1]
        self.table = nn.Parameter(torch.empty(self.max_positions, dim))
        self.reset_parameters()

    @classmethod
    def from_table(cls, table: Tensor, *, grid: Sequence[int] | None = None, prefix: int = 0) -> "LearnedGrid":
        """The encoding whose table is a copy of a checkpoint's, ``(rows, dim)`` or ``(1, rows, dim)``.

        Args:
            table: the checkpoint's numbers.
            grid: rows and columns of its patches; a square by default.
            prefix: how many of its first rows belong to tokens before the patches.

        Raises:
            ValueError: another shape; a number of rows that does not fit ``grid`` and ``prefix``, or, without ``grid``,
                a number of patches that is no square.
        """
        rows = table[0] if table.ndim == 3 and table.shape[0] == 1 else table
        if rows.ndim != 2 or not rows.is_floating_point():
            raise ValueError(
                f"LearnedGrid: got a table of {table.dtype} and shape {tuple(table.shape)}, expected floats of shape "
                "(rows, dim) or (1, rows, dim)."
            )
        patches = rows.shape[0] - prefix
        if grid is None:
            side = math.isqrt(max(patches, 0))
            if patches < 1 or side * side != patches:
                raise ValueError(
                    f"LearnedGrid: got {rows.shape[0]} rows with a prefix of {prefix}, expected a square of patches "
                    "after it; give grid=(rows, columns), or another prefix."
                )
            grid = (side, side)
        made = cls(rows.shape[1], grid=grid, prefix=prefix).to(rows)
        if made.table.shape != rows.shape:
            raise ValueError(
                f"LearnedGrid: got {rows.shape[0]} rows, expected {made.max_positions} for a prefix of {prefix} and "
                f"{made.grid[0]} x {made.grid[1]} patches."
            )
        with torch.no_grad():
            made.table.copy_(rows)
        return made

    def reset_parameters(self) -> None:
        """Draw new random values for the table."""
        nn.init.trunc_normal_(self.table, std=self.std, a=-2 * self.std, b=2 * self.std)

    def codes(self, positions: Tensor) -> Float[Tensor, "*positions dim"]:
        check_positions(positions)
        if may_look(positions) and positions.numel():
            self._check(positions)
        return nn.functional.embedding(positions.long().to(self.table.device), self.table)

    def resized(
        self,
        height: int,
        width: int,
        *,
        convention: Convention = "transformers",
        mode: Mode | None = None,
        antialias: bool | None = None,
        align_corners: bool | None = None,
        offset: float | None = None,
    ) -> "LearnedGrid":
        """A new encoding for ``height`` x ``width`` patches, whose table is interpolated from this one.

        Choose the convention of the model's own code; with another one the model's outputs change:

        ================== ========== ========= ============= ====== =================================================
        convention         mode       antialias align_corners offset whose code it is
        ================== ========== ========= ============= ====== =================================================
        "transformers"     "bicubic"  no        no            0      ViT, DeiT, BEiT, CLIP, SigLIP, DINOv2 in
                                                                     transformers
        "timm"             "bicubic"  yes       no            0      timm's resample_abs_pos_embed
        "dinov2"           "bicubic"  no        no            0.1    DINO and DINOv2 in Meta's own code
        "dinov2_registers" "bicubic"  yes       no            0      DINOv2 with registers, Meta's and transformers'
        "siglip2"          "bilinear" yes       no            0      SigLIP 2 (NaFlex)
        "google"           "bilinear" no        yes           0      ViT in Google's own code
        ================== ========== ========= ============= ====== =================================================

        The rows of the prefix do not change, and a grid of the same size gets the same table. The interpolation runs in
        float32 (float64 for a float64 table) and is rounded once to the table's dtype.

        Args:
            height: rows of the new grid.
            width: its columns.
            convention: a row of the table above; the other arguments change one of its entries.
            mode: "bicubic" or "bilinear".
            antialias: whether, for a smaller grid, each new row averages all old rows that it covers, as in Pillow.
                PyTorch then uses another cubic (a = -1/2 instead of -3/4), so that a larger grid also changes.
            align_corners: whether to align the centres of the corner patches, instead of the outer edges.
            offset: number of patches that is added to the new sides when the scale is computed, but not to the grid.

        Raises:
            ValueError: sides below 1; an unknown convention or mode; ``align_corners`` together with ``antialias`` or
                an ``offset``.
        """
        how = _resampling(convention, mode=mode, antialias=antialias, align_corners=align_corners, offset=offset)
        size = _pair("size", (height, width))
        other = LearnedGrid(self.dim, grid=size, prefix=self.prefix, std=self.std).to(self.table)
        with torch.no_grad():
            other.table.copy_(self._stretched(size, how))
        return other

    def rows_for(self, height: int, width: int, **changes: Unpack[Changes]) -> Float[Tensor, "tokens dim"]:
        """The rows of :meth:`resized`, differentiable in this table: for training on images of several sizes.

        Takes the same arguments, and raises the same errors.

        Example:
            >>> vit = LearnedGrid(dim=8, grid=(14, 14))
            >>> x = torch.zeros(2, 12 * 20, 8) + vit.rows_for(12, 20, convention="timm")
            >>> x.sum().backward()
            >>> vit.table.grad.shape
            torch.Size([196, 8])
        """
        return self._stretched(_pair("size", (height, width)), _resampling(**changes))

    def _stretched(self, size: tuple[int, int], how: Resampling) -> Tensor:
        if size == self.grid:
            return self.table
        before, patches = self.table.split((self.prefix, self.grid[0] * self.grid[1]))
        return torch.cat((before, resampled(patches, self.grid, size, how).to(before.dtype)))

    def _check(self, positions: Tensor) -> None:
        rows, columns = self.grid
        if (last := positions.max().item()) >= self.table.shape[0]:
            raise ValueError(
                f"LearnedGrid: got position {last}, expected below {self.table.shape[0]}: a prefix of {self.prefix} "
                f"and {rows} x {columns} patches; for an image of another size use resized(height, width)."
            )
        if positions.is_floating_point() and bool((positions != positions.floor()).any()):
            raise ValueError("LearnedGrid: got fractional positions, expected whole numbers, the rows of the table.")


def _resampling(convention: Convention = "transformers", **changes: Any) -> Resampling:
    """The convention with what was said otherwise."""
    if convention not in CONVENTIONS:
        raise ValueError(f"resized: got convention {convention!r}, expected one of {tuple(CONVENTIONS)}.")
    if unknown := sorted(changes.keys() - set(Resampling._fields)):
        raise TypeError(f"resized: got the arguments {unknown}, expected convention or some of {Resampling._fields}.")
    how = CONVENTIONS[convention]._replace(**{name: value for name, value in changes.items() if value is not None})
    if how.mode not in get_args(Mode):
        raise ValueError(f"resized: got mode {how.mode!r}, expected one of {get_args(Mode)}.")
    if not 0 <= how.offset < 1:
        raise ValueError(f"resized: got offset {how.offset}, expected a number from 0 to below 1, such as 0.1.")
    if how.align_corners and (how.antialias or how.offset):
        raise ValueError(
            f"resized: got align_corners with antialias {how.antialias} and offset {how.offset}: antialias and offset "
            "measure from the edges of patches, and align_corners from their centres; leave align_corners out, or "
            "both of the others."
        )
    return how


def _pair(name: str, sides: Sequence[int]) -> tuple[int, int]:
    """Two sides of at least 1, of a table that can be numbered."""
    pair = tuple(sides) if isinstance(sides, Sequence) and not isinstance(sides, str) else (sides,)
    if len(pair) != 2 or any(isinstance(side, bool) or not isinstance(side, Integral) or side < 1 for side in pair):
        raise ValueError(
            f"LearnedGrid: got {name} {sides!r}, expected two whole numbers of at least 1, the rows and columns of "
            "patches, such as (14, 14)."
        )
    return int(pair[0]), int(pair[1])

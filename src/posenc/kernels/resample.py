"""A learned table of the places of a grid, read on another grid."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from posenc.kernels.precision import compute_dtype

Mode = Literal["bicubic", "bilinear"]


class Resampling(NamedTuple):
    """How a table is read on another grid; the arguments of :meth:`posenc.embeddings.LearnedGrid.resized`."""

    mode: Mode
    antialias: bool = False
    align_corners: bool = False
    offset: float = 0.0


def resampled(table: Tensor, grid: tuple[int, int], size: tuple[int, int], how: Resampling) -> Tensor:
    """Rows ``(places of size, channels)``, read from ``(places of grid, channels)`` in the dtype of the arithmetic."""
    image = table.to(compute_dtype(table.dtype)).view(*grid, -1).permute(2, 0, 1)[None]
    if how.offset:  # as a factor, which PyTorch uses as it is, while a size makes it measure the sides itself
        factor = tuple((new + how.offset) / old for new, old in zip(size, grid, strict=True))
        new = interpolate(image, scale_factor=factor, mode=how.mode, antialias=how.antialias)
    else:
        new = interpolate(image, size=size, mode=how.mode, antialias=how.antialias, align_corners=how.align_corners)
    return new[0].permute(1, 2, 0).flatten(0, 1)


def resampled_geometrically(table: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The same for offsets that are seen the coarser the larger they are: BEiT's reading of a table of offsets.

    The old offsets 0, 1, 2, ... of a side stand at 0, 1, 1 + q, 1 + q + q^2, ... of the new one, where q spreads the
    last over the new side and lies between 1.01 and 1.5; between them the table is read linearly, beyond them it ends.
    Both grids have an offset of 0 in their middle, so that sides are odd.
    """
    image = table.to(compute_dtype(table.dtype)).view(*grid, -1)
    rows, columns = (_spread(old, new).to(image) for old, new in zip(grid, size, strict=True))
    return torch.einsum("yi,xj,ijc->yxc", rows, columns, image).flatten(0, 1)


def _spread(old: int, new: int) -> Tensor:
    """The weight of each old offset in each new one, ``(new, old)``, float64."""
    reach = old // 2
    low, high = 1.01, 1.5
    while high - low > 1e-12:
        ratio = (low + high) / 2
        low, high = (low, ratio) if _places(ratio, reach)[-1] > new // 2 else (ratio, high)
    positive = _places((low + high) / 2, reach)[1:]
    places = torch.cat((-positive.flip(0), positive.new_zeros(1), positive))
    wanted = torch.arange(-(new // 2), new // 2 + 1, dtype=torch.float64, device="cpu").clamp(places[0], places[-1])
    if reach == 0:
        return positive.new_ones(new, 1)
    right = torch.searchsorted(places, wanted).clamp(1, old - 1)
    share = (wanted - places[right - 1]) / (places[right] - places[right - 1])
    weights = positive.new_zeros(new, old)
    weights.scatter_(1, (right - 1)[:, None], 1 - share[:, None])
    return weights.scatter_(1, right[:, None], share[:, None])


def _places(ratio: float, count: int) -> Tensor:
    """0, 1, 1 + ratio, 1 + ratio + ratio^2, ..., count + 1 of them."""
    steps = ratio ** torch.arange(count, dtype=torch.float64, device="cpu")
    return torch.cat((steps.new_zeros(1), steps.cumsum(0)))

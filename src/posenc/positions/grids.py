"""Positions of patches: rows, columns, frames."""

from typing import Any, Literal, get_args

import torch

from posenc.positions._arrays import Array, check_at_least
from posenc.positions._arrays import like as as_given

Unit = Literal["patches", "centred"]


def grid(
    *shape: int, prefix: int = 0, suffix: int = 0, start: int = 0, unit: Unit = "patches", like: Array | None = None
) -> Any:
    """The coordinates of the patches of an image, a video or a volume, the last of them running fastest.

    Args:
        shape: how many there are along each axis: (height, width) or (frames, height, width).
        prefix: tokens before the patches that belong nowhere, such as a class token or registers. They stand at 0 on
            every axis, where nothing is rotated.
        suffix: the same after the patches.
        start: the first coordinate. With 1, no patch shares the place of the prefix (Llama 4, whose class token is a
            suffix).
        unit: "patches" counts them; "centred" gives the middle of each patch with the whole from -1 to 1 (DINOv3), so
            that larger images have finer steps.
        like: a tensor or an array; the result is of its kind. A tensor on the CPU by default.

    Returns:
        ``(1, prefix + patches + suffix, axes)``, the same for all rows of a batch; int64, or float64 for "centred".

    Raises:
        ValueError: no axes; sizes below 1; an unknown unit.

    Example:
        >>> grid(2, 3)[0].tolist()
        [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
        >>> grid(1, 2, prefix=1, start=1)[0].tolist()
        [[0, 0], [1, 1], [1, 2]]
        >>> grid(1, 4, unit="centred")[0, :, 1].tolist()
        [-0.75, -0.25, 0.25, 0.75]
    """
    if not shape:
        raise ValueError("grid: got no axes, expected the number of patches along each, such as grid(14, 14).")
    check_at_least("grid", prefix=(prefix, 0), suffix=(suffix, 0), start=(start, 0))
    for size in shape:
        check_at_least("grid", size=(size, 1))
    if unit not in get_args(Unit):
        raise ValueError(f"grid: got unit {unit!r}, expected one of {get_args(Unit)}.")
    if unit == "centred" and start:
        raise ValueError(
            f'grid: got start {start} with unit "centred", which has its zero in the middle; leave it out.'
        )
    axes = [torch.arange(size) + start for size in shape]
    if unit == "centred":
        axes = [(2 * axis.double() + 1) / size - 1 for axis, size in zip(axes, shape, strict=True)]
    patches = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, len(shape))
    first, last = (torch.zeros(count, len(shape), dtype=patches.dtype) for count in (prefix, suffix))
    return as_given(torch.cat((first, patches, last))[None], like)

"""Positions of patches: rows, columns, frames."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from posenc.frequencies.arguments import check_number
from posenc.positions._arrays import A, Array, check_at_least, like, tensor
from posenc.positions._arrays import like as as_given

Unit = Literal["patches", "centred"]
Normalize = Literal["each", "max", "min"]
Origin = Literal["start", "centre", "middle"]
Align = Literal["starts", "middles", "ends"]


def grid(
    *shape: int,
    prefix: int = 0,
    suffix: int = 0,
    start: float | Sequence[float] = 0,
    unit: Unit = "patches",
    normalize: Normalize = "each",
    fit: Sequence[int | None] | None = None,
    align: Align = "starts",
    origin: Origin | Sequence[Origin] = "start",
    step: float | Sequence[float] = 1,
    like: Array | None = None,
) -> Any:
    r"""The coordinates of the patches of an image, a video or a volume, in row-major order.

    .. math::  x_a(i) = \mathrm{start}_a + \mathrm{step}_a\,(i - o_a), \qquad i = 0, \dots, n_a - 1

    Here :math:`n_a` is the number of patches along axis a and :math:`o_a` its origin: 0 for "start", :math:`n_a/2`
    rounded up for "centre", and :math:`(n_a - 1)/2` for "middle". Coordinates before the origin are negative. With
    ``fit``, i is the fitted coordinate and :math:`n_a` the trained size.

    Args:
        shape: the number of patches along each axis: (height, width) or (frames, height, width).
        prefix: the number of tokens before the patches, such as a class token or registers. Their coordinates are 0 on
            every axis, so they are not rotated.
        suffix: the same after the patches.
        start: the coordinate of the origin, for all axes or for each. With 1, no patch has the coordinates of the
            prefix (Llama 4, whose class token is a suffix). For the time axis it is the index of the first frame.
        unit: "patches" counts patches; "centred" gives the middle of each patch in an image from -1 to 1 (DINOv3), so
            larger images have finer steps.
        normalize: for "centred", the size that divides the coordinates: the size of the axis ("each"), or the largest
            or smallest size of all axes ("max", "min"). With "max" and "min" all axes have the same step and start at
            -1; the shorter axes end before 1 under "max", and the longer ones go past it under "min".
        fit: the trained grid, one number for each axis, or None for an axis that is not scaled. Coordinates are scaled
            so that a grid of any size covers the trained grid (EVA-02; CogVideoX on height and width).
        align: for ``fit``, how the new grid lies on the trained one: "starts", patch i is at i t / n (EVA-02,
            CogVideoX); "middles", at (i + 1/2) t / n - 1/2; "ends", at i (t - 1) / (n - 1). t is the trained size.
        origin: which patch has the coordinate ``start``, for all axes or for each: the first, the "centre"
            (Qwen-Image: -4 to 3 for eight patches, -4 to 2 for seven), or the "middle" (Mochi: -1.5 to 1.5 for four).
        step: the distance between neighbours, for all axes or for each: 24 / fps for the frames of Cosmos.
        like: a tensor or an array; the result is of its kind. A tensor on the CPU by default.

    Returns:
        ``(1, prefix + patches + suffix, axes)``, the same for all rows of a batch; int64 if all coordinates are whole
        by their arguments, else float64.

    Raises:
        TypeError: a size that is no whole number.
        ValueError: no axes; sizes below 1; an unknown name; arguments for each axis that are too many or too few;
            "centred" with any of start, fit, origin and step, or ``normalize`` without it.

    Example:
        >>> grid(2, 3)[0].tolist()
        [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
        >>> grid(1, 2, prefix=1, start=1)[0].tolist()
        [[0, 0], [1, 1], [1, 2]]
        >>> grid(1, 4, unit="centred")[0, :, 1].tolist()
        [-0.75, -0.25, 0.25, 0.75]
        >>> grid(1, 4, origin="centre")[0, :, 1].tolist()
        [-2, -1, 0, 1]
        >>> grid(1, 4, fit=(1, 2))[0, :, 1].tolist()
        [0.0, 0.5, 1.0, 1.5]
    """
    if not shape:
        raise ValueError("grid: got no axes, expected the number of patches along each, such as grid(14, 14).")
    check_at_least("grid", prefix=(prefix, 0), suffix=(suffix, 0))
    for size in shape:
        check_at_least("grid", size=(size, 1))
    starts: list[float] = _of_each("start", start, len(shape))
    steps: list[float] = _of_each("step", step, len(shape))
    origins: list[Origin] = _of_each("origin", origin, len(shape))
    trained: list[int | None] = _of_each("fit", fit, len(shape))
    for name, values in (("start", starts), ("step", steps)):
        for value in values:
            check_number("grid", name, value)
    for whole in trained:
        if whole is not None:
            check_at_least("grid", fit=(whole, 1))
    for name, chosen, allowed in (
        ("unit", unit, Unit),
        ("normalize", normalize, Normalize),
        ("align", align, Align),
        *(("origin", each, Origin) for each in origins),
    ):
        if chosen not in get_args(allowed):
            raise ValueError(f"grid: got {name} {chosen!r}, expected one of {get_args(allowed)}.")
    if unit == "centred":
        for name, given in (("start", any(starts)), ("fit", fit), ("origin", {*origins} != {"start"}),
                            ("step", {*steps} != {1})):  # fmt: skip
            if given:
                raise ValueError(
                    f'grid: got {name} with unit "centred", whose coordinates run from -1 to 1 with zero in the '
                    "middle; leave one of the two out."
                )
        axes = _centred(shape, normalize)
    else:
        if normalize != "each":
            raise ValueError(
                f'grid: got normalize {normalize!r} without unit="centred", whose coordinates normalize divides; give '
                "both."
            )
        axes = [
            _placed(_along(size, zero, whole, align), first, apart)
            for size, first, apart, zero, whole in zip(shape, starts, steps, origins, trained, strict=True)
        ]
    if any(axis.is_floating_point() for axis in axes):
        axes = [axis.double() for axis in axes]
    patches = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, len(shape))
    first, last = (torch.zeros(count, len(shape), dtype=patches.dtype) for count in (prefix, suffix))
    return as_given(torch.cat((first, patches, last))[None], like)


def augmented(
    positions: A,
    *,
    shift: float = 0.0,
    jitter: float = 1.0,
    rescale: float = 1.0,
    prefix: int = 0,
    suffix: int = 0,
    generator: torch.Generator | None = None,
) -> A:
    r"""Coordinates that are shifted, stretched along each axis and scaled at random, to train for all image sizes.

    .. math::  x_a \leftarrow (x_a + s_a)\,j_a\,r, \quad s_a \sim U(-S, S), \quad \log j_a \sim U(-\log J, \log J),
        \quad \log r \sim U(-\log R, \log R)

    Here :math:`S, J, R` are ``shift``, ``jitter`` and ``rescale``. All patches of a row have the same s, j and r, so
    their order and their relative distances along an axis do not change; each row has its own.

    Args:
        positions: ``(rows, seq, axes)``, as :func:`grid` gives them; DINOv3's are ``unit="centred"``.
        shift: the largest shift along each axis, in units of the coordinates, 0 or more.
        jitter: the largest factor along each axis, 1 or more.
        rescale: the largest factor of all axes together, 1 or more; 2 in DINOv3.
        prefix: the number of tokens before the patches; their coordinates do not change.
        suffix: the same after the patches.
        generator: of the random numbers. Use the function only in training.

    Returns:
        The same shape and kind, float64.

    Raises:
        ValueError: positions of another shape; a shift below 0; a factor below 1.

    Example:
        >>> where = grid(2, 2, prefix=1, unit="centred")
        >>> moved = augmented(where, rescale=2.0, prefix=1, generator=torch.Generator().manual_seed(0))
        >>> (moved[0, 1:] / where[0, 1:]).unique().numel()  # one factor for all
        1

    References:
        Simeoni et al. DINOv3. 2025. arXiv:2508.10104, section 3.2 ("RoPE-box jittering"); transformers,
        models/dinov3_vit, augment_patches_center_coordinates.
    """
    given: Tensor = tensor("augmented", positions, ndim=(3,))
    check_at_least("augmented", prefix=(prefix, 0), suffix=(suffix, 0))
    for name, value, least in (("shift", shift, 0), ("jitter", jitter, 1), ("rescale", rescale, 1)):
        check_number("augmented", name, value)
        if value < least:
            raise ValueError(
                f"augmented: got {name} {value}, expected {least} or more ({least} leaves the coordinates unchanged)."
            )
    rows, _, axes = given.shape
    given = given.cpu()
    moved = given.double()

    def drawn(limit: float, width: int) -> Tensor:
        return torch.empty(rows, 1, width, dtype=torch.float64).uniform_(-limit, limit, generator=generator)

    # Drawn one after the other, and only if they are asked for, as DINOv3 does.
    if shift > 0:
        moved = moved + drawn(shift, axes)
    if jitter > 1:
        moved = moved * drawn(math.log(jitter), axes).exp()
    if rescale > 1:
        moved = moved * drawn(math.log(rescale), 1).exp()
    moved[:, :prefix] = given[:, :prefix]
    moved[:, given.shape[1] - suffix :] = given[:, given.shape[1] - suffix :]
    return like(moved, positions)


def _of_each(name: str, given: Any, axes: int) -> list[Any]:
    """A value for each axis."""
    if not isinstance(given, (list, tuple)):
        return [given] * axes
    if len(given) != axes:
        raise ValueError(f"grid: got {len(given)} values of {name} for {axes} axes, expected one for each axis.")
    return list(given)


def _centred(shape: tuple[int, ...], normalize: Normalize) -> list[Tensor]:
    """The middles of the patches, the whole of the chosen size from -1 to 1."""
    whole = {"each": shape, "max": (max(shape),) * len(shape), "min": (min(shape),) * len(shape)}[normalize]
    return [(2 * torch.arange(n).double() + 1) / size - 1 for n, size in zip(shape, whole, strict=True)]


def _placed(along: Tensor, start: float, step: float) -> Tensor:
    """The coordinates at their start and with their step; whole numbers stay so, others are float64."""
    if all(isinstance(number, int) for number in (start, step)):
        return start + step * along
    return start + step * along.double()


def _along(size: int, origin: Origin, trained: int | None, align: Align) -> Tensor:
    """The coordinates along one axis from its origin, whole numbers if they can be."""
    at = torch.arange(size)
    n = size
    if trained is not None and trained != size:
        at = at.double()
        if align == "starts":
            at = at * trained / size
        elif align == "middles":
            at = (at + 0.5) * trained / size - 0.5
        else:
            at = at * (trained - 1) / max(size - 1, 1)
        n = trained
    if origin == "centre":
        at = at - -(-n // 2)
    elif origin == "middle":
        at = at - (n - 1) / 2 if n % 2 == 0 else at - (n - 1) // 2
    return at

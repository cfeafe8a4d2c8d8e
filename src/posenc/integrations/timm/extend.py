"""Another size of image in a live model of timm."""

import copy
import math
import warnings
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from posenc.embeddings import LearnedGrid
from posenc.frequencies import Custom, Frequencies, Turns
from posenc.integrations.image_tables import check_size, reading, resized_offsets, resized_table
from posenc.integrations.patch import Patch
from posenc.integrations.timm.library import live_model
from posenc.integrations.timm.modules import reader_of
from posenc.integrations.timm.tables import grid_of
from posenc.scores import SwinBias


def extend(model: Any, *, size: tuple[int, int] | int, by: str | Frequencies = "bicubic") -> Patch:
    """Let a live model of timm take images of another size.

    posenc runs timm's own ``set_input_size`` on a copy that shares the weights, and copies the changes into the model:
    tables of patches and of offsets, windows, masks, the grid of rotations. ``by`` says how tables are interpolated and
    how rotations change.

    Args:
        model: a model of timm that has ``set_input_size``: ViT, DeiT, EVA, BEiT, DINOv3, Swin, MaxViT, ...
        size: (height, width) in pixels, or one number for both.
        by: "bicubic" interpolates tables as timm does; others are "bilinear" (with antialias) and the conventions of
            :meth:`posenc.embeddings.LearnedGrid.resized`. "fit" also scales the coordinates of rotations into the
            trained grid, as in the fine-tuning of EVA-02. A frequency rule changes the rates of rotations: DINOv3 has
            ``Turns(Geometric(100))``, and ``Turns(NTK(2, base=100))`` slows it.

    Returns:
        A :class:`Patch`; its ``undo()`` restores the model.

    Raises:
        TypeError: no model.
        ValueError: a model whose size cannot be set, or a method that does not apply to it; it is unchanged.

    Example:
        >>> import timm  # doctest: +SKIP
        >>> model = timm.create_model("vit_small_patch16_224")  # doctest: +SKIP
        >>> with extend(model, size=(448, 336)):  # doctest: +SKIP
        ...     model(torch.zeros(1, 3, 448, 336)).shape
        torch.Size([1, 1000])
    """
    inner: Any = live_model(model, "extend")
    size = check_size("extend", size)
    rotations = [module for module in inner.modules() if _is_rotation(module)]
    how = {"convention": "timm"} if not isinstance(by, str) or by == "fit" else reading(by, "timm")
    if (isinstance(by, Frequencies) or by == "fit") and not rotations:
        raise ValueError(
            f'extend: got by={by!r}, and {type(inner).__name__} has no rotation, only a table; give by="bicubic", '
            "which resizes the table."
        )
    sets_its_size = hasattr(inner, "set_input_size")
    if not sets_its_size and (why := _without_a_size(inner, size, turned=not isinstance(by, str) or by == "fit")):
        raise ValueError(why)
    before = grid_of(inner)
    copied = copy.deepcopy(inner, {id(p): p for p in inner.parameters()})  # the weights are shared
    _set_rotations(copied, by, before)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if sets_its_size:
                copied.set_input_size(img_size=size)
    except (AssertionError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"extend: {type(inner).__name__} does not take {size[0]} x {size[1]}: {error}.") from error
    if by == "fit":
        _fit(copied, before)
    patch = Patch(inner, f"extend {type(inner).__name__} to images of {size[0]} x {size[1]} by {by}")
    try:
        _take_over(patch, inner, copied, how)
    except Exception:
        patch.roll_back()
        raise
    return patch.commit()


def _without_a_size(model: nn.Module, size: tuple[int, int], *, turned: bool) -> str:
    """Why a model without ``set_input_size`` is refused; nothing if it takes the size and its rotation is asked for.

    Whether it takes it is asked of a copy on the meta device, which costs neither memory nor time.
    """
    name, (height, width) = type(model).__name__, size
    copied = copy.deepcopy(model, {id(tensor): tensor.to("meta") for tensor in (*model.parameters(), *model.buffers())})
    channels = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
    try:
        with torch.no_grad():
            copied.eval()(torch.zeros(1, channels, height, width, device="meta"))
    except Exception as error:  # whatever its forward raises
        said = (str(error).splitlines() or [type(error).__name__])[0][:120]
        return (
            f"extend: {name} has no set_input_size, and does not take {height} x {width} ({said}); build a new model "
            f"with timm.create_model(..., img_size=({height}, {width})), and check whether timm resizes the table of "
            "the checkpoint, which it does for some models."
        )
    return "" if turned else f"extend: {name} takes {height} x {width} as it is; there is nothing to change."


def _is_rotation(module: nn.Module) -> bool:
    return type(module).__name__.startswith("RotaryEmbedding")


def _set_rotations(model: nn.Module, by: Any, before: tuple[int, int] | None) -> None:
    for module in [module for module in model.modules() if _is_rotation(module)] if not isinstance(by, str) else []:
        _turn_by(module, by)
    for module in [module for module in model.modules() if _is_rotation(module)] if by == "fit" else []:
        kind = type(module).__name__
        if kind in ("RotaryEmbedding", "RotaryEmbeddingCat") and module.grid_type == "index":
            if module.ref_feat_shape is None:
                module.ref_feat_shape = list(before or module.feat_shape or ())
                if not module.ref_feat_shape:
                    raise ValueError("extend: the model stores no image size, so the grid of training is unknown.")
        elif kind not in ("RotaryEmbeddingDinoV3", "RotaryEmbeddingMixed") and kind != "RotaryEmbeddingCat":
            raise ValueError(
                f'extend: {kind} has no setting that scales its coordinates into the trained range, so by="fit" '
                "cannot be used."
            )


def _fit(model: nn.Module, before: tuple[int, int] | None) -> None:
    """Learned rates have no reference grid; their coordinates are squeezed as they stand."""
    module: Any
    for module in model.modules():
        if type(module).__name__ == "RotaryEmbeddingMixed":
            if module.t_x is None or before is None:
                raise ValueError(
                    'extend: RotaryEmbeddingMixed computes its coordinates at each call, so by="fit" cannot be used.'
                )
            ratios = [old / new for old, new in zip(before, module.feat_shape, strict=True)]
            ratios = ratios[::-1] if module.grid_indexing == "xy" else ratios
            module._get_grid_values = MethodType(_squeezed(module._get_grid_values.__func__, ratios), module)
            module.t_x, module.t_y = module._get_grid_values(module.feat_shape)


def _squeezed(values: Any, ratios: list[float]) -> Any:
    """The coordinates of learned rates, squeezed whenever they are made: also after a change of the dtype."""

    def squeezed(self: Any, feat_shape: Any) -> Any:
        return tuple(along * ratio for along, ratio in zip(values(self, feat_shape), ratios, strict=True))

    return squeezed


def _turn_by(module: Any, rule: Frequencies) -> None:
    """Give a rotation the rates of a rule, whenever it makes its tables."""
    kind = type(module).__name__
    if rule.depends_on_length or rule.attention_factor != 1:
        raise ValueError(f"extend: got {rule}, expected a rule with fixed rates and without a factor on cos and sin.")
    if kind in ("RotaryEmbedding", "RotaryEmbeddingCat") and not module.in_pixels:
        rates = torch.from_numpy(rule.inv_freq(module.dim // 2)).float()
        module._compute_bands = MethodType(_fixed_rates(rates), module)
        module.bands = rates.to(module.bands.device)
    elif kind == "RotaryEmbeddingDinoV3":
        if not isinstance(rule, (Turns, Custom)):
            raise ValueError(
                f"extend: got {rule}, expected rates in turns, the unit of {kind}: by=Turns({rule}); or Custom."
            )
        rates = torch.from_numpy(2 * math.pi / rule.inv_freq(module.dim // 2)).float()  # its periods
        module._compute_periods = MethodType(_fixed_rates(rates), module)
    else:
        raise ValueError(
            f"extend: the rates of {kind} are learned, or are computed from the image size, so a rule cannot replace "
            "them."
        )
    module._init_buffers()


def _fixed_rates(rates: Tensor) -> Any:
    def compute(self: Any, device: Any = None, dtype: Any = None) -> Tensor:
        return rates.to(device=device, dtype=dtype)

    return compute


def _take_over(patch: Patch, model: nn.Module, copied: nn.Module, how: dict[str, Any]) -> None:
    """Whatever is other in the copy than in the model."""
    for path, module in model.named_modules():
        other = copied.get_submodule(path)
        if type(other) is not type(module):
            raise ValueError(f"extend: {path} became {type(other).__name__}, which posenc does not know.")
        for key, parameter in other._parameters.items():
            present = module._parameters.get(key)
            if parameter is not present and parameter is not None and present is not None:
                values = _read(module, other, key, how)
                values = parameter.detach() if values is None else values
                patch.swap(module._parameters, key, nn.Parameter(values, present.requires_grad))
        for key, buffer in other._buffers.items():
            old = module._buffers.get(key)
            same = buffer is old or (buffer is not None and old is not None and _equal(buffer, old))
            if not same:  # one may be None: a window that does not shift needs no mask
                patch.swap(module._buffers, key, buffer)
        for key, value in vars(other).items():
            if (
                key.startswith("_")
                and key not in ("_compute_bands", "_compute_periods", "_get_grid_values")
                and not key.startswith("_ref_")
            ):
                continue
            if isinstance(value, MethodType) and value.__self__ is other:
                patch.bind(module, key, value.__func__)
            elif isinstance(value, _PLAIN) and value != vars(module).get(key):
                patch.assign(module, key, value)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


_PLAIN = (bool, int, float, str, tuple, list, dict)


def _read(module: Any, other: Any, key: str, how: dict[str, Any]) -> Tensor | None:
    """A table in another way than timm's own; None for timm's own."""
    if how == {"convention": "timm"}:
        return None
    reader, table = reader_of(module), getattr(module, key)
    for row in () if reader is None else reader(module, module):
        match row.encoding:
            case LearnedGrid(grid=grid, prefix=prefix) if row.label == key:
                return resized_table(table, grid=grid, size=grid_of(other) or grid, how=how, prefix=prefix)
            case SwinBias(window=window) if table.ndim == 2:
                kept = table.shape[0] - (2 * window[0] - 1) * (2 * window[1] - 1)
                return resized_offsets(table, window=window, size=tuple(other.window_size), how=how, suffix=kept)
    raise ValueError(f'extend: only timm\'s own code can resize {key} of {type(module).__name__}; give by="bicubic".')

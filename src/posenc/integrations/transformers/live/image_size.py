"""Another size of image in a live model: its tables of patches, read on the new grid."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from posenc import AxialRoPE
from posenc.embeddings import LearnedGrid, SinusoidalGrid
from posenc.frequencies import Frequencies
from posenc.integrations.image_tables import check_size, reading, resized_offsets, resized_table
from posenc.integrations.patch import Patch
from posenc.integrations.transformers.description.description import LayerGroup, named
from posenc.integrations.transformers.description.images import spectrogram_grid
from posenc.integrations.transformers.description.model_types import names
from posenc.integrations.transformers.description.patch_tables import TABLES, patch_grid
from posenc.integrations.transformers.description.reader import describe
from posenc.integrations.transformers.live import rebuild
from posenc.integrations.transformers.live.learned_table import config_of
from posenc.scores import DecomposedBias, LeViTBias, SwinBias, SwinV2Bias

#: How models whose own code reads its table otherwise than most of transformers do it.
_OWN = {"dinov2_with_registers": "dinov2_registers", "siglip2_vision_model": "siglip2"}

#: Models whose own code reads the table at the grid of each image, unasked.
_BY_NEED = names("""
    cosmos3_edge_vision glm_image_vision hunyuan_vl_vision hy_v4_vl_vision lw_detr_vit radio siglip2_vision_model vitdet
    yolos
""")
#: Encodings, and models, whose tables are as large as their grids and are not carried over.
_FIXED, _FIXED_KINDS = (DecomposedBias, LeViTBias), names("pvt sam3_vit_model videoprism_vision_model")
#: Models whose code divides one number by another.
_SQUARES = names("timesformer vilt")

#: Attributes that say a size.
_KINDS = (int, float, str, tuple, list)

#: What embeddings that read their table on demand are asked with.
_READS_IF_ASKED = {"interpolate_pos_encoding"}


def resize(model: Any, size: Any, by: str | Frequencies, part: str | None) -> Patch:
    """Change the size of image that a model takes, and its config with it where that can say the size."""
    size = check_size("extend", size)
    groups = _image_groups(model, part)
    name = groups[0].part
    config = config_of(model.config, name)
    kind = str(config.model_type)
    how = reading(by if isinstance(by, str) else "bicubic", _OWN.get(kind, "transformers"))
    _check_kind(model, kind, groups, size)
    patch = Patch(model, f"extend {type(model).__name__} to images of {size[0]} x {size[1]} by {by}")
    try:
        before, keys = rebuild.build(model), _size_keys(config, size)
        for key, value in keys.items():
            patch.assign(config, key, value)
        grids = (_grid(before, config_of(before.config, name)), _grid(model, config))
        try:
            after = rebuild.build(model)
        except TypeError:  # its code counts on one side
            for key in keys:
                patch.assign(config, key, getattr(config_of(before.config, name), key))
            _to_rectangle(patch, model, before, grids, size, how, groups)
        else:
            _set_tables(patch, model, before, after, grids, how, groups)
            if grids[1][0] != grids[1][1]:
                _keep_rectangle(patch, model, size)
            for (module, key), value in rebuild.differing_values(before, after, _KINDS).items():
                patch.assign(model.get_submodule(module), key, value)
        if isinstance(by, Frequencies):
            _turn_by(patch, model, groups, by)
    except Exception:
        patch.roll_back()
        raise
    return patch.commit()


def _check_kind(model: Any, kind: str, groups: list[LayerGroup], size: tuple[int, int]) -> None:
    """Refuse what has nothing to change, and what is not known how to change."""
    name = type(model).__name__
    fixed = next((each for g in groups for each in g.encoding.parts if isinstance(each, _FIXED)), None)
    if fixed is not None:
        raise ValueError(
            f"extend: got size for {name}, whose {type(fixed).__name__} has the size of the grid of patches, and "
            "posenc cannot resize it; build the model at the new size, and resize its tables with your own code."
        )
    if kind in _BY_NEED:
        raise ValueError(
            f"extend: {name} already interpolates its table for the size of each image, so there is nothing to do."
        )
    if kind in _FIXED_KINDS:
        raise ValueError(
            f"extend: got size for {name}, which has tables for several grids, and posenc cannot resize those."
        )
    if kind in _SQUARES and size[0] != size[1]:
        raise ValueError(f"extend: got size {size} for {name}, whose code takes only square images; give equal sides.")


def _turn_by(patch: Patch, model: nn.Module, groups: list[LayerGroup], rule: Frequencies) -> None:
    """Give the modules that keep the rates of an axial rotation those of a rule."""
    rotation = next((each for g in groups for each in g.encoding.parts if isinstance(each, AxialRoPE)), None)
    if rotation is None:
        raise ValueError(
            f"extend: got by={rule}, and {type(model).__name__} has no rotation, only a table; give by='bicubic', "
            "which resizes the table."
        )
    if rule.depends_on_length or rule.attention_factor != 1:
        raise ValueError(f"extend: got {rule}, expected a rule with fixed rates and without a factor on cos and sin.")
    if isinstance(rotation.frequencies, tuple) or len({*rotation.widths}) > 1:
        raise ValueError(
            f"extend: got {rule} for {type(model).__name__}, whose coordinates have different rates, so one rule "
            "cannot replace them."
        )
    width = rotation.widths[0]
    before = torch.from_numpy(rotation.frequencies.inv_freq(width)).float()
    found = False
    for module in model.modules():
        rates = module._buffers.get("inv_freq")
        if rates is not None and rates.shape == before.shape and torch.allclose(rates.float().cpu(), before, rtol=1e-5):
            patch.swap(module._buffers, "inv_freq", torch.from_numpy(rule.inv_freq(width)).to(rates))
            found = True
    if not found:
        raise ValueError(
            f"extend: no module of {type(model).__name__} keeps the {len(before)} rates of one coordinate as "
            f"inv_freq, so posenc cannot replace them by {rule}."
        )
    patch.description += "; its config stores only the base, so do it again after loading"


def _image_groups(model: Any, part: str | None) -> list[LayerGroup]:
    """The groups of the one part that reads images."""
    described = describe(model)
    seen = [
        group
        for group in described
        if any(
            isinstance(each, (LearnedGrid, SinusoidalGrid, SwinBias, SwinV2Bias, AxialRoPE, *_FIXED))
            for each in group.encoding.parts
        )
        or config_of(model.config, group.part).model_type == "videomae"
    ]
    names = list(dict.fromkeys(group.part for group in seen if part is None or group.part == part))
    if len(names) != 1:
        raise ValueError(
            f"extend: got size for a model with {named(described)}"
            + ("" if part is None else f" and part {part!r}")
            + ", expected one part that reads images; "
            + (f"give part=, one of {names}." if names else 'a text is lengthened by a rule or "interpolate".')
        )
    return [group for group in seen if group.part == names[0]]


def _size_keys(config: Any, size: tuple[int, int]) -> dict[str, Any]:
    """The keys of a config that say the size, with the new one."""
    if config.model_type == "audio-spectrogram-transformer":
        return {"num_mel_bins": size[0], "max_length": size[1]}
    if getattr(config, "image_size", None) is None:
        raise ValueError(
            f"extend: the config of {config.model_type!r} has no image_size, because the model takes images of any "
            "size."
        )
    square = size[0] == size[1] and isinstance(config.image_size, int)
    return {"image_size": size[0] if square else list(size)}


def _grid(model: Any, config: Any) -> tuple[int, int]:
    keys = config.to_dict()
    if config.model_type == "audio-spectrogram-transformer":
        return spectrogram_grid(keys)
    return TABLES[config.model_type].grid(keys) if config.model_type in TABLES else patch_grid(keys)


def _set_tables(
    patch: Patch,
    model: nn.Module,
    before: nn.Module,
    after: nn.Module,
    grids: tuple[tuple[int, int], tuple[int, int]],
    how: dict[str, Any],
    groups: list[LayerGroup],
) -> None:
    """Every tensor that has another shape at the new size."""
    old = {name: tensor.shape for name, tensor in _tensors(before)}
    for name, tensor in _tensors(after):
        if tensor.shape == old.get(name):
            continue
        owner, key = model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        present = getattr(owner, key)
        new = _read(name, present, tensor.shape, grids, how, groups)
        if new.shape != tensor.shape:
            raise ValueError(f"extend: {name} became {tuple(new.shape)}, and its code expects {tuple(tensor.shape)}.")
        _put(patch, owner, key, new)


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    plain = [
        (f"{name}.{key}" if name else key, value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor)
    ]
    return [*model.named_parameters(), *model.named_buffers(), *plain]


def _put(patch: Patch, owner: nn.Module, key: str, new: Tensor) -> None:
    present = getattr(owner, key)
    if key in owner._parameters:
        patch.swap(owner._parameters, key, nn.Parameter(new, present.requires_grad))
    elif key in owner._buffers:
        patch.swap(owner._buffers, key, new)
    else:
        patch.swap(vars(owner), key, new)
        patch.description += f"; loading would fill {key} anew, so do it again then"


def _read(
    name: str,
    table: Tensor,
    shape: torch.Size,
    grids: tuple[tuple[int, int], tuple[int, int]],
    how: dict[str, Any],
    groups: list[LayerGroup],
) -> Tensor:
    """One tensor for the new grid, by what describe knows of it."""
    grid, size = grids
    if table.dtype == torch.int64 and torch.equal(table, _counted(table, table.shape)):
        return _counted(table, shape)
    for each in (part for group in groups for part in group.encoding.parts):
        if isinstance(each, LearnedGrid) and each.grid == grid and table.shape[-1] == each.dim:
            return resized_table(table, grid=grid, size=size, how=how, prefix=each.prefix)
        prefix = 0 if table.ndim != 3 else table.shape[1] - grid[0] * grid[1]
        if isinstance(each, SinusoidalGrid) and table.ndim == 3 and 0 <= prefix <= 1 and table.shape[-1] == each.dim:
            return resized_table(table, grid=grid, size=size, how=how, prefix=prefix)
        if isinstance(each, SwinBias) and each.window == grid and table.shape == each.table.shape:
            kept = table.shape[0] - (2 * grid[0] - 1) * (2 * grid[1] - 1)
            return resized_offsets(table, window=grid, size=size, how=how, suffix=kept)
    area = grid[0] * grid[1]
    if table.ndim == 3 and table.shape[1] % area == 0:  # VideoMAE: the frames one after the other
        frames = table[0].unflatten(0, (-1, area))
        return torch.cat([resized_table(frame, grid=grid, size=size, how=how) for frame in frames])[None]
    raise ValueError(
        f"extend: {name} changes its shape with the size of the image, and posenc does not know how to compute its "
        "new values."
    )


def _counted(like: Tensor, shape: torch.Size) -> Tensor:
    return torch.arange(shape[-1], dtype=like.dtype, device=like.device).expand(shape)


def _keep_rectangle(patch: Patch, model: nn.Module, size: tuple[int, int]) -> None:
    """Embeddings that take every table for a square and read it anew (DINOv2, BEiT) are to take it as it is."""
    for module in model.modules():
        if not hasattr(module, "interpolate_pos_encoding"):
            continue
        given = inspect.signature(module.forward).parameters
        if isinstance(getattr(module, "position_embeddings", None), nn.Parameter) and not _READS_IF_ASKED & {*given}:
            patch.bind(module, "interpolate_pos_encoding", _whole_table(size))
            patch.description += "; its code takes every table for a square, so do it again after loading"


def _to_rectangle(
    patch: Patch,
    model: Any,
    before: nn.Module,
    grids: tuple[tuple[int, int], tuple[int, int]],
    size: tuple[int, int],
    how: dict[str, Any],
    groups: list[LayerGroup],
) -> None:
    """A table for a rectangle in a model whose code and config know squares alone (CLIP, SigLIP).

    Its embeddings can read their table at any size, on demand; they are made to do so always, and to get these rows.
    """
    encoding = next((each for group in groups for each in group.encoding.parts if isinstance(each, LearnedGrid)), None)
    found = [
        module
        for module in model.modules()
        if hasattr(module, "interpolate_pos_encoding")
        and isinstance(getattr(module, "position_embedding", None), nn.Embedding)
        and encoding is not None
        and module.position_embedding.num_embeddings == encoding.max_positions
    ]
    if len(found) != 1 or encoding is None:
        raise ValueError(
            f"extend: got size {size} for {type(model).__name__}, whose code takes only square images; give a size "
            "with equal sides."
        )
    embeddings: Any = found[0]
    table = embeddings.position_embedding
    grid, new = grids
    rows = resized_table(table.weight, grid=grid, size=new, how=how, prefix=encoding.prefix)
    patch.swap(table._parameters, "weight", nn.Parameter(rows, table.weight.requires_grad))
    patch.assign(table, "num_embeddings", rows.shape[0])
    patch.bind(embeddings, "interpolate_pos_encoding", _whole_table(size))
    hook: list[Any] = []
    patch.step(
        lambda: hook.append(embeddings.register_forward_pre_hook(_interpolates, with_kwargs=True)),
        lambda: hook.pop().remove(),
    )
    patch.description += "; its config cannot say a rectangle, so do it again after loading"


def _whole_table(size: tuple[int, int]) -> Callable[[Any, Tensor, int, int], Tensor]:
    """A method that gives the whole table, for images of one size."""

    def interpolate_pos_encoding(self: Any, embeddings: Tensor, height: int, width: int) -> Tensor:
        if (height, width) != size:
            raise ValueError(
                f"extend: got an image of {height} x {width}, expected {size[0]} x {size[1]}, the size that the model "
                "was extended to."
            )
        table = getattr(self, "position_embeddings", None)
        return self.position_embedding.weight[None] if table is None else table  # type: ignore[no-any-return]

    return interpolate_pos_encoding


def _interpolates(module: nn.Module, args: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args[:1], {**options, "interpolate_pos_encoding": True}

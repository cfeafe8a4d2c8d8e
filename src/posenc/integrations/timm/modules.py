"""What each positional module of timm is, as posenc says it: one reader for each class, by its name."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from posenc import AxialRoPE, Learned, MixedRoPE, MRoPE
from posenc.embeddings import LearnedGrid
from posenc.encoding import Encoding
from posenc.frequencies import Frequencies, Geometric, Linspaced, Logspaced, Turns
from posenc.scores import DecomposedBias, LeViTBias, SwinBias, SwinV2Bias


class Row(NamedTuple):
    """One encoding that a module has.

    Attributes:
        label: its attribute or kind.
        encoding: without weights; None if posenc has no such encoding.
        notes: what a reader should know besides, or why there is none.
        positions: where its tokens stand, as an expression of :mod:`posenc.positions`.
    """

    label: str
    encoding: Encoding | None
    notes: tuple[str, ...] = ()
    positions: str = ""


#: (module, model) -> rows
Reader: TypeAlias = Callable[[Any, Any], list[Row]]


def grid_of(model: Any) -> tuple[int, int] | None:
    """Rows and columns of patches in an image of the model's size, if it has one."""
    embed = getattr(model, "patch_embed", None)
    grid = getattr(embed, "grid_size", None)
    if isinstance(grid, (tuple, list)) and len(grid) == 2 and all(isinstance(side, int) for side in grid):
        return grid[0], grid[1]
    return None


def _learned_grid(label: str, dim: int, grid: Sequence[int], prefix: int, *notes: str) -> Row:
    with torch.device("meta"):
        return Row(label, LearnedGrid(dim, grid=tuple(grid), prefix=prefix), notes)


def _refused(label: str, why: str) -> Row:
    return Row(label, None, (why,))


# Tables


def table(label: str, tensor: torch.Tensor, grid: tuple[int, int] | None) -> Row:
    """A learned table of places in one of the shapes that timm gives it."""
    match tuple(tensor.shape):
        case (1, rows, dim) | (rows, dim) if grid and 0 <= rows - math.prod(grid) <= 8:
            return _learned_grid(label, dim, grid, rows - math.prod(grid))
        case (1, rows, dim) | (rows, dim) if math.isqrt(rows) ** 2 == rows:
            return _learned_grid(label, dim, (math.isqrt(rows),) * 2, 0)
        case (1, rows, dim) | (rows, dim) if math.isqrt(rows - 1) ** 2 == rows - 1:
            return _learned_grid(label, dim, (math.isqrt(rows - 1),) * 2, 1)
        case (1, dim, rows, columns) if rows == columns != dim or (rows, columns) == grid:
            return _learned_grid(label, dim, (rows, columns), 0)
        case (1, rows, columns, dim):
            return _learned_grid(label, dim, (rows, columns), 0)
        case shape:
            return _refused(label, f"a table of shape {shape}, whose rows are not known")


def _tables(*names: str, note: str = "") -> Reader:
    def read(module: Any, model: Any) -> list[Row]:
        rows = []
        for name in names:
            tensor = getattr(module, name, None)
            if isinstance(tensor, torch.Tensor):
                row = table(name, tensor, grid_of(module) or grid_of(model))
                rows.append(row._replace(notes=(*row.notes, note)) if note else row)
        return rows

    return read


def _two_tables(*names: str) -> Reader:
    """A small table that is read at the grid, and one of a window that repeats; alone, the first is a table."""

    def read(module: Any, model: Any) -> list[Row]:
        if isinstance(getattr(module, names[1], None), torch.Tensor):
            why = f"{names[0]}, read bicubic at the grid, plus {names[1]}, which repeats over it"
            return [_refused(names[0], why)]
        return _tables(names[0])(module, model)

    return read


def _crossvit(module: Any, model: Any) -> list[Row]:
    rows = []
    for branch in range(module.num_branches):
        tensor = getattr(module, f"pos_embed_{branch}")
        side = math.isqrt(tensor.shape[1] - 1)
        patches = side * side
        rows.append(_learned_grid(f"pos_embed_{branch}", tensor.shape[-1], (side, side), tensor.shape[1] - patches))
    return rows


def _nest(module: Any, model: Any) -> list[Row]:
    if module.pos_embed is None:
        return []
    _, blocks, places, dim = module.pos_embed.shape
    with torch.device("meta"):
        encoding = Learned(dim, length=blocks * places)
    return [Row("pos_embed", encoding, (f"counted block by block: {blocks} blocks of {places} patches",))]


def _tnt(module: Any, model: Any) -> list[Row]:
    note = "of the pixels within a patch, for all patches alike"
    inner = table("pixel_pos", module.pixel_pos, None)
    return [table("patch_pos", module.patch_pos, grid_of(module)), inner._replace(notes=(note,))]


def _naflex(module: Any, model: Any) -> list[Row]:
    rows = []
    if isinstance(getattr(module, "pos_embed", None), torch.Tensor):
        row = table("pos_embed", module.pos_embed, None)
        how = f"{module.pos_embed_interp_mode}{' with antialias' if module.pos_embed_antialias else ''}"
        rows.append(row._replace(notes=(f"read at the grid of each image, {how}",)))
    if isinstance(getattr(module, "pos_embed_y", None), torch.Tensor):
        rows.append(_refused("pos_embed_y, pos_embed_x", "two tables, of rows and of columns, which are added"))
    return rows


# Rotations


def positions_of(module: Any, model: Any) -> tuple[str, tuple[str, ...]]:
    """Where the tokens of a rotation stand, as an expression, or a note where none says it."""
    prefix = max((getattr(each, "num_prefix_tokens", 0) for each in model.modules()), default=0)
    grid = grid_of(model)
    shape = ", ".join(map(str, grid)) if grid else "rows, columns"
    if prefix:
        shape += f", prefix={prefix}"
    kind = getattr(module, "grid_type", "centered" if hasattr(module, "normalize_coords") else "index")
    offset = getattr(module, "grid_offset", 0)
    if kind == "centered" and not offset:
        by = "" if module.normalize_coords == "separate" else f', normalize="{module.normalize_coords}"'
        return f'grid({shape}, unit="centred"{by})', ()
    if kind == "pixel" and grid and not offset and min(grid) > 1:
        return f'grid({shape}, origin="middle", step=(2 / {grid[0] - 1}, 2 / {grid[1] - 1}))', ()
    if kind != "index" or offset != int(offset):
        return "", (f"coordinates are {kind}, {getattr(module, 'normalize_coords', '')}, offset by {offset}",)
    before, start = getattr(module, "ref_feat_shape", None), f", start={int(offset)}" if offset else ""
    if before and grid and tuple(before) != grid:
        note = f"a grid of {grid[0]} x {grid[1]} is laid over that of training, {before[0]} x {before[1]}"
        if offset:
            ratios = [f"{old} / {new}" for old, new in zip(before, grid, strict=True)]
            starts = ", ".join(ratios if offset == 1 else [f"{int(offset)} * {ratio}" for ratio in ratios])
            return f"grid({shape}, start=({starts}), step=({', '.join(ratios)}))", (note,)
        return f"grid({shape}, fit=({before[0]}, {before[1]}))", (note,)
    return f"grid({shape}{start})", ()


def _rule(module: Any) -> Frequencies:
    if module.in_pixels:
        spaced = Linspaced if module.linear_bands else Logspaced
        return spaced(math.pi, math.pi * module.max_res / 2)
    return Geometric(float(module.temperature))


def _axial(module: Any, model: Any) -> list[Row]:
    encoding = AxialRoPE(
        module.dim,
        frequencies=_rule(module),
        layout="half" if module.rotate_half else "interleaved",
        order=(1, 0) if module.grid_indexing == "xy" else (0, 1),
    )
    return [_rotation(encoding, module, model)]


def _rotation(encoding: Encoding, module: Any, model: Any, *notes: str) -> Row:
    positions, more = positions_of(module, model)
    return Row("rope", encoding, (*notes, *more), positions)


def _dinov3(module: Any, model: Any) -> list[Row]:
    if module.min_period is not None and module.max_period is not None:
        rule: Frequencies = Logspaced(1 / module.min_period, 1 / module.max_period)
    else:
        rule = Geometric(float(module.temperature))
    encoding = AxialRoPE(
        module.dim,
        frequencies=Turns(rule),
        layout="half" if module.rotate_half else "interleaved",
        order=(1, 0) if module.grid_indexing == "xy" else (0, 1),
    )
    return [_rotation(encoding, module, model)]


def _mixed(module: Any, model: Any) -> list[Row]:
    with torch.device("meta"):
        encoding = MixedRoPE(module.dim // module.num_heads, num_heads=module.num_heads, base=module.temperature)
    note = "each block has rates of its own, freqs[:, block]"
    order = (", of which the first are for columns",) if module.grid_indexing == "xy" else ("",)
    return [_rotation(encoding, module, model, note + order[0])]


def _mrope(module: Any, model: Any) -> list[Row]:
    axis = [0] * (module.dim // 2)
    for coordinate in (1, 2):
        for pair in range(coordinate, min(3 * module.mrope_section[coordinate], len(axis)), 3):
            axis[pair] = coordinate
    encoding = MRoPE(
        module.dim,
        sections=tuple(axis.count(coordinate) for coordinate in range(3)),
        layout=axis,
        frequencies=Geometric(float(module.temperature)),
    )
    return [_rotation(encoding, module, model, "an image stands at time 0: a coordinate before rows and columns")]


def _gemma4(module: Any, model: Any) -> list[Row]:
    encoding = AxialRoPE(
        module.head_dim, frequencies=Geometric(float(module.rope_theta)), layout="half_per_axis", order=(1, 0)
    )
    return [_rotation(encoding, module, model)]


# Biases


def _swin(heads: int, window: Sequence[int], prefix: int = 0) -> Encoding:
    with torch.device("meta"):
        return SwinBias(heads, window=tuple(window), prefix=prefix)


def _bias_table(module: Any, model: Any) -> list[Row]:
    """Swin, BEiT and all that share their module: a number for each offset in a window."""
    tensor = getattr(module, "relative_position_bias_table", None)
    if not isinstance(tensor, torch.Tensor):
        return []
    window = tuple(module.window_size)
    offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
    if tensor.ndim == 3:
        note = "the table is (heads, rows, columns) and counts from query to key, the other way round"
        return [Row("biases", _swin(tensor.shape[0], window), (note,))]
    prefix = (tensor.shape[0] - offsets) // 3
    return [Row("biases", _swin(tensor.shape[1], window, prefix))]


def _swin_v2(module: Any, model: Any) -> list[Row]:
    before = tuple(module.pretrained_window_size)
    with torch.device("meta"):
        encoding = _swin_v2_bias(module, module.cpb_mlp[0], trained_window=before if before[0] > 0 else None)
    return [Row("biases", encoding)]


def _bias_mlp(module: Any, model: Any) -> list[Row]:
    before = tuple(module.pretrained_window_size)
    with torch.device("meta"):
        if module.mode == "swin":
            trained = before if before[0] > 0 else None
            encoding = _swin_v2_bias(module, module.mlp.fc1, trained_window=trained)
        else:
            encoding = _swin_v2_bias(module, module.mlp.fc1, form="paper")
    notes = ("tokens before the patches have no bias",) if module.prefix_tokens else ()
    return [Row("biases", encoding, notes)]


def _swin_v2_cr(module: Any, model: Any) -> list[Row]:
    with torch.device("meta"):
        return [Row("biases", _swin_v2_bias(module, module.meta_mlp.fc1, form="paper"))]


def _swin_v2_bias(module: Any, hidden: nn.Linear, **how: Any) -> SwinV2Bias:
    return SwinV2Bias(module.num_heads, window=tuple(module.window_size), width=hidden.out_features, **how)


def _levit(module: Any, model: Any) -> list[Row]:
    if not isinstance(getattr(module, "attention_biases", None), torch.Tensor):
        return []  # timm has another module of that name
    heads, places = module.attention_biases.shape
    sides = getattr(module, "resolution", None)
    window = tuple(sides) if isinstance(sides, (tuple, list)) else (sides,) * 2 if sides else (math.isqrt(places),) * 2
    with torch.device("meta"):
        encoding = LeViTBias(heads, window=window)
    queries = module.attention_bias_idxs.shape[0]
    stride = math.isqrt(places // queries) if queries else 1
    notes = (f"queries stand at one place of {stride} x {stride}",) if stride > 1 else ()
    return [Row("biases", encoding, notes)]


def _decomposed(module: Any, model: Any) -> list[Row]:
    rows, columns = getattr(module, "rel_pos_h", None), getattr(module, "rel_pos_w", None)
    if rows is None or columns is None:
        return []
    window, prefix = tuple((len(table) + 1) // 2 for table in (rows, columns)), int(getattr(module, "has_cls_token", 0))
    with torch.device("meta"):
        encoding = DecomposedBias(module.num_heads, rows.shape[1], window=window, prefix=prefix)
    pooled = getattr(module, "pool_k", None) is not None
    notes = ("keys are pooled, and stand at the last of the places that they come from",) if pooled else ()
    return [Row("biases", encoding, notes)]


def _why(label: str, why: str, *needs: str) -> Reader:
    """A reader for what posenc has no encoding for; with ``needs``, only where the module has that tensor."""

    def read(module: Any, model: Any) -> list[Row]:
        present = not needs or any(isinstance(getattr(module, name, None), torch.Tensor) for name in needs)
        return [_refused(label, why)] if present else []

    return read


_CONVOLUTION = _why("convolution", "a depthwise convolution, which knows neighbours and no positions")
_FOURIER = _why("sinusoids", "sinusoids of rows and columns behind a learned projection")
_RELATIVE_LOGITS = _why("biases", "biases by row and by column of a block that are multiplied with the query")

READERS: dict[str, Reader] = {
    "AttentionPool2d": _tables("pos_embed", note="the first row is for the mean of all patches"),
    **dict.fromkeys(("Cait", "ConVit", "Eva", "VisionTransformer", "VisionTransformerDistilled"), _tables("pos_embed")),
    **dict.fromkeys(("Beit", "PoolingVisionTransformer", "VisionTransformerSAM", "VOLO"), _tables("pos_embed")),
    "Visformer": _tables("pos_embed1", "pos_embed2", "pos_embed3"),
    "Hiera": _two_tables("pos_embed", "pos_embed_win"),
    "HieraDet": _two_tables("pos_embed", "pos_embed_window"),
    "CrossVit": _crossvit,
    "NestLevel": _nest,
    "TNT": _tnt,
    "NaFlexEmbeds": _naflex,
    "Qwen3VitEncoder": _tables("pos_embed", note='read at the grid of each image, as the convention "google" does'),
    "Gemma4PatchEmbed": _why("position_embedding_table", "two tables, of rows and of columns, which are added"),
    "RotaryEmbedding": _axial,
    "RotaryEmbeddingCat": _axial,
    "RotaryEmbeddingDinoV3": _dinov3,
    "RotaryEmbeddingMixed": _mixed,
    "RotaryEmbeddingMRope": _mrope,
    "Gemma4RotaryEmbedding2D": _gemma4,
    **dict.fromkeys(("RelPosBias", "RelPosBiasTf", "RelativePositionBias"), _bias_table),
    "beit.Attention": _bias_table,
    "swin_transformer.WindowAttention": _bias_table,
    "swin_transformer_v2.WindowAttention": _swin_v2,
    "RelPosMlp": _bias_mlp,
    "WindowMultiHeadAttention": _swin_v2_cr,
    **dict.fromkeys(
        (
            *("levit.Attention", "levit.AttentionDownsample", "tiny_vit.Attention", "efficientformer.Attention"),
            *("Attention2d", "Attention2dDownsample", "CascadedGroupAttention"),
        ),
        _levit,
    ),
    **dict.fromkeys(("MultiScaleAttention", "MultiScaleAttentionPoolFirst"), _decomposed),
    "vision_transformer_sam.Attention": _decomposed,
    "PosEmbedRel": _RELATIVE_LOGITS,
    "LambdaLayer": _why("pos_emb", "a lambda by offset in the place of attention", "pos_emb"),
    "GPSA": _why("pos_proj", "attention by position that a gate mixes with attention by content"),
    **dict.fromkeys(("ConvPosEnc", "ConvRelPosEnc", "PosConv", "RepConditionalPosEnc"), _CONVOLUTION),
    "PositionalEncodingFourier": _FOURIER,
}


def reader_of(module: nn.Module) -> Reader | None:
    """The reader for a module: by its class, or one that it inherits from, within timm."""
    for cls in type(module).__mro__:
        if cls.__module__.startswith("timm."):
            home = cls.__module__.rpartition(".")[2]
            reader = READERS.get(f"{home}.{cls.__name__}") or READERS.get(cls.__name__)
            if reader is not None:
                return reader
    return None

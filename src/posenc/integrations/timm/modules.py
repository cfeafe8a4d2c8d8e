"""What each positional module of timm is, as posenc says it: one reader for each class, by its name."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from posenc import AxialRoPE, MixedRoPE, MRoPE
from posenc.encoding import Encoding
from posenc.frequencies import Custom, Frequencies, Geometric, Linspaced, Logspaced, Turns
from posenc.integrations.timm.tables import (
    Reader,
    Row,
    crossvit,
    grid_of,
    naflex,
    nest,
    refused,
    tables,
    tnt,
    two_tables,
)
from posenc.scores import DecomposedBias, LeViTBias, SwinBias, SwinV2Bias

# Rotations


def positions_of(module: Any, model: Any) -> tuple[str, tuple[str, ...]]:
    """Where the tokens of a rotation stand, as an expression, and notes; rows and columns by name if they vary."""
    prefix = max((getattr(each, "num_prefix_tokens", 0) for each in model.modules()), default=0)
    grid: Sequence[int | str] = grid_of(model) or ("rows", "columns")
    shape = ", ".join(map(str, (*grid, f"prefix={prefix}"))) if prefix else ", ".join(map(str, grid))
    kind = getattr(module, "grid_type", "centered" if hasattr(module, "normalize_coords") else "index")
    offset: float = getattr(module, "grid_offset", 0)
    offset = int(offset) if offset == int(offset) else offset
    if kind == "centered":
        by = module.normalize_coords
        if not offset:
            named = "" if by == "separate" else f', normalize="{by}"'
            return f'grid({shape}, unit="centred"{named})', ()
        whole = grid if by == "separate" else [f"{by}({grid[0]}, {grid[1]})"] * 2
        return _stepped(shape, [f"{1 + 2 * offset} / {n} - 1" for n in whole], [f"2 / {n}" for n in whole]), ()
    before = getattr(module, "ref_feat_shape", None)
    before = None if before is None or tuple(before) == tuple(grid) else tuple(before)
    notes: tuple[str, ...] = ()
    if before:
        note = f"a grid of {grid[0]} x {grid[1]} is laid over that of training, {before[0]} x {before[1]}"
        notes = (note,)
    ratios = [f"{old} / {new}" for old, new in zip(before or (), grid, strict=bool(before))]
    if kind == "pixel":
        if 1 in grid:
            return "", ("coordinates of one row or column lie on the edge, at -1",)
        steps = [f"2 / {n - 1}" if isinstance(n, int) else f"2 / ({n} - 1)" for n in grid]
        if before:
            steps = [f"{step} * {ratio}" for step, ratio in zip(steps, ratios, strict=True)]
        return f'grid({shape}, origin="middle", step=({", ".join(steps)}))', notes
    if kind != "index":
        return "", (f"coordinates are {kind}, offset by {offset}",)
    if before and offset:
        return _stepped(shape, ratios if offset == 1 else [f"{offset} * {ratio}" for ratio in ratios], ratios), notes
    if before:
        return f"grid({shape}, fit=({before[0]}, {before[1]}))", notes
    return f"grid({shape}, start={offset})" if offset else f"grid({shape})", ()


def _stepped(shape: str, starts: Sequence[str], steps: Sequence[str]) -> str:
    return f"grid({shape}, start=({', '.join(starts)}), step=({', '.join(steps)}))"


def _rule(module: Any) -> Frequencies:
    if module.in_pixels:
        spaced = Linspaced if module.linear_bands else Logspaced
        return _as_it_turns(spaced(math.pi, math.pi * module.max_res / 2), module.dim // 2, module.bands)
    return _as_it_turns(Geometric(float(module.temperature)), module.dim // 2, module.bands)


def _as_it_turns(rule: Frequencies, width: int, rates: torch.Tensor) -> Frequencies:
    """The rule of the module's settings, or the rates that it has, if somebody gave it others."""
    if rates.is_meta:
        return rule
    own = rates.detach().cpu().double().numpy()
    return rule if np.allclose(rule.inv_freq(width), own, rtol=1e-4, atol=0) else Custom(own.tolist())


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
        frequencies=_as_it_turns(Turns(rule), module.dim // 2, 2 * math.pi / module.periods),
        layout="half" if module.rotate_half else "interleaved",
        order=(1, 0) if module.grid_indexing == "xy" else (0, 1),
    )
    return [_rotation(encoding, module, model)]


def _mixed(module: Any, model: Any) -> list[Row]:
    with torch.device("meta"):
        encoding = MixedRoPE(module.dim // module.num_heads, num_heads=module.num_heads, base=module.temperature)
    note = "each block has its own rates, freqs[:, block]"
    xy = module.grid_indexing == "xy"
    row = _rotation(encoding, module, model, note + (", of which the first are for columns" if xy else ""))
    if module.freqs.is_meta:
        return [row]
    steps = [round(float(along.max()), 9) for along in module._get_grid_values([2, 2])]
    if steps != [1, 1]:  # somebody squeezed them
        rows, columns = steps[::-1] if xy else steps
        row = row._replace(positions=f"{row.positions.removesuffix(')')}, step=({rows}, {columns}))")
    return [row]


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
    return [_rotation(encoding, module, model, "an image has time 0, a coordinate before rows and columns")]


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
    notes = (f"one patch of {stride} x {stride} has a query",) if stride > 1 else ()
    return [Row("biases", encoding, notes)]


def _decomposed(module: Any, model: Any) -> list[Row]:
    rows, columns = getattr(module, "rel_pos_h", None), getattr(module, "rel_pos_w", None)
    if rows is None or columns is None:
        return []
    window, prefix = tuple((len(table) + 1) // 2 for table in (rows, columns)), int(getattr(module, "has_cls_token", 0))
    with torch.device("meta"):
        encoding = DecomposedBias(module.num_heads, rows.shape[1], window=window, prefix=prefix)
    pooled = getattr(module, "pool_k", None) is not None
    notes = ("keys are pooled, and have the position of the last patch that they come from",) if pooled else ()
    return [Row("biases", encoding, notes)]


def _block_bias(module: Any, model: Any) -> list[Row]:
    """BoTNet's and HaloNet's: vectors of rows and columns, multiplied by the query."""
    tables = module.pos_embed
    rows, columns = tables.height_rel, tables.width_rel
    if module.scale_pos_embed:
        return [refused("pos_embed", "biases by row and by column that are scaled with the products")]
    window = (len(rows) + 1) // 2, (len(columns) + 1) // 2
    with torch.device("meta"):
        encoding = DecomposedBias(module.num_heads, rows.shape[1], window=window)
    notes: tuple[str, ...] = ("the tables count from query to key, the other way round",)
    block = getattr(module, "block_size_ds", 0)
    if block:
        notes += (f"queries are at the first {block} x {block} places of their window",)
    return [Row("pos_embed", encoding, notes)]


def _why(label: str, why: str) -> Reader:
    """A reader for what posenc has no encoding for."""

    def read(module: Any, model: Any) -> list[Row]:
        return [refused(label, why)]

    return read


def _fourier(module: Any, model: Any) -> list[Row]:
    as_known = f'SinusoidalGrid.as_in("detr", {2 * module.hidden_dim})'
    return [refused("sinusoids", f"sinusoids of rows and columns, {as_known}, behind a learned projection")]


def _lambda(module: Any, model: Any) -> list[Row]:
    how = "a lambda by offset in the place of attention"
    local = "" if module.pos_emb is not None else ", a convolution over neighbours"
    return [refused("conv_lambda" if local else "pos_emb", how + local)]


_CONVOLUTION = _why("convolution", "a depthwise convolution, which knows neighbours and no positions")

READERS: dict[str, Reader] = {
    "AttentionPool2d": tables("pos_embed", note="the first row is for the mean of all patches", sides="feat_size"),
    **dict.fromkeys(
        ("Beit", "Cait", "ConVit", "Eva", "VisionTransformer", "VisionTransformerSAM"), tables("pos_embed")
    ),
    **dict.fromkeys(("VisionTransformerDistilled", "VOLO"), tables("pos_embed")),
    "PoolingVisionTransformer": tables("pos_embed", channels="first"),
    "Visformer": tables("pos_embed1", "pos_embed2", "pos_embed3", channels="first"),
    "Hiera": two_tables("pos_embed", "pos_embed_win", sides="tokens_spatial_shape"),
    "HieraDet": two_tables("pos_embed", "pos_embed_window"),
    "CrossVit": crossvit,
    "NestLevel": nest,
    "TNT": tnt,
    "NaFlexEmbeds": naflex,
    "Qwen3VitEncoder": tables(
        "pos_embed",
        note='read at the grid of each image, as the convention "google" does',
        sides="pos_embed_grid_size",
    ),
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
    **dict.fromkeys(("BottleneckAttn", "HaloAttn"), _block_bias),
    "LambdaLayer": _lambda,
    "GPSA": _why("pos_proj", "attention by position that a gate mixes with attention by content"),
    **dict.fromkeys(("ConvPosEnc", "ConvRelPosEnc", "PosConv", "RepConditionalPosEnc"), _CONVOLUTION),
    "PositionalEncodingFourier": _fourier,
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

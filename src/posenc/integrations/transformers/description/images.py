"""Image, video and audio models whose patches have a table or a bias for each offset, by model type."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from posenc import Learned, Sinusoidal
from posenc.embeddings import SinusoidalGrid
from posenc.integrations.transformers.description.config import need, need_key, need_size, need_sizes
from posenc.integrations.transformers.description.found import Found, Reader
from posenc.integrations.transformers.description.layers import all_layers
from posenc.integrations.transformers.description.model_types import names
from posenc.integrations.transformers.description.patch_tables import (
    TABLES,
    learned_grid,
    patch_grid,
    sides,
    stacked_layers,
)
from posenc.scores import DecomposedBias, LeViTBias, SwinBias, SwinV2Bias


def _table(config: Mapping[str, Any]) -> list[Found] | None:
    table = TABLES[str(config["model_type"])]
    encoding = table.encoding(config)
    return None if encoding is None else [("", stacked_layers(config), encoding, None, table.notes)]


def _spectrogram(config: Mapping[str, Any]) -> list[Found]:
    note = "rows are frequency, columns are time, and patches overlap"
    return [
        (
            "",
            all_layers(config),
            learned_grid(int(need(config, "hidden_size")), spectrogram_grid(config), 2),
            None,
            (note,),
        )
    ]


def spectrogram_grid(config: Mapping[str, Any]) -> tuple[int, int]:
    """Rows of frequency and columns of time of AST's patches."""
    patch = need_size(config, "patch_size")
    down, along = need_size(config, "frequency_stride"), need_size(config, "time_stride")
    if min(down, along) < 1:
        raise ValueError(
            f"describe: frequency_stride is {down} and time_stride {along}, expected 1 or more; correct it."
        )
    rows = (need_size(config, "num_mel_bins") - patch) // down + 1
    columns = (need_size(config, "max_length") - patch) // along + 1
    if rows < 1 or columns < 1:
        raise ValueError(
            "describe: num_mel_bins or max_length is smaller than patch_size, so that there are no patches; correct "
            "one of them."
        )
    return rows, columns


def _vit_mae(config: Mapping[str, Any]) -> list[Found]:
    note = "the class token gets no code"
    encoding = SinusoidalGrid.as_in("mae", int(need(config, "hidden_size")))
    return [("", all_layers(config), encoding, None, (note,))]


def _sam(config: Mapping[str, Any]) -> list[Found]:
    """A table of places, and biases of rows and columns within windows and, in some layers, over the whole image."""
    found: list[Found] = []
    if config.get("use_abs_pos"):
        table = learned_grid(int(need(config, "hidden_size")), patch_grid(config))
        found.append(("table", all_layers(config), table, None, ()))
    if config.get("use_rel_pos"):
        everywhere = {int(i) for i in config.get("global_attn_indexes") or ()}
        found += _decomposed(config, [i for i in all_layers(config) if i not in everywhere])
    return found


def _vitdet(config: Mapping[str, Any]) -> list[Found]:
    found: list[Found] = []
    if config.get("use_absolute_position_embeddings"):
        note = "the table is interpolated to the grid of each image; there is no class token for the first row"
        grid = patch_grid(config, "pretrain_image_size")
        found.append(
            ("table", all_layers(config), learned_grid(int(need(config, "hidden_size")), grid, 1), None, (note,))
        )
    if config.get("use_relative_position_embeddings"):
        found += _decomposed(config, [int(i) for i in config.get("window_block_indices") or ()])
    return found


def _seggpt(config: Mapping[str, Any]) -> list[Found]:
    note = "the table is interpolated to the grid of each image, and an image and its mask are halves of it"
    grid = patch_grid(config, "pretrain_image_size")
    table = learned_grid(int(need(config, "hidden_size")), grid, 1)
    found: list[Found] = [("table", all_layers(config), table, None, (note,))]
    return found + (_decomposed(config, []) if config.get("use_relative_position_embeddings") else [])


def _decomposed(config: Mapping[str, Any], windowed: Sequence[int]) -> list[Found]:
    """Biases of rows and columns: within a window in some layers, over the whole image in the others."""
    heads = int(need(config, "num_heads"))
    side = need_size(config, "window_size") if config.get("window_size") else 0
    found: list[Found] = []
    for label, chosen in (("window", windowed), ("whole image", [i for i in all_layers(config) if i not in windowed])):
        sizes = (side, side) if label == "window" and side else patch_grid(config)
        with torch.device("meta"):
            bias = DecomposedBias(heads, int(need(config, "hidden_size")) // heads, window=sizes)
        if chosen:
            found.append((label, tuple(chosen), bias, None, ()))
    return found


def _beit(config: Mapping[str, Any]) -> list[Found] | None:
    """Up to three at once: a table of places, and biases by offset of each layer or of all."""
    grid, layers = patch_grid(config), all_layers(config)
    found: list[Found] = []
    if config.get("use_absolute_position_embeddings"):
        found.append(("table", layers, learned_grid(int(need(config, "hidden_size")), grid, 1), None, ()))
    for key, note in (
        ("use_relative_position_bias", "each layer has its own biases"),
        ("use_shared_relative_position_bias", "all layers share one table of biases"),
    ):
        if config.get(key):
            with torch.device("meta"):
                bias = SwinBias(int(need(config, "num_heads")), window=grid, prefix=1)
            found.append(("biases", layers, bias, None, (note,)))
    return found or None


def _by_stage(config: Mapping[str, Any], heads_key: str = "num_heads") -> list[tuple[int, tuple[int, ...], int]]:
    """(stage, its layers, its heads)"""
    depths, heads = need_key(config, "depths"), need_key(config, heads_key)
    if not isinstance(depths, (list, tuple)) or not isinstance(heads, (list, tuple)) or len(depths) != len(heads):
        raise ValueError(f"describe: depths is {depths!r} and {heads_key} {heads!r}, expected a list for each stage.")
    stages, first = [], 0
    for stage, (depth, number) in enumerate(zip(depths, heads, strict=True)):
        stages.append((stage, tuple(range(first, first + int(depth))), int(number)))
        first += int(depth)
    return stages


_SHIFTS = ("tokens are places in a window, which shifts by halves",)


def _swin(config: Mapping[str, Any], heads_key: str = "num_heads") -> list[Found]:
    window = need_size(config, "window_size")
    found: list[Found] = []
    if config.get("use_absolute_embeddings"):
        table = learned_grid(need_size(config, "embed_dim"), patch_grid(config))
        found.append(("table", stacked_layers(config), table, None, ()))
    for stage, layers, heads in _by_stage(config, heads_key):
        with torch.device("meta"):
            bias = SwinBias(heads, window=(window, window))
        found.append((f"stage {stage}", layers, bias, None, _SHIFTS))
    return found


def _clap(config: Mapping[str, Any]) -> list[Found]:
    return _swin(config, "num_attention_heads")


def _swin_v2(config: Mapping[str, Any]) -> list[Found]:
    """Windows are cut to the grid of their stage; Swin2SR's stages have one grid."""
    grid, window = patch_grid(config), need_size(config, "window_size")
    halves = config.get("model_type") != "swin2sr"
    before = config.get("pretrained_window_sizes") or [0] * len(need_key(config, "depths"))
    found: list[Found] = []
    for stage, layers, heads in _by_stage(config):
        here = min(window, *(max(side >> stage * halves, 1) for side in grid))
        trained = int(before[stage]) or here
        with torch.device("meta"):
            bias = SwinV2Bias(heads, window=(here, here), trained_window=(trained, trained))
        found.append((f"stage {stage}", layers, bias, None, _SHIFTS))
    return found


def _levit(config: Mapping[str, Any]) -> list[Found]:
    """The grid is half of the one before in each stage."""
    note = "between stages, queries at every second place have their own biases"
    side = sides(config, "image_size")[0] // sides(config, "patch_size")[0]
    found: list[Found] = []
    for stage, layers, heads in _by_stage(config, "num_attention_heads"):
        with torch.device("meta"):
            bias = LeViTBias(heads, window=(side, side))
        found.append((f"stage {stage}", layers, bias, None, (note,)))
        side = (side - 1) // 2 + 1
    return found


def _pvt(config: Mapping[str, Any]) -> list[Found]:
    """A table at the entry of each stage, whose grid is that of its patches; the last has a class token."""
    height, width = sides(config, "image_size")
    found: list[Found] = []
    stages = list(_by_stage(config, "num_attention_heads"))
    patches, widths = (need_sizes(config, key, len(stages)) for key in ("patch_sizes", "hidden_sizes"))
    for stage, layers, _ in stages:
        shrunk = 1 if stage == 0 else 2 ** (stage + 1)
        grid = patch_grid({"image_size": (height // shrunk, width // shrunk), "patch_size": patches[stage]})
        table = learned_grid(widths[stage], grid, int(stage == len(patches) - 1))
        found.append((f"stage {stage}", layers, table, None, ()))
    return found


def _yolos(config: Mapping[str, Any]) -> list[Found]:
    """A table, and another one for each layer but the first if asked."""
    ends = need_size(config, "num_detection_tokens")
    table = learned_grid(int(need(config, "hidden_size")), patch_grid(config), 1 + ends)
    note = (
        f"the rows of the {ends} detection tokens are the last of the checkpoint's table, and come after the first here"
    )
    layers = all_layers(config)
    found: list[Found] = [("table", layers, table, None, (note,))]
    if config.get("use_mid_position_embeddings") and len(layers) > 1:
        found.append(("between layers", layers[1:], table, None, ("each of these layers adds its own table", note)))
    return found


def _vilt(config: Mapping[str, Any]) -> list[Found]:
    dim, layers = int(need(config, "hidden_size")), all_layers(config)
    with torch.device("meta"):
        text = Learned(dim, length=int(need(config, "max_positions")))
    note = "the table is interpolated to the grid of each image, bilinear with its corners kept"
    return [
        ("text", layers, text, text.length, ()),
        ("image", layers, learned_grid(dim, patch_grid(config), 1), None, (note,)),
    ]


def _timesformer(config: Mapping[str, Any]) -> list[Found]:
    dim, layers = int(need(config, "hidden_size")), all_layers(config)
    found: list[Found] = [("space", layers, learned_grid(dim, patch_grid(config), 1), None, ())]
    if config.get("attention_type") != "space_only":
        found.append(("time", layers, *_of_frames(dim, config)))
    return found


def _videoprism(config: Mapping[str, Any]) -> list[Found]:
    dim, (_, tall, wide) = int(need(config, "hidden_size")), need_sizes(config, "tubelet_size", 3)[:3]
    grid = patch_grid({**config, "patch_size": [tall, wide]})
    spatial, temporal = (need_size(config, f"num_{kind}_layers") for kind in ("spatial", "temporal"))
    return [
        ("space", tuple(range(spatial)), learned_grid(dim, grid), None, ()),
        ("time", tuple(range(temporal)), *_of_frames(dim, config)),
    ]


def _of_frames(dim: int, config: Mapping[str, Any]) -> tuple[Learned, int, tuple[str, ...]]:
    with torch.device("meta"):
        table = Learned(dim, length=need_size(config, "num_frames"))
    return table, table.length, ("a row for each frame, which all its patches get",)


def _videomae(config: Mapping[str, Any]) -> list[Found]:
    note = "places count the patches frame by frame, row by row: the sinusoids know no rows and columns"
    sinusoids = Sinusoidal(int(need(config, "hidden_size")))
    return [("", all_layers(config), sinusoids, video_shape(config)[0] * _area(config), (note,))]


def _vivit(config: Mapping[str, Any]) -> list[Found]:
    frames, rows, columns = video_shape(config, "tubelet_size")
    with torch.device("meta"):
        table = Learned(int(need(config, "hidden_size")), length=1 + frames * rows * columns)
    note = f"the class token, then {frames} x {rows} x {columns} tubelets: frames, rows, columns"
    return [("", all_layers(config), table, table.length, (note,))]


def video_shape(config: Mapping[str, Any], key: str = "") -> tuple[int, int, int]:
    """Frames, rows and columns of a video's tubelets."""
    if key:
        deep, tall, wide = need_sizes(config, key, 3)[:3]
    else:
        deep, (tall, wide) = need_size(config, "tubelet_size"), sides(config, "patch_size")
    if min(deep, tall, wide) < 1:
        raise ValueError(f"describe: tubelet_size is {deep} x {tall} x {wide}, expected numbers above 0; correct it.")
    height, width = sides(config, "image_size")
    return need_size(config, "num_frames") // deep, height // tall, width // wide


def _area(config: Mapping[str, Any]) -> int:
    rows, columns = patch_grid(config)
    return rows * columns


READERS: dict[str, Reader] = {
    **dict.fromkeys(TABLES, _table),
    "audio-spectrogram-transformer": _spectrogram,
    **dict.fromkeys(names("beit data2vec-vision"), _beit),
    **dict.fromkeys(names("donut-swin maskformer-swin swin"), _swin),
    "clap_audio_model": _clap,
    **dict.fromkeys(names("swin2sr swinv2"), _swin_v2),
    **dict.fromkeys(
        names("""
            deepseek_ocr2_sam_vision_model got_ocr2_vision pp_formulanet_vision sam_hq_vision_model sam_vision_model
            slanext_vision unlimited_ocr_sam_vision_model
        """),
        _sam,
    ),
    "levit": _levit,
    "pvt": _pvt,
    "seggpt": _seggpt,
    "timesformer": _timesformer,
    "videomae": _videomae,
    "videoprism_vision_model": _videoprism,
    "vilt": _vilt,
    "vit_mae": _vit_mae,
    "vitdet": _vitdet,
    "vivit": _vivit,
    "yolos": _yolos,
}

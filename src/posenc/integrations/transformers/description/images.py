"""Image, video and audio models whose patches have a table or a bias for each offset, by model type."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

from posenc import Learned, Sinusoidal
from posenc.embeddings import LearnedGrid, SinusoidalGrid
from posenc.encoding import Encoding
from posenc.integrations.transformers.description.config import need, need_key
from posenc.integrations.transformers.description.layers import all_layers
from posenc.integrations.transformers.description.model_types import names
from posenc.scores import DecomposedBias, SwinBias, SwinV2Bias

#: (kind, layers, encoding, length, notes)
Found: TypeAlias = tuple[str, tuple[int, ...], Encoding, int | None, tuple[str, ...]]
Reader: TypeAlias = Callable[[Mapping[str, Any]], list[Found] | None]

#: Tables with a row for each patch, and how many rows come before them.
PREFIX: dict[str, int] = {
    **dict.fromkeys(
        names("""
            aimv2_vision_model ijepa janus_vision_model minicpmv4_7_vision minicpm_ocr_vision siglip_vision_model
        """),
        0,
    ),
    **dict.fromkeys(
        names("""
            altclip_vision_model blip_2_vision_model blip_vision_model chinese_clip_vision_model clip_vision_model
            clipseg_vision_model dinov2 dinov2_with_registers dpt git_vision_model instructblip_vision_model
            instructblipvideo_vision_model internvl_vision kosmos_2_vision_model metaclip_2_vision_model
            owlv2_vision_model owlvit_vision_model qianfan_ocr_vision tipsv2_vision_model vit vit_msn
            xclip_vision_model
        """),
        1,
    ),
    "deit": 2,
}

#: Tables that are read at the coordinates of each image's patches, whatever its size.
AT_FRACTIONS = names("idefics2_vision idefics3_vision smolvlm_vision")


def sides(config: Mapping[str, Any], key: str) -> tuple[int, int]:
    """(height, width) of a key that is one number or two.

    Raises:
        ValueError: something else.
    """
    value = need_key(config, key)
    pair = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or not 0 < n < 1 << 24 for n in pair):
        raise ValueError(f"describe: {key} is {value!r}, expected pixels, one number or [height, width]; correct it.")
    return pair[0], pair[1]


def patch_grid(config: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of patches in an image of the config's size."""
    (height, width), (tall, wide) = sides(config, "image_size"), sides(config, "patch_size")
    rows, columns = height // tall, width // wide
    if not rows * columns:
        raise ValueError(
            f"describe: image_size {config['image_size']} holds no patch of patch_size {config['patch_size']}; correct "
            "one of them."
        )
    return rows, columns


def _grid(config: Mapping[str, Any], grid: tuple[int, int], prefix: int) -> LearnedGrid:
    with torch.device("meta"):  # a config has no weights
        return LearnedGrid(int(need(config, "hidden_size")), grid=grid, prefix=prefix)


def _table(config: Mapping[str, Any]) -> list[Found]:
    encoding = _grid(config, patch_grid(config), PREFIX[str(config["model_type"])])
    return [("", all_layers(config), encoding, None, ())]


def _at_fractions(config: Mapping[str, Any]) -> list[Found]:
    note = "an image of another shape takes the rows that lie nearest to its patches' places, as shares of a side"
    return [("", all_layers(config), _grid(config, patch_grid(config), 0), None, (note,))]


def _siglip2(config: Mapping[str, Any]) -> list[Found]:
    rows = int(need_key(config, "num_patches"))
    side = round(max(rows, 0) ** 0.5)
    if side < 1 or side * side != rows:
        raise ValueError(f"describe: num_patches is {rows}, expected a square: the sides of the table are equal.")
    note = "the table is read at the grid of each image, bilinear with antialias"
    return [("", all_layers(config), _grid(config, (side, side), 0), None, (note,))]


def _spectrogram(config: Mapping[str, Any]) -> list[Found]:
    note = "rows are frequency, columns are time, and patches overlap"
    return [("", all_layers(config), _grid(config, spectrogram_grid(config), 2), None, (note,))]


def spectrogram_grid(config: Mapping[str, Any]) -> tuple[int, int]:
    """Rows of frequency and columns of time of AST's patches."""
    patch = int(need_key(config, "patch_size"))
    rows = (int(need_key(config, "num_mel_bins")) - patch) // int(need_key(config, "frequency_stride")) + 1
    columns = (int(need_key(config, "max_length")) - patch) // int(need_key(config, "time_stride")) + 1
    if rows < 1 or columns < 1:
        raise ValueError("describe: num_mel_bins or max_length holds no patch of patch_size; correct one of them.")
    return rows, columns


def _vit_mae(config: Mapping[str, Any]) -> list[Found]:
    note = "the class token gets no code"
    encoding = SinusoidalGrid.as_in("mae", int(need(config, "hidden_size")))
    return [("", all_layers(config), encoding, None, (note,))]


def _sam(config: Mapping[str, Any]) -> list[Found]:
    """A table of places, and biases of rows and columns within windows and, in some layers, over the whole image."""
    grid, layers = patch_grid(config), all_layers(config)
    found: list[Found] = []
    if config.get("use_abs_pos"):
        found.append(("table", layers, _grid(config, grid, 0), None, ()))
    if config.get("use_rel_pos"):
        heads = int(need(config, "num_heads"))
        everywhere = tuple(int(i) for i in config.get("global_attn_indexes") or ())
        window = int(need_key(config, "window_size"))
        for label, chosen, sizes in (
            ("window", tuple(i for i in layers if i not in everywhere), (window, window) if window else grid),
            ("whole image", everywhere, grid),
        ):
            with torch.device("meta"):
                bias = DecomposedBias(heads, int(need(config, "hidden_size")) // heads, window=sizes)
            if chosen:
                found.append((label, chosen, bias, None, ()))
    return found


def _beit(config: Mapping[str, Any]) -> list[Found] | None:
    """Up to three at once: a table of places, and biases by offset of each layer or of all."""
    grid, layers = patch_grid(config), all_layers(config)
    found: list[Found] = []
    if config.get("use_absolute_position_embeddings"):
        found.append(("table", layers, _grid(config, grid, 1), None, ()))
    for key, note in (
        ("use_relative_position_bias", "each layer has biases of its own"),
        ("use_shared_relative_position_bias", "all layers share one table of biases"),
    ):
        if config.get(key):
            with torch.device("meta"):
                bias = SwinBias(int(need(config, "num_heads")), window=grid, prefix=1)
            found.append(("biases", layers, bias, None, (note,)))
    return found or None


def _by_stage(config: Mapping[str, Any]) -> list[tuple[int, tuple[int, ...], int]]:
    """(stage, its layers, its heads)"""
    depths, heads = need_key(config, "depths"), need_key(config, "num_heads")
    if not isinstance(depths, (list, tuple)) or not isinstance(heads, (list, tuple)) or len(depths) != len(heads):
        raise ValueError(f"describe: depths is {depths!r} and num_heads {heads!r}, expected a list for each stage.")
    stages, first = [], 0
    for stage, (depth, number) in enumerate(zip(depths, heads, strict=True)):
        stages.append((stage, tuple(range(first, first + int(depth))), int(number)))
        first += int(depth)
    return stages


def _swin(config: Mapping[str, Any]) -> list[Found]:
    window = int(need_key(config, "window_size"))
    found: list[Found] = []
    if config.get("use_absolute_embeddings"):
        grid = _grid({**config, "hidden_size": need_key(config, "embed_dim")}, patch_grid(config), 0)
        found.append(("table", tuple(range(sum(config["depths"]))), grid, None, ()))
    for stage, layers, heads in _by_stage(config):
        with torch.device("meta"):
            bias = SwinBias(heads, window=(window, window))
        found.append((f"stage {stage}", layers, bias, None, ("tokens are places in a window, which shifts by halves",)))
    return found


def _swin_v2(config: Mapping[str, Any]) -> list[Found]:
    """Windows are cut to the grid of their stage."""
    grid, window = patch_grid(config), int(need_key(config, "window_size"))
    before = config.get("pretrained_window_sizes") or [0] * len(need_key(config, "depths"))
    found: list[Found] = []
    for stage, layers, heads in _by_stage(config):
        here = min(window, *(max(side >> stage, 1) for side in grid))
        trained = int(before[stage]) or here
        with torch.device("meta"):
            bias = SwinV2Bias(heads, window=(here, here), trained_window=(trained, trained))
        found.append((f"stage {stage}", layers, bias, None, ("tokens are places in a window, which shifts by halves",)))
    return found


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
    size = need_key(config, "tubelet_size")
    deep, tall, wide = (int(n) for n in (size if key else (size, *sides(config, "patch_size"))))
    height, width = sides(config, "image_size")
    return int(need_key(config, "num_frames")) // deep, height // tall, width // wide


def _area(config: Mapping[str, Any]) -> int:
    rows, columns = patch_grid(config)
    return rows * columns


READERS: dict[str, Reader] = {
    **dict.fromkeys(PREFIX, _table),
    **dict.fromkeys(AT_FRACTIONS, _at_fractions),
    "siglip2_vision_model": _siglip2,
    "audio-spectrogram-transformer": _spectrogram,
    **dict.fromkeys(names("beit data2vec-vision"), _beit),
    **dict.fromkeys(names("donut-swin maskformer-swin swin"), _swin),
    "swinv2": _swin_v2,
    **dict.fromkeys(names("sam_hq_vision_model sam_vision_model"), _sam),
    "videomae": _videomae,
    "vit_mae": _vit_mae,
    "vivit": _vivit,
}

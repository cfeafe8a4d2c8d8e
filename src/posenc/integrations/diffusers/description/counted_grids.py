"""Tables made from the sides of an image or a video: the module counts frames, rows and columns itself."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from posenc import AxialRoPE, MixedRoPE
from posenc.frequencies import NTK, Frequencies, Geometric, Logspaced
from posenc.integrations.diffusers.description.coordinates import (
    chronoedit,
    cogvideox,
    cogview4,
    cosmos,
    easyanimate,
    framepack,
    helios,
    hunyuandit,
    in_latents,
    joyimage,
    kandinsky,
    ltx,
    ltx2,
    mochi,
    qwen,
    qwen21,
    small_image,
    small_kandinsky,
    small_video,
)
from posenc.integrations.diffusers.description.tables import (
    TIME_HEIGHT_WIDTH,
    Row,
    axial,
    complex_numbers,
    cos_and_sin,
    halves,
    matrices,
    neighbours,
    product,
    steps,
    thirds,
)

_PATCH = "counted in patches of the latents"
_HUNYUAN_VIDEO = Row(
    encoding=lambda module, model: axial(module.rope_dim, module.theta),
    axes=TIME_HEIGHT_WIDTH,
    positions=f"frame, row and column, {_PATCH}; text is not rotated",
    coordinates=in_latents,
    written=cos_and_sin(neighbours),
    probe=small_video,
)


_WAN = Row(
    encoding=lambda module, model: axial(thirds(module.attention_head_dim), 10_000),
    axes=TIME_HEIGHT_WIDTH,
    positions=f"frame, row and column, {_PATCH}",
    coordinates=in_latents,
    written=cos_and_sin(lambda table: neighbours(table)[None, :, None]),
    probe=small_video,
    ends=lambda module: (module.max_seq_len,) * 3,
)


_COGVIEW4 = Row(
    encoding=lambda module, model: axial((module.dim // 2,) * 2, module.theta, layout="half"),
    axes=("height", "width"),
    positions="row and column, spread over the sides of the table and rounded down; text is not rotated",
    coordinates=cogview4,
    written=cos_and_sin(halves),
    probe=small_image,
)


def _cosmos_rules(scales: Sequence[float]) -> tuple[Frequencies, ...]:
    return tuple(Geometric() if scale == 1 else NTK(float(scale)) for scale in scales)


_COSMOS = Row(
    encoding=lambda module, model: axial(
        (module.dim_t, module.dim_h, module.dim_w), _cosmos_rules(model.config.rope_scale), layout="half"
    ),
    axes=TIME_HEIGHT_WIDTH,
    positions="frame in 24ths of a second, row and column in patches",
    coordinates=cosmos,
    written=cos_and_sin(halves),
    probe=lambda module: {**small_video(module), "fps": 30},
    ends=lambda module: (max(module.max_size),) * 3,
)


_QWEN = Row(
    encoding=lambda module, model: axial(module.axes_dim, module.theta),
    axes=TIME_HEIGHT_WIDTH,
    positions="image tokens at (number of the image, row, column), counted from the middle, so that rows and columns "
    "above and left of it are negative; text tokens after the largest, the same on all axes",
    coordinates=qwen,
    written=lambda module, tables: tuple(complex_numbers(pair) for pair in tables),
    probe=lambda module: {"video_fhw": [[(1, 4, 3), (1, 2, 5)]], "max_txt_seq_len": 6, "device": torch.device("cpu")},
    ends=lambda module: (module.pos_freqs.shape[0],) * 3,
    notes=("past the end of its table the module gives fewer rows than tokens, without an error",),
)


def _ltx_rule(module: Any) -> Logspaced:
    return Logspaced(math.pi / 2, math.pi / 2 * module.theta)


def _in_one_row(module: Any, axes: int) -> AxialRoPE:
    """All channels of all heads as one ladder; those that the axes cannot share come first and stand still."""
    over = module.dim % (2 * axes)
    return AxialRoPE(
        module.dim,
        axes=axes,
        layout="interleaved_alternating",
        frequencies=_ltx_rule(module),
        rotary_dim=module.dim - over,
        rotary_start=over,
    )


def _ltx2(module: Any, model: Any) -> AxialRoPE:
    axes = 1 if module.modality == "audio" or module is getattr(model, "cross_attn_rope", None) else 3
    if module.rope_type == "interleaved":
        return _in_one_row(module, axes)
    heads = module.num_attention_heads
    return AxialRoPE(
        module.dim // heads,
        axes=axes,
        layout="half_across_heads",
        frequencies=_ltx_rule(module),
        num_kv_heads=heads,
    )


def _after_padding(module: Any, tables: list[Any]) -> Any:
    """Behind the channels that stand still."""
    cos, sin = (neighbours(table) for table in tables[0])
    over = (module.dim - cos.shape[-1], 0)
    return torch.nn.functional.pad(cos, over, value=1.0), torch.nn.functional.pad(sin, over)


def _mochi(module: Any, model: Any) -> MixedRoPE:
    rates = model.pos_frequencies
    encoding = MixedRoPE(2 * rates.shape[2], num_heads=rates.shape[1], axes=3)
    encoding.rates = rates
    return encoding


def _joined(module: Any, tables: list[Any]) -> Tensor:
    """All cosines, then all sines, as channels of an image."""
    return torch.cat([neighbours(table) for table in tables[0]], dim=-1).movedim(-1, 1)


def _cogvideox_widths(dim: int) -> tuple[int, int, int]:
    return dim // 4, dim // 8 * 3, dim // 8 * 3


_BY_PIPELINE = "the pipeline makes the tables and gives them to the model"


_COGVIDEOX = Row(
    encoding=lambda module, model: axial(_cogvideox_widths(model.config.attention_head_dim), 10_000),
    axes=TIME_HEIGHT_WIDTH,
    positions="frame; row and column stretched to the part of the trained grid that has their shape (1.0), or "
    "counted in patches (1.5); text is not rotated",
    coordinates=cogvideox,
    written=cos_and_sin(neighbours),
    probe=lambda model: {},
    argument="image_rotary_emb",
    applies=lambda model: bool(model.config.use_rotary_positional_embeddings),
    notes=(_BY_PIPELINE,),
)


_HUNYUAN_DIT = Row(
    # The first half of a head turns by the column.
    encoding=lambda module, model: AxialRoPE(
        model.config.attention_head_dim, axes=2, layout="interleaved", order=(1, 0)
    ),
    axes=("height", "width"),
    positions="row and column stretched to the part of a grid of 32 by 32 that has their shape; text is not rotated",
    coordinates=hunyuandit,
    written=cos_and_sin(neighbours),
    argument="image_rotary_emb",
    notes=(_BY_PIPELINE,),
)


def _squared(table: Tensor) -> Tensor:
    side = math.isqrt(len(table))
    return table.reshape(side, side, -1)


_KANDINSKY = Row(
    encoding=lambda module, model: axial(module.axes_dims, module.max_period),
    axes=TIME_HEIGHT_WIDTH,
    positions="frame, row and column from the pipeline, over its scale_factor",
    coordinates=kandinsky,
    written=lambda module, tables: matrices(tables[0]).unsqueeze(-4),
    probe=small_kandinsky,
    ends=lambda module: tuple(module.max_pos),
)


#: Class of the module, or of the model where the pipeline makes the tables -> its row.
COUNTED_GRIDS: dict[str, Row] = {
    **dict.fromkeys(
        ("HunyuanVideoRotaryPosEmbed", "HunyuanVideo15RotaryPosEmbed", "MotifVideoRotaryPosEmbed"), _HUNYUAN_VIDEO
    ),
    "HunyuanImageRotaryPosEmbed": replace(
        _HUNYUAN_VIDEO,
        axes=("height", "width"),
        positions=f"row and column, {_PATCH}; text is not rotated",
        probe=small_image,
    ),
    "HunyuanVideoFramepackRotaryPosEmbed": replace(
        _HUNYUAN_VIDEO,
        positions=f"the frame's index from the pipeline, row and column, {_PATCH}; text is not rotated",
        coordinates=framepack,
        probe=lambda module: {
            "frame_indices": torch.tensor([0, 7, 9]),
            "height": 4 * module.patch_size,
            "width": 5 * module.patch_size,
            "device": torch.device("cpu"),
        },
    ),
    **dict.fromkeys(("WanRotaryPosEmbed", "SkyReelsV2RotaryPosEmbed"), _WAN),
    "ChronoEditRotaryPosEmbed": replace(
        _WAN,
        coordinates=chronoedit,
        positions=f"frame, row and column, {_PATCH}; of two frames the second one is at the end of temporal_skip_len",
        probe=lambda module: {
            "hidden_states": torch.zeros(1, 2, 2, 4 * module.patch_size[1], 5 * module.patch_size[2])
        },
    ),
    "AnyFlowRotaryPosEmbed": replace(
        _WAN,
        coordinates=lambda module, call: [
            product(
                *(
                    steps(n, call.get("device"))
                    for n in (call["layout_cfg"]["total_frames"], *call["layout_cfg"]["full_frame_shape"])
                )
            )
        ],
        written=lambda module, tables: dict.fromkeys(("query", "key"), torch.complex(*tables[0])[None, None]),
        probe=lambda module: {
            "layout_cfg": {"total_frames": 3, "full_frame_shape": (4, 5)},
            "device": torch.device("cpu"),
        },
    ),
    "SanaWMRotaryPosEmbed": replace(
        _WAN,
        coordinates=lambda module, call: [product(*(steps(n, call.get("device")) for n in call["fhw"]))],
        written=lambda module, tables: complex_numbers(tables[0])[None, None],
        probe=lambda module: {"fhw": (3, 4, 5), "device": torch.device("cpu")},
    ),
    "CogView4RotaryPosEmbed": _COGVIEW4,
    "GlmImageRotaryPosEmbed": replace(
        _COGVIEW4, coordinates=in_latents, positions=f"row and column, {_PATCH}; text is not rotated"
    ),
    "CosmosRotaryPosEmbed": _COSMOS,
    "QwenEmbedRope": _QWEN,
    "NucleusMoEEmbedRope": _QWEN,
    "QwenEmbedLayer3DRope": replace(
        _QWEN,
        coordinates=lambda module, call: qwen(module, call, condition=True),
        positions="image tokens at (number of the layer, row, column), counted from the middle; the last image, which "
        "is the condition, at layer -1; text tokens after the largest, the same on all axes",
        probe=lambda module: {"video_fhw": [[(1, 4, 3), (1, 2, 5), (1, 2, 2)]], "max_txt_seq_len": 6, "device": None},
    ),
    "QwenImage21Rope": replace(
        _QWEN,
        coordinates=qwen21,
        written=lambda module, tables: complex_numbers(tables[0]),
        positions="text tokens in line, the same on all axes; image tokens at (place in the line, row, column), rows "
        "and columns counted from the middle",
        probe=lambda module: {
            "img_shapes": [(1, 4, 3)],
            "image_pad_mask": torch.tensor([0] * 4 + [1] * 12 + [0] * 3).bool(),
            "device": torch.device("cpu"),
        },
        ends=lambda module: tuple(table.shape[0] - 1024 for table in module.freqs),
    ),
    "LTXVideoRotaryPosEmbed": Row(
        encoding=lambda module, model: _in_one_row(module, 3),
        axes=TIME_HEIGHT_WIDTH,
        positions="frame, row and column, each times its scale and over its base, from -1 to 1 over the base",
        coordinates=ltx,
        written=_after_padding,
        probe=lambda module: {
            "hidden_states": torch.zeros(2, 60, 4),
            "num_frames": 3,
            "height": 4,
            "width": 5,
            "rope_interpolation_scale": (8 / 25, 32, 32),
        },
        notes=("one set of rates covers the channels of all heads: they are rotated before heads are split",),
    ),
    **dict.fromkeys(
        ("LTX2AudioVideoRotaryPosEmbed", "SanaWMLTX2AudioVideoRotaryPosEmbed"),
        Row(
            encoding=_ltx2,
            axes=TIME_HEIGHT_WIDTH,
            positions="the middle of each patch in seconds and pixels, from -1 to 1 over the base; sound in seconds",
            coordinates=ltx2,
            written=lambda module, tables: (
                _after_padding(module, tables)
                if module.rope_type == "interleaved"
                else cos_and_sin(Tensor.float)(module, tables)
            ),
            given=lambda encoding: {"coords": 3 * torch.rand(2, encoding.coordinates or 1, 7, 2)},
            names=lambda encoding: TIME_HEIGHT_WIDTH[: encoding.coordinates],
            notes=("with rope_type 'split' one set of rates covers all heads, so each head has its own rates",),
        ),
    ),
    "MochiRoPE": Row(
        encoding=_mochi,
        axes=TIME_HEIGHT_WIDTH,
        positions="frame; row and column from the middle of an image of the trained area; text is not rotated",
        coordinates=mochi,
        written=cos_and_sin(lambda table: table.transpose(0, 1).float()),
        probe=lambda module: {"num_frames": 3, "height": 4, "width": 5, "dtype": torch.float32},
        given=lambda encoding: {"pos_frequencies": encoding.rates},
        notes=("the rates are weights of the model: a direction in time and space for each pair of each head",),
    ),
    "HeliosRotaryPosEmbed": Row(
        encoding=lambda module, model: axial((module.DT, module.DY, module.DX), module.theta),
        axes=TIME_HEIGHT_WIDTH,
        positions=f"the frame's index from the pipeline, row and column, {_PATCH}",
        coordinates=helios,
        written=_joined,
        probe=lambda module: {
            "frame_indices": torch.tensor([[5, 6, 7]]),
            "height": 4,
            "width": 5,
            "device": torch.device("cpu"),
        },
    ),
    "EasyAnimateRotaryPosEmbed": replace(
        _HUNYUAN_VIDEO,
        encoding=lambda module, model: axial(_cogvideox_widths(module.rope_dim), 10_000),
        positions="frame; row and column stretched to the part of a grid of 60 by 90 that has their shape; text is not "
        "turned",
        coordinates=easyanimate,
    ),
    **dict.fromkeys(("CogVideoXTransformer3DModel", "ConsisIDTransformer3DModel"), _COGVIDEOX),
    **dict.fromkeys(("HunyuanDiT2DModel", "HunyuanDiT2DControlNetModel"), _HUNYUAN_DIT),
    "LuminaNextDiT2DModel": Row(
        encoding=lambda module, model: AxialRoPE(model.head_dim, layout="interleaved_alternating"),
        axes=("height", "width"),
        positions=f"row and column, {_PATCH}; text is not rotated",
        coordinates=lambda model, call: [product(*(steps(n) for n in call["image_rotary_emb"].shape[:2]))],
        written=lambda model, tables: _squared(complex_numbers(tables[0])),
        argument="image_rotary_emb",
        ends=lambda model: (384, 384),
        notes=(
            _BY_PIPELINE,
            "the pipeline stretches them for images that are larger than its default size, by the step",
        ),
    ),
    "JoyImageEditTransformer3DModel": Row(
        encoding=lambda module, model: axial(model.rope_dim_list, model.theta),
        axes=TIME_HEIGHT_WIDTH,
        positions=f"frame, row and column, {_PATCH}; with rope_type 'mrope' text after the largest, on all axes",
        coordinates=joyimage,
        written=lambda module, tables: (*(cos_and_sin(neighbours)(module, [pair]) for pair in tables), None)[:2],
        probe=lambda model: {"vis_rope_size": [3, 4, 5], "txt_rope_size": 6},
        method="get_rotary_pos_embed",
    ),
    "Kandinsky5RoPE3D": replace(_KANDINSKY, probe=lambda module: {"shape": (1, 3, 4, 5), **small_kandinsky(module)}),
    **dict.fromkeys(
        ("Kandinsky6RoPE3D", "Kandinsky6SRRoPE3D"),
        _KANDINSKY,
    ),
}

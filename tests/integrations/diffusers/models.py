"""Small models of diffusers with random weights, and something to run each of them on.

Widths are small and odd, so that a wrong axis shows; grids are not square; positions are those of the pipelines.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Inputs = dict[str, Any]


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def tokens(*shape: int) -> Tensor:
    return torch.randint(1, 20, shape, generator=torch.Generator().manual_seed(sum(shape)))


def grid(*sides: int, first: int = 0, axes: int = 3) -> Tensor:
    """The coordinates of an image or video, row by row, behind as many zeros as make up the axes."""
    places = torch.cartesian_prod(*(torch.arange(side) for side in sides))
    leading = torch.zeros(len(places), axes - len(sides), dtype=places.dtype)
    ids = torch.cat([leading, places], dim=1)
    ids[:, 0] += first
    return ids.float()


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


class Small(NamedTuple):
    """A class of diffusers, the options of its constructor, and its inputs."""

    cls: str
    options: dict[str, Any]
    inputs: Callable[[], Inputs]


TIME = torch.tensor([500.0])
_FLUX = {"in_channels": 4, "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "joint_attention_dim": 8}
_FLUX |= {"attention_head_dim": 20, "axes_dims_rope": (4, 6, 10)}
_WAN = {"num_attention_heads": 2, "attention_head_dim": 22, "in_channels": 4, "out_channels": 4, "text_dim": 8}
_WAN |= {"freq_dim": 8, "ffn_dim": 16, "num_layers": 1, "rope_max_seq_len": 32}
_HUNYUAN = {"in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 20, "num_layers": 1}
_HUNYUAN |= {
    "num_refiner_layers": 1,
    "patch_size": 1,
    "patch_size_t": 1,
    "text_embed_dim": 8,
    "rope_axes_dim": (4, 6, 10),
}


def _flux(**more: Any) -> Inputs:
    ids = {"img_ids": grid(4, 3), "txt_ids": torch.zeros(5, 3)}
    return {
        "hidden_states": numbers(1, 12, 4),
        "encoder_hidden_states": numbers(1, 5, 8),
        "timestep": TIME,
        **ids,
        **more,
    }


def _video(channels: int = 4, **more: Any) -> Inputs:
    hidden = {"hidden_states": numbers(1, channels, 3, 8, 6), "encoder_hidden_states": numbers(1, 5, 8)}
    return {**hidden, "timestep": TIME, **more}


def _qwen(**more: Any) -> Inputs:
    hidden = {"hidden_states": numbers(1, 12, 16), "encoder_hidden_states": numbers(1, 5, 8), "timestep": TIME}
    return {**hidden, "encoder_hidden_states_mask": torch.ones(1, 5).long(), "img_shapes": [[(1, 4, 3)]], **more}


#: A family of must-haves: what every quick test runs on.
FAMILIES: dict[str, Small] = {
    "flux": Small(
        "FluxTransformer2DModel",
        _FLUX | {"pooled_projection_dim": 8},
        lambda: _flux(pooled_projections=numbers(1, 8)),
    ),
    "flux2": Small(
        "Flux2Transformer2DModel",
        _FLUX | {"axes_dims_rope": (4, 4, 6, 6), "rope_theta": 2000},
        lambda: _flux(
            img_ids=torch.cat([grid(4, 3, first=10), torch.zeros(12, 1)], 1)[None],
            txt_ids=torch.cat([torch.zeros(5, 3), torch.arange(5.0)[:, None]], 1)[None],
            guidance=TIME,
        ),
    ),
    "wan": Small("WanTransformer3DModel", _WAN, _video),
    "hunyuan_video": Small(
        "HunyuanVideoTransformer3DModel",
        _HUNYUAN | {"num_single_layers": 1, "pooled_projection_dim": 8, "guidance_embeds": True},
        lambda: _video(encoder_attention_mask=ones(1, 5), pooled_projections=numbers(1, 8), guidance=TIME),
    ),
    "cogvideox": Small(
        "CogVideoXTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 2,
            "text_embed_dim": 8,
            "num_layers": 1,
            "sample_width": 8,
            "sample_height": 6,
            "sample_frames": 9,
            "max_text_seq_length": 5,
            "use_rotary_positional_embeddings": True,
        },
        lambda: {
            "hidden_states": numbers(1, 3, 4, 6, 8),
            "encoder_hidden_states": numbers(1, 5, 8),
            "timestep": TIME,
            "image_rotary_emb": _cogvideox_tables(),
        },
    ),
    "qwenimage": Small(
        "QwenImageTransformer2DModel",
        {
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 1,
            "attention_head_dim": 20,
            "num_attention_heads": 2,
            "joint_attention_dim": 8,
            "axes_dims_rope": (4, 6, 10),
        },
        _qwen,
    ),
    "z_image": Small(
        "ZImageTransformer2DModel",
        {
            "in_channels": 4,
            "dim": 40,
            "n_layers": 1,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 8,
            "axes_dims": [4, 6, 10],
            "axes_lens": [64, 32, 32],
        },
        lambda: {"x": [numbers(4, 1, 8, 6)], "cap_feats": [numbers(5, 8)], "t": torch.tensor([0.5])},
    ),
    "ltx": Small(
        "LTXVideoTransformer3DModel",
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "cross_attention_dim": 32,
            "num_layers": 1,
            "caption_channels": 8,
        },
        lambda: {
            "hidden_states": numbers(1, 36, 4),
            "encoder_hidden_states": numbers(1, 5, 8),
            "timestep": TIME,
            "encoder_attention_mask": ones(1, 5),
            "num_frames": 3,
            "height": 4,
            "width": 3,
            "rope_interpolation_scale": (8 / 25, 32, 32),
        },
    ),
    "lumina2": Small(
        "Lumina2Transformer2DModel",
        {
            "sample_size": 16,
            "in_channels": 4,
            "hidden_size": 60,
            "num_layers": 1,
            "num_refiner_layers": 1,
            "num_attention_heads": 3,
            "num_kv_heads": 1,
            "multiple_of": 2,
            "axes_dim_rope": (4, 6, 10),
            "axes_lens": (64, 32, 32),
            "cap_feat_dim": 8,
        },
        lambda: {
            "hidden_states": numbers(2, 4, 8, 6),
            "encoder_hidden_states": numbers(2, 5, 8),
            "timestep": torch.tensor([0.5, 0.2]),
            "encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool(),
        },
    ),
    "mochi": Small(
        "MochiTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 1,
            "pooled_projection_dim": 8,
            "in_channels": 4,
            "text_embed_dim": 8,
            "time_embed_dim": 4,
            "max_sequence_length": 5,
        },
        lambda: _video(encoder_attention_mask=ones(1, 5)),
    ),
    "cosmos": Small(
        "CosmosTransformer3DModel",
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 22,
            "num_layers": 1,
            "mlp_ratio": 2,
            "text_embed_dim": 8,
            "adaln_lora_dim": 4,
            "max_size": (4, 32, 32),
            "rope_scale": (2.0, 1.0, 1.0),
            "concat_padding_mask": False,  # which needs torchvision
            "extra_pos_embed_type": None,
        },
        lambda: _video(attention_mask=torch.ones(1, 5), fps=30),
    ),
    "omnigen": Small(
        "OmniGenTransformer2DModel",
        {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 16,
            "num_layers": 1,
            "pad_token_id": 0,
            "vocab_size": 20,
            "in_channels": 4,
            "time_step_dim": 4,
            "rope_scaling": {
                "short_factor": [1.0 + i / 8 for i in range(8)],
                "long_factor": [2.0 + i for i in range(8)],
            },
        },
        lambda: {
            "hidden_states": numbers(1, 4, 8, 6),
            "timestep": torch.tensor([0.5]),
            "input_ids": tokens(1, 5),
            "input_img_latents": [],
            "input_image_sizes": {},
            "attention_mask": torch.ones(1, 18, 18),
            "position_ids": torch.arange(18)[None],
        },
    ),
}

#: Not accelerated, for a reason that is given.
REFUSED: dict[str, Small] = {
    "ernie_image": Small(
        "ErnieImageTransformer2DModel",
        {
            "hidden_size": 20,
            "num_attention_heads": 1,
            "num_layers": 1,
            "ffn_hidden_size": 16,
            "in_channels": 4,
            "out_channels": 4,
            "patch_size": 1,
            "text_in_dim": 8,
            "rope_axes_dim": (8, 6, 6),
        },
        lambda: {
            "hidden_states": numbers(1, 4, 4, 3),
            "timestep": TIME,
            "text_bth": numbers(1, 5, 8),
            "text_lens": torch.tensor([5]),
        },
    ),
    "ideogram4": Small(
        "Ideogram4Transformer2DModel",
        {
            "in_channels": 4,
            "num_layers": 1,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "adaln_dim": 8,
            "llm_features_dim": 8,
            "mrope_section": (4, 2, 2),
        },
        lambda: {
            "hidden_states": numbers(1, 12, 4),
            "encoder_hidden_states": numbers(1, 12, 8),
            "timestep": torch.tensor([0.5]),
            "position_ids": grid(4, 3)[None].long(),
            "segment_ids": torch.zeros(1, 12).long(),
            "indicator": torch.ones(1, 12).long(),
        },
    ),
    "sd3": Small(
        "SD3Transformer2DModel",
        {
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "num_layers": 1,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "caption_projection_dim": 16,
            "joint_attention_dim": 8,
            "pooled_projection_dim": 8,
            "out_channels": 4,
            "pos_embed_max_size": 8,
        },
        lambda: {
            "hidden_states": numbers(1, 4, 8, 6),
            "encoder_hidden_states": numbers(1, 5, 8),
            "pooled_projections": numbers(1, 8),
            "timestep": TIME,
        },
    ),
}


def _cogvideox_tables() -> tuple[Tensor, Tensor]:
    """As the pipeline makes them: the model is given its tables."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    cos, sin = get_3d_rotary_pos_embed(16, ((0, 0), (3, 4)), (3, 4), 3, device="cpu")
    return cos, sin


def build(small: Small) -> Any:
    """The model, in evaluation, every weight of it a random number: a zero would hide what it multiplies."""
    import diffusers

    torch.manual_seed(0)
    model = getattr(diffusers, small.cls)(**small.options).eval()
    for parameter in model.parameters():
        if parameter.numel() and not parameter.detach().any():
            nn.init.normal_(parameter, std=0.05)
    return model


def outputs(model: Any, inputs: Inputs) -> list[Tensor]:
    """What the model gives, without gradients."""
    with torch.no_grad():
        return flat(model(**inputs))


def flat(output: Any) -> list[Tensor]:
    """The tensors in an output."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else ()
    return [tensor for part in parts for tensor in flat(part)]

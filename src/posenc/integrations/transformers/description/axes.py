"""Tokens with several coordinates: which pair reads which."""

from collections.abc import Mapping
from typing import Any

from posenc import AxialRoPE, MRoPE
from posenc.frequencies import Geometric
from posenc.integrations.transformers.description import model_types as models
from posenc.integrations.transformers.description.config import need, size
from posenc.integrations.transformers.rules.read import Rule
from posenc.kernels.rotate.eager import Pairing


def mrope(
    model_type: str, parameters: Mapping[str, Any], rule: Rule, *, head_dim: int, rotary_dim: int, pairing: Pairing
) -> MRoPE:
    """The rotation of a text model whose tokens have a time, a height and a width."""
    layout, default = models.SECTIONS[model_type]
    sections = tuple(parameters.get("mrope_section") or parameters.get("xdrope_section") or default)
    if layout == "time_last":
        sections = (sections[2], *sections[:2])
    return MRoPE(
        head_dim,
        sections=sections,
        layout=layout,  # type: ignore[arg-type]
        frequencies=rule.frequencies,
        pairing=pairing,
        rotary_dim=rotary_dim,
    )


def axial(model_type: str, config: Mapping[str, Any], parameters: Mapping[str, Any]) -> AxialRoPE:
    """The rotation of an image model."""
    layout, order = models.AXIAL[model_type]
    base = parameters.get("rope_theta", config.get("rope_theta"))
    if base is None:
        raise ValueError(f"describe: the config of {model_type!r} has no rope_theta; add it.")
    head_dim = _head_dim(config)
    axes = len(order)
    rotary_dim = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
    return AxialRoPE(
        head_dim,
        axes=axes,
        frequencies=Geometric(float(base)),
        layout=layout,  # type: ignore[arg-type]
        order=order,
        rotary_dim=rotary_dim - rotary_dim % (2 * axes),
    )


def _head_dim(config: Mapping[str, Any]) -> int:
    if "memory_attention_hidden_size" in config:  # the part of SAM 2 that rotates is its memory attention
        width = config["memory_attention_hidden_size"] // config["memory_attention_downsample_rate"]
        return int(width // config["memory_attention_num_attention_heads"])
    if "embed_dim" in config and config.get("model_type") == "qwen2_vl_vision":
        return int(config["embed_dim"] // need(config, "num_heads"))
    return int(size(config, "head_dim") or need(config, "hidden_size") // need(config, "num_heads"))

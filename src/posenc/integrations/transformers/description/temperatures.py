"""Temperatures that stand beside the rotation in a config."""

from collections.abc import Mapping
from typing import Any

from posenc import Compose, SSMax, Temperature
from posenc.encoding import Encoding
from posenc.integrations.transformers.description.config import need


def with_temperature(
    encoding: Encoding,
    model_type: str,
    config: Mapping[str, Any],
    parameters: Mapping[str, Any],
    *,
    rotated: bool,
) -> Encoding:
    """The encoding joined with the temperature of its layers, if they have one.

    That of DeepSeek's YaRN is not among them: it is part of the frequency rule.
    """
    temperature = _temperature(model_type, config, parameters, rotated=rotated)
    return encoding if temperature is None else Compose(encoding, temperature)


def _temperature(
    model_type: str, config: Mapping[str, Any], parameters: Mapping[str, Any], *, rotated: bool
) -> Encoding | None:
    if model_type == "llama4_text" and not rotated and config.get("attn_temperature_tuning"):
        return Temperature("llama4", length=config["floor_scale"], strength=config["attn_scale"])
    if model_type == "beam" and not rotated:
        return Temperature("power", length=2048, strength=0.1)
    if model_type == "mistral_large4_text":
        return SSMax(int(need(config, "num_heads")), form="affine")
    beta = parameters.get("llama_4_scaling_beta")
    if beta and model_type not in ("ministral3", "mistral4"):
        raise ValueError(f"describe: {model_type!r} does not read llama_4_scaling_beta; remove it.")
    if beta:
        length = parameters.get("original_max_position_embeddings")
        if length is None:
            raise ValueError(
                "describe: llama_4_scaling_beta needs original_max_position_embeddings, after which the temperature "
                "rises; add it."
            )
        return Temperature("mistral", length=length, strength=beta)
    return None

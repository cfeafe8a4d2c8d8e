"""Encodings written back into a Hugging Face config."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from posenc import AxialRoPE, MRoPE, NoPE, RoPE, SSMax, Temperature
from posenc.embeddings import LearnedGrid
from posenc.encoding import Encoding
from posenc.frequencies import DynamicNTK, Frequencies, Geometric, LearnedRates, Llama3, LongRoPE, Proportional, YaRN
from posenc.frequencies.arguments import check_instance
from posenc.integrations.transformers.description import model_types as models
from posenc.integrations.transformers.description.config_class import config_class
from posenc.integrations.transformers.description.description import Description, LayerGroup
from posenc.integrations.transformers.description.layers import is_nested, rotary_parameters
from posenc.integrations.transformers.description.normalise import normalise, spelled_out
from posenc.integrations.transformers.description.reader import describe
from posenc.integrations.transformers.rules.write import write_rule

#: Keys of older configs that the new ones stand for.
_OLD = (
    *("rope_scaling", "rope_theta", "rotary_emb_base", "rotary_pct", "partial_rotary_factor", "rope_local_base_freq"),
    *("global_rope_theta", "local_rope_theta", "original_max_position_embeddings", "rotary_dim"),
)

#: Their encoder and decoder are told apart, and have one set of parameters.
_FLAT_WITH_LABELS = ("moonshine",)


def to_transformers(
    described: Encoding | Description, config: Mapping[str, Any] | None = None, *, part: str | None = None
) -> dict[str, Any]:
    """The keys of an encoding in a config of transformers 5.

    Args:
        described: a rotary encoding for all layers, or a result of :func:`describe`, changed or not.
        config: a config whose keys for rotation are replaced; the other keys are kept. Without a config, only the keys
            for rotation are returned.
        part: which part of a description, if it has several.

    Returns:
        A new dict: ``rope_parameters``, ``max_position_embeddings`` if the encoding has a longest context, and other
        keys that the model type needs (``no_rope_layers``, ``layer_rope_theta``, ``attn_scale``).

    Raises:
        TypeError: neither an encoding nor a description; a config that is no mapping.
        ValueError: an encoding that transformers cannot express, a description of several parts without ``part``.

    Example:
        >>> from posenc import RoPE, YaRN
        >>> rope = RoPE(head_dim=128, frequencies=YaRN(4, trained_length=32768, base=1e6))
        >>> to_transformers(rope)["max_position_embeddings"]
        131072
    """
    if config is not None:
        check_instance("to_transformers", "config", config, Mapping, '{"model_type": "llama", ...}')
    config = None if config is None else spelled_out(config)
    groups = _groups(described, part)
    rotary = [group for group in groups if not isinstance(group.rotation, NoPE)]
    if not rotary:
        raise ValueError(
            "to_transformers: got no layer with a rotation, expected at least one; there is nothing to write."
        )
    model_type = str((config or {}).get("model_type"))
    written: dict[str, Any] = {}
    if any(group.label for group in groups) and model_type not in _FLAT_WITH_LABELS:
        written["rope_parameters"] = _of_other_kinds(config) | {
            group.label: _parameters(group, config, model_type) for group in groups if group.label
        }
    else:
        written["rope_parameters"] = _parameters(rotary[0], config, model_type)
        written |= {} if model_type in _FLAT_WITH_LABELS else _by_layer(groups, rotary, config)
    if (length := _longest(rotary)) is not None:
        written["max_position_embeddings"] = length
    rotation = rotary[0].rotation
    if (config or {}).get("rotary_dim") is not None and isinstance(rotation, RoPE):
        written["rotary_dim"] = rotation.rotary_dim
    for group in groups:
        written |= _temperature_keys(group.encoding)
    if config is None:
        return written
    found = {key: value for key, value in config.items() if key not in _OLD} | written
    # A class with a field of its own for the base, which it would fill with its default beside the rule.
    fields: Mapping[str, Any] = getattr(config_class(model_type), "__dataclass_fields__", {})
    if "rope_theta" in fields and "rope_theta" in (written["rope_parameters"] or {}):
        found["rope_theta"] = written["rope_parameters"]["rope_theta"]
    if isinstance(described, Description):
        _check_said_back(groups, found)
    else:
        _check_meant(groups[0].rotation, found)
    return found


def _of_other_kinds(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters of kinds of layers that the config's class has and this model has none of."""
    if not config or config_class(config.get("model_type")) is None:
        return {}
    whole = normalise(config)[0]
    parameters = rotary_parameters(whole.keys)
    return parameters if whole.by_class and is_nested(parameters) else {}


def _check_said_back(groups: list[LayerGroup], written: dict[str, Any]) -> None:
    """Refuse what the config class of transformers does not load, or what it loads as another encoding."""
    model_type = written.get("model_type")
    if config_class(model_type) is None:
        return
    in_whole = not any(group.part for group in groups)
    try:
        loaded = _without_tables([group for group in describe(written) if not group.part])
    except ValueError as error:
        if in_whole:
            raise ValueError(
                f"to_transformers: what was written for {model_type!r} cannot be read back: {error}"
            ) from error
        return
    if not loaded and not in_whole:
        return  # a part that has the model type of the whole is not read alone
    meant, back = (
        {layer: group.encoding.to_dict() for group in each for layer in group.layers} for each in (groups, loaded)
    )
    if meant != back:
        layer = next(layer for layer in sorted(meant | back) if meant.get(layer) != back.get(layer))
        raise ValueError(
            f"to_transformers: the config class of {model_type!r} reads what was written for layer {layer} as "
            f"{back.get(layer)}, expected {meant.get(layer)}; this config cannot express the encoding."
        )


def _check_meant(meant: Encoding, written: dict[str, Any]) -> None:
    """Refuse one encoding for all layers, where the config class of transformers reads it as another for some."""
    model_type = written.get("model_type")
    if config_class(model_type) is None or not isinstance(meant, (RoPE, MRoPE)):
        return
    try:
        loaded = [group for group in describe(written) if not group.part and not isinstance(group.rotation, NoPE)]
    except ValueError as error:
        raise ValueError(
            f"to_transformers: what was written for {model_type!r} cannot be read back: {error}"
        ) from error
    for group in loaded:
        if not _turns_alike(meant, group.rotation, group.longest):
            raise ValueError(
                f"to_transformers: the config class of {model_type!r} reads what was written for "
                f"{group.label or 'its layers'} as {group.rotation}, expected {meant}; this config cannot express the "
                "encoding, or expresses it for each kind of layer: change the description that describe(config) "
                "returns, and write that."
            )


def _turns_alike(one: RoPE | MRoPE, other: Encoding, length: int | None) -> bool:
    """Whether both rotate the same channels by the same angles."""
    if not isinstance(other, type(one)):
        return False
    ways = [(each.head_dim, each.rotary_dim, each.rotary_start, each.pairing) for each in (one, other)]
    a, b = one.frequencies, other.frequencies
    factors = ((a.attention_factor, b.attention_factor), (a.score_factor, b.score_factor))
    if ways[0] != ways[1] or not all(math.isclose(*each, rel_tol=1e-6) for each in factors):
        return False
    longest = length or 4096
    for tokens in (1, longest, 4 * longest):  # a rule that changes with the length, and one that does not
        rates = [rule.inv_freq(one.rotary_dim, length=tokens if rule.depends_on_length else None) for rule in (a, b)]
        if not np.allclose(rates[0], rates[1], rtol=1e-6, atol=0):
            return False
    return True


def _groups(described: Encoding | Description, part: str | None) -> list[LayerGroup]:
    if isinstance(described, Encoding):
        return [LayerGroup("", "", (), described)]
    check_instance(
        "to_transformers", "described", described, Description, "RoPE(head_dim=64), or what describe returns"
    )
    found = sorted({group.part for group in described})
    if part is None and len(found) > 1:
        raise ValueError(f"to_transformers: got a description of the parts {found}, expected one; give part=...")
    chosen = [group for group in described if part is None or group.part == part]
    return _without_tables(chosen)


def _without_tables(groups: list[LayerGroup]) -> list[LayerGroup]:
    """What stands in rotary keys: not the tables that image models add besides."""
    return [group for group in groups if not isinstance(group.rotation, LearnedGrid)] or groups


def _parameters(group: LayerGroup, config: Mapping[str, Any] | None, model_type: str) -> dict[str, Any] | None:
    rotation = group.rotation
    if isinstance(rotation, NoPE):
        return None
    if isinstance(rotation, AxialRoPE) and isinstance(rotation.frequencies, Geometric):
        written: dict[str, Any] = {"rope_type": "axial", "rope_theta": rotation.frequencies.base}
        if len(set(rotation.widths)) > 1 or rotation.heads_differ:
            raise ValueError(
                f"to_transformers: got an AxialRoPE with widths {rotation.widths} in the layout {rotation.layout!r}, "
                "expected one width for all axes and the same rotation in all heads, the only form that configs of "
                "transformers can express."
            )
        if rotation.rotary_dim < rotation.head_dim - 2 * len(rotation.widths):
            written["partial_rotary_factor"] = rotation.rotary_dim / rotation.head_dim
        return written
    if not isinstance(rotation, (RoPE, MRoPE)):
        raise ValueError(
            f"to_transformers: got {type(rotation).__name__}, expected RoPE, MRoPE or AxialRoPE with Geometric "
            "frequencies; configs of transformers can express no other rotation."
        )
    frequencies = rotation.frequencies
    if any("are an odd number" in note for note in group.notes):
        raise ValueError(
            "to_transformers: got an odd number of rotated channels, which no rule of transformers reproduces; give "
            "the layers an even number of rotated channels."
        )
    written = write_rule(
        frequencies.start if isinstance(frequencies, LearnedRates) else frequencies,
        rotary_dim=rotation.rotary_dim,
        trained_length=group.trained_length or (config or {}).get("max_position_embeddings"),
    )
    if model_type in models.LATENT:
        if (share := _share_in(config, group.label)) is not None:
            written["partial_rotary_factor"] = share  # of what its head_dim means; the slice is qk_rope_head_dim
    elif (
        rotation.rotary_dim != rotation.head_dim or model_type in models.PARTIAL  # whose class may have another default
    ) and not isinstance(frequencies, Proportional):
        written["partial_rotary_factor"] = rotation.rotary_dim / rotation.head_dim
    if isinstance(rotation, MRoPE):
        if rotation.layout == "heads":
            raise ValueError(
                'to_transformers: got an MRoPE with layout "heads", expected the same rotation in all heads, the only '
                "form that configs of transformers can express."
            )
        sections = rotation.sections
        written["mrope_section"] = list(sections if rotation.layout != "time_last" else (*sections[1:], sections[0]))
    for extra in group.encoding.parts[1:]:
        if isinstance(extra, Temperature) and extra.form == "mistral":
            written["llama_4_scaling_beta"] = extra.strength
            written.setdefault("original_max_position_embeddings", extra.length)
    return written


def _share_in(config: Mapping[str, Any] | None, label: str) -> float | None:
    parameters = (config or {}).get("rope_parameters") or {}
    found = (parameters.get(label) or parameters).get("partial_rotary_factor")
    return None if found is None else float(found)


def _by_layer(groups: list[LayerGroup], rotary: list[LayerGroup], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """What tells layers apart where kinds of layers have no names."""
    if len(groups) == 1:
        return {}
    old = config or {}
    count = 1 + max(layer for group in groups for layer in group.layers)
    if old.get("layer_rope_theta") or len({_base(group) for group in rotary}) > 1:
        bases = [0.0] * count
        for group in rotary:
            for layer in group.layers:
                bases[layer] = _base(group)
        return {"layer_rope_theta": bases}
    if old and "no_rope_layers" not in old:
        return {}  # its code says which layers are not rotated
    flags = [0] * count
    for group in rotary:
        for layer in group.layers:
            flags[layer] = 1
    return {"no_rope_layers": flags}


def _base(group: LayerGroup) -> float:
    return float(getattr(getattr(group.rotation, "frequencies", None), "base", 0.0))


def _longest(rotary: list[LayerGroup]) -> int | None:
    lengths = [group.longest for group in rotary if group.longest is not None]
    if lengths:
        return max(lengths)
    return next((found for group in rotary if (found := _made_for(group.rotation)) is not None), None)


def _made_for(rotation: Encoding) -> int | None:
    rule: Frequencies | None = getattr(rotation, "frequencies", None)
    if isinstance(rule, DynamicNTK):
        return rule.trained_length
    if isinstance(rule, (YaRN, Llama3)) or (isinstance(rule, LongRoPE) and rule.factor is not None):
        return round(rule.trained_length * float(rule.factor or 1))
    return None


def _temperature_keys(encoding: Encoding) -> dict[str, Any]:
    for extra in encoding.parts[1:]:
        if isinstance(extra, SSMax) or (isinstance(extra, Temperature) and extra.form in ("mistral", "power")):
            continue  # written beside the rule, or part of the model's code
        if isinstance(extra, Temperature) and extra.form == "llama4":
            return {"attn_temperature_tuning": True, "attn_scale": extra.strength, "floor_scale": extra.length}
        raise ValueError(f"to_transformers: got {extra}, which no config of transformers can express; leave it out.")
    return {}

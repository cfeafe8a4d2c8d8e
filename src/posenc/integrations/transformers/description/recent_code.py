"""Models of 2025 and 2026 whose code lies beside their weights: what that code does, by model type.

Read from what vLLM, SGLang, mlx-lm, mlx-vlm and llama.cpp's converter do with their configs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posenc import AxialRoPE, NoPE, RoPE
from posenc.frequencies import Custom, Frequencies, Geometric, YaRN
from posenc.integrations.transformers.description.config import (
    Keys,
    head_dim,
    need,
    need_key,
    need_number,
    need_size,
    size,
)
from posenc.integrations.transformers.description.found import Found, Reader
from posenc.integrations.transformers.description.layers import all_layers, has_base, rotary_parameters, types_of
from posenc.integrations.transformers.rules.read import read_rule

#: Bases that the code of a type has where a config leaves it out.
_BASES = {"ernie4_5_moe_vl": 500_000.0, "smallthinker": 10_000.0, "step3_text": 500_000.0, "talkie": 1e6}


def _with_base(config: Mapping[str, Any]) -> None:
    """As Llama, or as the lists of ``model_types`` say, with a base of its own where the config has none."""
    if isinstance(config, Keys) and not has_base(config):
        config["rope_theta"] = _BASES[str(config.get("model_type"))]


def _listed(config: Mapping[str, Any], key: str, allowed: Sequence[Any], count: int | None = None) -> list[Any]:
    """The values of a list that must be there, each one of those allowed; one for each layer if it is said how many."""
    values = need_key(config, key)
    fits = isinstance(values, (list, tuple)) and values and all(value in allowed for value in values)
    if not fits or (count is not None and len(values) < count):
        each = "" if count is None else f", one for each of {count} layers"
        raise ValueError(
            f"describe: {key} of {config.get('model_type')!r} is {values!r}, expected a list of "
            f"{', '.join(map(repr, allowed))}{each}; correct it."
        )
    return list(values)


def _numbered(config: Mapping[str, Any], key: str) -> set[int]:
    """The layers that a list names by their numbers; none where it is absent."""
    values = config.get(key)
    count = need_size(config, "num_hidden_layers")
    if values is None:
        return set()
    if not isinstance(values, (list, tuple)) or not all(isinstance(i, int) and 0 <= i < count for i in values):
        raise ValueError(
            f"describe: {key} of {config.get('model_type')!r} is {values!r}, expected numbers of layers, from 0 to "
            f"{count - 1}; correct it."
        )
    return set(values)


def _by_base(
    config: Mapping[str, Any],
    layers: Sequence[int],
    full: Callable[[int], bool],
    bases: tuple[float, float],
    **rope: Any,
) -> list[Found]:
    """Layers that see all tokens, and layers with a window, each with a base of their own."""
    if bases[0] == bases[1]:
        plain = RoPE(frequencies=Geometric(bases[0]), **rope)
        return [("", tuple(layers), plain, size(config, "max_positions"), ())]
    kinds = {"full_attention": (True, bases[0]), "sliding_attention": (False, bases[1])}
    found = [
        (kind, tuple(i for i in layers if full(i) == sees_all), RoPE(frequencies=Geometric(base), **rope))
        for kind, (sees_all, base) in kinds.items()
    ]
    return [(kind, own, each, size(config, "max_positions"), ()) for kind, own, each in found if own]


def _base_or(config: Mapping[str, Any], key: str, default: float) -> float:
    return default if config.get(key) is None else need_number(config, key)


def _k2_horizon(config: Mapping[str, Any]) -> list[Found] | None:
    """As Llama; if ``rope_head_dim`` is less than a head, the first pairs of its halves turn by rates of that width."""
    width, rotated = head_dim(config), config.get("rope_head_dim")
    if rotated is None or rotated == width:
        return None
    rotated = need_size(config, "rope_head_dim")
    if not 0 < rotated <= width or rotated % 2:
        raise ValueError(
            f"describe: rope_head_dim is {rotated}, expected an even number up to head_dim {width}; correct it."
        )
    rule = read_rule(
        rotary_parameters(config),
        where=f"describe: {config.get('model_type')}",
        base=config.get("rope_theta"),
        max_positions=size(config, "max_positions"),
        trained_length=config.get("original_max_position_embeddings"),
    )
    if rule.name not in ("default", "linear", "llama3"):
        raise ValueError(
            f"describe: posenc does not support the rule {rule.name!r} with rope_head_dim {rotated} of head_dim "
            f"{width}, because its factor would multiply only some of the channels."
        )
    rates = [*rule.frequencies.inv_freq(rotated).tolist(), *[0.0] * ((width - rotated) // 2)]
    note = f"rope_head_dim: the first {rotated // 2} pairs of {rule.frequencies}, and the others do not rotate"
    return [("", all_layers(config), RoPE(width, frequencies=Custom(rates)), rule.trained_length, (*rule.notes, note))]


def _plamo2(config: Mapping[str, Any]) -> list[Found]:
    """Attention in some layers; those that see all tokens have ``rope_theta``, the others ``rope_local_theta``."""
    count, step = need_size(config, "num_hidden_layers"), config.get("mamba_step", 2)
    if not isinstance(step, int) or step < 1:
        raise ValueError(f"describe: mamba_step is {step!r}, expected a whole number above 0; correct it.")
    layers = [i for i in range(count) if i % step == step // 2]
    if config.get("mamba_enabled") is False:
        layers = list(range(count))
    elif count <= step // 2:
        layers = [count - 1]
    full = _numbered(config, "full_attention_idx")
    base = _base_or(config, "rope_theta", 10_000.0)
    width = need_size(config, "hidden_size_per_head" if config.get("hidden_size_per_head") else "head_dim")
    local = _base_or(config, "rope_local_theta", base)
    return _by_base(config, layers, full.__contains__, (base, local), head_dim=width)


def _plamo3(config: Mapping[str, Any]) -> list[Found]:
    """The last of each group of layers sees all tokens, at ``rope_theta``; the others have ``rope_local_theta``."""
    parameters, layers = rotary_parameters(config), all_layers(config)
    if isinstance(config, Keys) and config.get("layer_types") is None and config.get("sliding_window_pattern") is None:
        config["sliding_window_pattern"] = 8
    types = types_of(config) or ["full_attention"] * len(layers)
    by_kind = {kind: parameters.get(kind) or {} for kind in ("full_attention", "sliding_attention")}
    flat = {} if any(by_kind.values()) else parameters
    for each in (*by_kind.values(), flat):
        if not isinstance(each, Mapping):
            raise ValueError(
                f"describe: rope_parameters of a 'plamo3' has {each!r} for a kind of layers, expected an object."
            )
        if (name := each.get("rope_type", each.get("type", "default"))) != "default":
            raise ValueError(
                f"describe: the rule of a 'plamo3' is {name!r}, expected 'default', which its models have."
            )
    config.get("rope_theta"), config.get("rope_local_theta")
    both = {**config, **{key: value for key, value in flat.items() if key == "rope_theta"}}
    base = _base_or({**both, **by_kind["full_attention"]}, "rope_theta", 1e6)
    local = _base_or(by_kind["sliding_attention"], "rope_theta", _base_or(both, "rope_local_theta", 10_000.0))
    return _by_base(config, layers, lambda i: types[i] == "full_attention", (base, local), head_dim=head_dim(config))


def _iquest_q1(config: Mapping[str, Any]) -> list[Found]:
    """Blocks of layers between a first and a last part; ``no_rope_layers`` has numbers of layers."""
    kinds, count = ("full_attention", "sliding_attention"), need_size(config, "num_hidden_layers")
    types = ["full_attention"] * count
    windowed = config.get("use_sliding_window", True) and config.get("sliding_window") is not None
    if config.get("use_hybrid_layers", True) and windowed:
        first, block, last = (
            _listed(config, key, kinds)
            for key in ("first_layers_types", "hybrid_layers_types_block", "last_layers_types")
        )
        blocks = need_size(config, "num_hybrid_layers_block")
        types = [*first, *block * min(max(blocks, 0), count), *last]
    if len(types) != count:
        raise ValueError(
            f"describe: the blocks of an 'iquest_q1' are {len(types)} layers, expected num_hidden_layers, {count}: "
            "first_layers_types, num_hybrid_layers_block times hybrid_layers_types_block, last_layers_types."
        )
    config.get("layer_types"), config.get("hybrid_layer_pattern")  # made of these
    without = _numbered(config, "no_rope_layers")
    parameters = rotary_parameters(config)
    rotary_dim = config.get("rotary_dim") or int(head_dim(config) * parameters.get("partial_rotary_factor", 1.0))
    outside = parameters.pop("rope_theta", config.get("rope_theta"))
    found: list[Found] = []
    for kind, base in zip(kinds, (outside, config.get("swa_rope_theta")), strict=True):
        own = tuple(i for i in range(count) if types[i] == kind and i not in without)
        if not own:
            continue
        rule = read_rule(
            parameters,
            where=f"describe: iquest_q1, {kind}",
            base=base,
            max_positions=size(config, "max_positions"),
            trained_length=config.get("original_max_position_embeddings"),
        )
        rope = RoPE(head_dim(config), frequencies=rule.frequencies, rotary_dim=rotary_dim)
        found.append((kind, own, rope, rule.trained_length, rule.notes))
    if without:
        found.append(("", tuple(sorted(without)), NoPE(), size(config, "max_positions"), ()))
    return found


def _minicpm_sala(config: Mapping[str, Any]) -> None:
    """Layers with lightning attention, which has no scores, between others; ``attn_use_rope`` is for the others."""
    attention, count = ("minicpm4", "minicpm", "standard", "attention", "attn"), need_size(config, "num_hidden_layers")
    named = _listed(config, "mixer_types", (*attention, "lightning", "lightning_attn", "lightning-attn"))
    types = [named[i % len(named)] for i in range(count)]
    if isinstance(config, Keys):
        config["layer_types"] = ["full_attention" if each in attention else "lightning_attention" for each in types]
        if config.get("attn_use_rope") is False:
            config["no_rope_layers"] = [0] * count


def _flags(key: str, rotated: Any, others: Any) -> Reader:
    """As Llama, with a list that says of each layer whether it rotates."""

    def reader(config: Mapping[str, Any]) -> None:
        if config.get("model_type") in _BASES:
            _with_base(config)
        count = need_size(config, "num_hidden_layers")
        if isinstance(config, Keys) and config.get(key) is not None:
            config["no_rope_layers"] = [int(each == rotated) for each in _listed(config, key, (rotated, others), count)]

    return reader


def _gigachat(config: Mapping[str, Any]) -> None:
    """As DeepSeek V3 in the layers that ``full_attention_layers`` numbers, unless ``layer_types`` says which."""
    if isinstance(config, Keys) and config.get("full_attention_layers") is not None and not config.get("layer_types"):
        full = _numbered(config, "full_attention_layers")
        count = need_size(config, "num_hidden_layers")
        config["layer_types"] = ["full_attention" if i in full else "linear_attention" for i in range(count)]


def _moondream(config: Mapping[str, Any]) -> list[Found]:
    base = _base_or(config, "rope_theta", 1_500_000.0)
    rope = RoPE(head_dim(config), frequencies=Geometric(base), rotary_dim=32)
    length = size(config, "max_positions") if config.get("max_context") is None else need_size(config, "max_context")
    return [("", all_layers(config), rope, length, ("32 channels, whatever the config",))]


def _ernie_vl(config: Mapping[str, Any]) -> None:
    """As transformers' ERNIE 4.5 VL: ``freq_allocation`` pairs of a head for the time, the others by row and column."""
    _with_base(config)
    pairs = head_dim(config) // 2
    time = 20 if config.get("freq_allocation") is None else need_size(config, "freq_allocation")
    if not 0 < time < pairs or (pairs - time) % 2:
        raise ValueError(
            f"describe: freq_allocation is {time}, expected the pairs of a head for the time, of {pairs}, with an even "
            "number left for rows and columns; correct it."
        )
    if config.get("rope_3d") is False:
        raise ValueError(
            "describe: rope_3d of an 'ernie4_5_moe_vl' is false, expected true, as all released models say."
        )
    if isinstance(config, Keys):
        parameters = rotary_parameters(config)
        sections = parameters.get("mrope_section") or [(pairs - time) // 2, (pairs - time) // 2, time]
        config["rope_parameters"], config["rope_scaling"] = {**parameters, "mrope_section": sections}, None


def _ernie_vision(config: Mapping[str, Any]) -> list[Found]:
    width = need_size(config, "embed_dim" if config.get("embed_dim") is not None else "hidden_size")
    rope = AxialRoPE(width // int(need(config, "num_heads")), layout="half")
    return [("", all_layers(config), rope, None, ("the base is fixed in the code",))]


def _limite(config: Mapping[str, Any]) -> list[Found]:
    """Rates from 1 down to 1 / base, both included, by -angle; layers that see all tokens do not rotate."""
    width, pairs, layers = head_dim(config), need_size(config, "rope_n_pairs"), all_layers(config)
    if config.get("rope_per_layer"):
        raise ValueError("describe: rope_per_layer of a 'limite' is true, expected false, as the released model says.")
    if not 1 < pairs <= width // 2:
        raise ValueError(
            f"describe: rope_n_pairs is {pairs}, expected 2 to {width // 2}, half of head_dim; correct it."
        )
    base = need_number(config, "rope_base_local")
    config.get("global_nope")
    still = _numbered(config, "global_layers") if config.get("global_nope", True) else set()
    rates = [-(base ** (-i / (pairs - 1))) for i in range(pairs)]
    rope = RoPE(width, frequencies=Custom(rates), pairing="interleaved", rotary_dim=2 * pairs)
    note = f"{base:g}^(-i / {pairs - 1}), and rotated by -angle, so the rates have a minus"
    length = size(config, "max_positions")
    found: list[Found] = [("", tuple(i for i in layers if i not in still), rope, length, (note,))]
    return found + ([("", tuple(sorted(still)), NoPE(), length, ())] if still else [])


def _alice_ai(config: Mapping[str, Any]) -> None:
    """As Qwen3-Next, whose defaults its config class has, with a base of its own."""
    if not isinstance(config, Keys):
        return
    if not has_base(config):
        config["rope_theta"] = 1e6
    if "partial_rotary_factor" not in {**config, **rotary_parameters(config)}:
        config["partial_rotary_factor"] = 0.25
    for key, default in (("head_dim", 256), ("full_attention_interval", 4)):
        if config.get(key) is None:
            config[key] = default


def _pangu(config: Mapping[str, Any]) -> list[Found] | None:
    """openPangu: as Llama, or with learned keys that every token sees, and then part of a head turns in other pairs."""
    parameters = rotary_parameters(config)
    if parameters.get("mrope_interleaved"):
        raise ValueError(
            "describe: mrope_interleaved of an openPangu: its code assigns pairs to time, height and width in an "
            "order that no encoding of posenc has; describe the text alone without mrope_section."
        )
    config.get("qk_nope_dim"), config.get("qk_rope_dim")  # not read where no keys are learned
    if not config.get("param_sink_number"):
        return None
    rotated, others = need_size(config, "qk_rope_dim"), need_size(config, "qk_nope_dim")
    rule = read_rule(
        {key: value for key, value in parameters.items() if key != "partial_rotary_factor"},
        where="describe: openPangu",
        base=config.get("rope_theta"),
        max_positions=size(config, "max_positions"),
        trained_length=config.get("original_max_position_embeddings"),
    )
    pairing: Any = "interleaved" if config.get("rope_interleave", True) else "half"
    rope = RoPE(rotated + others, frequencies=rule.frequencies, pairing=pairing, rotary_dim=rotated)
    note = f"{config['param_sink_number']} keys are learned and have no position; every token sees them"
    return [("", all_layers(config), rope, rule.trained_length, (*rule.notes, note))]


def _step1(config: Mapping[str, Any]) -> None:
    raise ValueError(
        "describe: 'step1' subtracts a head's slope times the square root of the distance from its scores (ALiBi with "
        "a root), and posenc has no such encoding; KERPLE learns an exponent for each head."
    )


def _grok(config: Mapping[str, Any]) -> list[Found]:
    """Grok 1 and 2, as SGLang has them: the rule's parameters stand in the config itself."""
    named, base = config.get("rope_type"), config.get("rope_theta")
    base = 10_000.0 if base is None else need_number(config, "rope_theta")
    length = size(config, "max_positions")
    rule: Frequencies = Geometric(base)
    config.get("original_max_position_embeddings")  # written also where the rule scales nothing
    if named in ("yarn", "yarn_linear"):
        length = need_size(config, "original_max_position_embeddings")
        blend = config.get("extrapolation_factor", 1.0)
        if blend != 1:
            raise ValueError(
                f"describe: extrapolation_factor of a Grok is {blend!r}, expected 1, which the released one has."
            )
        fast, slow = (float(config.get(f"beta_{end}") or default) for end, default in (("fast", 32), ("slow", 1)))
        factor = need_number(config, "scaling_factor")
        # Its code leaves the factor of cos and sin out.
        rule = YaRN(factor, trained_length=length, base=base, beta_fast=fast, beta_slow=slow, attention_factor=1.0)
    elif named not in (None, "original"):
        raise ValueError(
            f"describe: rope_type of a Grok is {named!r}, expected 'original' (no scaling), 'yarn' or 'yarn_linear'; "
            "posenc has no rule for another."
        )
    width = head_dim(config)
    rope = RoPE(width, frequencies=rule, rotary_dim=width // 2 if config.get("rope_rotate_half_dims") else width)
    notes = () if named is None else (f"rope_type {named!r} of SGLang's code",)
    start = config.get("attn_temperature_len")
    if start is not None and start > 0:
        notes = (
            *notes,
            f"not read: attn_temperature_len: SGLang multiplies the dot products of the query at position p > {start} "
            f"by ln(p) / ln({start})",
        )
    return [("", all_layers(config), rope, length, notes)]


READERS: dict[str, Reader] = {
    "grok-1": _grok,
    "k2_horizon": _k2_horizon,
    "xllm": _k2_horizon,
    "plamo2": _plamo2,
    "plamo3": _plamo3,
    "iquest_q1": _iquest_q1,
    "minicpm_sala": _minicpm_sala,
    "domyn_edge": _flags("position_layers", "rope", "nope"),
    "smallthinker": _flags("rope_layout", 1, 0),
    "gigachat3_5": _gigachat,
    "moondream3_text": _moondream,
    "ernie4_5_moe_vl": _ernie_vl,
    "DFNRope_vision_transformer": _ernie_vision,
    "limite": _limite,
    "step1": _step1,
    "alice_ai": _alice_ai,
    "PanguEmbedded": _pangu,
    **dict.fromkeys(("step3_text", "talkie"), _with_base),
}

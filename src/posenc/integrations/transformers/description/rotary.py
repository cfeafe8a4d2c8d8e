"""The rotation of one kind of layer, from its keys: rule, slice, pairing, coordinates, temperature."""

from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal

from posenc import AxialRoPE, Compose, MRoPE, NoPE, RoPE, SSMax, Temperature
from posenc.encoding import Encoding
from posenc.frequencies import Custom, Geometric, LearnedRates, Linear
from posenc.integrations.transformers.description import model_types as models
from posenc.integrations.transformers.description.config import first, need, need_key, need_size, size
from posenc.integrations.transformers.description.config import head_dim as plain_head_dim
from posenc.integrations.transformers.description.in_words import GIVE_PAIRING
from posenc.integrations.transformers.description.layers import Kind, is_nested, rotary_parameters
from posenc.integrations.transformers.rules.read import RULE_ALIASES, Rule, read_rule

Pairing = Literal["half", "interleaved"]

#: (encoding, trained length, longest, notes)
Read = tuple[Encoding, int | None, int | None, tuple[str, ...]]


def encoding_of(config: Mapping[str, Any], kind: Kind, pairing: Pairing | None, *, by_class: bool) -> Read:
    """The encoding of a kind of layers.

    Raises:
        ValueError: keys that contradict each other, are unknown, or are missing.
    """
    model_type = str(config.get("model_type"))
    max_positions = size(config, "max_positions")
    if not kind.rotated:
        return with_temperature(NoPE(), model_type, config, {}, rotated=False), max_positions, max_positions, ()
    parameters = _flat_parameters(config, kind.label)
    if kind.base is not None:  # the base of this layer, in whose place the parameters have one for all
        parameters.pop("rope_theta", None)
    latent = is_latent(model_type, config)
    width = _head_dim(model_type, config, kind, latent)
    share = _share(model_type, config, parameters, width, latent=latent, by_class=by_class)
    rule = read_rule(
        parameters,
        where=f"describe: {model_type}" + (f", {kind.label}" if kind.label else ""),
        base=kind.base if kind.base is not None else _outer_base(config, parameters, kind.label, by_class=by_class),
        max_positions=max_positions,
        trained_length=config.get("original_max_position_embeddings"),
        share=share,
        corrects_scores=model_type in models.CORRECTS_SCORES,
    )
    notes = (*rule.notes, models.FAULTS[model_type]) if model_type in models.FAULTS else rule.notes
    paired = pairing or _pairing(model_type, config)
    if pairing is None:
        notes = (*notes, *_other_pairing(model_type, config, paired))
    if latent and model_type not in models.KNOWN:
        notes = (
            *notes,
            "the softmax scale is not known: DeepSeek's code raises it under YaRN, others do not",
        )
    rotary_dim, start = _slice(model_type, config, rule, width, share, kind, latent=latent)
    if rotary_dim % 2:
        rotary_dim, rule, note = _odd(rule, rotary_dim, width, share)
        notes = (*notes, note)
    head = start + rotary_dim if latent else width
    rotation: Encoding
    if model_type in models.SECTIONS:
        rotation = mrope(
            model_type, parameters, rule, head_dim=head, rotary_dim=rotary_dim, start=start, pairing=paired
        )
    else:
        frequencies = rule.frequencies
        if model_type in models.NEGATIVE:
            rates = (-frequencies.inv_freq(rotary_dim)).tolist()
            frequencies = Custom(rates, attention_factor=frequencies.attention_factor)
            notes = (*notes, f"rotates by -angle, so the rates of {rule.frequencies} have a minus")
        if model_type in models.LEARNED_RATES:
            frequencies = LearnedRates(frequencies, parameter="log_scale")
            notes = (*notes, "each rate has a learned factor, which is 1 until the weights are loaded")
        if parameters.get("mrope_section") or parameters.get("xdrope_section"):
            notes = (*notes, *_sections_without_rotation(model_type, config))
        rotation = RoPE(head, frequencies=frequencies, pairing=paired, rotary_dim=rotary_dim, rotary_start=start)
    encoding = with_temperature(rotation, model_type, config, parameters, rotated=True)
    return encoding, rule.trained_length, rule.longest, notes


def is_latent(model_type: str, config: Mapping[str, Any]) -> bool:
    """Is a head plain channels, then rotated ones? By model type, or by the keys of one that is not known."""
    if model_type in models.KNOWN:
        return model_type in models.LATENT
    return bool(config.get("qk_rope_head_dim")) and config.get("qk_nope_head_dim") is not None


def _sections_without_rotation(model_type: str, config: Mapping[str, Any]) -> tuple[str]:
    if model_type != "hunyuan_vl_text":
        return (
            f"mrope_section is not read: {model_type} of transformers has one position for all channels; code that "
            "reads it rotates text tokens in the same way, and image tokens differently",
        )
    return (
        "for a text; the two channels of a pair read different coordinates of an image token, which is no rotation",
    )


def _flat_parameters(config: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The parameters of one kind of layer."""
    parameters = rotary_parameters(config)
    if is_nested(parameters):
        if label not in parameters:
            raise ValueError(
                f"describe: rope_parameters has {list(parameters)} and no entry for the layers {label!r}; add one "
                "(null for layers without rotation)."
            )
        return dict(parameters[label])
    # transformers 4 had two bases and one scaling, that of the layers with full attention.
    return {} if label == "sliding_attention" and "rope_local_base_freq" in config else dict(parameters)


def _outer_base(
    config: Mapping[str, Any], parameters: Mapping[str, Any], label: str, *, by_class: bool
) -> float | None:
    """The base that stands in the config itself, under one of its names."""
    inside = parameters.get("rope_theta") is not None
    if inside and (by_class or is_nested(rotary_parameters(config))):
        return None  # the class has put it inside; what else stands outside is not read by the model
    if label == "sliding_attention":
        found = first(config, "rope_local_base_freq", "local_rope_theta")
        if found is not None:
            return float(found)
    names = ("rope_theta", "rotary_emb_base", "rotary_embedding_base", "rope_embedding_base", "global_rope_theta")
    found = first(config, *names)
    if isinstance(found, (list, tuple)):
        raise ValueError(f"describe: rope_theta is {found!r}, expected one base for these layers; correct it.")
    return None if found is None else float(found)


def _head_dim(model_type: str, config: Mapping[str, Any], kind: Kind, latent: bool) -> int:
    if latent:
        return need_size(config, "qk_rope_head_dim")
    return int(kind.head_dim) if kind.head_dim else plain_head_dim(config)


def _share(
    model_type: str,
    config: Mapping[str, Any],
    parameters: Mapping[str, Any],
    head_dim: int,
    *,
    latent: bool,
    by_class: bool,
) -> float:
    """``partial_rotary_factor``, under one of its names."""
    inside = parameters.get("partial_rotary_factor")
    names = ("partial_rotary_factor",) if by_class else ("rotary_pct", "rope_pct", "rotary_percent")
    outside = first(config, "partial_rotary_factor", *names)
    if by_class and inside is None and outside not in (None, 1) and is_nested(rotary_parameters(config)):
        raise ValueError(
            f"describe: partial_rotary_factor is {outside} beside rotary parameters by kind of layer, where some "
            "models of transformers read it and others do not; write it into those of each kind."
        )
    if inside is not None and outside is not None and inside != outside and not by_class:
        raise ValueError(
            f"describe: partial_rotary_factor is {inside} in the rotary parameters and {outside} beside them; drop one."
        )
    found = inside if inside is not None else outside
    if found is None:
        found = models.SHARES.get(model_type)
    given = None if latent else config.get("rotary_dim")
    if found is None and given is not None and model_type not in models.KNOWN - models.REMOTE_AS_LLAMA:
        found = given / head_dim
    share = 1.0 if found is None else float(found)
    if not 0 < share <= 1:
        raise ValueError(f"describe: partial_rotary_factor is {share}, expected above 0 and at most 1.")
    if given is not None and given != int(head_dim * share):
        raise ValueError(
            f"describe: rotary_dim is {given}, and partial_rotary_factor {share} of head_dim {head_dim} is "
            f"{int(head_dim * share)}; set the factor to {given / head_dim:g} or drop rotary_dim."
        )
    return share


def _slice(
    model_type: str,
    config: Mapping[str, Any],
    rule: Rule,
    head_dim: int,
    share: float,
    kind: Kind,
    *,
    latent: bool,
) -> tuple[int, int]:
    """(rotary_dim, rotary_start) in a head."""
    if latent:
        nope = kind.nope_dim if kind.nope_dim is not None else need_key(config, "qk_nope_head_dim")
        return head_dim, int(nope)
    if rule.name == "proportional":
        return head_dim, 0
    if share != 1 and rule.name == "default" and model_type in models.KNOWN and model_type not in models.PARTIAL:
        raise ValueError(
            f"describe: partial_rotary_factor is {share}, and {model_type!r} rotates whole heads under the plain rule "
            "and ignores the factor; remove it."
        )
    rotary_dim = int(head_dim * share)
    if not rotary_dim:
        raise ValueError(
            f"describe: partial_rotary_factor {share} of head_dim {head_dim} is 0 channels, expected 2 or more."
        )
    return rotary_dim, head_dim - rotary_dim if model_type in models.TRAILING else 0


def _odd(rule: Rule, rotary_dim: int, head_dim: int, share: float) -> tuple[int, Rule, str]:
    """What transformers makes of an odd number of rotated channels: one more, at rates of the odd number."""
    if not isinstance(rule.frequencies, (Geometric, Linear)) or rotary_dim + 1 > head_dim:
        raise ValueError(
            f"describe: partial_rotary_factor {share} of head_dim {head_dim} is {rotary_dim} channels, expected an "
            "even number, because channels are rotated in pairs."
        )
    base, factor = rule.frequencies.base, float(getattr(rule.frequencies, "factor", 1.0))
    rates = [base ** (-2 * i / rotary_dim) / factor for i in range((rotary_dim + 1) // 2)]
    note = f"{rotary_dim} channels are an odd number: the code rotates {rotary_dim + 1}, at base^(-2i/{rotary_dim})"
    custom = Rule(rule.name, Custom(rates), rule.trained_length, rule.longest, rule.notes)
    return rotary_dim + 1, custom, note


def _pairing(model_type: str, config: Mapping[str, Any]) -> Pairing:
    if model_type in models.ASKS_ROPE_INTERLEAVE:
        return "interleaved" if config.get("rope_interleave", True) else "half"
    return "interleaved" if model_type in models.INTERLEAVED else "half"


def _other_pairing(model_type: str, config: Mapping[str, Any], paired: Pairing) -> tuple[str, ...]:
    """What to note where ``rope_interleave`` says other pairs than the code that is known for the type has."""
    asked = config.get("rope_interleave")
    if not isinstance(asked, bool) or asked == (paired == "interleaved"):
        return ()
    pairs = "neighbouring channels" if paired == "interleaved" else "halves"
    return (
        f"rope_interleave is {str(asked).lower()}, and the code of {model_type!r} that is read here pairs {pairs} all "
        f"the same; SGLang honours the key for some models: for what it does, {GIVE_PAIRING}",
    )


def mrope(
    model_type: str,
    parameters: Mapping[str, Any],
    rule: Rule,
    head_dim: int,
    rotary_dim: int,
    *,
    start: int,
    pairing: Pairing,
) -> MRoPE:
    """The rotation of a text model whose tokens have a time, a height and a width."""
    layout, default = models.SECTIONS[model_type]
    given = parameters.get("mrope_section") or parameters.get("xdrope_section") or default
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, (int, float)) for each in given):
        raise ValueError(f"describe: mrope_section is {given!r}, expected a list of three widths; correct it.")
    sections = tuple(map(int, given))
    if len(sections) != 3:
        raise ValueError(f"describe: mrope_section is {list(sections)}, expected three widths; correct it.")
    if sum(sections) != rotary_dim // 2:
        given = parameters.get("mrope_section") or parameters.get("xdrope_section")
        raise ValueError(
            f"describe: {model_type}: mrope_section is {list(sections)}"
            + ("" if given else ", the default of its code")
            + f", which sums to {sum(sections)}, and a head rotates {rotary_dim // 2} pairs ({rotary_dim} of its "
            f"channels), expected a sum of {rotary_dim // 2}; {'correct' if given else 'add'} mrope_section."
        )
    if layout == "time_last":
        sections = (sections[2], *sections[:2])
    return MRoPE(
        head_dim,
        sections=sections,
        layout=layout,  # type: ignore[arg-type]
        frequencies=rule.frequencies,
        pairing=pairing,
        rotary_dim=rotary_dim,
        rotary_start=start,
    )


def axial(model_type: str, config: Mapping[str, Any], parameters: Mapping[str, Any]) -> AxialRoPE:
    """The rotation of an image model."""
    layout, order = models.AXIAL[model_type]
    rule = parameters.get("rope_type", parameters.get("type")) or "default"
    if RULE_ALIASES.get(str(rule), rule) != "default":
        raise ValueError(
            f"describe: rope_type of {model_type!r} is {rule!r}, expected 'default' or 'axial', one of which all "
            "released image models have; correct it."
        )
    base = parameters.get("rope_theta", config.get("rope_theta", models.AXIAL_BASES.get(model_type)))
    if base is None:
        raise ValueError(f"describe: the config of {model_type!r} has no rope_theta; add it.")
    if not isinstance(base, Real):  # a list, which counts a base for each layer of a text
        raise ValueError(f"describe: rope_theta of {model_type!r} is {base!r}, expected one base; correct it.")
    head_dim = _axial_head_dim(config)
    axes = len(order)
    share = parameters.get("partial_rotary_factor", 1.0)
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < float(share) <= 1:
        raise ValueError(
            f"describe: partial_rotary_factor of {model_type!r} is {share!r}, expected a number above 0 and at most 1; "
            "correct it."
        )
    if share != 1 and model_type not in models.PARTIAL:
        raise ValueError(
            f"describe: partial_rotary_factor of {model_type!r} is {share}, and its code rotates whole heads and "
            "ignores the factor; remove it."
        )
    rotary_dim = int(head_dim * float(share))
    return AxialRoPE(
        head_dim,
        axes=axes,
        frequencies=Geometric(float(base)),
        layout=layout,  # type: ignore[arg-type]
        order=order,
        rotary_dim=rotary_dim - rotary_dim % (2 * axes),
    )


def _axial_head_dim(config: Mapping[str, Any]) -> int:
    if "memory_attention_hidden_size" in config:  # the part of SAM 2 that rotates is its memory attention
        width = config["memory_attention_hidden_size"] // config["memory_attention_downsample_rate"]
        return int(width // config["memory_attention_num_attention_heads"])
    if "embed_dim" in config and config.get("model_type") in models.WIDTH_IS_EMBED_DIM:
        return int(config["embed_dim"] // need(config, "num_heads"))
    return plain_head_dim(config)


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
    if model_type in models.LLAMA4_TEMPERATURE and not rotated and config.get("attn_temperature_tuning"):
        return Temperature("llama4", length=need_key(config, "floor_scale"), strength=need_key(config, "attn_scale"))
    if model_type in models.POWER_TEMPERATURE and not rotated:
        length, strength = models.POWER_TEMPERATURE[model_type]
        return Temperature("power", length=length, strength=strength)
    if model_type in models.SSMAX:
        return SSMax(int(need(config, "num_heads")), form="affine")
    beta = parameters.get("llama_4_scaling_beta")
    if beta and model_type not in models.MISTRAL_TEMPERATURE:
        raise ValueError(f"describe: {model_type!r} does not read llama_4_scaling_beta; remove it.")
    if beta:
        start = parameters.get("original_max_position_embeddings")
        if start is None:
            raise ValueError(
                "describe: llama_4_scaling_beta needs original_max_position_embeddings, after which the temperature "
                "rises; add it."
            )
        return Temperature("mistral", length=start, strength=beta)
    return None

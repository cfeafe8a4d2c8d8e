"""What a model's positional encoding is, layer by layer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from posenc import NoPE, RoPE
from posenc.encoding import Encoding
from posenc.frequencies import Custom, LearnedRates
from posenc.integrations.transformers.description import model_types as models
from posenc.integrations.transformers.description import not_rotary as others
from posenc.integrations.transformers.description import rotary as unusual
from posenc.integrations.transformers.description.axes import axial, mrope
from posenc.integrations.transformers.description.config import first, need, parts, read, size
from posenc.integrations.transformers.description.temperatures import with_temperature
from posenc.integrations.transformers.rules.read import Rule, read_rule

Pairing = Literal["half", "interleaved"]


@dataclass(frozen=True)
class LayerGroup:
    """Layers that share one encoding.

    Attributes:
        part: which part of the model, as the key of its config ("text_config"); "" for the model itself.
        label: what the config calls this kind of layer ("sliding_attention"); "" if it does not tell kinds apart.
        layers: which layers, counted from 0.
        encoding: the encoding; :class:`posenc.NoPE` for layers without one.
        trained_length: tokens that the model was trained with before any extension, if the config says.
        longest: tokens that it was made for, if the config says.
        notes: what a reader should know besides.
    """

    part: str
    label: str
    layers: tuple[int, ...]
    encoding: Encoding
    trained_length: int | None = None
    longest: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """The encodings of a model: an iterable of :class:`LayerGroup`.

    Attributes:
        model_type: as in the config.
        groups: the kinds of layers, in the order of their first layer, part by part.
        unread: parts of which nothing is known, as "part: model type".
    """

    model_type: str
    groups: tuple[LayerGroup, ...]
    unread: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[LayerGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def layer(self, index: int, *, part: str | None = None) -> LayerGroup:
        """The group of a layer of a part; of the first part that has rotary layers by default."""
        chosen = self.groups[0].part if part is None and self.groups else part
        for group in self.groups:
            if group.part == chosen and index in group.layers:
                return group
        raise ValueError(f"describe: part {chosen!r} of {self.model_type!r} has no layer {index} with attention.")


def describe(source: Any, *, pairing: Pairing | None = None) -> Description:
    """Which encoding each layer of a Hugging Face model has, as posenc objects.

    It reads ``rope_scaling`` of transformers 4 and ``rope_parameters`` of 5, flat and by kind of layer; bases by
    layer; layers without rotation in the four ways in which configs say so; partial, proportional and
    latent-attention rotation; several coordinates; temperatures; ALiBi, learned and sinusoidal encodings. What only
    the modelling code says, such as the pairing, is known by model type.

    Args:
        source: a model, its config, a dict, a ``config.json`` or the folder that holds one. transformers is not needed.
        pairing: the pairing of a model type that is not known here, such as one with code of its own.

    Returns:
        A :class:`Description`.

    Raises:
        ValueError: keys that are unknown, missing or contradict each other, with what to change; an unknown model type
            without ``pairing``; a model without any encoding that is known here.

    Example:
        >>> config = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
        ...           "max_position_embeddings": 2048, "rope_theta": 10000.0}
        >>> (group,) = describe(config)
        >>> group.layers, group.trained_length, group.encoding.frequencies, group.encoding.pairing
        ((0, 1), 2048, Geometric(base=10000.0), 'half')
    """
    config = read(source)
    groups: list[LayerGroup] = []
    unread: list[str] = []
    for name, part in parts(config):
        found = _groups(name, part, pairing)
        groups += found
        if not found and name:
            unread.append(f"{name}: {part['model_type']}")
    model_type = str(config.get("model_type"))
    if not groups:
        raise ValueError(
            f"describe: the config of {model_type!r} says nothing of a positional encoding that is known here; if it "
            "is rotary, expected rope_parameters, or rope_theta and rope_scaling."
        )
    return Description(model_type, tuple(groups), tuple(unread))


def _groups(part: str, config: Mapping[str, Any], pairing: Pairing | None) -> list[LayerGroup]:
    model_type = str(config.get("model_type"))
    for reader in (unusual.reader_of(config), others.READERS.get(model_type)):
        if reader is not None and (found := reader(config)) is not None:
            return [
                LayerGroup(part, kind, layers, encoding, length, length, notes)
                for kind, layers, encoding, length, notes in found
            ]
    if model_type in models.PARTS_ALONE:
        return []
    if model_type in models.AXIAL:
        return _axial_groups(part, model_type, config)
    if not is_rotary(config):
        return []
    if model_type not in models.KNOWN and pairing is None:
        raise ValueError(
            f"describe: {model_type!r} is no model type of transformers 5.23, and a config does not say in which pairs "
            'its code rotates; call describe(..., pairing="half") or "interleaved" (posenc diagnose tells which).'
        )
    return [
        LayerGroup(part, kind.label, tuple(layers), *_encoding(model_type, config, kind, pairing))
        for kind, layers in _kinds(model_type, config).items()
    ]


def _axial_groups(part: str, model_type: str, config: Mapping[str, Any]) -> list[LayerGroup]:
    note = (models.COORDINATES[model_type],) if model_type in models.COORDINATES else ()
    parameters = _parameters(config)
    labelled = parameters if _nested(parameters) else {"": parameters}
    groups = []
    for label, own in labelled.items():
        types = config.get("layer_types")
        layers = tuple(i for i, kind in enumerate(types) if kind == label) if label and types else _layers(config)
        groups.append(LayerGroup(part, label, layers, axial(model_type, config, own), notes=note))
    return groups


@dataclass(frozen=True)
class _Kind:
    """What may differ from layer to layer."""

    label: str
    rotated: bool
    base: float | None
    head_dim: int | None
    nope_dim: int | None
    share: float | None = None


def is_rotary(config: Mapping[str, Any]) -> bool:
    """Does this config, without its parts, speak of rotation?"""
    names = ("rope_parameters", "rope_scaling", "rope_theta", "rotary_dim", "rotary_emb_base", "global_rope_theta")
    return any(config.get(name) is not None for name in names)


def _parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """``rope_parameters``, or ``rope_scaling`` of transformers 4, or nothing."""
    new, old = config.get("rope_parameters"), config.get("rope_scaling")
    if new and old and new != old:
        raise ValueError(
            "describe: got rope_parameters and rope_scaling, and they differ; rope_scaling is their name before "
            "transformers 5, so drop it."
        )
    return dict(new or old or {})


def _nested(parameters: Mapping[str, Any]) -> bool:
    return bool(parameters) and all(value is None or isinstance(value, Mapping) for value in parameters.values())


def _layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(range(need(config, "num_layers")))


def _kinds(model_type: str, config: Mapping[str, Any]) -> dict[_Kind, list[int]]:
    """The layers with attention, by kind."""
    kinds: dict[_Kind, list[int]] = {}
    types = config.get("layer_types") or config.get("layers_block_type")
    layers = range(len(types)) if types else _layers(config)
    nested = _nested(_parameters(config)) or "rope_local_base_freq" in config or "local_rope_theta" in config
    for index in layers:
        kind_of_layer = types[index] if types else ""
        if kind_of_layer in models.NO_ATTENTION:
            continue
        own = dict(config) | dict((config.get("per_layer_config") or {}).get(f"{index:02d}", {}))
        label = _label(model_type, kind_of_layer) if nested else ""
        rotated, base = _is_rotated(model_type, config, index, kind_of_layer, label)
        head_dim = own.get("global_head_dim") if kind_of_layer == "full_attention" else None
        kind = _Kind(
            label if rotated or nested else "",
            rotated,
            base,
            head_dim or size(own, "head_dim"),
            own.get("qk_nope_head_dim"),
        )
        kinds.setdefault(kind, []).append(index)
    return kinds


def _label(model_type: str, kind_of_layer: str) -> str:
    if model_type == "deepseek_v4":
        return "main" if kind_of_layer == "sliding_attention" else "compress"
    return kind_of_layer


def _is_rotated(
    model_type: str, config: Mapping[str, Any], index: int, kind_of_layer: str, label: str
) -> tuple[bool, float | None]:
    """Whether a layer is rotated, and its own base if it has one."""
    parameters = _parameters(config)
    if _nested(parameters) and label in parameters and parameters[label] is None:
        return False, None
    flags = config.get("no_rope_layers")  # 1 where there is rotation, whatever the name says
    if flags:
        return bool(flags[index]), None
    if (interval := config.get("no_rope_layer_interval")) and model_type in ("smollm3", "llama4_text"):
        return (index + 1) % interval != 0, None
    bases = config.get("layer_rope_theta")
    if bases:
        return bases[index] != 0, float(bases[index]) if bases[index] else None
    if model_type in models.LATENT and config.get("qk_rope_head_dim") == 0:
        return False, None
    windowed = config.get("sliding_window") is not None
    if model_type == "cohere2_moe":
        return kind_of_layer != "full_attention" or _forces_rotation(config, index), None
    if model_type in models.NOPE_WHERE_FULL and windowed and kind_of_layer == "full_attention":
        return False, None
    return True, None


def _forces_rotation(config: Mapping[str, Any], index: int) -> bool:
    kinds = config.get("mlp_layer_types") or []
    dense = index < len(kinds) and kinds[index] == "dense"
    return bool(dense and config.get("prefix_dense_sliding_window_pattern") == 1)


def _encoding(
    model_type: str, config: Mapping[str, Any], kind: _Kind, pairing: Pairing | None
) -> tuple[Encoding, int | None, int | None, tuple[str, ...]]:
    max_positions = size(config, "max_positions")
    if not kind.rotated:
        return with_temperature(NoPE(), model_type, config, {}, rotated=False), max_positions, max_positions, ()
    parameters = _flat_parameters(config, kind.label)
    head_dim = _head_dim(model_type, config, kind)
    share = _share(model_type, config, parameters, head_dim)
    rule = read_rule(
        parameters,
        where=f"describe: {model_type}" + (f", {kind.label}" if kind.label else ""),
        base=kind.base if kind.base is not None else _outer_base(config, parameters, kind.label),
        max_positions=max_positions,
        trained_length=config.get("original_max_position_embeddings"),
        share=share,
        corrects_scores=model_type in models.CORRECTS_SCORES,
    )
    rotary_dim, start = _slice(model_type, config, rule, head_dim, share, kind)
    paired = pairing or _pairing(model_type, config)
    notes = rule.notes
    rotation: Encoding
    if model_type in models.SECTIONS:
        rotation = mrope(model_type, parameters, rule, head_dim=head_dim, rotary_dim=rotary_dim, pairing=paired)
    else:
        frequencies = rule.frequencies
        if model_type in models.NEGATIVE:
            rates = (-frequencies.inv_freq(rotary_dim)).tolist()
            frequencies = Custom(rates, attention_factor=frequencies.attention_factor)
            notes = (*notes, f"turned by -angle, so the rates of {rule.frequencies} stand with a minus")
        if model_type in models.LEARNED_RATES:
            frequencies = LearnedRates(frequencies, parameter="log_scale")
            notes = (*notes, "each rate has a learned factor, which is 1 until the weights are loaded")
        if parameters.get("mrope_section") or parameters.get("xdrope_section"):
            notes = (*notes, *_sections_without_rotation(model_type, config))
        width = head_dim if model_type not in models.LATENT else start + rotary_dim
        rotation = RoPE(width, frequencies=frequencies, pairing=paired, rotary_dim=rotary_dim, rotary_start=start)
    encoding = with_temperature(rotation, model_type, config, parameters, rotated=True)
    return encoding, rule.trained_length, rule.longest, notes


def _sections_without_rotation(model_type: str, config: Mapping[str, Any]) -> tuple[str]:
    if model_type != "hunyuan_vl_text":
        raise ValueError(f"describe: {model_type!r} does not read mrope_section; remove it.")
    return (
        "for a text; the two channels of a pair read different coordinates of an image token, which is no rotation",
    )


def _flat_parameters(config: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The parameters of one kind of layer."""
    parameters = _parameters(config)
    if _nested(parameters):
        if label not in parameters:
            raise ValueError(
                f"describe: rope_parameters has {list(parameters)} and nothing for the layers {label!r}; add it (null "
                "for layers without rotation)."
            )
        return dict(parameters[label])
    # transformers 4 had two bases and one scaling, that of the layers with full attention.
    return {} if label == "sliding_attention" and "rope_local_base_freq" in config else parameters


def _outer_base(config: Mapping[str, Any], parameters: Mapping[str, Any], label: str) -> float | None:
    """The base that stands in the config itself, under one of its names."""
    if label == "sliding_attention":
        found = first(config, "rope_local_base_freq", "local_rope_theta")
        if found is not None:
            return float(found)
    found = first(config, "rope_theta", "rotary_emb_base", "rotary_embedding_base", "global_rope_theta")
    if parameters.get("rope_theta") is not None and _nested(_parameters(config)):
        return None  # what stands outside of nested parameters is a default for those that lack it
    return None if found is None else float(found)


def _head_dim(model_type: str, config: Mapping[str, Any], kind: _Kind) -> int:
    if model_type in models.LATENT:
        return int(need_key(config, "qk_rope_head_dim"))
    if kind.head_dim:
        return int(kind.head_dim)
    return int(need(config, "hidden_size") // need(config, "num_heads"))


def need_key(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key that must be there."""
    if config.get(key) is None:
        raise ValueError(f"describe: the config of {config.get('model_type')!r} has no {key}; add it.")
    return config[key]


def _share(model_type: str, config: Mapping[str, Any], parameters: Mapping[str, Any], head_dim: int) -> float:
    """``partial_rotary_factor``, under one of its names."""
    outside = first(config, "partial_rotary_factor", "rotary_pct", "rope_pct", "rotary_percent")
    inside = parameters.get("partial_rotary_factor")
    if inside is not None and outside is not None and inside != outside:
        raise ValueError(
            f"describe: partial_rotary_factor is {inside} in the rotary parameters and {outside} beside them; drop one."
        )
    found = inside if inside is not None else outside
    if found is None and model_type == "mimo_v2_flash":
        return 0.334  # what its code takes
    share = 1.0 if found is None else float(found)
    if not 0 < share <= 1:
        raise ValueError(f"describe: partial_rotary_factor is {share}, expected above 0 and at most 1.")
    if (told := config.get("rotary_dim")) is not None and told != int(head_dim * share):
        raise ValueError(
            f"describe: rotary_dim is {told}, and partial_rotary_factor {share} of head_dim {head_dim} is "
            f"{int(head_dim * share)}; {model_type!r} reads the factor alone, so set it to {told / head_dim:g} or drop "
            "rotary_dim."
        )
    return share


def _slice(
    model_type: str, config: Mapping[str, Any], rule: Rule, head_dim: int, share: float, kind: _Kind
) -> tuple[int, int]:
    """(rotary_dim, rotary_start) in a head."""
    if model_type in models.LATENT:
        return head_dim, int(kind.nope_dim if kind.nope_dim is not None else need_key(config, "qk_nope_head_dim"))
    if rule.name == "proportional":
        return head_dim, 0
    if share != 1 and rule.name == "default" and model_type in models.KNOWN and model_type not in models.PARTIAL:
        raise ValueError(
            f"describe: partial_rotary_factor is {share}, and {model_type!r} rotates whole heads under the plain rule "
            "whatever it says; remove it."
        )
    rotary_dim = int(head_dim * share)
    if rotary_dim % 2 or not rotary_dim:
        raise ValueError(
            f"describe: partial_rotary_factor {share} of head_dim {head_dim} is {rotary_dim} channels, expected an "
            "even number above 0, because channels turn in pairs."
        )
    if model_type in models.TRAILING:
        return rotary_dim, head_dim - rotary_dim
    return rotary_dim, 0


def _pairing(model_type: str, config: Mapping[str, Any]) -> Pairing:
    if model_type in models.ASKS_ROPE_INTERLEAVE:
        return "interleaved" if config.get("rope_interleave", True) else "half"
    return "interleaved" if model_type in models.INTERLEAVED else "half"

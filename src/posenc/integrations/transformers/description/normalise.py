"""A raw config, filled in by the config class of transformers that owns it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from posenc.integrations.transformers.description.composite import (
    has_other_parts,
    with_text_part,
    with_types_of_parts,
)
from posenc.integrations.transformers.description.config import (
    Keys,
    bears_on_positions,
    tidy,
)
from posenc.integrations.transformers.description.config_class import (
    built,
    built_by_structure,
    config_class,
    default_parameters,
    full,
    not_its_keys,
    version,
)
from posenc.integrations.transformers.description.layers import (
    is_nested,
    is_rotary,
    rotary_parameters,
    types_of,
    unlike,
)
from posenc.integrations.transformers.description.model_types import SAME_CODE, names
from posenc.integrations.transformers.description.own_words import mimo_by_kind, step5_by_layer, v4_by_kind
from posenc.integrations.transformers.description.parts import is_part, parts

#: The reading without transformers' class.
ALONE = "the keys alone"

#: Names from before transformers 5 that its classes turn into ``rope_parameters`` or ``layer_types``.
_CONSUMED = names("""
    compress_rope_theta global_rope_theta local_rope_theta partial_rotary_factor partial_rotary_factors rope_pct
    rope_local_base_freq
    no_rope_layer_interval rope_scaling rope_theta rotary_emb_base rotary_emb_fraction rotary_pct rotary_percent
""")


@dataclass
class Part:
    """A part of a model as it is read.

    Attributes:
        name: the key of its config; "" for the whole.
        keys: its config.
        reading: which class filled it in, or :data:`ALONE`.
        not_read: what could not be used, as text.
        trouble: why it cannot be read, if so.
    """

    name: str
    keys: Keys
    reading: str
    not_read: list[str] = field(default_factory=list)
    trouble: ValueError | None = None

    @property
    def by_class(self) -> bool:
        """Whether transformers' class filled it in."""
        return self.reading != ALONE

    @property
    def model_type(self) -> str:
        """Its model type, as in the config."""
        return str(self.keys.get("model_type"))


def normalise(source: Any) -> list[Part]:
    """The parts of a raw config or of a config object, each filled in by its class where there is one."""
    raw = source if isinstance(source, Mapping) else full(source)
    found = _parts_of(raw, filled=raw is not source)
    for part in found:
        if part.by_class:
            _by_kind(part)
            # What a class has a field for and puts elsewhere is read there.
            part.keys.asked |= _CONSUMED & set(getattr(config_class(part.model_type), "__dataclass_fields__", ()))
            part.keys.asked |= _moved(dict(part.keys))  # a copy: to look is not to use
            found[0].keys.asked |= _moved({**dict(found[0].keys), **_rotary_of(part.keys)})
    _name_outranked(raw, found)
    return found


def _name_outranked(raw: Mapping[str, Any], found: list[Part]) -> None:
    """Say which numbers of a config its classes have others for, among the rotary parameters, which alone are read.

    Some classes have a rule by default, and drop a flat ``rope_theta`` for it without a word. A config object keeps
    such a number as an attribute that nothing reads.
    """
    inside = {name: set[float]() for name in ("rope_theta", "partial_rotary_factor")}
    for part in found:
        parameters = rotary_parameters(dict(part.keys)) if part.by_class else {}
        for each in parameters.values() if is_nested(parameters) else [parameters]:
            for name, values in inside.items():
                if isinstance((each or {}).get(name), (int, float)):
                    values.add(each[name])
    for part in found:
        if not part.by_class:
            continue
        given = at(raw, part.name)
        beside = set() if part.name else {*_beside_text(raw)}  # named already
        for key in _CONSUMED & given.keys() - beside:
            value = given[key]
            taken = inside["rope_theta" if "theta" in key or "base" in key else "partial_rotary_factor"]
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            # A part without rotary parameters reads its own (the proteins of Evolla).
            own = part.name and dict(part.keys).get(key) == value and not rotary_parameters(_rotary_of(part.keys))
            if number and not own and "interval" not in key and taken and value not in taken:
                part.keys.asked.add(key)
                part.not_read.append(f"{key}, {value}: its class has {', '.join(map(str, sorted(taken)))} instead")


def _by_kind(part: Part) -> None:
    """Leave of the rotary parameters what is read by a model whose class has them by kind of layer.

    Such a class lets flat ones stand, and its model looks for those of each kind alone.
    """
    given = dict(part.keys).get("rope_parameters")
    if not isinstance(given, Mapping) or is_nested(given) or not is_nested(default_parameters(part.model_type)):
        return
    kinds = {key: value for key, value in given.items() if isinstance(value, Mapping)}
    if kinds:
        # transformers 5.6 adds two itself, which say nothing.
        dropped = sorted(key for key in given.keys() - kinds.keys() if given[key] not in (None, "default"))
        if dropped:
            named = ", ".join(dropped)
            part.not_read.append(
                f"rope_parameters: {named}, besides those by kind of layer; the model reads only the latter"
            )
        part.keys["rope_parameters"] = kinds
    elif part.trouble is None:
        part.trouble = ValueError(
            f"describe: the rope_parameters of {part.model_type!r} have no kinds of layers, and the model reads one "
            f"entry for each kind; write {{kind: {{...}}}} for {' and '.join(default_parameters(part.model_type))}."
        )


def _rotary_of(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary parameters of a part, which may hold what a flat config says."""
    return {"rope_parameters": dict(keys).get("rope_parameters"), "rope_scaling": None}


def _moved(keys: Mapping[str, Any]) -> set[str]:
    """Keys whose number stands among the rotary parameters, where its class has put it."""
    parameters = rotary_parameters(keys)
    inside = [each for each in parameters.values() if each] if is_nested(parameters) else [parameters]
    numbers = {value for each in inside for value in each.values() if isinstance(value, (int, float))}
    return {key for key in (*_CONSUMED, "swa_rope_theta") if key in keys and _is_in(keys[key], numbers)}


def _is_in(value: Any, numbers: set[Any]) -> bool:
    return isinstance(value, (int, float)) and value in numbers


def _parts_of(given: Mapping[str, Any], *, filled: bool) -> list[Part]:
    """The parts of a raw config, or of one that its class has filled in already."""
    raw = given if filled else with_types_of_parts(given)
    beside = _beside_text(raw)
    if beside:
        longest = raw.get("max_position_embeddings")
        twice = ["max_position_embeddings"] if raw["text_config"].get("max_position_embeddings") == longest else []
        found = _parts_of({key: value for key, value in raw.items() if key not in (*beside, *twice)}, filled=filled)
        if not _says_the_same({key: raw[key] for key in beside}, found):
            found[0].not_read.append(
                f"{', '.join(beside)}: outside of text_config; the model reads only text_config, so write them there"
            )
        return found
    if filled:
        return [Part(name, Keys(keys), version(), unlike(at(raw, name), dict(keys))) for name, keys in parts(raw)]
    try:
        checked, moved = with_text_part(_tidied(raw))
        whole, left_out = _by_class(checked)
    except ValueError as trouble:
        return _part_by_part(raw, trouble)
    if whole is None or has_other_parts(checked):
        return _part_by_part(raw, None)
    found = [Part(name, Keys(keys), version()) for name, keys in parts(whole)]
    found[0].not_read += left_out
    if moved:
        strange = [part for part in found if part.name and part.name.split(".")[0] not in checked]
        found = [part for part in found if part not in strange]
        found[0].not_read += [
            f"{part.name}: the config has none, and its class's default is not taken" for part in strange
        ]
    for part in found:
        # What a flat config says may be put into a part.
        elsewhere = {key for other in found for key in other.keys} if not part.name else set()
        part.not_read += _dropped(at(checked, part.name), {*part.keys, *elsewhere})
        part.not_read += unlike(at(checked, part.name), dict(part.keys))
    return found


def _beside_text(raw: Mapping[str, Any]) -> list[str]:
    """Rotary parameters beside a text_config, in a config whose class has none itself: flags of servers put them there,
    and some versions of transformers write them twice."""
    fields = getattr(config_class(raw.get("model_type")), "__dataclass_fields__", {})
    if not isinstance(raw.get("text_config"), Mapping) or "text_config" not in fields or "rope_parameters" in fields:
        return []
    names = ("rope_scaling", "rope_parameters", "rope_theta")
    return [key for key in names if raw.get(key) and key not in fields]


def _says_the_same(beside: Mapping[str, Any], found: list[Part]) -> bool:
    """Whether the parameters beside a text_config are those of its part too."""
    text = dict(next((part for part in found if part.name == "text_config"), found[0]).keys)
    by_kind = text.get("rope_parameters")
    kinds = [each for each in by_kind.values() if isinstance(each, Mapping)] if isinstance(by_kind, Mapping) else []
    given = {key: value for key, value in _flat_rotary(beside).items() if value is not None}
    takes = [_flat_rotary({"rope_parameters": each}) for each in kinds] or [_flat_rotary(text)]
    return any(given.items() <= taken.items() for taken in takes)


def _flat_rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config's base and rotary parameters in one object, with the one name that transformers 5 has for a rule."""
    flat: dict[str, Any] = {"rope_theta": config.get("rope_theta")}
    for key in ("rope_scaling", "rope_parameters"):
        given = config.get(key) or {}
        flat.update(given if isinstance(given, Mapping) else {key: given})
    rule = flat.pop("type", None)
    rule = flat.get("rope_type") or rule
    return flat | {"rope_type": "default" if rule in (None, "mrope") else rule}


def _tidied(config: Mapping[str, Any]) -> dict[str, Any]:
    """:func:`tidy`, for the config and its parts."""
    return tidy({key: _tidied(value) if is_part(str(key), value) else value for key, value in config.items()})


def spelled_out(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with layer_types in the place of a pattern in letters ("LLLG"), which classes count with."""
    if not isinstance(config.get("sliding_window_pattern"), str):
        return config
    found = {key: value for key, value in config.items() if key != "sliding_window_pattern"}
    found["layer_types"] = config.get("layer_types") or types_of(config)
    return found


def _by_class(config: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """The config filled in, and what was left out; None where no class knows it.

    Raises:
        ValueError: the class refuses it.
    """
    cls = config_class(config.get("model_type"))
    if cls is None:
        return None, []
    config = spelled_out(config)
    said: list[str] = []
    base = (config.get("attn_config") or {}).get("rope_theta")
    if config.get("model_type") == "dbrx" and base is not None and not is_rotary(config):
        config = {**config, "rope_theta": base}
        said = ["attn_config.rope_theta, which its class drops; it is read here, as the published code reads it"]
    if config.get("model_type") == "mimo_v2_flash":
        config, given = mimo_by_kind(dict(config)), config
        if config != given and not _same_layers(built(cls, given), built(cls, config)):
            said = ["hybrid_layer_pattern and its bases, which its class drops; they are read here, as its code does"]
    try:
        filled = built(cls, config)
    except ValueError as trouble:
        filled = built_by_structure(cls, config, trouble)
        said.append(f"keys that say nothing of positions, one of which is refused: {trouble}")
    return filled, said + not_its_keys(cls, config, filled)


def _same_layers(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in ("layer_types", "rope_parameters"))


def _part_by_part(raw: Mapping[str, Any], trouble: ValueError | None) -> list[Part]:
    """Each part filled in by its own class, or read by its keys alone, or named with its trouble."""
    found: list[Part] = []
    named = parts(raw)
    taken = {name for name, _ in named}
    for name, keys in named:
        try:
            checked = tidy(keys)
            strange = not name and has_other_parts(
                raw
            )  # what its class would fill in for the whole is not this model's
            whole, left_out = (None, []) if strange else _by_class(checked)
        except ValueError as error:
            found.append(Part(name, Keys(keys), ALONE, trouble=error))
            continue
        if whole is None:
            try:
                found.append(Part(name, Keys(_by_type(checked)), ALONE))
            except ValueError as error:
                found.append(Part(name, Keys(checked), ALONE, trouble=error))
            continue
        for inner, own in parts(whole):
            full_name = ".".join(filter(None, (name, inner)))
            if not inner or (
                full_name not in taken and not has_other_parts(at(raw, name))
            ):  # what a class fills in for parts that the config has is not theirs
                left = [*left_out, *_dropped(checked, own)] if not inner else []
                found.append(Part(full_name, Keys(own), version(), left))
    if trouble is not None and not any(part.trouble for part in found):
        found[0].not_read.append(f"the config as a whole: {trouble}")
    return found


def _by_type(config: dict[str, Any]) -> dict[str, Any]:
    """What a config says in words of its own type: rotary parameters by kind of layer, where it has a base for each
    layer (Step-3.5) or compresses some layers (DeepSeek V4); layers, where it counts their blocks (Dory).

    Raises:
        ValueError: layers of one kind with several bases, or no kinds for them; blocks that do not make layers.
    """
    config = {**config, "model_type": SAME_CODE.get(str(config.get("model_type")), config.get("model_type"))}
    bases = config.get("rope_theta")
    by_kind = {"deepseek_v4": v4_by_kind, "mimo_v2_flash": mimo_by_kind}.get(str(config.get("model_type")))
    if by_kind is not None:
        return by_kind(config)
    if config.get("model_type") == "dory" and "mlp" in (config.get("layer_types") or []):
        return _in_layers(config)
    if config.get("model_type") == "step5":
        config = step5_by_layer(config)
        bases = config.get("rope_theta")
    if not isinstance(bases, list):
        return config
    types, shares = config.get("layer_types") or [], config.get("partial_rotary_factors") or [None] * len(bases)
    for key, listed in (("layer_types", types), ("yarn_only_types", config.get("yarn_only_types") or [])):
        if not isinstance(listed, (list, tuple)) or not all(isinstance(each, str) for each in listed):
            raise ValueError(f"describe: {key} is {listed!r}, expected a list of kinds of layers; correct it.")
    rows = set(zip(types, bases, shares, strict=False))
    if not types or len(bases) < len(types) or len(shares) < len(types) or len(rows) != len({row[0] for row in rows}):
        raise ValueError(
            f"describe: rope_theta has {len(bases)} entries, {len(set(bases))} of them different, for "
            f"{len(types)} layer_types, expected one for each kind of layer; give rope_parameters by kind."
        )
    scaled = config.get("yarn_only_types") or sorted({*types})
    made = {
        kind: {"rope_type": "default", "rope_theta": base}
        | ({} if share is None else {"partial_rotary_factor": share})
        | (dict(config.get("rope_scaling") or {}) if kind in scaled else {})
        for kind, base, share in rows
    }
    gone = ("rope_theta", "partial_rotary_factors", "rope_scaling", "yarn_only_types")
    return {key: value for key, value in config.items() if key not in gone} | {"rope_parameters": made}


def _in_layers(config: dict[str, Any]) -> dict[str, Any]:
    """Dory's files count attention and network as two blocks; its class counts both as one layer, as all others do."""
    types, count = config["layer_types"], config.get("num_hidden_layers")
    if set(types[1::2]) != {"mlp"} or "mlp" in types[::2] or count != len(types):
        raise ValueError(
            f"describe: dory: got layer_types {types} for num_hidden_layers {count}, expected that many layer_types, "
            "alternately attention and mlp."
        )
    return config | {"layer_types": types[::2], "num_hidden_layers": len(types) // 2}


def _dropped(raw: Mapping[str, Any], filled: Collection[str]) -> list[str]:
    """Keys of the raw config that bear on positions, and that its class took no notice of."""
    return [
        f"{key}, which its class drops"
        for key, value in raw.items()
        if bears_on_positions(key)
        and key not in filled
        and key not in _CONSUMED
        and value not in (None, False, "", [], {})
        and not isinstance(value, Mapping)
    ]


def at(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The part of a config of this name, as it is written; nothing where there is none."""
    for key in name.split(".") if name else ():
        config = config.get(key) or {}
        if not isinstance(config, Mapping):
            return {}
    return config

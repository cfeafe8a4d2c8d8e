"""Which layers have attention, and what differs from one layer to another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posenc.integrations.transformers.description import model_types as models
from posenc.integrations.transformers.description.config import need, size, tidy


@dataclass(frozen=True)
class Kind:
    """What may differ from layer to layer.

    Attributes:
        label: what the config calls this kind of layer.
        rotated: whether q and k are rotated.
        base: its own base, if it has one.
        head_dim: channels of a head, if the config says them.
        nope_dim: channels before the rotated ones (latent attention), if the config says them.
    """

    label: str
    rotated: bool
    base: float | None
    head_dim: int | None
    nope_dim: int | None


def is_rotary(config: Mapping[str, Any]) -> bool:
    """Does this config, without its parts, speak of rotation?"""
    names = (
        *("rope_parameters", "rope_scaling", "rope_theta", "rotary_dim", "rotary_emb_base", "rotary_pct"),
        *("global_rope_theta", "compress_rope_theta", "qk_rope_head_dim", "rope_embedding_base"),
    )
    return any(config.get(name) is not None for name in names)


def has_base(config: Mapping[str, Any]) -> bool:
    """Does this config say a base of the rotation, in any place?"""
    parameters = rotary_parameters(config)
    places = [config, *(parameters.values() if is_nested(parameters) else [parameters])]
    names = ("rope_theta", "rotary_emb_base", "rotary_embedding_base", "rope_embedding_base", "layer_rope_theta")
    return any(place.get(name) is not None for place in places if place for name in names)


def rotary_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """``rope_parameters``, or ``rope_scaling`` of transformers 4, or nothing."""
    new, old = config.get("rope_parameters"), config.get("rope_scaling")
    for name, value in (("rope_parameters", new), ("rope_scaling", old)):
        if value and not isinstance(value, Mapping):
            raise ValueError(f"describe: {name} is {value!r}, expected an object, the keys of a rule; correct it.")
    if new and old and new != old:
        _check_alike(config, new, old)
        return {**old, **new}
    return dict(new or old or {})


def _check_alike(config: Mapping[str, Any], new: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    """Refuse a config whose readers make different things of it: each knows one of the two objects."""
    apart = sorted(key for key in new.keys() & old.keys() if new[key] != old[key])
    base, beside = new.get("rope_theta"), config.get("rope_theta")
    lost = {key: value for key, value in new.items() if key not in old and key not in ("rope_type", "type")}
    if base is not None and base in (old.get("rope_theta"), beside):
        lost.pop("rope_theta", None)
    rules = {str(each.get("rope_type", each.get("type", "default"))) for each in (new, old)}
    if not apart and not lost and len(rules) == 1:
        return
    taken = "that its class has by default (10000 for most)" if beside is None else f"{beside} outside of them"
    taken = str(old["rope_theta"]) if old.get("rope_theta") is not None else taken
    short = [{key: value for key, value in each.items() if not isinstance(value, (list, tuple))} for each in (new, old)]
    raise ValueError(
        f"describe: got rope_parameters {short[0]} and rope_scaling {short[1]}, and they differ: transformers "
        f"reads only rope_scaling, with the base {taken}, and llama.cpp's converter reads only rope_parameters; write "
        "the rule and the rope_theta that the model was trained with into rope_parameters, and drop rope_scaling."
    )


def is_nested(parameters: Mapping[str, Any]) -> bool:
    """Are these rotary parameters by kind of layer?"""
    return bool(parameters) and all(value is None or isinstance(value, Mapping) for value in parameters.values())


def types_of(config: Mapping[str, Any]) -> list[str] | None:
    """The type of each layer, from a list of them or a pattern; None if no key tells layers apart.

    Raises:
        ValueError: a list that is shorter than the layers; a pattern, and no number of layers.
    """
    for name in ("layer_types", "layers_block_type"):
        types = config.get(name)
        if types:
            count = size(config, "num_layers")
            if count is not None and len(types) < count:
                raise ValueError(f"describe: {name} has {len(types)} entries for {count} layers; give one for each.")
            return [str(each) for each in (types if count is None else types[:count])]
    for name, pattern in PATTERNS.items():
        value = config.get(name)
        if value not in (None, [], 0, ""):
            count = size(config, "num_layers")
            if count is None and not isinstance(value, (str, list, tuple)):
                raise ValueError(
                    f"describe: {name} is {value!r}, and the config gives no number of layers; add num_hidden_layers."
                )
            return pattern(value, int(count if count is not None else len(value)), config)
    return None


def unlike(raw: Mapping[str, Any], filled: Mapping[str, Any]) -> list[str]:
    """The keys of a raw config that say which layers have attention, and that its class did not follow."""
    found = []
    actual = types_of(filled)
    for name in PATTERNS:
        if raw.get(name) in (None, [], 0, "") or name in ("sliding_window_pattern", "global_attn_every_n_layers"):
            continue
        own = {key: value for key, value in raw.items() if key not in (*PATTERNS, "layer_types", "layers_block_type")}
        meant = types_of({**own, name: raw[name]}) or []
        places = [
            [i for i, kind in enumerate(types) if kind not in models.NO_ATTENTION] for types in (meant, actual or meant)
        ]
        if places[0] != places[1] and len(meant) == len(actual or meant):
            found.append(f"{name}, which its class drops: it says that the layers {places[0]} have attention")
    for name in ("layer_types", "layers_block_type", "hybrid_layer_pattern"):
        given = raw.get(name)
        meant = list(given) if isinstance(given, (list, tuple)) else []
        if actual and len(meant) > len(actual):  # Dory's files have an entry for a network as for an attention
            meant = [kind for kind in meant if kind != "mlp"][: len(actual)]
        if actual and len(meant) == len(actual) and _alike(meant) != _alike(actual):
            found.append(f"{name}, which its class does not follow: its layers are of other kinds")
    return found


def _alike(types: Sequence[Any]) -> list[int]:
    """For each layer, the first one of its kind, whatever the kinds are called."""
    return [types.index(kind) for kind in types]


def _at(full: str, other: str) -> Callable[[Any, int, Mapping[str, Any]], list[str]]:
    return lambda places, count, _: [full if i in places else other for i in range(count)]


def _every(full: str, other: str, first: int) -> Callable[[Any, int, Mapping[str, Any]], list[str]]:
    """Each n-th layer, counted from the first or (-1) ending with the n-th."""

    def types(n: Any, count: int, _: Mapping[str, Any]) -> list[str]:
        if isinstance(n, str):  # "LLLG": local and global
            if not n or set(n) - {"L", "G"}:
                raise ValueError(
                    f"describe: the pattern of layers is {n!r}, expected a string of L (local) and G (global), such "
                    "as 'LLLG', or the number of layers in the pattern; write layer_types."
                )
            return [full if n[i % len(n)] == "G" else other for i in range(count)]
        if not isinstance(n, int) or n < 1:
            raise ValueError(
                f"describe: the pattern of layers is {n!r}, expected the number of layers in the pattern; correct it."
            )
        return [full if (i - first) % n == 0 else other for i in range(count)]

    return types


def _letters(value: Any, count: int, _: Mapping[str, Any]) -> list[str]:
    return ["full_attention" if letter == "*" else "mamba" for letter in str(value).replace("|", "")]


def _period(value: Any, count: int, config: Mapping[str, Any]) -> list[str]:
    """As Jamba counts. Zamba counts from its fourth layer, and has one with attention before."""
    offset = int(config.get("attn_layer_offset") or 0)
    start = 3 if config.get("model_type") == "zamba" else 0
    first = ["mamba", "mamba", "full_attention"][:start]
    return first + ["full_attention" if i % int(value) == offset else "mamba" for i in range(count - start)]


def _flags(value: Any, count: int, _: Mapping[str, Any]) -> list[str]:
    return ["full_attention" if flag else "linear_attention" for flag in value]


def _blocks(value: Any, count: int, _: Mapping[str, Any]) -> list[str]:
    def has_attention(block: Any) -> bool:
        attention = block.get("attention") if isinstance(block, Mapping) else None
        attention = attention if isinstance(attention, Mapping) else {}
        return not (attention.get("no_op") or attention.get("replace_with_linear"))

    return ["full_attention" if has_attention(block) else "mlp" for block in value]


def _groups(value: Any, count: int, _: Mapping[str, Any]) -> list[str]:
    """Groups of layers whose last has full attention; so have all of a last group that is not whole (Ling 2.5)."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(
            f"describe: layer_group_size is {value!r}, expected the number of layers in a group; correct it."
        )
    whole = count // value * value
    return ["full_attention" if (i + 1) % value == 0 or i >= whole else "linear_attention" for i in range(count)]


def _repeated(value: Any, count: int, _: Mapping[str, Any]) -> list[str]:
    return [str(value[i % len(value)]) for i in range(count)]


#: How configs say which layers are which where they have no list of types; transformers' classes write that list.
PATTERNS: dict[str, Callable[[Any, int, Mapping[str, Any]], list[str]]] = {
    "full_attn_idxs": _at("full_attention", "conv"),
    "attn_layer_indices": _at("full_attention", "mamba"),
    "attn_layer_idxs": _at("full_attention", "mamba"),
    "full_attention_interval": _every("full_attention", "linear_attention", -1),
    "sliding_window_pattern": _every("full_attention", "sliding_attention", -1),
    "global_attn_every_n_layers": _every("full_attention", "sliding_attention", 0),
    "attn_layer_period": _period,
    "hybrid_override_pattern": _letters,
    "attn_type_list": _flags,
    "block_configs": _blocks,
    "block_types": _repeated,
    "layer_group_size": _groups,
}


def all_layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The numbers of all layers."""
    return tuple(range(int(need(config, "num_layers"))))


def with_attention(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The layers that have attention."""
    types = types_of(config)
    if types is None:
        return all_layers(config)
    return tuple(i for i, kind in enumerate(types) if kind not in models.NO_ATTENTION)


def kinds(model_type: str, config: Mapping[str, Any], *, by_class: bool) -> dict[Kind, list[int]]:
    """The layers with attention, by kind.

    Raises:
        ValueError: a list of one value for each layer that is too short; a pattern that is left to a class that is not
            there.
    """
    found: dict[Kind, list[int]] = {}
    types = types_of(config)
    if types is None and not by_class and model_type in models.KINDS_BY_CLASS and not config.get("no_rope_layers"):
        raise ValueError(
            f"describe: the layers of {model_type!r} differ, and its config leaves the pattern to the config class of "
            "transformers, which was not found; install transformers, or add layer_types."
        )
    layers = range(len(types)) if types else all_layers(config)
    parameters = rotary_parameters(config)
    # A class that has two bases has put them inside; one that keeps the key beside them does not read it.
    two = not by_class and ("rope_local_base_freq" in config or "local_rope_theta" in config)
    nested = is_nested(parameters) or two
    for name in ("no_rope_layers", "layer_rope_theta"):
        given = config.get(name)
        if given and len(given) < len(layers):
            raise ValueError(f"describe: {name} has {len(given)} entries for {len(layers)} layers; give one for each.")
    # The layers are written as "5" or "05", by how many there are.
    own_keys = {
        int(index): tidy(keys)
        for index, keys in (config.get("per_layer_config") or {}).items()
        if str(index).isdecimal() and isinstance(keys, Mapping)
    }
    for index in layers:
        type_ = types[index] if types else ""
        if type_ in models.NO_ATTENTION:
            continue
        own = dict(config) | own_keys.get(index, {})
        label = _label(model_type, type_) if nested else ""
        rotated, base = _is_rotated(model_type, config, parameters, index, type_, label)
        global_dim = own.get("global_head_dim") if type_ == "full_attention" else None
        nope = own.get("qk_nope_head_dim")
        kind = Kind(label if rotated or nested else "", rotated, base, global_dim or size(own, "head_dim"), nope)
        found.setdefault(kind, []).append(index)
    return found


def _label(model_type: str, type_: str) -> str:
    if model_type in models.LABELS:
        return models.LABELS[model_type].get(type_, models.LABELS[model_type][""])
    return type_


def _is_rotated(
    model_type: str, config: Mapping[str, Any], parameters: Mapping[str, Any], index: int, type_: str, label: str
) -> tuple[bool, float | None]:
    """Whether a layer is rotated, and its own base if it has one."""
    if is_nested(parameters) and label in parameters and parameters[label] is None:
        return False, None
    if index in (config.get("cross_attention_layers") or ()):
        return False, None  # it attends to an image, whose tokens have no place among those of the text
    flags = config.get("no_rope_layers")  # 1 where there is rotation, whatever the name says
    if flags:
        return bool(flags[index]), None
    if (interval := config.get("no_rope_layer_interval")) and model_type in models.NO_ROPE_INTERVAL:
        return (index + 1) % interval != 0, None
    bases = config.get("layer_rope_theta")
    if bases:
        return bases[index] != 0, float(bases[index]) if bases[index] else None
    if config.get("qk_rope_head_dim") == 0:
        return False, None
    windowed = config.get("sliding_window") is not None or "sliding_window" not in config
    if model_type in models.ROTATED_IF_WINDOWED:
        return (type_ != "full_attention" and windowed) or _forces_rotation(config, index), None
    if model_type in models.ROTATED_IF_SLIDING:
        return type_ == "sliding_attention", None
    if model_type in models.NOPE_WHERE_FULL and windowed and type_ == "full_attention":
        return False, None
    return True, None


def _forces_rotation(config: Mapping[str, Any], index: int) -> bool:
    mlps = config.get("mlp_layer_types") or []
    dense = index < len(mlps) and mlps[index] == "dense"
    return bool(dense and config.get("prefix_dense_sliding_window_pattern") == 1)

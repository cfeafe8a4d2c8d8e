"""transformers' own config classes: which there is, what it makes of a config, and what its defaults are."""

import copy
import importlib.util
import logging
import re
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

from posenc.integrations.transformers.description.config import bears_on_positions, size
from posenc.integrations.transformers.description.layers import rotary_parameters
from posenc.integrations.transformers.description.model_types import SAME_CODE

#: Keys that a class may need to say what its layers are; the others of a config that it refuses are left out.
_STRUCTURE = re.compile(
    r"model_type|layer|att|window|head|hidden_size|dim|depth|d_model|d_kv|n_embd|pattern|idxs|block|compress|_config|interval"
)
#: The names that sizes go under, the one of most classes first.
_NAMES = {
    "num_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "num_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "hidden_size": ("hidden_size", "n_embd", "d_model", "hidden_dim", "dim"),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels", "d_kv"),
    "max_positions": ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length"),
}
#: Keys of that form that no class needs.
_ODDS = re.compile(r"eps$|drop|init|bias$")


def config_class(model_type: Any) -> Any:
    """transformers' config class of a model type; None if transformers is not installed or does not know it."""
    if not isinstance(model_type, str) or importlib.util.find_spec("transformers") is None:
        return None
    from transformers import CONFIG_MAPPING

    model_type = SAME_CODE.get(model_type, model_type)
    if model_type in ("timm_backbone", "timm_wrapper"):  # they import timm, and say nothing of positions
        return None
    found = [CONFIG_MAPPING[model_type]] if model_type in CONFIG_MAPPING else [None]
    return found[0]


def built(cls: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """A raw config, filled in by a class.

    Raises:
        ValueError: the class refuses it, or gives rotary parameters that no model reads.
    """
    import transformers

    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = full(cls.from_dict(copy.deepcopy(dict(config))))
    except Exception as error:  # what stands in the way of a config is the library's to say
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"describe: {cls.__name__} of {version()} refuses this config: {said}; correct it.") from error
    finally:
        transformers.logging.set_verbosity(level)
    inside = rotary_parameters(found)
    if any(
        isinstance(each.get("rope_theta"), list)
        for each in (inside, *(each for each in inside.values() if isinstance(each, Mapping)))
    ):
        raise ValueError(
            f"describe: rope_theta is a list, and {cls.__name__} takes one number for all layers; give one, or "
            "rope_parameters by kind of layer."
        )
    # A part that keeps the whole's name, or none, has the name of its class then; the whole keeps its own.
    return found | {"model_type": SAME_CODE.get(str(config["model_type"]), config["model_type"])}


def built_by_structure(cls: Any, config: Mapping[str, Any], trouble: ValueError) -> dict[str, Any]:
    """A raw config of which a class refused a key, filled in by what the class may need; the rest stands as it is.

    Args:
        cls: the class.
        config: the config.
        trouble: what the class said of the whole of it.

    Raises:
        ValueError: the class refuses these too.
    """
    structure = _structure(config, refused=str(trouble))
    heads = size(config, "num_heads")
    if heads and "num_key_value_heads" not in structure:
        structure["num_key_value_heads"] = heads  # a default that does not divide the heads is no matter here
    if structure == config:
        raise trouble
    try:
        filled = built(cls, structure)
    except ValueError:
        raise trouble from None
    _put_back(filled, config, structure)
    return filled


def not_its_keys(cls: Any, config: Mapping[str, Any], filled: Mapping[str, Any]) -> list[str]:
    """Say where the length of a config has a name that its class does not read, so that it takes its default.

    Raises:
        ValueError: so do the layers, the heads or a width.
    """
    if config.get("model_type") == "nomic_bert":
        return []  # its reader takes the names of its own code
    read = {*getattr(cls, "__dataclass_fields__", ()), *(getattr(cls, "attribute_map", None) or {})}
    said = []
    for kind, names in _NAMES.items():
        key = next((name for name in names if isinstance(config.get(name), int)), names[0])
        taken = size(filled, kind)
        counts = kind in ("num_layers", "num_heads")
        if key == names[0] or taken in (None, config[key]) or (not counts and (not read or key in read)):
            continue
        if kind == "max_positions":
            said.append(f"{key}, {config[key]}: its class reads another key, and uses {taken} instead")
            continue
        raise ValueError(
            f"describe: {key} is {config[key]}, and {cls.__name__} of {version()} uses {taken} instead, because it "
            f"reads another key; rename it to {names[0]}."
        )
    return said


def _structure(config: Mapping[str, Any], *, refused: str) -> dict[str, Any]:
    """The keys that a class may need, and those that bear on positions; of the objects among them the same."""
    return {
        key: _structure(value, refused=refused) if isinstance(value, Mapping) and key.endswith("_config") else value
        for key, value in config.items()
        if (_STRUCTURE.search(key) or bears_on_positions(key))
        and not (_ODDS.search(key) and f"field '{key}'" in refused)
    }


def _put_back(filled: dict[str, Any], config: Mapping[str, Any], taken: Mapping[str, Any]) -> None:
    """What was left out as it stands in the config, in the place of the class's defaults."""
    for key, value in config.items():
        if key not in taken:
            if key in filled:
                filled[key] = value
        elif isinstance(value, Mapping) and isinstance(filled.get(key), dict):
            _put_back(filled[key], value, taken[key])


def full(config: Any) -> dict[str, Any]:
    """A config object as a dict, with the layers' types where they are a property."""
    found = dict(config.to_dict())
    for name, value in vars(config).items():
        if hasattr(value, "to_dict") and isinstance(found.get(name), Mapping):
            found[name] = full(value)
    # The length that a class has under this name and writes under another (Kimi Linear: model_max_length).
    length = getattr(config, "max_position_embeddings", None)
    if isinstance(length, int) and size(found, "max_positions") is None:
        found["max_position_embeddings"] = length
    # Its own numbers count, and not those that it writes: Dory writes each half of a layer as a layer.
    if isinstance(found.get("num_hidden_layers"), int):
        found["num_hidden_layers"] = config.num_hidden_layers
    # transformers 5.6 has a place in the cache for each of the two attentions of a layer of LongCat-Flash there.
    if found.get("model_type") == "longcat_flash" and isinstance(found.get("num_layers"), int):
        found.pop("num_hidden_layers", None)
    for name in ("layers_block_type", "layer_types"):
        types = getattr(config, name, None)
        free = found.get(name) or not (found.get("layer_types") or found.get("layers_block_type"))
        if free and isinstance(types, (list, tuple)) and types and all(isinstance(each, str) for each in types):
            found[name] = list(types)
    return found


@cache
def types_of_architecture(name: str) -> frozenset[str]:
    """The model types that transformers has a class of this name for."""
    if importlib.util.find_spec("transformers") is None:
        return frozenset()
    from transformers.models.auto import modeling_auto

    return frozenset(
        model_type
        for key, mapping in vars(modeling_auto).items()
        if key.endswith("MAPPING_NAMES")
        for model_type, classes in mapping.items()
        if name in ([classes] if isinstance(classes, str) else classes)
    )


@cache
def type_of_architecture(name: str) -> str | None:
    """The model type that transformers has a class of this name for, or None."""
    found = types_of_architecture(name)
    if not found:
        return None
    from transformers.models.auto import modeling_auto

    # Several types may share a class: LlamaForCausalLM is that of the type whose config is a LlamaConfig.
    own = {each: str(modeling_auto.CONFIG_MAPPING_NAMES.get(each)).removesuffix("Config") for each in found}
    return max((each for each in sorted(found) if name.startswith(own[each])), key=lambda e: len(own[e]), default=None)


def parts_of_class(cls: Any) -> set[str]:
    """The keys that a config class has for its parts."""
    return {key for name in ("sub_configs", "sub_configs_defaults") for key in getattr(cls, name, None) or {}}


@cache
def default_parameters(model_type: str) -> dict[str, Any]:
    """``rope_parameters`` of the default config of a model type of transformers; none where it has no default."""
    cls = config_class(model_type)
    try:
        return {} if cls is None else dict(built(cls, {"model_type": model_type}).get("rope_parameters") or {})
    except ValueError:
        return {}


def version() -> str:
    """The installed transformers, as it is named in a description."""
    import transformers

    return f"transformers {transformers.__version__}"

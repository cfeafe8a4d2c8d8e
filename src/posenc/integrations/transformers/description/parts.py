"""The parts of a config: what of it is the config of a part, and what is none and speaks of positions all the same."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from posenc.integrations.transformers.description.config import bears_on_positions, size

#: Keys of a model that stand in an object of their own, with a model type of "" at times.
_NO_PARTS = {"attn_config", "ffn_config"}
#: Keys that name another model for a part, of which the config then says nothing.
_NAMED = re.compile(r"(?:mm_)?(audio|llm|speech|text|vision)_(?:model_id|model_name_or_path|tower)")


def parts(config: Mapping[str, Any], name: str = "") -> list[tuple[str, dict[str, Any]]]:
    """(name, config) of the config itself and, in order, of every part that has a model type or layers of its own."""
    found = [(name, {key: value for key, value in config.items() if not is_part(key, value)})]
    for key, value in config.items():
        if is_part(key, value):
            # Some parts leave their model type empty; the whole and the key tell it then.
            own = value if value.get("model_type") else {**value, "model_type": f"{config.get('model_type')}.{key}"}
            found += parts(own, f"{name}.{key}" if name else key)
    return found


def is_part(key: str, value: Any) -> bool:
    """Is this value of a config the config of a part?"""
    if not isinstance(value, Mapping) or key in _NO_PARTS:
        return False
    if "model_type" in value or not key.endswith("_config"):
        return "model_type" in value
    # What holds parts is one, such as the thinker_config of a config that leaves out all types of its parts.
    return size(value, "num_layers") is not None or any(is_part(str(name), each) for name, each in value.items())


def not_seen(config: Mapping[str, Any], seen: Collection[str], name: str = "") -> list[str]:
    """The objects of a config that speak of positions, and that neither :func:`parts` nor a class takes for a part."""
    found: list[str] = []
    for key, value in config.items():
        full_name = f"{name}.{key}" if name else key
        if not isinstance(value, Mapping) or not key.endswith("_config") or key in _NO_PARTS:
            continue
        if full_name in seen:
            found += not_seen(value, seen, full_name)
        elif any(bears_on_positions(inner) or "pos_emb" in inner for inner in map(str, value)):
            found.append(f"{full_name}: it has neither a model_type nor a number of layers that is known here")
    return found


def elsewhere(config: Mapping[str, Any], seen: Collection[str]) -> list[str]:
    """The parts that are other models, which a config names (Ultravox's text_model_id, LLaVA's mm_vision_tower)."""
    found = []
    for key, value in config.items():
        match = _NAMED.fullmatch(key)
        if match is None or not isinstance(value, str) or "/" not in value:
            continue
        stem = {"llm": "text"}.get(match[1], match[1])
        if not any(name.startswith(stem) for name in seen):
            found.append(f"{key}: {value}, a model with a config of its own: describe that")
    return found

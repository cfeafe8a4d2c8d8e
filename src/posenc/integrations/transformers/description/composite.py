"""Configs of several parts: which part is meant where a config does not say it as the class of its type does."""

import re
from collections.abc import Mapping
from typing import Any

from posenc.integrations.transformers.description.config import size
from posenc.integrations.transformers.description.config_class import built, config_class, parts_of_class
from posenc.integrations.transformers.description.layers import rotary_parameters
from posenc.integrations.transformers.description.model_types import names
from posenc.integrations.transformers.description.parts import is_part

#: Keys of a whole model that are none of its text's.
_OF_THE_WHOLE = names("architectures auto_map model_type transformers_version torch_dtype dtype _name_or_path")
#: What the key of a part says it is, and the key of such a part in the classes of transformers.
_MEANT = (
    (re.compile(r"vision|visual|image|vit|tower", re.IGNORECASE), "vision_config"),
    (re.compile(r"audio|speech|sound", re.IGNORECASE), "audio_config"),
)


def with_types_of_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the type of a part, where the part names a whole model of several parts and gives sizes of its own.

    MiniCPM-V says ``siglip`` for its image tower: that is a model of a text and an image part, whose class does not
    look at these sizes and would fill in both parts by its defaults.
    """
    fixed = getattr(config_class(config.get("model_type")), "sub_configs", None) or {}
    found = dict(config)
    for key, value in config.items():
        if is_part(str(key), value):
            inner = with_types_of_parts(value)
            given = getattr(fixed.get(key), "model_type", "")  # the class decides, whatever the part says
            found[key] = {**inner, "model_type": given} if given else _with_own_type(str(key), inner)
    alone = "patch_size" in config and "vocab_size" not in config  # an image tower, taken out of its model
    return _with_own_type("vision", found) if alone else found


def _with_own_type(key: str, part: dict[str, Any]) -> dict[str, Any]:
    known = parts_of_class(config_class(part.get("model_type")))
    sizes = [size(part, name) for name in ("hidden_size", "num_layers", "num_heads")]
    if not known or any(isinstance(part.get(name), Mapping) for name in known) or sizes.count(None) > 1:
        return part
    meant = next((name for pattern, name in _MEANT if pattern.search(key)), "text_config")
    meant = key if key in known else meant
    if meant not in known:
        return part
    default = built(config_class(part["model_type"]), {"model_type": part["model_type"]}).get(meant)
    return {**part, "model_type": default["model_type"]} if isinstance(default, Mapping) else part


def with_text_part(config: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A config that has the sizes of its text beside its parts, with them in the part where its class looks for them.

    So are the configs of LLaVA's own code, and of GLM-4V before transformers 4.54. A class that takes them there by
    itself is left to do it.
    """
    cls = config_class(config.get("model_type"))
    sizes = {key: config.get(key) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    if "text_config" in config or "text_config" not in parts_of_class(cls) or None in sizes.values():
        return config, False
    try:
        filled = built(cls, config)
        text = filled.get("text_config") or {}
        asked, got = rotary_parameters(filled), rotary_parameters(text)
        # Sizes that are the defaults by chance are not taken: the rest of what the text has a key for has to be there.
        same = {key: value for key, value in config.items() if key in text and key not in _OF_THE_WHOLE}
        taken = all(text.get(key) == value for key, value in (sizes | same).items()) and asked.items() <= got.items()
    except ValueError:  # something is not where the class looks for it
        text, taken = built(cls, {"model_type": config["model_type"]}).get("text_config") or {}, False
    if taken or not text:
        return config, False
    beside = {key: value for key, value in config.items() if is_part(key, value) or key in _OF_THE_WHOLE}
    own = {key: value for key, value in config.items() if key not in beside}
    return {**beside, "text_config": {**own, "model_type": _type_of_text(config, str(text.get("model_type")))}}, True


def _type_of_text(config: Mapping[str, Any], default: str) -> str:
    """The model type of the text, which LLaVA's own code says in the name of its class."""
    for name in config.get("architectures") or ():
        found = re.fullmatch(r"Llava(\w+)ForCausalLM", str(name))
        if found:
            lowered = found[1].lower()
            return {"qwen": "qwen2"}.get(lowered, lowered)
    return default


def has_other_parts(config: Mapping[str, Any]) -> bool:
    """Has a config parts, and none of those of its class? Then what the class would fill in is not this model's."""
    own = {key for key, value in config.items() if is_part(key, value)}
    cls = config_class(config.get("model_type"))
    known = parts_of_class(cls)
    fills = "hidden_size" in getattr(cls, "__dataclass_fields__", ())
    alone = fills and not known and all(size(config, name) is None for name in ("hidden_size", "num_layers"))
    return bool(cls is not None and own and (known or alone) and not own & known)

"""A config as a plain dict, from whatever holds it, and its keys under one name each."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SIZES = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "emb_dim"),
    "num_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
    "num_layers": (
        "num_hidden_layers",
        "n_layer",
        "n_layers",
        "num_layers",
        "encoder_layers",
        "depth",
        "memory_attention_num_layers",
    ),
    "max_positions": ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length"),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels", "d_kv"),
}


def read(source: Any) -> dict[str, Any]:
    """The config of a model, a config object, a mapping, a config.json or the folder that holds one.

    Raises:
        TypeError: something else.
        ValueError: no such file, or one that holds no JSON object.
    """
    if isinstance(source, Mapping):
        return dict(source)
    if isinstance(source, (str, Path)):
        return _read_file(Path(source))
    config = getattr(source, "config", source)  # a model has one
    if hasattr(config, "to_dict"):
        return dict(config.to_dict())
    raise TypeError(
        f"describe: got a {type(source).__name__}, expected a model, a config, a dict, or a path to config.json or its "
        "folder."
    )


def _read_file(path: Path) -> dict[str, Any]:
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"describe: there is no file {file}; give a config.json or the folder that holds one.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"describe: {file} holds no JSON ({error}); give a config.json.") from error
    if not isinstance(found, dict):
        raise ValueError(f"describe: {file} holds a {type(found).__name__}, expected an object with model_type.")
    return found


def parts(config: Mapping[str, Any], name: str = "") -> list[tuple[str, dict[str, Any]]]:
    """(name, config) of the config itself and, in order, of every part that has a model type of its own."""
    found = [(name, {key: value for key, value in config.items() if not _is_part(value)})]
    for key, value in config.items():
        if _is_part(value):
            # Some parts leave their model type empty; the whole and the key tell it then.
            own = value if value["model_type"] else {**value, "model_type": f"{config.get('model_type')}.{key}"}
            found += parts(own, f"{name}.{key}" if name else key)
    return found


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and "model_type" in value


def size(config: Mapping[str, Any], name: str) -> Any:
    """``hidden_size``, ``num_heads``, ... under whichever of their names they go, or None."""
    return next((config[key] for key in _SIZES[name] if config.get(key) is not None), None)


def need(config: Mapping[str, Any], name: str) -> Any:
    """As :func:`size`, and an error if there is none."""
    found = size(config, name)
    if found is None:
        raise ValueError(
            f"describe: the config of {config.get('model_type')!r} has none of {', '.join(_SIZES[name])}; add one. (A "
            "config.json may leave out what transformers has defaults for; describe(AutoConfig.from_pretrained(...)) "
            "fills them in.)"
        )
    return found


def first(config: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of the keys that is there and not null; two that disagree are refused."""
    found = {name: config[name] for name in names if config.get(name) is not None}
    if len(set(map(str, found.values()))) > 1:
        listed = ", ".join(f"{name}={value!r}" for name, value in found.items())
        raise ValueError(f"describe: got {listed}, which mean one thing; keep one of them.")
    return next(iter(found.values()), None)

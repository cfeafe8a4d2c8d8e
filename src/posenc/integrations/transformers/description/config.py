"""A config as a plain dict, from whatever holds it: its types checked, its parts told apart."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from posenc.integrations.json_file import load_json
from posenc.integrations.transformers.description import model_types as models

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
        "l_layers",
    ),
    "max_positions": (
        *("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length"),
        "max_trained_positions",
    ),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels", "d_kv"),
}

#: Sizes above these are no model's; nothing is sized by what a file says before this is checked.
_MOST_LAYERS, _WIDEST, _LONGEST = 20_000, 1 << 24, 1 << 53

_WIDTHS = {
    *(name for kind in ("hidden_size", "num_heads", "head_dim") for name in _SIZES[kind]),
    *("rotary_dim", "qk_rope_head_dim", "qk_nope_head_dim", "global_head_dim", "decoder_attention_heads"),
    *("relative_attention_num_buckets", "relative_attention_max_distance"),
    *("no_rope_layer_interval", "full_attention_interval", "global_attn_every_n_layers", "attn_layer_period"),
    *("attn_layer_offset", "projection_dim", "embedding_size", "pad_token_id", "speech_encoder_attention_heads"),
    *("position_buckets", "max_relative_positions", "swa_head_dim"),
}
_LENGTHS = {
    *(*_SIZES["max_positions"], "original_max_position_embeddings", "max_source_positions", "max_target_positions"),
    *("alibi_starting_size", "floor_scale", "max_encoder_position_embeddings", "max_decoder_position_embeddings"),
    *("training_seqlen", "base_seqlen", "rope_max_length"),
}
_LAYERS = {*_SIZES["num_layers"], "decoder_layers", "num_decoder_layers", "num_attention_layers", "n_layers"}
_BY_STAGE = {name for kind in ("hidden_size", "num_heads", "num_layers") for name in _SIZES[kind]}
_NUMBERS = {
    *("rope_theta", "rotary_emb_base", "rotary_embedding_base", "rope_local_base_freq", "global_rope_theta"),
    *("local_rope_theta", "compress_rope_theta", "partial_rotary_factor", "rotary_pct", "rope_pct", "rotary_percent"),
    *("rotary_emb_fraction", "rotary_scaling_factor", "attn_scale", "factor", "attention_factor", "beta_fast"),
    *("beta_slow", "mscale", "mscale_all_dim", "low_freq_factor", "high_freq_factor", "alpha", "short_mscale"),
    *("long_mscale", "llama_4_scaling_beta", "alibi_bias_max", "mixed_b", "power", "rotary_scale_base"),
    *("rope_ratio", "rope_freq_constant", "rotary_emb_scaling_factor"),
}
_LISTS = {
    *("layer_types", "layers_block_type", "no_rope_layers", "layer_rope_theta", "full_attn_idxs", "block_types"),
    *("attn_layer_indices", "mlp_layer_types", "attn_type_list", "block_configs", "compress_ratios"),
    *("short_factor", "long_factor", "mrope_section", "xdrope_section", "partial_rotary_factors"),
    *("hybrid_layer_pattern", "attn_layer_idxs", "cross_attention_layers"),
    *("rope_scaling_short_factor", "rope_scaling_long_factor"),
}
_OF_NUMBERS = {
    *("no_rope_layers", "layer_rope_theta", "full_attn_idxs", "attn_layer_indices", "attn_type_list"),
    *("partial_rotary_factors", "short_factor", "long_factor", "mrope_section", "xdrope_section", "compress_ratios"),
    *("attn_layer_idxs", "cross_attention_layers", "rope_scaling_short_factor", "rope_scaling_long_factor"),
}
_OF_LATENT_HEADS = {"qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "kv_lora_rank", "q_lora_rank", "use_mla"}
_MAPPINGS = {"rope_parameters", "rope_scaling", "attn_config", "per_layer_config", "yarn", "llama_4_scaling"}
_TEXTS = {"model_type", "rope_type", "position_embedding_type", "position_embeddings_type", "hybrid_override_pattern"}

#: Files that stand beside a config and may name a model type too.
_OF_OTHERS = {
    "tokenizer_config.json": "a tokenizer",
    "generation_config.json": "the sampling",
    "preprocessor_config.json": "the preparation of images or sounds",
    "processor_config.json": "the preparation of images or sounds",
}

#: Names of rules that transformers' classes took once, or never.
_OLD_RULES = {"su": "longrope", "deepseek_yarn": "yarn"}
_CLASS_RULES = ("linear", "dynamic", "yarn", "longrope", "llama3")

_BEARS = re.compile(
    r"rope(?!rt)|rotary|alibi|position|yarn|theta|logn|ntk|dual_chunk|nope(?!_head_dim)|llama_4_scaling", re.IGNORECASE
)
#: Says whether there is a rotation at all.
SWITCH = re.compile(
    r"(use_|apply_|with_|enable_)?(rope|rotary)(_?(pos_emb|(position(al)?_)?embeddings?))?", re.IGNORECASE
)
_BEARS_NOT = re.compile(r"dropout|positionwise|position_id_per", re.IGNORECASE)


class Keys(dict[str, Any]):
    """A config that remembers which of its keys were asked for, so that the others can be named as not read."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def not_read(self) -> list[str]:
        """The keys that bear on positions, say something, and were not asked for."""
        return [
            key
            for key, value in self.items()
            if key not in self.asked
            and bears_on_positions(key)
            and (value not in (None, False, "", [], {}) or (value is False and SWITCH.fullmatch(key)))
        ]


def bears_on_positions(key: str) -> bool:
    """Does the name of a key speak of positions?"""
    return bool(_BEARS.search(key)) and not _BEARS_NOT.search(key)


def read(source: Any) -> Any:
    """The raw config of a mapping, a config.json or the folder that holds one; the config object of a model.

    Raises:
        TypeError: something else.
        ValueError: no such file, or one that holds no JSON object.
    """
    if isinstance(source, Mapping):
        _check_no_adapter(source, "it")
        return _with_numbers(source, "the config")
    if isinstance(source, (str, Path)):
        return _read_file(Path(source))
    if isinstance(source, type):
        raise TypeError(
            f"describe: got the class {source.__name__}, expected a model, a config, a dict, or a path to config.json "
            f"or its folder; make one: {source.__name__}(...)."
        )
    modules = source.modules() if isinstance(source, nn.Module) else [source]
    for config in (getattr(module, "config", module) for module in modules):  # of a model, or of one that is wrapped
        if hasattr(config, "to_dict"):
            return config
    raise TypeError(
        f"describe: got a value of type {type(source).__name__}, expected a model, a config, a dict, or a path to "
        "config.json or its folder."
    )


def _read_file(path: Path) -> dict[str, Any]:
    file = path
    if path.is_dir():
        file = next((path / name for name in ("config.json", "params.json") if (path / name).is_file()), path)
        if file == path and (path / "adapter_config.json").is_file():
            file = path / "adapter_config.json"
        file = path / "config.json" if file == path else file
    if file.name in _OF_OTHERS:
        raise ValueError(f"describe: {file} belongs to {_OF_OTHERS[file.name]}; give the config.json beside it.")
    found = load_json(file)
    _check_no_adapter(found, file)
    return _with_numbers(found, file)


def _with_numbers(config: Mapping[str, Any], what: Path | str) -> dict[str, Any]:
    try:
        return _typed({key: _plain(value) for key, value in config.items()})
    except RecursionError:
        raise ValueError(f"describe: {what} is nested too deeply for a config; correct it.") from None


def _typed(config: dict[str, Any]) -> dict[str, Any]:
    """With the model type of a code whose config class has none, or has one that means another model today."""
    other_key, other_type = models.OTHER_OF_THE_NAME.get(str(config.get("model_type")), ("", ""))
    if other_key in config:
        return {**config, "model_type": other_type}
    named = config.get("architectures")
    if config.get("model_type") or not isinstance(named, (list, tuple)):
        return config
    found = next((models.BY_ARCHITECTURE[name] for name in map(str, named) if name in models.BY_ARCHITECTURE), None)
    return {**config, "model_type": found} if found else config


def _plain(value: Any) -> Any:
    """A value of a config with numbers for the records that transformers 5 writes in their place, as JSON has none."""
    if isinstance(value, Mapping):
        said = value.get("__float__") if len(value) == 1 else None
        if said in ("Infinity", "-Infinity", "NaN"):
            return float(str(said))
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _check_no_adapter(config: Mapping[str, Any], what: Path | str) -> None:
    named = isinstance(what, Path) and what.name == "adapter_config.json"
    if config.get("model_type") is None and ("peft_type" in config or named):
        raise ValueError(
            f"describe: {what} is the config of an adapter, which has no config of a model; give the folder of its "
            f"base model, {config.get('base_model_name_or_path')!r}."
        )


def tidy(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that are read here, of the types that they have to have; rotary parameters that say nothing are null.

    Raises:
        ValueError: a value of another type, or a size that no model has, with the key.
    """
    checked = {str(key): _checked(str(key), value) for key, value in config.items()}
    if checked.get("use_mla") is False:  # DeepSeek-VL2-tiny and DeepSeek-OCR: the plain heads of the first DeepSeek
        plain = {key: value for key, value in checked.items() if key not in _OF_LATENT_HEADS}
        checked = {**plain, "model_type": "deepseek"} if "qk_rope_head_dim" in checked else checked
    for name in ("rope_parameters", "rope_scaling"):
        if isinstance(checked.get(name), Mapping):
            checked[name] = _parameters(checked[name], name) or None
    count = size(checked, "num_layers")
    for name in ("no_rope_layers", "layer_rope_theta"):
        given = checked.get(name)
        if not given or (name == "no_rope_layers" and checked.get("model_type") in models.NUMBERS_NO_ROPE_LAYERS):
            continue
        if count is not None and len(given) < count:
            raise ValueError(f"describe: {name} has {len(given)} entries for {count} layers; give one for each.")
        if name == "no_rope_layers" and not set(given) <= {0, 1}:
            raise ValueError(
                f"describe: {name} is {list(given)}, expected for each layer 1 if it rotates and 0 if not; numbers of "
                "layers mean something else."
            )
    return checked


def _parameters(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Rotary parameters; nothing if all of them are null. A kind of layer that is null has no rotation."""
    if any(isinstance(value, Mapping) for value in parameters.values()):
        return {
            str(kind): _parameters(tidy(value), kind)
            if isinstance(_checked(str(kind), value, f"{name}."), Mapping)
            else value
            for kind, value in parameters.items()
        }
    checked = {
        str(key): _checked(str(key), value, f"{name}.")
        for key, value in parameters.items()
        if value is not None or (key == "factor" and any(each is not None for each in parameters.values()))
    }
    for key in ("type", "rope_type"):
        if checked.get(key) in _OLD_RULES:
            checked[key] = _OLD_RULES[checked[key]]
    if checked.get("type") in _CLASS_RULES:  # the old name of the key, which not every class takes
        checked.setdefault("rope_type", checked["type"])
    return checked


def _checked(key: str, value: Any, inside: str = "") -> Any:
    """The value of a key, if its type is right."""
    if value is None:
        return None
    name = inside + key
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(value, (list, tuple, Mapping)) and key in _BY_STAGE:
        return value  # image models have stages, each with a size of its own; :func:`size` does not take these
    if key in _WIDTHS or key in _LENGTHS or key in _LAYERS:
        if not number or value != value or abs(value) == float("inf") or value != int(value):
            raise _wrong(name, value, "a whole number")
        most = _MOST_LAYERS if key in _LAYERS else _WIDEST if key in _WIDTHS else _LONGEST
        if abs(value) > most:
            raise ValueError(f"describe: {name} is {value}, expected at most {most}; correct it.")
        return int(value)
    if key == "rope_theta" and not inside and isinstance(value, (list, tuple)):
        return [_checked(key, each, "an entry of ") for each in value[:_WIDEST]]  # one for each layer
    if key in _NUMBERS:
        if not number or value != value or abs(value) > 1e30:
            raise _wrong(name, value, "a finite number")
    elif key in _LISTS:
        if not isinstance(value, (list, tuple)) or len(value) > _WIDEST:
            raise _wrong(name, value, "a list")
        if key in _OF_NUMBERS and not all(isinstance(each, (int, float)) and abs(each) < 1e30 for each in value):
            raise _wrong(name, value, "a list of finite numbers")
    elif key in _MAPPINGS:
        if not isinstance(value, Mapping):
            raise _wrong(name, value, "an object, or null")
    elif key == "hybrid_override_pattern" and isinstance(value, (list, tuple)) and all(len(str(v)) == 1 for v in value):
        return "".join(map(str, value))
    elif (key in _TEXTS or (inside and key == "type")) and not isinstance(value, str):
        raise _wrong(name, value, "a string")
    return value


def _wrong(name: str, value: Any, expected: str) -> ValueError:
    advice = "remove the quotes" if isinstance(value, str) and "number" in expected else "correct it"
    shown, kind = repr(value), type(value).__name__
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return ValueError(f"describe: {name} is {shown}, of type {kind}, expected {expected}; {advice}.")


def size(config: Mapping[str, Any], name: str) -> Any:
    """``hidden_size``, ``num_heads``, ... under whichever of their names they go, or None."""
    found = next((config[key] for key in _SIZES[name] if isinstance(config.get(key), (int, float))), None)
    return None if name == "max_positions" and found is not None and found <= 0 else found


def need(config: Mapping[str, Any], name: str) -> Any:
    """As :func:`size`, and an error if there is none."""
    found = size(config, name)
    if found is None:
        raise ValueError(
            f"describe: the config of {config.get('model_type')!r} has none of {', '.join(_SIZES[name])}; add one. (A "
            "config.json may leave out what transformers has defaults for; they are filled in if transformers is "
            "installed and knows the model type.)"
        )
    most = _MOST_LAYERS if name == "num_layers" else _LONGEST
    if not 0 < found <= most:
        expected = "a number above 0" if not found > 0 else f"at most {most}"
        raise ValueError(
            f"describe: {name} of {config.get('model_type')!r} is {found}, expected {expected}; correct it."
        )
    return found


def check_sizes(config: Mapping[str, Any]) -> None:
    """Refuse a model without width or heads: its rotation could be described, although no layer of it can be built."""
    for key in (name for kind in ("hidden_size", "num_heads", "head_dim") for name in _SIZES[kind]):
        # The head_dim of latent attention is the width of its rotated channels, of which there may be none.
        least = 0 if key == "head_dim" and config.get("qk_rope_head_dim") == 0 else 1
        if isinstance(value := config.get(key), (int, float)) and value < least:
            raise _wrong(key, value, "a whole number above 0")


def need_key(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key that must be there."""
    if config.get(key) is None:
        raise ValueError(f"describe: the config of {config.get('model_type')!r} has no {key}; add it.")
    return config[key]


def need_size(config: Mapping[str, Any], key: str) -> int:
    """The whole number of a key that must be there: rows, layers, a window. One that no model has is refused."""
    value = need_key(config, key)
    if not isinstance(value, (int, float)):
        raise _wrong(key, value, "a whole number")
    most = _MOST_LAYERS if key.endswith("layers") else _WIDEST
    if not abs(value) <= most:  # NaN is not either
        raise ValueError(f"describe: {key} is {value}, expected at most {most}; correct it.")
    return int(value)


def need_number(config: Mapping[str, Any], key: str) -> float:
    """The number above 0 of a key that must be there."""
    value = need_key(config, key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e30:
        raise _wrong(key, value, "a number above 0")
    return float(value)


def need_sizes(config: Mapping[str, Any], key: str, count: int | None = None) -> list[int]:
    """The whole numbers of a list that must be there, one for each stage or side, that many if it is said how many."""
    values = need_key(config, key)
    if not isinstance(values, (list, tuple)) or len(values) < (1 if count is None else count):
        raise _wrong(key, values, "a list of whole numbers" + ("" if count is None else f", {count} or more"))
    return [need_size({"model_type": config.get("model_type"), key: value}, key) for value in values]


def head_dim(config: Mapping[str, Any]) -> int:
    """Channels of a head: ``head_dim``, or the width over the number of heads."""
    found = size(config, "head_dim")
    return int(found) if found else int(need(config, "hidden_size")) // int(need(config, "num_heads"))


def first(config: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of the keys that is there and not null; two that disagree are refused."""
    found = {name: config[name] for name in names if config.get(name) is not None}
    if len(set(map(str, found.values()))) > 1:
        listed = ", ".join(f"{name}={value!r}" for name, value in found.items())
        raise ValueError(f"describe: got {listed}, which mean the same; keep one of them.")
    return next(iter(found.values()), None)

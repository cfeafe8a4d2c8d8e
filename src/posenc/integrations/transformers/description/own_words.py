"""What configs say in words of their own code, in those of transformers: DeepSeek's, ExecuTorch's, Xiaomi's, ..."""

from collections.abc import Mapping
from typing import Any

from posenc.integrations.transformers.description.config import need_key, need_size

#: What Kyutai's own configs are called here: they say ``moshi``, ``hibiki``, ``stt``, ``tts`` or nothing.
KYUTAI = "kyutai"


def is_kyutai(config: Mapping[str, Any]) -> bool:
    """Is this the config of Kyutai's own code (Moshi, Hibiki, STT, TTS), and not transformers' of the same type?"""
    return config.get("dim") is not None and config.get("depformer_dim") is not None


def is_deepseek(config: Mapping[str, Any]) -> bool:
    """Is this the config of DeepSeek's own code (V2, V3 and V4), and not Meta's or Mistral's?"""
    return any(config.get(key) is not None for key in ("moe_inter_dim", "rope_head_dim", "compress_ratios"))


def deepseek(given: Mapping[str, Any]) -> dict[str, Any]:
    """Its keys in the words of a ``config.json``; what is absent has the default of that code."""

    def number(key: str, default: float) -> Any:
        found = given.get(key)
        return default if found is None else found

    config: dict[str, Any] = {
        "hidden_size": need_size(given, "dim"),
        "num_attention_heads": need_size(given, "n_heads"),
        "num_hidden_layers": need_size(given, "n_layers"),
        "rope_theta": number("rope_theta", 10_000.0),
    }
    yarn = {
        "rope_type": "yarn",
        "factor": number("rope_factor", 40.0),
        "beta_fast": number("beta_fast", 32.0),
        "beta_slow": number("beta_slow", 1.0),
    }
    if given.get("compress_ratios") is not None or given.get("rope_head_dim") is not None:
        length = given.get("original_seq_len")
        return v4_by_kind(
            config
            | {
                "model_type": "deepseek_v4",
                "head_dim": need_key(given, "head_dim"),
                "qk_rope_head_dim": need_key(given, "rope_head_dim"),
                "compress_ratios": need_key(given, "compress_ratios"),
                "compress_rope_theta": number("compress_rope_theta", 40_000.0),
                "rope_scaling": {**yarn, "original_max_position_embeddings": length} if length else None,
            }
        )
    trained, longest = number("original_seq_len", 4096), number("max_seq_len", 4 * 4096)
    mscale = number("mscale", 1.0)  # raises the scores alone, as with both weights of transformers' config
    if longest > trained:
        weights = {"mscale": mscale, "mscale_all_dim": mscale}
        config["rope_scaling"] = {**yarn, **weights, "original_max_position_embeddings": trained}
    else:
        config["max_position_embeddings"] = trained
    for key in ("qk_rope_head_dim", "qk_nope_head_dim"):
        config[key] = need_key(given, key)
    return config | {"model_type": "deepseek_v3"}


def flag(config: Mapping[str, Any], key: str) -> bool:
    """The value of a switch, which is off where it is absent.

    Raises:
        ValueError: something else than true or false, such as a text, which would count as true.
    """
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"describe: {key} is {value!r}, expected true or false; correct it.")
    return bool(value)


def without_every(config: Mapping[str, Any], key: str, count: int) -> list[int] | None:
    """For each layer, whether it rotates where the last of each so many does not; None where the key is absent."""
    every = config.get(key)
    if every is None:
        return None
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"describe: {key} is {every!r}, expected a whole number above 0; correct it.")
    return [int((i + 1) % every != 0) for i in range(count)]


def is_executorch(config: Mapping[str, Any]) -> bool:
    """Is this the config of ExecuTorch's decoder, which has Meta's keys and some of its own?"""
    return config.get("use_hf_rope") is not None


def executorch(given: Mapping[str, Any]) -> dict[str, Any]:
    """Its keys in the words of a ``config.json``.

    ``use_hf_rope`` is for weights in the order of Hugging Face: pairs of halves, a share of a head and LongRoPE's
    lists, but no scaling of Llama 3. Without it, whole heads turn in neighbouring pairs, as in Meta's code.
    """
    count, layers = need_size(given, "n_layers"), given.get("layer_types")
    base = given.get("rope_theta") if given.get("rope_theta") is not None else given.get("rope_freq_base")
    config: dict[str, Any] = {
        "hidden_size": need_size(given, "dim"),
        "num_attention_heads": need_size(given, "n_heads"),
        "num_hidden_layers": count,
        "head_dim": given.get("head_dim"),
        "max_position_embeddings": given.get("max_position_embeddings"),
        "rope_theta": 10_000.0 if base is None else base,
        "layer_types": layers,
    }
    if (local := given.get("local_rope_theta")) is not None and "sliding_attention" in (layers or ()):
        config["rope_local_base_freq"] = local
    config["no_rope_layers"] = without_every(given, "no_rope_layer_interval", count)
    given.get("qk_norm_before_rope")  # where q and k are normalised, which is no matter of positions
    scaled, short, long = (
        flag(given, "use_scaled_rope"),
        *(given.get(f"rope_scaling_{name}_factor") for name in ("short", "long")),
    )
    if flag(given, "use_hf_rope"):
        config["partial_rotary_factor"] = given.get("partial_rotary_factor")
        if short is not None or long is not None:
            config["rope_scaling"] = {
                "rope_type": "longrope",
                "short_factor": short if short is not None else long,
                "long_factor": long if long is not None else short,
                "original_max_position_embeddings": given.get("original_max_position_embeddings"),
                "attention_factor": given.get("rope_scaling_attention_factor"),
            }
    elif scaled:
        numbers = {"factor": ("rope_scale_factor", 8.0), "high_freq_factor": ("high_freq_factor", 4.0)}
        rule = {key: own if given.get(name) is None else given[name] for key, (name, own) in numbers.items()}
        config["rope_scaling"] = {
            **{"rope_type": "llama3", "low_freq_factor": 1.0, "original_max_position_embeddings": 8192},
            **rule,
        }
    return {key: value for key, value in config.items() if value is not None}


def v4_by_kind(config: dict[str, Any]) -> dict[str, Any]:
    """DeepSeek V4's flat keys as layers and rotary parameters by kind, as transformers' class makes them.

    Layers that compress nothing have the plain rule at ``rope_theta``. The others have YaRN at
    ``compress_rope_theta``, whose temperature the code leaves out.

    Raises:
        ValueError: fewer ratios than layers.
    """
    ratios, parameters = (
        config.get("compress_ratios"),
        config.get("rope_parameters") or config.get("rope_scaling") or {},
    )
    if not ratios or config.get("layer_types") or any(isinstance(each, Mapping) for each in parameters.values()):
        return config
    count = need_size(config, "num_hidden_layers")
    if len(ratios) < count:
        raise ValueError(f"describe: compress_ratios has {len(ratios)} entries for {count} layers; give one for each.")
    share = {"partial_rotary_factor": need_key(config, "qk_rope_head_dim") / need_key(config, "head_dim")}
    compress = {"rope_type": "default", **parameters, **share, "rope_theta": need_key(config, "compress_rope_theta")}
    if "yarn" in (compress["rope_type"], compress.get("type")):
        compress |= {"rope_type": "yarn"} | ({} if "attention_factor" in compress else {"attention_factor": 1.0})
    main = {"rope_type": "default", "rope_theta": need_key(config, "rope_theta"), **share}
    gone = ("rope_scaling", "compress_ratios", "compress_rope_theta", "rope_theta", "qk_rope_head_dim")
    return {key: value for key, value in config.items() if key not in gone} | {
        "layer_types": ["compressed_attention" if ratio else "sliding_attention" for ratio in ratios[:count]],
        "rope_parameters": {"main": main, "compress": compress},
    }


def mimo_by_kind(config: dict[str, Any]) -> dict[str, Any]:
    """MiMo-V2-Flash's layers and bases by kind: its code marks layers with a window by 1 in ``hybrid_layer_pattern``.

    transformers' class drops all of these keys for the numbers of the release.
    """
    pattern, width = config.get("hybrid_layer_pattern"), config.get("head_dim")
    said = config.get("rope_parameters") or config.get("rope_scaling") or config.get("layer_types")
    if not isinstance(pattern, (list, tuple)) or said or config.get("swa_head_dim", width) != width:
        return config
    count, share = need_size(config, "num_hidden_layers"), config.get("partial_rotary_factor")
    if len(pattern) < count:
        raise ValueError(
            f"describe: hybrid_layer_pattern has {len(pattern)} entries for {count} layers; give one for each."
        )
    own = config.get("swa_rope_theta")
    bases = {"full_attention": need_key(config, "rope_theta")}
    bases["sliding_attention"] = bases["full_attention"] if own is None else own
    types = ["sliding_attention" if mark else "full_attention" for mark in pattern[:count]]
    return {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_theta")} | {
        "layer_types": types,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": base}
            | ({} if share is None else {"partial_rotary_factor": share})
            for kind, base in bases.items()
        },
    }


def step5_by_layer(config: dict[str, Any]) -> dict[str, Any]:
    """Step-5's list of rotated layers in the words of others, and one base for all layers as one for each.

    Its lists go on with the layers that predict further tokens.
    """
    count, rotated = need_size(config, "num_hidden_layers"), config.get("use_rope_layers")
    found = {key: value for key, value in config.items() if key not in ("use_rope_layers", "layer_types_with_mtp")}
    found["layer_types"] = config.get("layer_types_with_mtp") or config.get("layer_types")
    if rotated:
        if not isinstance(rotated, (list, tuple)) or len(rotated) < count:
            raise ValueError(
                f"describe: use_rope_layers is {rotated!r}, expected a list with one entry for each layer."
            )
        found["no_rope_layers"] = [int(bool(each)) for each in rotated]
    base = config.get("rope_theta")
    if not isinstance(base, list) and found["layer_types"]:
        shared = not config.get("partial_rotary_factors") and not config.get("yarn_only_types")
        found["rope_theta"] = base if shared else [500_000.0 if base is None else base] * len(found["layer_types"])
    return found

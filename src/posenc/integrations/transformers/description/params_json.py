"""The ``params.json`` of Meta's and Mistral's own releases, DeepSeek's and ExecuTorch's, in words of a config.json."""

from collections.abc import Mapping
from typing import Any, Literal

from posenc.integrations.transformers.description.config import Keys, need_size
from posenc.integrations.transformers.description.in_words import GIVE_PAIRING
from posenc.integrations.transformers.description.model_types import names
from posenc.integrations.transformers.description.own_words import (
    deepseek,
    executorch,
    flag,
    is_deepseek,
    is_executorch,
    without_every,
)

Pairing = Literal["half", "interleaved"]

#: What such a file is called here; their code rotates neighbouring channels.
NAME = "params.json"


#: The keys of Meta's and Mistral's own code. A file with others was written by another code, which rotates as it likes.
_KEYS = names("""
    dim n_layers n_heads n_kv_heads head_dim hidden_dim vocab_size multiple_of ffn_dim_multiplier ffn_exp norm_eps
    rope_theta use_scaled_rope rope_scaling_factor rope_high_freq_factor max_batch_size max_seq_len model_parallel_size
    attention_chunk_size nope_layer_interval use_qk_norm attn_temperature_tuning floor_scale attn_scale vision_args
    moe_args quantization_args lora_args vision_chunk_size vision_max_num_chunks vision_num_cross_attention_layers
    max_position_embeddings model_max_length sliding_window moe vision_encoder multimodal quantization yarn
    llama_4_scaling q_lora_rank kv_lora_rank qk_rope_head_dim qk_nope_head_dim v_head_dim tied_embeddings use_biases
    causal ragged_attention eagle activation ada_rms_norm_t_cond ada_rms_norm_t_cond_dim
    architectures model_type dtype torch_dtype transformers_version _name_or_path
""")
#: (channels, layers) of Llama 3.2's models of texts. Meta's code has the factor 8 for them too, and its files give
#: none; they were trained with 32, which their config.json has.
_FACTOR_32 = {(2048, 16), (3072, 28)}
#: And those that Llama 4's code alone has.
_LLAMA_4 = names("attention_chunk_size nope_layer_interval use_qk_norm attn_temperature_tuning moe_args ffn_exp")


def is_params_json(config: Mapping[str, Any]) -> bool:
    """Is this such a file? It has no model type, and these three sizes."""
    return config.get("model_type") is None and all(key in config for key in ("dim", "n_layers", "n_heads"))


def translated(raw: Mapping[str, Any], *, told: bool = False) -> tuple[dict[str, Any], list[str], Pairing]:
    """The keys of a ``config.json`` that mean the same, what bears on positions besides, and the pairing of the code.

    Args:
        raw: the file.
        told: whether the caller has said the pairing, so that a file of an unknown code is read by its keys.

    Raises:
        ValueError: a file of a code that is not known.
    """
    given = Keys(raw)
    if is_deepseek(given):
        config = deepseek(given)
        return config, [f"{key}: not used" for key in given.not_read()], "interleaved"
    if is_executorch(given):
        config = executorch(given) | {"model_type": NAME}
        pairs: Pairing = "half" if flag(given, "use_hf_rope") else "interleaved"
        return config, [f"{key}: not used" for key in given.not_read()], pairs
    if (strange := sorted(raw.keys() - _KEYS)) and not told:
        raise ValueError(
            f"describe: the config has no model_type, and the sizes of a params.json (dim, n_layers, n_heads), but not "
            f"its other keys: neither Meta's nor Mistral's code has {', '.join(strange[:6])}, so another code rotates "
            f"here; {GIVE_PAIRING}."
        )
    new = any(given.get(key) is not None for key in ("use_scaled_rope", *_LLAMA_4))
    base = given.get("rope_theta")
    config = {
        "model_type": NAME,
        "hidden_size": need_size(given, "dim"),
        "num_attention_heads": need_size(given, "n_heads"),
        "num_hidden_layers": need_size(given, "n_layers"),
        "head_dim": given.get("head_dim"),
        "max_position_embeddings": given.get("max_position_embeddings") or given.get("max_seq_len"),
        # What Meta's code has where the file has none: Llama 1 and 2 leave it out.
        "rope_theta": (500_000.0 if new else 10_000.0) if base is None else base,
    }
    for key in ("qk_rope_head_dim", "qk_nope_head_dim"):
        config[key] = given.get(key)
    rule = _llama3(given) if flag(given, "use_scaled_rope") else _yarn(given)
    if (scaling := given.get("llama_4_scaling")) is not None:
        length = scaling.get("original_max_position_embeddings")
        if rule.setdefault("original_max_position_embeddings", length) != length:
            raise ValueError(
                f"describe: original_max_position_embeddings is {length} in llama_4_scaling and "
                f"{rule['original_max_position_embeddings']} in yarn; make them equal."
            )
        rule["llama_4_scaling_beta"] = scaling.get("beta")
    if rule:
        config["rope_scaling"] = rule
    config["no_rope_layers"] = without_every(given, "nope_layer_interval", config["num_hidden_layers"])
    if flag(given, "attn_temperature_tuning"):
        defaults = {"attn_temperature_tuning": True, "floor_scale": 8192, "attn_scale": 0.1}
        config |= {key: default if given.get(key) is None else given[key] for key, default in defaults.items()}
    found = {key: value for key, value in config.items() if value is not None}
    said = [f"{key}: not used" for key in given.not_read()]
    if rule.get("factor") == 32 and given.get("rope_scaling_factor") is None:
        said.append(
            "rope_scaling_factor: the file has none; 32 is taken, as in Llama 3.2's config.json, not 8 of Meta's code"
        )
    return found, said, "interleaved"


def _llama3(given: Mapping[str, Any]) -> dict[str, Any]:
    """Meta's ``apply_scaling``, whose numbers stand in the code but for those that newer files give."""
    llama_4 = any(given.get(key) is not None for key in _LLAMA_4)
    factor, high = given.get("rope_scaling_factor"), given.get("rope_high_freq_factor")
    if factor is None and (given.get("dim"), given.get("n_layers")) in _FACTOR_32:
        factor = 32.0
    return {
        "rope_type": "llama3",
        "factor": (16.0 if llama_4 else 8.0) if factor is None else factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": (1.0 if llama_4 else 4.0) if high is None else high,
        "original_max_position_embeddings": 8192,
    }


def _yarn(given: Mapping[str, Any]) -> dict[str, Any]:
    yarn = given.get("yarn")
    if not yarn:
        return {}
    found = {
        "rope_type": "yarn",
        "factor": yarn.get("factor"),
        "original_max_position_embeddings": yarn.get("original_max_position_embeddings"),
        "beta_fast": yarn.get("beta"),
        "beta_slow": yarn.get("alpha"),
        "attention_factor": 1.0 if yarn.get("apply_scale") is False else None,
    }
    return {key: value for key, value in found.items() if value is not None}

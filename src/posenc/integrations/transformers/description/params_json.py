"""The ``params.json`` of Meta's and Mistral's own releases, in the words of a config.json."""

from collections.abc import Mapping
from typing import Any

from posenc.integrations.transformers.description.config import Keys

#: What such a file is called here; their code rotates neighbouring channels.
NAME = "params.json"


def is_params_json(config: Mapping[str, Any]) -> bool:
    """Is this such a file? It has no model type, and these three sizes."""
    return config.get("model_type") is None and all(key in config for key in ("dim", "n_layers", "n_heads"))


def translated(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The keys of a ``config.json`` that mean the same, and what bears on positions besides."""
    given = Keys(raw)
    config: dict[str, Any] = {
        "model_type": NAME,
        "hidden_size": given["dim"],
        "num_attention_heads": given["n_heads"],
        "num_hidden_layers": given["n_layers"],
        "head_dim": given.get("head_dim"),
        "max_position_embeddings": given.get("max_position_embeddings") or given.get("max_seq_len"),
        "rope_theta": given.get("rope_theta") or 10_000.0,  # Meta's default, which Llama 1 and 2 leave out
    }
    for key in ("qk_rope_head_dim", "qk_nope_head_dim"):
        config[key] = given.get(key)
    rule = _llama3(given) if given.get("use_scaled_rope") else _yarn(given)
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
    if (every := given.get("nope_layer_interval")) is not None:
        config["no_rope_layers"] = [int((i + 1) % int(every) != 0) for i in range(int(given["n_layers"]))]
    found = {key: value for key, value in config.items() if value is not None}
    return found, [f"{key}: not used" for key in given.not_read()]


def _llama3(given: Mapping[str, Any]) -> dict[str, Any]:
    """Meta's ``apply_scaling``, whose numbers stand in the code but for those that newer files give."""
    return {
        "rope_type": "llama3",
        "factor": given.get("rope_scaling_factor") or 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": given.get("rope_high_freq_factor") or 4.0,
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

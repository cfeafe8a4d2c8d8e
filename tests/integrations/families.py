"""A small random instance of every model type of the installed transformers that rotates."""

import copy
import importlib
import inspect
import re
import warnings
from typing import Any

import torch
from torch import nn

from posenc.integrations.transformers.models import SECTIONS

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "decoder_hidden_size"), 64),
    **dict.fromkeys(
        ("intermediate_size", "moe_intermediate_size", "ffn_dim", "n_inner", "mlp_dim", "ffn_hidden_size"), 48
    ),
    **dict.fromkeys(("shared_expert_intermediate_size", "shared_intermediate_size", "intermediate_size_mlp"), 48),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "expert_ffn_hidden_size", "feed_forward_size"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "encoder_intermediate_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers", "depth"), 2),
    **dict.fromkeys(("encoder_num_hidden_layers", "decoder_num_hidden_layers", "n_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "encoder_num_attention_heads"), 4),
    **dict.fromkeys(("decoder_num_attention_heads",), 4),
    **dict.fromkeys(
        ("num_key_value_heads", "num_kv_heads", "encoder_num_key_value_heads", "decoder_num_key_value_heads"), 2
    ),
    **dict.fromkeys(("head_dim", "attention_head_dim", "kv_channels", "global_head_dim", "v_head_dim"), 16),
    **dict.fromkeys(("swa_head_dim", "swa_v_head_dim", "index_head_dim", "indexer_head_dim"), 16),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "embed_vocab_size", "text_vocab_size"), 99),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "original_max_position_embeddings"), 128),
    **dict.fromkeys(("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts", "n_routed_expert"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "top_k_experts", "moe_k", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank", "hidden_size_per_layer_input", "index_topk"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("sliding_window", "window_size", "local_attention", "attention_chunk_size"), 16),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
    **dict.fromkeys(("num_mtp_modules", "num_nextn_predict_layers", "num_kv_shared_layers"), 0),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "index_n_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "lru_width", "mamba_d_head"), 16),
    **dict.fromkeys(("mamba_n_heads",), 8),
    **dict.fromkeys(("mamba_d_state", "mamba_chunk_size"), 8),
    "image_size": 32,
    "patch_size": 8,
}

#: What else a model type needs to be small, or to be built at all.
ALSO: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "diffusion_gemma_text": {"pad_token_id": 0},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
    },
    "esm": {"vocab_size": 99, "position_embedding_type": "rotary", "pad_token_id": 0, "mask_token_id": 1},
    "esmc": {"num_key_value_heads": 4},
    "glm5_next_text": {"num_key_value_heads": 4},
    "granitemoehybrid": {"position_embedding_type": "rope", "layer_types": ["attention", "attention"]},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "hunyuan_vl_text": {
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "dynamic",
            "factor": 1.0,
            "rope_theta": 1e4,
            "alpha": 10.0,
            "mrope_section": [2] * 4,
        },
    },
    "kyutai_speech_to_text": {"pad_token_id": None},
    "lfm2_moe": {"layer_types": ["full_attention", "conv"]},
    "ministral": {"head_dim": 16},
    "nemotron": {"head_dim": 16, "num_key_value_heads": 4},
    "qwen4_exp_text": {},
    "zamba2": {"use_mem_rope": True},
    "zaya": {"num_experts_per_tok": 1},
}


def rotary_model_types() -> list[str]:
    """Model types whose code has a function that rotates, or a module that makes tables for it."""
    import transformers

    found = []
    for model_type in sorted(transformers.CONFIG_MAPPING.keys()):
        module = modeling(model_type)
        if module is None or model_class(model_type) is None:
            continue
        source = inspect.getsource(module)
        if re.search(r"def _?(vision_)?apply_(rotary|multi\w*rope)|class \w*R(otary|OPE|ope)\w*Emb", source):
            found.append(model_type)
    return found


def modeling(model_type: str) -> Any:
    import transformers

    name = transformers.CONFIG_MAPPING[model_type].__module__.replace("configuration_", "modeling_")
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def model_class(model_type: str) -> Any:
    import transformers

    config = transformers.CONFIG_MAPPING[model_type]
    for mapping in (
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
        transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        transformers.MODEL_MAPPING,
    ):
        try:
            found = mapping[config]
        except (KeyError, ValueError):  # none, or one that the installed version names and lacks
            continue
        return found[0] if isinstance(found, tuple) else found
    return None


def small(cls: Any, model_type: str) -> dict[str, Any]:
    """What makes a config of this class small."""
    config = cls()
    options: dict[str, Any] = {}
    for key, value in config.to_dict().items():
        if hasattr(value, "to_dict") or (isinstance(value, dict) and "model_type" in value):
            part = type(getattr(config, key))
            options[key] = small(part, value["model_type"])
        elif key in SIZES and (value is not None or key in ("pad_token_id",)) and not isinstance(value, (list, dict)):
            options[key] = SIZES[key]
    options |= _lists(config, options)
    options |= _rope(config, options, model_type)
    if "qk_rope_head_dim" in options:  # latent attention: each head has a key of its own
        options |= {key: 4 for key in ("num_key_value_heads",) if key in options}
        options |= {key: options["qk_rope_head_dim"] for key in ("head_dim",) if key in options}
    return options | ALSO.get(model_type, {})


def _lists(config: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Lists with an entry for each layer, cut so that both kinds of layers are among them."""
    made = {}
    layers = next((options[key] for key in ("num_hidden_layers", "n_layer", "num_layers") if key in options), 2)
    for key, value in config.to_dict().items():
        if not (isinstance(value, (list, tuple)) and len(value) > layers and re.search(r"layer|block|hybrid", key)):
            continue
        if all(isinstance(item, (str, int, float)) for item in value):
            kinds = list(dict.fromkeys(value))
            made[key] = (kinds * layers)[:layers] if isinstance(value[0], str) else list(value[:layers])
    return made


def _rope(config: Any, options: dict[str, Any], model_type: str) -> dict[str, Any]:
    found = copy.deepcopy(getattr(config, "rope_parameters", None))
    if not isinstance(found, dict):
        return {}
    head_dim = options.get("head_dim") or 16
    if model_type in SECTIONS and not any(isinstance(value, dict) for value in found.values()):
        found["mrope_section"] = None
    for parameters in [found, *found.values()]:
        if isinstance(parameters, dict):
            if "mrope_section" in parameters:
                pairs = int(head_dim * parameters.get("partial_rotary_factor", 1.0)) // 2
                parameters["mrope_section"] = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
            if "original_max_position_embeddings" in parameters:
                parameters["original_max_position_embeddings"] = 64
            for name in ("short_factor", "long_factor"):
                if name in parameters:
                    parameters[name] = parameters[name][: head_dim // 2]
    return {"rope_parameters": found}


def build(model_type: str) -> Any:
    """The model, with weights in which positions matter."""
    import transformers

    cls = transformers.CONFIG_MAPPING[model_type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = cls(**small(cls, model_type))
        config._attn_implementation = "eager"
        torch.manual_seed(0)
        model = model_class(model_type)._from_config(config, attn_implementation="eager").eval()
    if sum(parameter.numel() for parameter in model.parameters()) > 20_000_000:
        raise ValueError("still large")
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.15)
        elif "norm" not in name.lower():
            nn.init.normal_(parameter, std=0.05)
    return model


def tokens(rows: int, length: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 90, (rows, length), generator=torch.Generator().manual_seed(seed))


def forward(model: Any, ids: torch.Tensor, **options: Any) -> torch.Tensor:
    """Logits, or the last hidden states, of a model of tokens, encoder and decoder or one of them."""
    given = {"input_ids": ids, **options}
    if getattr(model.config, "is_encoder_decoder", False):
        given["decoder_input_ids"] = ids
    output = model(**given)
    return output.logits if getattr(output, "logits", None) is not None else output.last_hidden_state


def outputs(model: Any) -> dict[str, Any]:
    """Everything that must not change: logits, gradients and what is generated in each way that the model knows."""
    found: dict[str, Any] = {}
    with torch.no_grad():
        found["logits"] = forward(model, tokens(2, 12))
        mask = torch.ones(2, 12, dtype=torch.long)
        mask[1, :5] = 0
        found["padded"] = forward(model, tokens(2, 12), attention_mask=mask)
    model.zero_grad()
    logits = forward(model, tokens(2, 12))
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    (logits * weights).sum().backward()
    found["gradients"] = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    if not (hasattr(model, "lm_head") and model.can_generate()):
        return found
    common = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "disable_compile": True}
    ways: dict[str, dict[str, Any]] = {
        "greedy": {},
        "left padding": {"attention_mask": mask},
        "beams": {"num_beams": 3},
        "static cache": {"cache_implementation": "static"},
    }
    for name, options in ways.items():
        options = {"attention_mask": torch.ones_like(mask), **common, **options}
        try:
            with torch.no_grad():
                result = model.generate(
                    tokens(2, 12), return_dict_in_generate=True, output_logits=True, **copy.deepcopy(options)
                )
        except Exception as error:  # some families have no static cache, or no beams
            found[name] = type(error).__name__
            continue
        found[name] = torch.stack(result.logits)
        found[f"{name}, tokens"] = result.sequences
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """How far the outputs are apart, of their largest value; 0 for the same bits."""
    far = {}
    for name, a in before.items():
        b = after[name]
        if isinstance(a, dict):
            top = max((float(x.abs().max()) for x in a.values()), default=1.0)
            assert a.keys() == b.keys(), name
            far[name] = max((float((x - b[key]).abs().max()) for key, x in a.items()), default=0.0) / max(top, 1e-30)
        elif isinstance(a, torch.Tensor):
            same = torch.equal(a.nan_to_num(), b.nan_to_num())
            far[name] = 0.0 if same else float((a - b).abs().nan_to_num().max() / a.abs().nan_to_num().max())
        else:
            assert a == b, (name, a, b)
    return far

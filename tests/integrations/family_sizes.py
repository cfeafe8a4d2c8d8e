"""What makes a config of any model type of transformers small."""

import copy
import re
from dataclasses import dataclass
from typing import Any

from posenc.integrations.transformers.description.model_types import LATENT, SECTIONS

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "decoder_hidden_size"), 64),
    **dict.fromkeys(("out_hidden_size", "text_hidden_size", "audio_hidden_size", "backbone_hidden_size"), 64),
    **dict.fromkeys(("projection_dim", "projector_hidden_size", "projection_hidden_dim", "condition_dim"), 64),
    **dict.fromkeys(("projector_input_dim", "projector_output_dim", "vision_output_dim", "adapter_out_dim"), 64),
    **dict.fromkeys(
        ("hidden_size_global", "fpn_hidden_size", "adapter_in_dim", "adapter_input_size", "output_hidden_size"), 64
    ),
    **dict.fromkeys(
        ("intermediate_size", "moe_intermediate_size", "ffn_dim", "n_inner", "mlp_dim", "ffn_hidden_size"), 48
    ),
    **dict.fromkeys(("shared_expert_intermediate_size", "shared_intermediate_size", "intermediate_size_mlp"), 48),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "expert_ffn_hidden_size", "feed_forward_size"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "encoder_intermediate_size"), 48),
    **dict.fromkeys(("shared_experts_intermediate_size", "projection_intermediate_size"), 48),
    **dict.fromkeys(("speech_encoder_intermediate_size", "t2u_encoder_ffn_dim", "t2u_decoder_ffn_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers", "depth"), 2),
    **dict.fromkeys(("encoder_num_hidden_layers", "decoder_num_hidden_layers", "n_layers"), 2),
    **dict.fromkeys(("speech_encoder_layers", "t2u_encoder_layers", "t2u_decoder_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "encoder_num_attention_heads"), 4),
    **dict.fromkeys(("speech_encoder_attention_heads", "t2u_encoder_attention_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("decoder_num_attention_heads", "t2u_decoder_attention_heads"), 4),
    **dict.fromkeys(
        ("num_key_value_heads", "num_kv_heads", "encoder_num_key_value_heads", "decoder_num_key_value_heads"), 2
    ),
    **dict.fromkeys(("head_dim", "attention_head_dim", "kv_channels", "global_head_dim", "v_head_dim"), 16),
    **dict.fromkeys(("swa_head_dim", "swa_v_head_dim", "index_head_dim", "indexer_head_dim", "linear_head_dim"), 16),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "embed_vocab_size", "text_vocab_size"), 99),
    **dict.fromkeys(("unpadded_vocab_size",), 99),
    **dict.fromkeys(("t2u_vocab_size", "unit_hifi_gan_vocab_size", "codebook_vocab_size"), 99),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "original_max_position_embeddings", "max_seq_len"), 128),
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
    "spatial_merge_size": 2,
    # Tokens of the tests are below 90; those of other things are above.
    **dict.fromkeys(("image_token_id", "image_token_index", "image_patch_id"), 91),
    **dict.fromkeys(("video_token_id", "video_token_index"), 92),
    **dict.fromkeys(("audio_token_id", "audio_token_index"), 93),
    **dict.fromkeys(("vision_start_token_id", "image_start_token_id", "boi_token_id", "boi_token_index"), 94),
    **dict.fromkeys(("vision_end_token_id", "image_end_token_id", "eoi_token_id", "eoi_token_index"), 95),
    **dict.fromkeys(("video_start_token_id", "audio_bos_token_id"), 96),
    **dict.fromkeys(("video_end_token_id", "audio_eos_token_id"), 97),
    # Codecs.
    **dict.fromkeys(("num_codebooks", "num_quantizers", "n_codebooks"), 4),
    **dict.fromkeys(("codebook_size",), 64),
    **dict.fromkeys(("codebook_dim", "vector_quantization_hidden_dimension", "latent_dim"), 16),
    **dict.fromkeys(("num_filters", "encoder_hidden_size"), 8),
    **dict.fromkeys(("upsample_groups",), 64),
    **dict.fromkeys(("frequency_embedding_size", "loss_weighting_hidden_size"), 16),
}

#: The parts of models that track things in videos, which must fit each other.
_TRACKER = {
    **dict.fromkeys(("memory_attention_hidden_size", "memory_encoder_hidden_size", "mask_downsampler_embed_dim"), 128),
    **dict.fromkeys(("memory_attention_mlp_hidden_size", "memory_attention_feed_forward_hidden_size"), 48),
    "memory_fuser_embed_dim": 128,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_attention_rope_k_sizes": [2, 2],
    "memory_attention_num_layers": 1,
    "perceiver_resampler_num_latents": 4,
    "perceiver_resampler_num_latents_2d": 4,
    "vision_config": {"fpn_hidden_size": 128},
    "prompt_encoder_config": {"hidden_size": 128},
    "mask_decoder_config": {"hidden_size": 128, "iou_head_hidden_dim": 128},
}

_TRACKER_2 = _TRACKER | {
    "image_size": 64,
    "prompt_encoder_config": {"hidden_size": 128, "image_size": 64, "patch_size": 16},
}


@dataclass(frozen=True)
class Part:
    """A part of another model type than by default, or one that is left out by default."""

    model_type: str


#: What else a model type needs to be small, or to be built at all; into parts too.
ALSO: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"num_expert_group": 1, "layer_types": ["linear_attention", "full_attention"]},
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 500, "encoder_hash_byte_group_size": [3, 4]},
    "chameleon": {"vocabulary_map": {"<image>": 91, **{f"IMGIMGA{c}Z": 92 + i for i, c in enumerate("ABCD")}}},
    "chameleon_vqgan": {"base_channels": 32, "resolution": 32, "channel_multiplier": [1, 2], "num_embeddings": 4},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4}, "ffn_config": {"moe_top_k": 2}},
    "dia": {"delay_pattern": [0, 1, 2], "eos_token_id": 96, "pad_token_id": 97, "bos_token_id": 98},
    "dia_decoder": {
        "eos_token_id": 96,
        "pad_token_id": 97,
        "bos_token_id": 98,
        "num_channels": 3,
        "cross_num_attention_heads": 4,
        "cross_head_dim": 16,
        "cross_num_key_value_heads": 4,
        "cross_hidden_size": 64,
    },
    "diffusion_gemma": {"canvas_length": 4},
    "diffusion_gemma_text": {
        "pad_token_id": 0,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 48,
        "per_layer_config": {},
    },
    "deepseek_ocr2_sam_vision_model": {"downsample_channels": [32, 64], "output_channels": 32},
    "deepseek_ocr2_text": {"num_experts_per_tok": 2, "mlp_layer_types": ["dense", "sparse"]},
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 4}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
    },
    "dots3_note_text": {"per_layer_config": {}, "head_dim": 16, "num_key_value_heads": 4},
    "dots3_note_audio_encoder": {"downsample_hidden_size": 8, "conv_output_size": 128, "num_key_value_heads": 4},
    "dots3_note_vision_encoder": {"per_layer_config": {}},
    "edgetam_video": _TRACKER_2,
    "efficientloftr": {
        "hidden_size": 64,
        "out_features": [16, 16, 32, 64],
        "stage_num_blocks": [1, 1, 1, 1],
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
    "emu3": {
        "vocabulary_map": {
            "<image>": 91,
            "<|extra_200|>": 92,
            **{f"<|visual token {i:06d}|>": 93 + i for i in range(4)},
        }
    },
    "emu3_vqgan": {"base_channels": 32, "codebook_size": 4, "channel_multiplier": [1, 1], "attn_resolutions": [1]},
    "ernie4_5_vl_moe_text": {
        "moe_intermediate_size": [48, 48],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]},
    },
    "apertus1p5": {
        **{
            "text_config": {"vocab_size": 240},
            "vision_config": {"base_channels": 32},
            "audio_config": {"codebook_dim": 64},
        },
        **{"image_token_offset": 99, "audio_token_offset": 163},
    },
    "dory": {
        **{"num_hidden_layers": 3, "n_input_layers": 1, "n_output_layers": 1},
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "esm": {"vocab_size": 99, "position_embedding_type": "rotary", "pad_token_id": 0, "mask_token_id": 1},
    "esmc": {"num_key_value_heads": 4},
    "evolla": {"resampler_depth": 1, "aligner_num_add_layers": 2, "resampler_num_latents": 4},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma4": {"vision_config": Part("gemma4_vision")},
    "glm5_next_text": {
        "num_key_value_heads": 4,
        "qk_rope_head_dim": 0,
        "head_dim": 0,
        "index_kpool": 4,
        "layer_types": ["linear_attention", "indexed_attention"],
        "mlp_layer_types": ["dense", "sparse"],
        "indexer_types": ["full", "full"],
    },
    "glmasr_encoder": {"intermediate_size": 256},
    "granite4_vision": {
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[-1, 0]],
        "spatial_target_layers": [0, 0, 1, 1],
        "image_grid_pinpoints": [[32, 32]],
        "image_seq_length": 16,
    },
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
    "kimi_k25": {"projection_hidden_size": 64},
    "kyutai_speech_to_text": {"pad_token_id": 0, "audio_pad_token_id": 495},
    "llama4_vision_model": {"intermediate_size": 256},
    "lfm2_moe": {"layer_types": ["full_attention", "conv"]},
    "ministral": {"head_dim": 16},
    "mistral4": {"head_dim": 16},
    "molmo2_adapter": {"vision_feature_layer": [-1, -2]},
    "moonshine": {"encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4},
    "moonshine_streaming": {"num_key_value_heads": 4, "encoder_config": {"num_key_value_heads": 4}},
    "muse_glimmer": {"out_hidden_size": 256},
    "muse_spark": {"out_hidden_size": 256},
    "muse_spark_audio": {"patch_sizes": [4, 2], "hidden_sizes": [16, 32], "depths": [1, 1]},
    "nemotron3_5_transcribe_asr_audio": {"num_key_value_heads": 4},
    "nemotron3_diarization_audio": {"num_key_value_heads": 4},
    "nemotron3_5_transcribe_word_timestamp": {"num_key_value_heads": 4, "blank_token_id": 98},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "full_attention", "moe"],
        "ssm_state_size": 8,
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "n_groups": 1,
        "moe_latent_size": None,
    },
    "nemotron": {"head_dim": 16, "num_key_value_heads": 4},
    "neucodec": {"num_key_value_heads": 4, "quantization_dim": 128},
    "pe_video_encoder": {"vision_config": Part("vit")},  # instead of one of timm
    "qwen2_5_omni_bigvgan": {"upsample_initial_channel": 64, "mel_dim": 8},
    "qwen2_5_omni_dit": {
        "emb_dim": 16,
        "enc_emb_dim": 16,
        "enc_dim": 16,
        "num_embeds": 99,
        "mel_dim": 8,
        "enc_channels": [16] * 4 + [48],
    },
    "qwen2_5_omni_thinker": {"vision_start_token_id": 94},
    "qwen3_omni_moe": {"talker_config": {"spatial_merge_size": 2}, "code2wav_config": {"decoder_dim": 64}},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 48},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 94},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "ngram_vocab_size_base": 20,
        "split_ngram_parts": 1,
    },
    "sam2_hiera_det_model": {
        "hidden_size": 16,
        "image_size": [64, 64],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "blocks_per_stage": [1, 1, 1, 1],
        "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [],
    },
    "sam2_video": _TRACKER_2,
    "sam2_vision_model": {
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    },
    "sam3_tracker_video": _TRACKER,
    "sapiens2": {
        "num_key_value_heads_per_layer": [4, 2],
        "num_key_value_attention_heads": 2,
        "num_first_full_attention_layers": 1,
        "num_last_full_attention_layers": 0,
    },
    "step3p5": {"sliding_window": 16},
    "t5gemma2_text": {"dropout_rate": 0.0},
    "unlimited_ocr_text": {"num_key_value_heads": 4},
    "vjepa2": {
        "hidden_size": 64,
        "crop_size": 32,
        "frames_per_clip": 4,
        "pred_hidden_size": 48,
        "pred_num_attention_heads": 4,
        "pred_num_hidden_layers": 1,
        "num_pooler_layers": 1,
    },
    "zamba2": {
        "use_mem_rope": True,
        "layers_block_type": ["linear_attention", "hybrid"],
        "hybrid_layer_ids": [1],
        "num_key_value_heads": 4,
    },
    "xcodec2": {"num_key_value_heads": 4, "quantization_dim": 128},
    "zaya": {"num_experts_per_tok": 1},
}


def small(cls: Any, model_type: str) -> dict[str, Any]:
    """What makes a config of this class small."""
    config = cls()
    options: dict[str, Any] = {}
    for key, value in config.to_dict().items():
        part = vars(config).get(key)
        if hasattr(part, "to_dict"):
            options[key] = {"model_type": part.model_type, **small(type(part), part.model_type)}
        elif key in SIZES and (value is not None or key in ("pad_token_id",)) and not isinstance(value, (list, dict)):
            options[key] = SIZES[key]
    options |= _lists(config, options)
    options |= _rope(config, options, model_type)
    if options.get("qk_rope_head_dim"):  # latent attention: each head has a key of its own
        options |= {key: 4 for key in ("num_key_value_heads",) if key in options}
        options |= {key: options["qk_rope_head_dim"] for key in ("head_dim",) if key in options}
    return _merged(options, ALSO.get(model_type, {}))


def _merged(options: dict[str, Any], also: dict[str, Any]) -> dict[str, Any]:
    """Both, the second before the first, parts of parts too."""
    import transformers

    made = options | also
    for key, value in also.items():
        part = options.get(key)
        if isinstance(value, Part):
            cls = transformers.CONFIG_MAPPING[value.model_type]
            made[key] = cls(**small(cls, value.model_type))
        elif isinstance(value, dict) and isinstance(part, dict) and "model_type" in part:
            made[key] = _merged(part, value)
    return made


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
    head_dim = options.get("qk_rope_head_dim" if model_type in LATENT else "head_dim") or 16
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

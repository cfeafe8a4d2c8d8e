"""Small models of the other families of diffusers, for the census and the slow tests."""

from typing import Any

import torch
from tests.integrations.diffusers.models import (
    _FLUX,
    _HUNYUAN,
    _WAN,
    FAMILIES,
    REFUSED,
    TIME,
    Small,
    _flux,
    _qwen,
    _video,
    grid,
    numbers,
    ones,
    tokens,
)

_SIZES = {name: torch.tensor([[8, 6]]) for name in ("original_size", "target_size", "crop_coords")}
_LAYERS: dict[str, Any] = {"num_attention_heads": 2, "num_layers": 1, "in_channels": 4, "out_channels": 4}


def _picture(**more: Any) -> dict[str, Any]:
    return {
        "hidden_states": numbers(1, 4, 8, 6),
        "encoder_hidden_states": numbers(1, 5, 8),
        "timestep": TIME,
        **more,
    }


MORE: dict[str, Small] = {
    "ace_step": Small(
        "AceStepTransformer1DModel",
        {
            "hidden_size": 32,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "in_channels": 24,
            "audio_acoustic_hidden_dim": 8,
            "sliding_window": 4,
        },
        lambda: {
            "hidden_states": numbers(1, 8, 8),
            "timestep": torch.tensor([0.5]),
            "timestep_r": torch.tensor([0.5]),
            "encoder_hidden_states": numbers(1, 5, 32),
            "context_latents": numbers(1, 8, 16),
        },
    ),
    "allegro": Small(
        "AllegroTransformer3DModel",
        _LAYERS
        | {
            "attention_head_dim": 24,
            "cross_attention_dim": 48,
            "sample_width": 6,
            "sample_height": 8,
            "sample_frames": 3,
            "caption_channels": 8,
        },
        lambda: _video(image_rotary_emb=_allegro_tables()),
    ),
    "anyflow": Small(
        "AnyFlowTransformer3DModel",
        _WAN | {"gate_value": 0.25, "deltatime_type": "r"},
        lambda: {
            "hidden_states": numbers(1, 3, 4, 8, 6),
            "timestep": torch.full((1, 3), 500.0),
            "r_timestep": torch.full((1, 3), 250.0),
            "encoder_hidden_states": numbers(1, 5, 8),
        },
    ),
    "anyflow_far": Small(
        "AnyFlowFARTransformer3DModel",
        _WAN
        | {
            "gate_value": 0.25,
            "deltatime_type": "r",
            "compressed_patch_size": (1, 4, 4),
            "full_chunk_limit": 3,
        },
        lambda: {
            "hidden_states": numbers(1, 4, 4, 8, 8),
            "timestep": torch.full((1, 4), 500.0),
            "r_timestep": torch.full((1, 4), 250.0),
            "encoder_hidden_states": numbers(1, 5, 8),
            "chunk_partition": [2, 2],
        },
    ),
    "bria": Small(
        "BriaTransformer2DModel", _FLUX | {"axes_dims_rope": [0, 10, 10], "pooled_projection_dim": None}, _flux
    ),
    "bria_fibo": Small(
        "BriaFiboTransformer2DModel",
        _FLUX | {"axes_dims_rope": [0, 10, 10], "pooled_projection_dim": None, "text_encoder_dim": 8},
        lambda: _flux(text_encoder_layers=[numbers(1, 5, 8), numbers(1, 5, 8)]),
    ),
    "bria_fibo2": Small(
        "BriaFibo2Transformer2DModel",
        {
            "in_channels": 4,
            "dim": 40,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "cap_feat_dim": 8,
            "injection_layer_ids": (1,),
            "perceiver_num_layers": 1,
            "min_num_gist_tokens": 4,
            "max_num_gist_tokens": 8,
            "gist_step": 2,
            "gist_min_text_len": 4,
            "gist_max_text_len": 16,
            "axes_dims": (4, 6, 10),
            "axes_lens": (64, 32, 32),
        },
        lambda: {
            "hidden_states": numbers(1, 4, 8, 6),
            "timestep": torch.tensor([0.5]),
            "encoder_hidden_states": numbers(1, 2, 5, 8),
        },
    ),
    "chroma": Small(
        "ChromaTransformer2DModel",
        _FLUX | {"approximator_num_channels": 8, "approximator_hidden_dim": 16, "approximator_layers": 1},
        _flux,
    ),
    "chronoedit": Small(
        "ChronoEditTransformer3DModel",
        _WAN | {"attention_head_dim": 12, "rope_temporal_skip_len": 8},
        lambda: _video() | {"hidden_states": numbers(1, 4, 2, 8, 6), "encoder_hidden_states_image": None},
    ),
    "cogview4": Small(
        "CogView4Transformer2DModel",
        _LAYERS | {"attention_head_dim": 16, "text_embed_dim": 8, "time_embed_dim": 8, "condition_dim": 4},
        lambda: _picture(**_SIZES),
    ),
    "consisid": Small(
        "ConsisIDTransformer3DModel",
        FAMILIES["cogvideox"].options | {"is_train_face": False, "use_rotary_positional_embeddings": True},
        FAMILIES["cogvideox"].inputs,
    ),
    "cosmos3": Small(
        "Cosmos3OmniTransformer",
        {
            "head_dim": 12,
            "hidden_act": "relu2",
            "hidden_size": 24,
            "intermediate_size": 16,
            "latent_channel": 2,
            "latent_patch_size": 1,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "num_key_value_heads": 1,
            "patch_latent_dim": 2,
            "qk_norm_for_text": False,
            "rope_axes_dim": [2, 2, 2],
            "vocab_size": 32,
        },
        lambda: {
            "input_ids": tokens(2),
            "text_indexes": torch.arange(2),
            "position_ids": torch.arange(3)[None].expand(3, -1),
            "und_len": 2,
            "sequence_length": 3,
            "vision_tokens": [numbers(1, 2, 1, 1, 1)],
            "vision_token_shapes": [[1, 1, 1]],
            "vision_sequence_indexes": torch.tensor([2]),
            "vision_mse_loss_indexes": torch.tensor([2]),
            "vision_timesteps": torch.tensor([1.0]),
            "vision_noisy_frame_indexes": [torch.tensor([0])],
        },
    ),
    "easyanimate": Small(
        "EasyAnimateTransformer3DModel",
        _LAYERS
        | {
            "attention_head_dim": 16,
            "mmdit_layers": 1,
            "patch_size": 2,
            "text_embed_dim": 8,
            "time_embed_dim": 8,
            "time_position_encoding_type": "3d_rope",
        },
        _video,
    ),
    "flux3": Small(
        "Flux3Transformer2DModel",
        {
            "in_channels": 4,
            "cond_in_channels": 4,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 20,
            "num_attention_heads": 2,
            "joint_attention_dim": 8,
            "timestep_channels": 8,
            "axes_dims_rope": (4, 4, 6, 6),
        },
        lambda: {
            **_flux(),
            "timestep": torch.tensor([0.5]),
            "img_ids": torch.cat([grid(4, 3), torch.zeros(12, 1)], 1),
            "txt_ids": torch.cat([torch.zeros(5, 3), torch.arange(5.0)[:, None]], 1),
        },
    ),
    "glm_image": Small(
        "GlmImageTransformer2DModel",
        _LAYERS
        | {
            "attention_head_dim": 16,
            "patch_size": 2,
            "text_embed_dim": 8,
            "time_embed_dim": 8,
            "condition_dim": 8,
            "prior_vq_quantizer_codebook_size": 64,
        },
        lambda: _picture(
            prior_token_id=tokens(1),
            prior_token_drop=torch.tensor([False]),
            target_size=torch.tensor([[8.0, 6.0]]),
            crop_coords=torch.tensor([[0.0, 0.0]]),
        ),
    ),
    "helios": Small(
        "HeliosTransformer3DModel",
        {key: value for key, value in _WAN.items() if key != "rope_max_seq_len"}
        | {
            "rope_dim": (10, 6, 6),
            "has_multi_term_memory_patch": True,
            "guidance_cross_attn": True,
            "zero_history_timestep": True,
            "is_amplify_history": False,
        },
        lambda: {
            "hidden_states": numbers(1, 4, 2, 8, 8),
            "timestep": torch.tensor([500]),
            "encoder_hidden_states": numbers(1, 5, 8),
            "indices_hidden_states": torch.tensor([[8.0, 9.0]]),
            "indices_latents_history_short": torch.tensor([[7.0]]),
            "indices_latents_history_mid": torch.tensor([[5.0]]),
            "indices_latents_history_long": torch.tensor([[0.0, 1.0, 2.0, 3.0]]),
            "latents_history_short": numbers(1, 4, 1, 8, 8),
            "latents_history_mid": numbers(1, 4, 1, 8, 8),
            "latents_history_long": numbers(1, 4, 4, 8, 8),
        },
    ),
    "hidream": Small(
        "HiDreamImageTransformer2DModel",
        _LAYERS
        | {
            "patch_size": 2,
            "num_single_layers": 1,
            "attention_head_dim": 20,
            "caption_channels": [8, 4],
            "text_emb_dim": 8,
            "num_routed_experts": 2,
            "num_activated_experts": 2,
            "axes_dims_rope": (4, 6, 10),
            "max_resolution": (32, 32),
            "llama_layers": (0, 1),
            "force_inference_output": True,
        },
        lambda: {
            "hidden_states": numbers(1, 4, 8, 8),
            "encoder_hidden_states_t5": numbers(1, 5, 8),
            "encoder_hidden_states_llama3": numbers(2, 1, 5, 4),
            "pooled_embeds": numbers(1, 8),
            "timesteps": TIME.long(),
        },
    ),
    "hunyuan_dit": Small(
        "HunyuanDiT2DModel",
        {key: value for key, value in _LAYERS.items() if key != "out_channels"}
        | {
            "sample_size": 8,
            "patch_size": 2,
            "attention_head_dim": 16,
            "cross_attention_dim": 8,
            "cross_attention_dim_t5": 8,
            "pooled_projection_dim": 4,
            "hidden_size": 32,
            "text_len": 4,
            "text_len_t5": 4,
            "activation_fn": "gelu-approximate",
        },
        lambda: {
            "hidden_states": numbers(1, 4, 8, 8),
            "encoder_hidden_states": numbers(1, 4, 8),
            "text_embedding_mask": torch.ones(1, 4),
            "encoder_hidden_states_t5": numbers(1, 4, 8),
            "text_embedding_mask_t5": torch.ones(1, 4),
            "timestep": TIME,
            "image_meta_size": torch.ones(1, 6),
            "style": torch.tensor([0]),
            "image_rotary_emb": _hunyuan_dit_tables(),
        },
    ),
    "hunyuan_image": Small(
        "HunyuanImageTransformer2DModel",
        _LAYERS
        | {
            "attention_head_dim": 16,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "text_embed_dim": 8,
            "rope_axes_dim": (6, 10),
        },
        lambda: _picture(encoder_attention_mask=ones(1, 5)),
    ),
    "hunyuan_video15": Small(
        "HunyuanVideo15Transformer3DModel",
        _HUNYUAN | {"text_embed_2_dim": 8, "image_embed_dim": 8, "target_size": 16, "task_type": "t2v"},
        lambda: _video(
            encoder_attention_mask=torch.ones(1, 5),
            encoder_hidden_states_2=numbers(1, 4, 8),
            encoder_attention_mask_2=torch.ones(1, 4),
            image_embeds=numbers(1, 3, 8),
        ),
    ),
    "hunyuan_video_framepack": Small(
        "HunyuanVideoFramepackTransformer3DModel",
        FAMILIES["hunyuan_video"].options
        | {"patch_size": 2, "has_image_proj": True, "image_proj_dim": 8, "has_clean_x_embedder": True},
        lambda: (
            FAMILIES["hunyuan_video"].inputs()
            | {
                "hidden_states": numbers(1, 4, 3, 4, 4),
                "image_embeds": numbers(1, 5, 8),
                "indices_latents": torch.tensor([11.0, 12.0, 13.0]),
                "latents_clean": numbers(1, 4, 2, 4, 4),
                "indices_latents_clean": torch.tensor([0.0, 10.0]),
                "latents_history_2x": numbers(1, 4, 2, 4, 4),
                "indices_latents_history_2x": torch.tensor([8.0, 9.0]),
                "latents_history_4x": numbers(1, 4, 8, 4, 4),
                "indices_latents_history_4x": torch.arange(8.0),
            }
        ),
    ),
    "joyimage": Small(
        "JoyImageEditTransformer3DModel",
        {
            "patch_size": [1, 2, 2],
            "in_channels": 4,
            "hidden_size": 40,
            "num_attention_heads": 2,
            "text_dim": 8,
            "num_layers": 1,
            "rope_dim_list": [4, 6, 10],
            "theta": 256,
        },
        _video,
    ),
    "kandinsky5": Small(
        "Kandinsky5Transformer3DModel",
        {
            "in_visual_dim": 4,
            "in_text_dim": 8,
            "in_text_dim2": 8,
            "time_dim": 8,
            "out_visual_dim": 4,
            "model_dim": 40,
            "ff_dim": 16,
            "num_text_blocks": 1,
            "num_visual_blocks": 1,
            "axes_dims": (4, 6, 10),
        },
        lambda: {
            "hidden_states": numbers(1, 3, 8, 6, 4),
            "encoder_hidden_states": numbers(1, 5, 8),
            "timestep": TIME,
            "pooled_projections": numbers(1, 8),
            "visual_rope_pos": [torch.arange(n) for n in (3, 4, 3)],
            "text_rope_pos": torch.arange(5),
            "scale_factor": (1.0, 2.0, 2.0),
        },
    ),
    "krea2": Small(
        "Krea2Transformer2DModel",
        {
            "in_channels": 4,
            "num_layers": 1,
            "attention_head_dim": 20,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 16,
            "timestep_embed_dim": 8,
            "text_hidden_dim": 16,
            "num_text_layers": 3,
            "text_num_attention_heads": 2,
            "text_num_key_value_heads": 1,
            "text_intermediate_size": 16,
            "num_layerwise_text_blocks": 1,
            "num_refiner_text_blocks": 1,
            "axes_dims_rope": (4, 6, 10),
        },
        lambda: {
            "hidden_states": numbers(1, 12, 4),
            "encoder_hidden_states": numbers(1, 4, 3, 16),
            "timestep": torch.tensor([0.5]),
            "position_ids": torch.cat([torch.zeros(4, 3), grid(4, 3)]),
            "encoder_attention_mask": ones(1, 4),
        },
    ),
    "longcat_audio_dit": Small(
        "LongCatAudioDiTTransformer",
        {"dit_dim": 32, "dit_depth": 1, "dit_heads": 2, "dit_text_dim": 8, "latent_dim": 8, "text_conv": False},
        lambda: {
            "hidden_states": numbers(1, 7, 8),
            "encoder_hidden_states": numbers(1, 5, 8),
            "encoder_attention_mask": ones(1, 5),
            "attention_mask": ones(1, 7),
            "timestep": torch.tensor([0.5]),
        },
    ),
    "longcat_image": Small(
        "LongCatImageTransformer2DModel",
        _FLUX | {"pooled_projection_dim": 8},
        lambda: _flux(guidance=torch.tensor([3.5])),
    ),
    "ltx2": Small(
        "LTX2VideoTransformer3DModel",
        _LAYERS
        | {
            "attention_head_dim": 16,
            "cross_attention_dim": 32,
            "audio_in_channels": 4,
            "audio_out_channels": 4,
            "audio_num_attention_heads": 2,
            "audio_attention_head_dim": 8,
            "audio_cross_attention_dim": 16,
            "caption_channels": 8,
            "rope_double_precision": False,
            "rope_type": "split",
        },
        lambda: {
            "hidden_states": numbers(1, 36, 4),
            "audio_hidden_states": numbers(1, 9, 4),
            "encoder_hidden_states": numbers(1, 5, 8),
            "audio_encoder_hidden_states": numbers(1, 5, 8),
            "timestep": TIME,
            "encoder_attention_mask": ones(1, 5),
            "num_frames": 3,
            "height": 4,
            "width": 3,
            "audio_num_frames": 9,
            "fps": 25.0,
        },
    ),
    "lumina_next": Small(
        "LuminaNextDiT2DModel",
        {
            "sample_size": 8,
            "in_channels": 4,
            "hidden_size": 48,
            "num_layers": 1,
            "num_attention_heads": 3,
            "num_kv_heads": 1,
            "multiple_of": 16,
            "learn_sigma": False,
            "cross_attention_dim": 8,
        },
        lambda: {
            "hidden_states": numbers(1, 4, 8, 6),
            "encoder_hidden_states": numbers(1, 5, 8),
            "timestep": torch.tensor([0.5]),
            "encoder_mask": torch.ones(1, 5),
            "image_rotary_emb": _lumina_tables(),
            "cross_attention_kwargs": {},
        },
    ),
    "minimax_h3": Small(
        "MiniMaxH3Transformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "hidden_size": 24,
            "num_layers": 1,
            "num_refiner_layers": 1,
            "ffn_dim": 16,
            "in_channels": 4,
            "audio_in_channels": 6,
            "text_dim": 8,
            "freq_dim": 8,
            "time_embed_hidden_dim": 24,
            "time_embed_dim": 16,
            "rope_freq_dim": 2,
        },
        lambda: {
            "hidden_states": numbers(1, 8, 16),
            "audio_hidden_states": numbers(1, 6, 6),
            "encoder_hidden_states": numbers(1, 4, 8),
            "timestep": torch.tensor([0.7]),
            "timestep_indices": torch.zeros(18).long(),
            "token_tags": torch.tensor([0] * 4 + [1] * 8 + [2] * 6),
            "position_ids": torch.cat([grid(2, 3, 3)]),
            "video_indices": torch.arange(4, 12),
            "audio_indices": torch.arange(12, 18),
            "text_indices": torch.arange(4),
        },
    ),
    "minimax_music3": Small(
        "MiniMaxMusic3Transformer1DModel",
        {
            "in_channels": 8,
            "condition_dim": 16,
            "num_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "ff_inner_dim": 16,
            "rotary_dim": 8,
            "fourier_embedding_dim": 8,
        },
        lambda: {
            "hidden_states": numbers(1, 8, 24),
            "encoder_hidden_states": numbers(1, 24, 16),
            "timestep": torch.tensor([0.5]),
        },
    ),
    "motif_video": Small(
        "MotifVideoTransformer3DModel",
        {
            "in_channels": 9,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 20,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_decoder_layers": 0,
            "patch_size": 1,
            "patch_size_t": 1,
            "text_embed_dim": 8,
            "image_embed_dim": 4,
            "rope_axes_dim": (4, 6, 10),
            "enable_text_cross_attention_dual": False,
            "enable_text_cross_attention_single": False,
        },
        lambda: _video(9),
    ),
    "nucleusmoe_image": Small(
        "NucleusMoEImageTransformer2DModel",
        FAMILIES["qwenimage"].options | {"moe_enabled": False, "capacity_factors": [8.0]},
        lambda: _qwen(img_shapes=[(1, 4, 3)]),
    ),
    "ovis_image": Small("OvisImageTransformer2DModel", _FLUX | {"out_channels": 4}, _flux),
    "prx": Small(
        "PRXTransformer2DModel",
        {
            "in_channels": 4,
            "patch_size": 2,
            "context_in_dim": 8,
            "hidden_size": 40,
            "num_heads": 2,
            "depth": 1,
            "axes_dim": [10, 10],
        },
        lambda: _picture(timestep=torch.tensor([0.5])),
    ),
    "sana_video": Small(
        "SanaVideoTransformer3DModel",
        _LAYERS
        | {
            "attention_head_dim": 22,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 22,
            "cross_attention_dim": 44,
            "caption_channels": 8,
            "sample_size": 8,
            "qk_norm": "rms_norm_across_heads",
            "rope_max_seq_len": 32,
        },
        _video,
    ),
    "skyreels_v2": Small("SkyReelsV2Transformer3DModel", _WAN, lambda: _video(timestep=torch.tensor([500]))),
    "stable_audio": Small(
        "StableAudioDiTModel",
        _LAYERS
        | {
            "sample_size": 8,
            "attention_head_dim": 32,
            "num_key_value_attention_heads": 1,
            "cross_attention_dim": 8,
            "time_proj_dim": 8,
            "global_states_input_dim": 8,
            "cross_attention_input_dim": 8,
        },
        lambda: {
            "hidden_states": numbers(1, 4, 8),
            "timestep": TIME,
            "encoder_hidden_states": numbers(1, 5, 8),
            "global_hidden_states": numbers(1, 1, 8),
            "rotary_embedding": _stable_audio_tables(),
        },
    ),
    "stable_audio3": Small(
        "StableAudio3DiTModel",
        {
            "io_channels": 8,
            "patch_size": 1,
            "embed_dim": 32,
            "depth": 1,
            "num_heads": 2,
            "cond_token_dim": 16,
            "global_cond_dim": 12,
            "local_add_cond_dim": 5,
            "timestep_features_dim": 16,
            "ff_mult": 2,
            "num_memory_tokens": 3,
            "use_differential_attention": False,
        },
        lambda: {
            "hidden_states": numbers(1, 8, 16),
            "timestep": torch.tensor([0.5]),
            "encoder_hidden_states": numbers(1, 4, 16),
            "global_hidden_states": numbers(1, 12),
        },
    ),
    "wan_vace": Small(
        "WanVACETransformer3DModel",
        _WAN | {"vace_layers": [0], "vace_in_channels": 12},
        lambda: _video(control_hidden_states=numbers(1, 12, 3, 8, 6)),
    ),
}

#: Models that add a table to their patches, and turn nothing.
_ADD: dict[str, Any] = _LAYERS | {"attention_head_dim": 16, "patch_size": 2, "sample_size": 8}
_NORM = {"norm_type": "ada_norm_single", "num_embeds_ada_norm": 8, "cross_attention_dim": 32, "out_channels": 8}

ADDED: dict[str, Small] = {
    "sd3": REFUSED["sd3"],
    "dit": Small(
        "DiTTransformer2DModel",
        _ADD | {"norm_type": "ada_norm_zero", "num_embeds_ada_norm": 8, "out_channels": 8},
        lambda: {
            "hidden_states": numbers(1, 4, 8, 8),
            "timestep": torch.tensor([5]),
            "class_labels": torch.tensor([3]),
        },
    ),
    "pixart": Small(
        "PixArtTransformer2DModel",
        _ADD | _NORM | {"caption_channels": 8, "use_additional_conditions": False},
        lambda: _picture(timestep=torch.tensor([5]), added_cond_kwargs={"resolution": None, "aspect_ratio": None}),
    ),
    "latte": Small(
        "LatteTransformer3DModel",
        _ADD | _NORM | {"caption_channels": 8, "norm_elementwise_affine": False, "video_length": 3},
        lambda: {
            "hidden_states": numbers(1, 4, 3, 8, 8),
            "encoder_hidden_states": numbers(1, 5, 8),
            "timestep": torch.tensor([5]),
        },
    ),
    "auraflow": Small(
        "AuraFlowTransformer2DModel",
        {
            "sample_size": 8,
            "in_channels": 4,
            "num_mmdit_layers": 1,
            "num_single_dit_layers": 1,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "caption_projection_dim": 16,
            "joint_attention_dim": 8,
            "pos_embed_max_size": 64,
        },
        _picture,
    ),
    "cogview3plus": Small(
        "CogView3PlusTransformer2DModel",
        _LAYERS
        | {
            "attention_head_dim": 16,
            "text_embed_dim": 8,
            "time_embed_dim": 8,
            "condition_dim": 4,
            "pos_embed_max_size": 8,
            "sample_size": 8,
        },
        lambda: _picture(**_SIZES),
    ),
}

ALL = {**FAMILIES, **MORE, **REFUSED, **ADDED}


def _allegro_tables() -> Any:
    from diffusers.models.embeddings import get_3d_rotary_pos_embed_allegro

    time, height, width, *places = get_3d_rotary_pos_embed_allegro(24, ((0, 0), (4, 3)), (4, 3), 3)  # type: ignore[misc]
    grids = [place.flatten()[None] for place in torch.meshgrid(*map(torch.as_tensor, places), indexing="ij")]
    return (time, height, width), tuple(grid.long() for grid in grids)


def _hunyuan_dit_tables() -> Any:
    from diffusers.models.embeddings import get_2d_rotary_pos_embed

    # A square is stretched over the whole of the trained 32 by 32.
    return get_2d_rotary_pos_embed(16, ((0, 0), (32, 32)), (4, 4), use_real=True, output_type="pt")


def _stable_audio_tables() -> Any:
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    return get_1d_rotary_pos_embed(16, 9, use_real=True, repeat_interleave_real=False)


def _lumina_tables() -> Any:
    from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

    return get_2d_rotary_pos_embed_lumina(16, 8, 8)

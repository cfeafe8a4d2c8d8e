"""The configs that the census looks at besides defaults."""

from typing import Any

#: Default configs that their own models cannot run, or that contradict themselves: what is put in, and why.
REPAIRS: dict[str, tuple[dict[str, Any], str]] = {
    "bamba": ({"attn_layer_indices": [9, 18, 27]}, "no layer of the default has attention; with the released ones"),
    "cohere_compass_text": (
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 50_000.0}}},
        "the default has no rotary parameters; with some",
    ),
    "esm": ({"vocab_size": 33}, "the default has no vocab_size"),
    "glm4_moe": ({"head_dim": 128}, "the default rotates 21 of 42 channels; with the released head_dim 128"),
    "glm4v_moe_text": ({"head_dim": 128}, "the default rotates 21 of 42 channels; with the released head_dim 128"),
    "glm4v_text": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}},
        "the default's sections are half as many as its pairs; with the released factor 0.5",
    ),
    "glm_image": (
        {
            "text_config": {
                "model_type": "glm_image_text",
                "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
            }
        },
        "as glm_image_text",
    ),
    "glm_image_text": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}},
        "the default's sections are half as many as its pairs; with the released factor 0.5",
    ),
    "hunyuan_vl_text": (
        {
            "head_dim": 128,
            "rope_parameters": {
                "rope_type": "dynamic",
                "factor": 1.0,
                "rope_theta": 1e4,
                "alpha": 1e3,
                "mrope_section": [16] * 4,
            },
        },
        "the default has no mrope_section, without which its forward fails; with the released ones",
    ),
    "minimax_m3_vl_text": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.5}},
        "the default's rotary_dim 64 is not read by its code, which rotates all 128; with the factor 0.5 for it",
    ),
    "qwen3_omni_moe_talker_text": ({"head_dim": 128}, "the default's sections are twice its pairs; with head_dim 128"),
    "qwen3_omni_moe_text": ({"head_dim": 128}, "the default's heads have 73 channels; with the released head_dim 128"),
    "qwen4_exp_text": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25}},
        "the default's sections are a quarter of its pairs; with the factor 0.25",
    ),
}

_LLAMA31 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192, "rope_theta": 1e6}
_DEEPSEEK = {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "rope_theta": 1e4}
_LONG = {"short_factor": [1.0 + i / 50 for i in range(48)], "long_factor": [1.0 + i for i in range(48)]}
_LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 4096, **_LONG}
_NEOX = {"rope_theta": 1e4, "partial_rotary_factor": 0.25}

#: Further configs of a model type, as released models have them or as its code allows: (name, what is put in).
VARIANTS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "llama": (
        ("linear", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
        ("dynamic", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
        (
            "llama3",
            {
                "rope_parameters": {**_LLAMA31, "rope_theta": 5e5, "original_max_position_embeddings": 8192},
                "max_position_embeddings": 131_072,
            },
        ),
        ("yarn", {"rope_parameters": _YARN, "max_position_embeddings": 32_768}),
        ("yarn, truncate false", {"rope_parameters": {**_YARN, "truncate": False}, "max_position_embeddings": 32_768}),
        (
            "proportional",
            {"rope_parameters": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}},
        ),
    ),
    "qwen2": (("yarn", {"rope_parameters": {**_YARN, "factor": None}, "max_position_embeddings": 32_768}),),
    "deepseek_v3": (
        (
            "yarn, mscale",
            {
                "rope_parameters": {**_DEEPSEEK, "mscale": 1.0, "mscale_all_dim": 1.0},
                "max_position_embeddings": 163_840,
            },
        ),
        ("rope_interleave false", {"rope_interleave": False}),
    ),
    "deepseek_v2": (
        (
            "yarn, mscale",
            {
                "rope_parameters": {**_DEEPSEEK, "mscale": 0.7, "mscale_all_dim": 0.7},
                "max_position_embeddings": 163_840,
            },
        ),
    ),
    "phi3": (
        (
            "longrope",
            {
                "rope_parameters": _LONGROPE,
                "max_position_embeddings": 131_072,
                "original_max_position_embeddings": 4096,
                "pad_token_id": 0,
            },
        ),
    ),
    "phimoe": (
        (
            "longrope",
            {
                "rope_parameters": {
                    **_LONGROPE,
                    "short_factor": [1.0 + i / 50 for i in range(64)],
                    "long_factor": [1.0 + i for i in range(64)],
                    "short_mscale": 1.24,
                    "long_mscale": 1.25,
                },
                "max_position_embeddings": 131_072,
            },
        ),
    ),
    "gpt_neox": (("linear", {"rope_parameters": {**_NEOX, "rope_type": "linear", "factor": 4.0}}),),
    "hunyuan_v1_dense": (
        (
            "alpha",
            {
                "head_dim": 128,
                "rope_parameters": {"rope_type": "dynamic", "alpha": 1e3, "rope_theta": 1e4, "factor": 1.0},
            },
        ),
    ),
    "gemma3_text": (
        (
            "linear",
            {
                "rope_parameters": {
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                }
            },
        ),
    ),
    "olmo3": (
        (
            "yarn, truncate false",
            {
                "rope_parameters": {
                    "sliding_attention": {"rope_type": "default", "rope_theta": 5e5},
                    "full_attention": {**_YARN, "truncate": False},
                },
                "max_position_embeddings": 32_768,
            },
        ),
    ),
    "falcon": (("alibi", {"alibi": True}),),
    "esm": (("rotary", {"position_embedding_type": "rotary", "vocab_size": 33}),),
    "granitemoehybrid": (("rope", {"position_embedding_type": "rope", "layer_types": ["attention"] * 32}),),
    "zamba2": (("use_mem_rope", {"use_mem_rope": True}),),
    "seamless_m4t": (("rotary", {"position_embeddings_type": "rotary"}),),
    "wav2vec2-conformer": (("rotary", {"position_embeddings_type": "rotary"}),),
    "wav2vec2-bert": (("rotary", {"position_embeddings_type": "rotary"}),),
    **dict.fromkeys(
        ("beit", "data2vec-vision"),
        (
            ("table", {"use_absolute_position_embeddings": True}),
            ("biases", {"use_relative_position_bias": True}),
            ("shared biases", {"use_shared_relative_position_bias": True}),
            ("all", {"use_absolute_position_embeddings": True, "use_relative_position_bias": True}),
        ),
    ),
    "vitdet": (
        (
            "biases",
            {"use_relative_position_embeddings": True, "window_size": 7, "window_block_indices": [0, 1, 3, 4]},
        ),
    ),
    "lw_detr_vit": (("larger", {"image_size": 640}),),
    "yolos": (("one table", {"use_mid_position_embeddings": False}),),
    "timesformer": (("space alone", {"attention_type": "space_only"}),),
    "distilbert": (("sinusoidal", {"sinusoidal_pos_embds": True}),),
    "flaubert": (("sinusoidal", {"sinusoidal_embeddings": True}),),
    "xlm": (("sinusoidal", {"sinusoidal_embeddings": True}),),
}

#: Where a model computes something else than its config says, and why: (model type, variant).
DIFFERENCES: dict[tuple[str, str], str] = {
    ("phimoe", "longrope"): (
        "a bug in transformers: PhimoeRotaryEmbedding.forward calls its rule without a length, so that the long "
        "factors are never used, and multiplies by long_mscale past the trained length all the same"
    ),
    ("olmo3", "yarn, truncate false"): (
        "a bug in transformers: _compute_yarn_parameters looks for truncate in rope_parameters as a whole, and not in "
        "those of the kind of layer, so that it is ignored"
    ),
    ("hy_v4", ""): (
        "a bug in transformers: HYV4Attention pairs halves, and the released weights are stored for neighbouring pairs "
        "(vLLM, SGLang and llama.cpp; a public run of the preview measured a perplexity of 151 in place of 6.4)"
    ),
    ("vjepa2", ""): (
        "a bug in transformers: rotate_queries_or_keys repeats its tables by halves where its pairs are neighbours, "
        "so that the two channels of a pair turn by different angles, which is no rotation"
    ),
}

"""A config of which transformers' class refuses one key: what it says of positions stands, and no default replaces it.

transformers 5 checks types: a whole number for a float, a text for a number. Such keys had the defaults of all keys
that are not of its structure in their place.
"""

from typing import Any

import pytest

from posenc import Learned, RoPE, Sinusoidal, T5Bias
from posenc.embeddings import LearnedGrid
from posenc.frequencies import Geometric
from posenc.integrations.transformers import Description, describe

pytest.importorskip("transformers")

SIZES: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
#: (config, a key with a value that its class refuses)
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "vit": ({**SIZES, "image_size": 384, "patch_size": 32}, {"num_channels": 3.0}),
    "beit": (
        {**SIZES, "image_size": 384, "patch_size": 32, "use_absolute_position_embeddings": True},
        {"hidden_dropout_prob": "0"},
    ),
    "clip_vision_model": ({**SIZES, "image_size": 336, "patch_size": 14}, {"layer_norm_eps": "1e-5"}),
    "siglip2_vision_model": ({**SIZES, "num_patches": 64, "patch_size": 8}, {"layer_norm_eps": "1e-6"}),
    "audio-spectrogram-transformer": (
        {**SIZES, "max_length": 512, "num_mel_bins": 64, "frequency_stride": 8, "time_stride": 8, "patch_size": 16},
        {"hidden_dropout_prob": "0"},
    ),
    "albert": ({**SIZES, "embedding_size": 32, "max_position_embeddings": 77}, {"classifier_dropout_prob": "0"}),
    "roberta": ({**SIZES, "max_position_embeddings": 130, "pad_token_id": 3}, {"hidden_dropout_prob": "0"}),
    "distilbert": ({"dim": 64, "n_heads": 4, "n_layers": 2, "sinusoidal_pos_embds": True}, {"dropout": "0"}),
    "t5": (
        {"d_model": 64, "num_heads": 4, "num_layers": 2, "relative_attention_max_distance": 256},
        {"dropout_rate": "0"},
    ),
    "llama": ({**SIZES, "rope_theta": 5e5, "max_position_embeddings": 99}, {"rms_norm_eps": "1e-5"}),
    "opt": ({**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 99}, {"dropout": "0"}),
}


def said(described: Description) -> list[Any]:
    return [(group.part, group.layers, group.encoding.to_dict(), group.trained_length) for group in described]


@pytest.mark.parametrize("model_type", REFUSED)
def test_one_key_that_is_refused_changes_nothing_else(model_type: str) -> None:
    config, wrong = REFUSED[model_type]
    described = describe({"model_type": model_type, **config, **wrong})
    assert said(described) == said(describe({"model_type": model_type, **config}))


@pytest.mark.transformers_as_pinned
def test_the_refused_key_is_named() -> None:
    for model_type, (config, wrong) in REFUSED.items():
        (key,) = wrong
        described = describe({"model_type": model_type, **config, **wrong})
        assert any(f"field '{key}'" in entry for entry in described.unread), model_type


def test_the_numbers_of_the_config_stand() -> None:
    found = {name: describe({"model_type": name, **config, **wrong}) for name, (config, wrong) in REFUSED.items()}
    first = {name: described.groups[0].encoding for name, described in found.items()}
    grids = {name: each.grid for name, each in first.items() if isinstance(each, LearnedGrid)}
    assert grids["vit"] == grids["beit"] == (12, 12)
    assert grids["clip_vision_model"] == (24, 24)
    assert grids["audio-spectrogram-transformer"] == (7, 63)
    lengths = {name: (each.dim, each.length) for name, each in first.items() if isinstance(each, Learned)}
    assert lengths == {"albert": (32, 77), "roberta": (64, 126), "opt": (64, 99)}
    assert isinstance(first["distilbert"], Sinusoidal)
    assert isinstance(first["t5"], T5Bias)
    assert first["t5"].max_distance == 256
    assert isinstance(first["llama"], RoPE)
    assert first["llama"].frequencies == Geometric(5e5)


def test_a_refused_key_of_a_part_changes_nothing_else() -> None:
    """The key that is refused stands inside; so do those that are put back."""
    vision = {"model_type": "clip_vision_model", **SIZES, "image_size": 336, "patch_size": 14}
    text = {"model_type": "llama", **SIZES, "rope_theta": 5e5}
    whole = {"model_type": "llava", "vision_config": vision, "text_config": text}
    wrong = {**whole, "vision_config": {**vision, "layer_norm_eps": "1e-5"}}
    assert said(describe(wrong)) == said(describe(whole))


def test_a_refused_key_of_the_structure_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a whole number"):
        describe({"model_type": "vit", **SIZES, "num_hidden_layers": "two"})


TINY = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 8192}


@pytest.mark.parametrize(
    ("model_type", "key", "value", "said"),
    [
        ("qwen", "rotary_emb_base", 1, "rotary_emb_base=1"),
        ("gpt_neox", "rotary_emb_base", -3.0, "rotary_emb_base=-3"),
        ("llama", "rope_theta", 1, "rope_theta=1"),
        ("modernbert", "global_rope_theta", 1, "global_rope_theta=1"),
        ("gemma3_text", "rope_local_base_freq", 0.5, "rope_local_base_freq=0.5"),
        ("phi3small", "rope_embedding_base", 1, "rope_embedding_base=1"),
        ("chatglm", "rope_ratio", -3.0, "rope_ratio=-3"),
    ],
)
def test_an_error_of_the_rates_names_the_key_of_the_config(model_type: str, key: str, value: float, said: str) -> None:
    """The rule knows its own name alone: "got base 1.0"."""
    with pytest.raises(
        ValueError, match=f"^describe: {model_type}: .*(It comes from|The config says) .*{said}"
    ) as caught:
        describe({**TINY, "model_type": model_type, "seq_length": 128, key: value})
    assert "10000=" not in str(caught.value)


@pytest.mark.transformers_as_pinned
def test_rope_scaling_beside_rope_parameters_says_what_each_reader_takes() -> None:
    llama = {**TINY, "model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    scaling = {"rope_type": "linear", "factor": 2.0}
    said = "transformers reads only rope_scaling, with the base {}, and llama.cpp's converter reads only"
    with pytest.raises(ValueError, match=said.format(r"that its class has by default \(10000 for most\)")):
        describe({**llama, "rope_scaling": scaling})
    with pytest.raises(ValueError, match=said.format("20000 outside of them")):
        describe({**llama, "rope_scaling": scaling, "rope_theta": 20000})
    with pytest.raises(ValueError, match=said.format("300.0")):
        describe({**llama, "rope_scaling": {**scaling, "rope_theta": 300.0}})
    # Both say one thing, and transformers finds the base beside them.
    (group,) = describe({**llama, "rope_scaling": {"rope_type": "default"}, "rope_theta": 5e5})
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == Geometric(5e5)
    with pytest.raises(ValueError, match="reads only rope_scaling"):
        describe({**llama, "rope_scaling": {"rope_type": "default"}})


KYUTAI = {"dim": 64, "num_heads": 4, "num_layers": 2, "depformer_dim": 32, "positional_embedding": "rope"}
ARGS = {"dim": 64, "n_layers": 4, "n_heads": 4, "use_hf_rope": True}
MIMO = {**TINY, "model_type": "mimo_v2_flash", "hybrid_layer_pattern": [0, 1], "rope_theta": 1e4, "head_dim": 16}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**ARGS, "n_layers": [1, 2]}, r"n_layers is \[1, 2\], of type list, expected a whole number"),
        ({**ARGS, "no_rope_layer_interval": 0}, "no_rope_layer_interval is 0, expected a whole number above 0"),
        ({"dim": 64, "n_layers": 4, "n_heads": 4, "nope_layer_interval": "4"}, "nope_layer_interval is '4'"),
        ({**MIMO, "num_hidden_layers": {"a": 1}}, "num_hidden_layers is .*, of type dict, expected a whole number"),
        (
            {**TINY, "model_type": "baichuan_m1", "rope_theta": 1e4, "sliding_window_layers": "01"},
            "sliding_window_layers is '01', expected a list of layers",
        ),
        (
            {**TINY, "model_type": "mimo_v2", "rope_theta": 1e4, "hybrid_layer_pattern": 3},
            "hybrid_layer_pattern is 3, .* expected a list",
        ),
        (
            {**TINY, "model_type": "rembert", "position_embedding_type": "absolute", "input_embedding_size": {"a": 1}},
            "input_embedding_size is .*, of type dict, expected a whole number",
        ),
        ({**KYUTAI, "max_period": "long"}, "max_period is 'long', .* expected a number above 0"),
        ({**KYUTAI, "depformer_pos_emb": "rope", "depformer_max_period": [1]}, r"depformer_max_period is \[1\]"),
        ({**TINY, "model_type": "afm7", "hidden_dim": 64, "rope_theta": -1}, "rope_theta is -1, .* a number above 0"),
        ({**TINY, "model_type": "afm7", "hidden_dim": [64], "rope_theta": 1e4}, r"hidden_dim is \[64\]"),
        ({**TINY, "model_type": "deberta-v2", "position_buckets": [1]}, r"position_buckets is \[1\]"),
        ({**TINY, "model_type": "chatglm", "rope_ratio": [500]}, r"rope_ratio is \[500\], .* a finite number"),
        ({**TINY, "model_type": "internlm", "rotary": {"type": "origin", "base": [1]}}, r"base is \[1\], .* a number"),
        (
            {**TINY, "model_type": "baichuan", "max_position_embeddings": None, "model_max_length": [1]},
            "model_max_length",
        ),
        (
            {"dim": 64, "n_layers": 2, "n_heads": 4, "use_hf_rope": True, "rope_scaling_short_factor": False},
            "rope_scaling_short_factor is False, .* a list",
        ),
    ],
)
def test_what_is_no_number_or_list_is_refused_by_its_key(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        describe(config)


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize(
    ("model_type", "key", "value", "said"),
    [
        ("pvt", "patch_sizes", [4, None, 2, 2], "no patch_sizes"),
        ("pvt", "hidden_sizes", [64], r"hidden_sizes is \[64\], .* a list of whole numbers, 4 or more"),
        ("vivit", "tubelet_size", [2, None, 16], "no tubelet_size"),
        ("vivit", "tubelet_size", [2, 0, 16], "tubelet_size is 2 x 0 x 16, expected numbers above 0"),
        ("videoprism_vision_model", "tubelet_size", -7, "tubelet_size is -7, .* a list of whole numbers"),
        ("sam_vision_model", "window_size", 1 << 70, "window_size is .*, expected at most"),
        ("clvp_encoder", "num_attention_heads", 0, "num_heads of 'clvp_encoder' is 0, expected a number above 0"),
    ],
)
def test_lists_of_sizes_of_image_models_are_checked(model_type: str, key: str, value: Any, said: str) -> None:
    """Each was an error of Python's or of torch's own."""
    transformers = pytest.importorskip("transformers")
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {model_type}")
    with pytest.raises(ValueError, match=said):
        describe({**transformers.CONFIG_MAPPING[model_type]().to_dict(), "model_type": model_type, key: value})


@pytest.mark.transformers_as_pinned
def test_rotary_parameters_of_parts_are_checked_too() -> None:
    text = {**TINY, "model_type": "qwen3_vl_text", "rope_theta": 1e4, "head_dim": 16}
    unread = describe(
        {
            "model_type": "some_omni",
            "text_config": {**text, "rope_parameters": {"mrope_section": [3, 3, 2]}},
            "vision_config": {
                **{"model_type": "qwen3_vl_vision", "hidden_size": 64, "num_heads": 4, "depth": 2},
                "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
            },
        }
    ).unread
    assert any("rope_type of 'qwen3_vl_vision' is 'linear', expected 'default' or 'axial'" in text for text in unread)


def test_an_error_names_the_list_of_sections_that_it_is_about() -> None:
    text = {**TINY, "model_type": "qwen3_vl_text", "head_dim": 128, "rope_theta": 1e4}
    with pytest.raises(ValueError, match=r"It comes from .*mrope_section=\[16, 24, 24\]; correct that"):
        describe({**text, "rope_scaling": {"rope_type": "default", "mrope_section": [16, 24, 24]}})


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("key", ["head_dim", "num_attention_heads", "hidden_size"])
def test_a_size_that_no_layer_has_is_refused_where_another_key_says_the_width(key: str, value: int) -> None:
    """transformers' rates take the width from elsewhere then, and its layers fail."""
    latent = {"qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 32, "kv_lora_rank": 32, "q_lora_rank": None}
    for config in ({"model_type": "qwen3", "head_dim": 16}, {"model_type": "kimi_k2", **latent}):
        with pytest.raises(ValueError, match=rf"{key}.*(is|=) ?{value}.*expected"):
            describe({**SIZES, **config, "rope_theta": 1e4, "max_position_embeddings": 99, key: value})


def test_zero_in_yarn_means_absent_as_in_transformers() -> None:
    """Its code reads ``beta_fast or 32``, ``beta_slow or 1`` and the weights where both are not 0."""
    rule = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}
    config = {**SIZES, "model_type": "llama", "rope_theta": 5e4, "max_position_embeddings": 131072}

    def read(**more: float) -> Any:
        (group,) = describe({**config, "rope_scaling": {**rule, **more}})
        return group.encoding.to_dict()

    plain = read()
    for zero in ({"beta_fast": 0, "beta_slow": 0.0}, {"mscale": 0.0, "mscale_all_dim": 1.0}, {"mscale_all_dim": 0}):
        assert read(**zero) == plain

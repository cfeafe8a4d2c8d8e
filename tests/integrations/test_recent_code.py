"""Configs of models of 2025 and 2026 whose code is not in transformers.

The right answers are read from vLLM 0.34, SGLang 0.5.23, mlx-lm 0.32.2 and mlx-vlm 0.7.10, which run these models. The
numbers are those of the defaults of their config classes, or of released files, with fewer layers.
"""

from typing import Any

import numpy as np
import pytest
import torch

from posenc import Compose, MRoPE, NoPE, RoPE, Temperature
from posenc.embeddings import LearnedGrid
from posenc.frequencies import Custom, Geometric, Llama3, YaRN
from posenc.integrations.transformers import Description, describe

pytest.importorskip("transformers")

B: dict[str, Any] = {
    **{"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 8},
    **{"max_position_embeddings": 32768, "head_dim": 128, "rope_theta": 1e6},
}
LATENT = {"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
SLIDING, FULL = "sliding_attention", "full_attention"


def layers(described: Description) -> dict[tuple[int, ...], float | None]:
    """The base of each group of layers, None where they do not rotate."""
    found: dict[tuple[int, ...], float | None] = {}
    for group in described:
        encoding = group.encoding
        assert isinstance(encoding, (RoPE, NoPE))
        if isinstance(encoding, NoPE):
            found[group.layers] = None
            continue
        assert isinstance(encoding.frequencies, Geometric)
        found[group.layers] = encoding.frequencies.base
    return found


ALL = tuple(range(8))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "Dream"}, {ALL: 1e6}),
        ({"model_type": "sdar", "rope_theta": None}, {ALL: 1e4}),
        ({"model_type": "sdar_moe"}, {ALL: 1e6}),
        ({"model_type": "nanbeige", "rope_theta": 7e7, "num_loops": 2}, {ALL: 7e7}),
        ({"model_type": "PanguEmbedded", "rope_theta": 16000000.0, "bias": True}, {ALL: 1.6e7}),
        ({"model_type": "step3_text", "rope_theta": None}, {ALL: 5e5}),
        ({"model_type": "k2_horizon", "rope_head_dim": 128, "rope_theta": 1e7}, {ALL: 1e7}),
        # Layers that do not rotate.
        (
            {"model_type": "ricursive", "layer_types": ([SLIDING] * 3 + [FULL]) * 2},
            {(0, 1, 2, 4, 5, 6): 1e6, (3, 7): None},
        ),
        (
            {"model_type": "domyn_edge", "position_layers": ["rope", "nope"] * 4},
            {(0, 2, 4, 6): 1e6, (1, 3, 5, 7): None},
        ),
        (
            {"model_type": "smallthinker", "rope_layout": [0, 1, 1, 1] * 2, "rope_theta": 1500000},
            {(0, 4): None, (1, 2, 3, 5, 6, 7): 1.5e6},
        ),
        # Layers without attention.
        ({"model_type": "jet_nemotron", "layer_types": ["jet", "jet", "attn", "swa"] * 2}, {(2, 3, 6, 7): 1e6}),
        ({"model_type": "minicpm_sala", "mixer_types": ["minicpm4", "lightning-attn"]}, {(0, 2, 4, 6): 1e6}),
        (
            {"model_type": "minicpm_sala", "mixer_types": ["lightning", "attn"], "attn_use_rope": False},
            {(1, 3, 5, 7): None},
        ),
        # Two bases.
        ({"model_type": "plamo3", "rope_local_theta": 10000}, {(7,): 1e6, tuple(range(7)): 1e4}),
        (
            {
                **{"model_type": "plamo3", "rope_theta": None, "layer_types": [SLIDING, FULL] * 4},
                "rope_parameters": {FULL: {"rope_theta": 5e6}, SLIDING: {"rope_type": "default", "rope_theta": 2e4}},
            },
            {(1, 3, 5, 7): 5e6, (0, 2, 4, 6): 2e4},
        ),
    ],
)
def test_bases_and_layers_are_those_of_the_code(config: dict[str, Any], expected: dict[tuple[int, ...], float]) -> None:
    described = describe({key: value for key, value in (B | config).items() if value is not None})
    assert layers(described) == expected
    assert described.unread == ()
    assert all(group.encoding.pairing == "half" for group in described if isinstance(group.encoding, RoPE))


PLAMO: dict[str, Any] = {
    **{"model_type": "plamo2", "hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 8},
    **{"hidden_size_per_head": 128, "mamba_step": 2, "mamba_enabled": True, "attention_window_size": 2048},
}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"full_attention_idx": []}, {(1, 3, 5, 7): 1e4}),
        ({"mamba_enabled": False}, {ALL: 1e4}),
        ({"mamba_step": 16}, {(7,): 1e4}),
        ({"full_attention_idx": [1, 5], "rope_theta": 1e6, "rope_local_theta": 1e4}, {(1, 5): 1e6, (3, 7): 1e4}),
        ({"full_attention_idx": [1, 5], "rope_theta": 1e6}, {(1, 3, 5, 7): 1e6}),
    ],
)
def test_plamo_2_has_attention_in_some_layers_and_a_base_for_those_with_a_window(
    keys: dict[str, Any], expected: dict[tuple[int, ...], float]
) -> None:
    described = describe({**PLAMO, **keys})
    assert layers(described) == expected
    assert all(isinstance(g.encoding, RoPE) and g.encoding.head_dim == 128 for g in described)


def test_alice_ai_has_the_defaults_of_qwen3_next() -> None:
    sizes = {"model_type": "alice_ai", "hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 8}
    described = describe(sizes)
    (group,) = described
    assert isinstance(group.encoding, RoPE)
    assert (layers(described), described.unread) == ({(3, 7): 1e6}, ())
    assert (group.encoding.head_dim, group.encoding.rotary_dim, group.encoding.pairing) == (256, 64, "half")
    own = {"rope_parameters": {"rope_theta": 5e6, "partial_rotary_factor": 0.5}, "head_dim": 128}
    (group,) = describe({**sizes, **own, "layer_types": ["full_attention", "linear_attention"] * 4})
    assert isinstance(group.encoding, RoPE)
    assert (group.layers, group.encoding.rotary_dim) == ((0, 2, 4, 6), 64)
    assert group.encoding.frequencies == Geometric(5e6)


def test_openpangu_with_learned_keys_rotates_a_part_of_each_head_in_neighbouring_pairs() -> None:
    """As in vLLM; the whole head was said to rotate in halves, and the keys were named as not used."""
    sinks = {"model_type": "PanguEmbedded", "param_sink_number": 4, "qk_nope_dim": 128, "qk_rope_dim": 64}
    described = describe({**B, **sinks})
    (group,) = described
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.head_dim, group.encoding.rotary_dim, group.encoding.rotary_start) == (192, 64, 0)
    assert (group.encoding.pairing, group.encoding.frequencies) == ("interleaved", Geometric(1e6))
    assert "4 keys are learned" in group.notes[0]
    assert described.unread == ()
    (halves,) = describe({**B, **sinks, "rope_interleave": False})
    assert isinstance(halves.encoding, RoPE)
    assert halves.encoding.pairing == "half"
    (plain,) = describe({**B, **sinks, "param_sink_number": 0})
    assert isinstance(plain.encoding, RoPE)
    assert (plain.encoding.head_dim, plain.encoding.pairing) == (128, "half")
    images = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [24, 20, 20]}
    with pytest.raises(ValueError, match="mrope_interleaved of an openPangu"):
        describe({**B, "model_type": "PanguEmbedded", "rope_scaling": images})


def test_maincoder_pairs_neighbours_as_llama_cpp_rotates_its_weights() -> None:
    """Its converter leaves the order of the channels; posenc said halves."""
    (group,) = describe({**B, "model_type": "maincoder"})
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.pairing == "interleaved"
    assert "its own code, which is not in transformers, was not compared" in group.notes[-1]


def test_the_table_of_step_3s_images() -> None:
    vision = {"model_type": "step3_vision_encoder", "hidden_size": 1792, "num_hidden_layers": 2, "patch_size": 14}
    text = {**B, "model_type": "step3_text"}
    described = describe(
        {"model_type": "step3_vl", "text_config": text, "vision_config": {**vision, "image_size": 728}}
    )
    table = described.groups[1].encoding
    assert isinstance(table, LearnedGrid)
    assert (table.dim, table.grid, table.prefix) == (1792, (52, 52), 1)


@pytest.mark.parametrize(
    ("model_type", "asked", "pairing"),
    [("bailing_hybrid", False, "interleaved"), ("glm_moe_dsa", False, "interleaved"), ("qwen3", True, "half")],
)
def test_a_rope_interleave_that_the_code_does_not_honour_is_noted(model_type: str, asked: bool, pairing: str) -> None:
    """SGLang honours it for Ling 3; false was passed over without a word."""
    config = {**B, **LATENT, "model_type": model_type, "layer_group_size": 4, "rope_interleave": asked}
    described = describe(config)
    (group,) = described
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.pairing == pairing
    assert f"rope_interleave is {str(asked).lower()}, and the code of {model_type!r}" in group.notes[-1]
    other = "half" if asked is False else "interleaved"
    (said,) = describe(config, pairing=other)  # type: ignore[arg-type]
    assert isinstance(said.encoding, RoPE)
    assert (said.encoding.pairing, said.notes) == (other, ())
    (agreed,) = describe({**config, "rope_interleave": not asked})
    assert agreed.notes == ()


def test_llada_says_its_sizes_as_olmo_does() -> None:
    sizes = {"d_model": 4096, "n_heads": 32, "n_kv_heads": 32, "n_layers": 8, "max_sequence_length": 4096}
    flags = {"rope": True, "rope_full_precision": True, "alibi": False}
    described = describe({"model_type": "llada", "rope_theta": 500000.0, **sizes, **flags})
    assert (layers(described), described.unread, described.groups[0].trained_length) == ({ALL: 5e5}, (), 4096)
    assert layers(describe({**B, "model_type": "llada", "rope_theta": 50000, "partial_rotary_factor": 1})) == {ALL: 5e4}


@pytest.mark.parametrize("model_type", ["llada2_moe", "param2moe"])
def test_the_share_of_a_head_counts_under_the_plain_rule(model_type: str) -> None:
    (group,) = describe({**B, "model_type": model_type, "partial_rotary_factor": 0.5})
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.rotary_dim == 64


def test_k2_horizon_rotates_the_first_pairs_of_the_halves() -> None:
    """As vLLM: pairs (i, i + head_dim / 2), of which the first rope_head_dim / 2 turn, by rates of that width."""
    parameters = {"rope_type": "default", "rope_theta": 1e7}
    config = {key: value for key, value in B.items() if key != "rope_theta"} | {"model_type": "k2_horizon"}
    (group,) = describe({**config, "head_dim": 16, "rope_head_dim": 8, "rope_parameters": parameters})
    assert isinstance(group.encoding, RoPE)
    q = torch.randn(1, 1, 3, 16, dtype=torch.float64)
    rotated = group.encoding.on_queries_keys(q, q)[0]
    angles = np.arange(3)[:, None] * 1e7 ** (-np.arange(0, 8, 2) / 8)
    pair = torch.complex(q[..., :4], q[..., 8:12]) * torch.from_numpy(np.exp(1j * angles))
    expected = q.clone()
    expected[..., :4], expected[..., 8:12] = pair.real, pair.imag
    torch.testing.assert_close(rotated, expected, rtol=1e-6, atol=1e-6)
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192, "rope_theta": 1e7}
    with pytest.raises(
        ValueError, match="posenc does not support the rule 'yarn' with rope_head_dim 64 of head_dim 128"
    ):
        describe({**config, "rope_head_dim": 64, "rope_parameters": yarn})
    (scaled,) = describe({**config, "rope_parameters": yarn})
    assert isinstance(scaled.encoding, RoPE)
    assert scaled.encoding.frequencies == YaRN(4.0, trained_length=8192, base=1e7)


def test_iquest_q1_names_the_layers_without_rotation_by_their_numbers() -> None:
    blocks = {"first_layers_types": [FULL], "hybrid_layers_types_block": [FULL, SLIDING, SLIDING, SLIDING]}
    config = {**B, **blocks, "num_hybrid_layers_block": 1, "last_layers_types": [FULL] * 3, "model_type": "iquest_q1"}
    described = describe(
        {**config, "rotary_dim": 32, "no_rope_layers": [0, 5], "swa_rope_theta": 1e4, "sliding_window": 9}
    )
    assert layers(described) == {(1, 6, 7): 1e6, (2, 3, 4): 1e4, (0, 5): None}
    assert {g.encoding.rotary_dim for g in described if isinstance(g.encoding, RoPE)} == {32}
    with pytest.raises(ValueError, match="the blocks of an 'iquest_q1' are 8 layers, expected num_hidden_layers, 9"):
        describe({**config, "num_hidden_layers": 9, "rotary_dim": 32, "swa_rope_theta": 1e4, "sliding_window": 9})


def test_numbers_of_layers_are_no_flags() -> None:
    numbers = {**B, "model_type": "an-unknown-one", "no_rope_layers": [*range(0, 16, 2)]}
    with pytest.raises(ValueError, match=r"no_rope_layers is .*expected for each layer 1 if it rotates and 0 if not"):
        describe(numbers, pairing="half")


def test_ernie_4_5_vl_of_its_own_code_is_that_of_transformers() -> None:
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": 1280, "num_heads": 16, "patch_size": 14}
    text = {"hidden_size": 2560, "num_attention_heads": 20, "num_key_value_heads": 4, "num_hidden_layers": 28}
    config = {**text, "rope_theta": 500000, "max_position_embeddings": 131072}
    own = {**config, "model_type": "ernie4_5_moe_vl", "freq_allocation": 20, "rope_3d": True}
    described = describe({**own, "vision_config": {**vision, "model_type": "DFNRope_vision_transformer"}})
    (theirs,) = describe({**config, "model_type": "ernie4_5_vl_moe_text"})
    assert isinstance(described.groups[0].encoding, MRoPE)
    assert str(described.groups[0].encoding) == str(theirs.encoding)
    assert str(describe({**vision, "model_type": "ernie4_5_vl_moe_vision"}).groups[0].encoding) == str(
        described.groups[1].encoding
    )
    (other,) = describe({**own, "freq_allocation": 24})
    assert isinstance(other.encoding, MRoPE)
    assert other.encoding.sections == (24, 20, 20)
    with pytest.raises(ValueError, match="freq_allocation is 21"):
        describe({**own, "freq_allocation": 21})


@pytest.mark.parametrize("model_type", ["talkie", "limite"])
def test_rotations_by_the_other_angle_have_rates_with_a_minus(model_type: str) -> None:
    own = {"global_layers": [3, 7], "global_nope": True, "rope_base_local": 1024.0, "rope_n_pairs": 32}
    described = describe({**B, "model_type": model_type, **(own if model_type == "limite" else {})})
    rotation = described.groups[0].encoding
    assert isinstance(rotation, RoPE)
    assert isinstance(rotation.frequencies, Custom)
    rates = np.array(rotation.frequencies.rates)
    if model_type == "talkie":
        np.testing.assert_allclose(rates, -(1e6 ** (-np.arange(64) / 64)))
        assert rotation.pairing == "half"
        return
    np.testing.assert_allclose(rates, -((1 / 1024) ** np.linspace(0, 1, 32)))
    assert (rotation.pairing, rotation.rotary_dim, described.groups[1].layers) == ("interleaved", 64, (3, 7))
    assert isinstance(described.groups[1].encoding, NoPE)


def test_spark_2_5_has_a_base_and_a_share_for_each_kind_of_layer() -> None:
    parameters = {FULL: {"rope_theta": 5e6, "partial_rotary_factor": 0.25}, SLIDING: {"rope_theta": 1e4}}
    config = {key: value for key, value in B.items() if key != "rope_theta"} | {"head_dim": 256}
    kinds = ([SLIDING] * 3 + [FULL]) * 2
    described = describe({**config, "model_type": "spark2_5", "layer_types": kinds, "rope_parameters": parameters})
    assert layers(described) == {(0, 1, 2, 4, 5, 6): 1e4, (3, 7): 5e6}
    assert [g.encoding.rotary_dim for g in described if isinstance(g.encoding, RoPE)] == [256, 64]


def test_step_5_says_all_by_layer() -> None:
    kinds = [FULL, SLIDING, SLIDING, SLIDING, FULL, SLIDING, SLIDING, SLIDING, SLIDING]  # one more for its last layer
    llama3 = {
        "factor": 2.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 32.0,
        "original_max_position_embeddings": 131072,
    }
    config = {
        **{**B, "model_type": "step5", "num_nextn_predict_layers": 1, "layer_types": kinds},
        **{"rope_theta": [5e6 if kind == FULL else 1e4 for kind in kinds], "yarn_only_types": [FULL]},
        **{"partial_rotary_factors": [0.5 if kind == FULL else 1.0 for kind in kinds]},
        "rope_scaling": {"rope_type": "llama3", **llama3},
    }
    full, sliding, without = describe({**config, "use_rope_layers": [True] * 4 + [False] + [True] * 4})
    assert (full.layers, sliding.layers, without.layers) == ((0,), (1, 2, 3, 5, 6, 7), (4,))
    assert isinstance(without.encoding, NoPE)
    assert isinstance(full.encoding, RoPE)
    assert isinstance(full.encoding.frequencies, Llama3)
    assert (full.encoding.rotary_dim, full.encoding.frequencies.base) == (64, 5e6)
    assert isinstance(sliding.encoding, RoPE)
    assert (sliding.encoding.rotary_dim, sliding.encoding.frequencies) == (128, Geometric(1e4))
    one_base = describe({**config, "rope_theta": 1e6, "partial_rotary_factors": None, "rope_scaling": None})
    assert set(layers(one_base).values()) == {1e6}


@pytest.mark.parametrize(
    ("config", "places"),
    [
        ({"model_type": "gigachat3_5", "full_attention_layers": [3, 7], "head_dim": 64}, (3, 7)),
        ({"model_type": "gigachat3_5", "layer_types": ["linear_attention", "attention"] * 4}, (1, 3, 5, 7)),
        ({"model_type": "xing4_0"}, ALL),
        ({"model_type": "youtu_llm"}, ALL),
    ],
)
def test_latent_attention_of_other_types(config: dict[str, Any], places: tuple[int, ...]) -> None:
    (group,) = describe({key: value for key, value in B.items() if key != "head_dim"} | LATENT | config)
    rope = group.encoding
    assert isinstance(rope, RoPE)
    assert group.layers == places
    assert (rope.head_dim, rope.rotary_start, rope.rotary_dim, rope.pairing) == (192, 128, 64, "interleaved")


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("nested", [False, True])
def test_deepseek_v4_1_is_read_as_v4(nested: bool) -> None:
    yarn = {"type": "yarn", "factor": 16, "original_max_position_embeddings": 65536, "beta_fast": 32, "beta_slow": 1}
    text = {
        **{"hidden_size": 4096, "num_attention_heads": 64, "num_hidden_layers": 4, "head_dim": 512},
        **{"qk_rope_head_dim": 64, "rope_theta": 10000, "compress_rope_theta": 160000, "rope_scaling": yarn},
        **{"compress_ratios": [0, 0, 4, 128], "max_position_embeddings": 1048576},
    }
    main, compressed = describe({"model_type": "deepseek_v41", **({"text_config": text} if nested else text)})
    assert (main.layers, compressed.layers) == ((0, 1), (2, 3))
    assert isinstance(main.encoding, RoPE)
    assert (main.encoding.frequencies, main.encoding.rotary_start) == (Geometric(1e4), 448)
    assert isinstance(compressed.encoding, RoPE)
    assert isinstance(compressed.encoding.frequencies, YaRN)
    assert (compressed.encoding.frequencies.base, compressed.encoding.frequencies.attention_factor) == (160000, 1)


def test_the_temperature_of_nemotron_labs_diffusion_is_that_of_ministral() -> None:
    yarn = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 16384, "rope_theta": 1e6}
    (group,) = describe(
        {**B, "model_type": "nemotron_labs_diffusion", "rope_parameters": {**yarn, "llama_4_scaling_beta": 0.1}}
    )
    assert isinstance(group.encoding, Compose)
    temperature = group.encoding.parts[1]
    assert isinstance(temperature, Temperature)
    assert (temperature.form, temperature.length, temperature.strength) == ("mistral", 16384, 0.1)


def test_moondream_3_rotates_32_channels() -> None:
    config = {"model_type": "moondream3_text", "dim": 2048, "n_layers": 8, "n_heads": 32, "max_context": 4096}
    described = describe({**config, "rope_theta": 1500000.0})
    assert layers(described) == {ALL: 1.5e6}
    assert isinstance(described.groups[0].encoding, RoPE)
    assert (described.groups[0].encoding.rotary_dim, described.groups[0].trained_length) == (32, 4096)


def test_biases_by_the_root_of_the_distance_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="'step1' subtracts a head's slope times the square root of the distance"):
        describe({"model_type": "step1", "hidden_size": 3072, "num_attention_heads": 48, "num_hidden_layers": 32})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "ricursive"}, "the layers of 'ricursive' differ"),
        ({"model_type": "domyn_edge", "position_layers": ["rope", "alibi"] * 4}, "position_layers of 'domyn_edge' is"),
        ({"model_type": "smallthinker", "rope_layout": [1, 0]}, "rope_layout of 'smallthinker' is .*one for each of 8"),
        ({"model_type": "minicpm_sala", "mixer_types": "minicpm4"}, "mixer_types of 'minicpm_sala' is 'minicpm4'"),
        ({**PLAMO, "full_attention_idx": [8]}, "full_attention_idx of 'plamo2' is .*numbers of layers, from 0 to 7"),
        ({**PLAMO, "mamba_step": "2"}, "mamba_step is '2'"),
        (
            {"model_type": "plamo3", "rope_scaling": {"type": "linear", "factor": 2.0}},
            "the rule of a 'plamo3' is 'linear'",
        ),
        ({"model_type": "limite", "rope_n_pairs": 65, "rope_base_local": 9.0}, "rope_n_pairs is 65, expected 2 to 64"),
        ({"model_type": "k2_horizon", "rope_head_dim": 33}, "rope_head_dim is 33, expected an even number"),
        ({"model_type": "step5", "use_rope_layers": [True]}, "use_rope_layers is"),
        ({"model_type": "step5", "layer_types": [[FULL], *[FULL] * 7], "rope_theta": [1e4] * 8}, "layer_types is"),
        ({"model_type": "step5", "layer_types": [FULL] * 8, "yarn_only_types": 3}, "yarn_only_types is 3"),
        ({"model_type": "plamo3", "rope_parameters": {FULL: "x", SLIDING: {"rope_theta": 1e4}}}, "a kind of layers"),
        ({"model_type": "plamo3", "rope_parameters": {FULL: {}, SLIDING: {"rope_theta": "1"}}}, "rope_theta is '1'"),
        ({"model_type": "moondream3_text", "max_context": float("inf")}, "max_context is inf, expected at most"),
        (
            {"model_type": "stripedhyena", "attn_layer_idxs": "12"},
            "attn_layer_idxs is '12', of type str, expected",
        ),
        ({"model_type": "llama", "cross_attention_layers": 1.5}, "cross_attention_layers is 1.5, of type float"),
        (
            {
                **{"model_type": "gemma4_unified_text", "layer_types": [SLIDING, FULL] * 4},
                "per_layer_config": {"1": {"head_dim": 512001536}},
            },
            "head_dim is 512001536, expected at most",
        ),
        ({"model_type": "bert", "max_position_embeddings": 2**53}, "a table of 9007199254740992 positions by 4096"),
        (
            {
                **{"model_type": "audio-spectrogram-transformer", "frequency_stride": 0, "time_stride": 8},
                **{"patch_size": 16, "num_mel_bins": 64, "max_length": 512},
            },
            "frequency_stride is 0 and time_stride 8",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        describe(B | config)


@pytest.mark.transformers_as_pinned
def test_a_part_within_a_part_with_too_many_layers_is_named() -> None:
    """Fuzz: an OverflowError of Python's own."""
    text = {**B, "model_type": "qwen3_vl_text", "num_hidden_layers": 10**20}
    vision = {"model_type": "qwen3_vl", "depth": 2, "hidden_size": 1152, "num_heads": 16}
    for part in ({"x": text}, text):
        described = describe({"model_type": "qwen3_vl", "text_config": part, "vision_config": vision})
        assert any("num_hidden_layers is 1" in each for each in described.unread)
        # The image part names the whole as its type, as in the released files; it is read as the part all the same.
        images = [group for group in described if group.part.startswith("vision_config")]
        assert [(group.part, len(group.layers)) for group in images] == [("vision_config", 2)] * 2

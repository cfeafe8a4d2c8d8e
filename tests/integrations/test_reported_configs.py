"""Reports of 2026 about configs that other libraries misread: what is read here."""

from typing import Any

import pytest
import torch

from posenc import MRoPE, RoPE
from posenc.frequencies import Geometric, Linear, Llama3, LongRoPE, YaRN
from posenc.integrations.transformers import describe
from posenc.nn import Transformer

pytest.importorskip("transformers")

B: dict[str, Any] = {
    **{"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 4},
    **{"max_position_embeddings": 32768, "head_dim": 128},
}
LATENT = {"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "mistral", "cohere", "minicpm", "internlm2", "deepseek"])
def test_a_base_inside_the_parameters_is_not_a_default(model_type: str) -> None:
    """vllm-project/vllm#42624, deepspeedai/DeepSpeed#8345: the base of transformers 5 was replaced by 10000."""
    (group,) = describe({**B, "model_type": model_type, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == Geometric(5e5)


@pytest.mark.parametrize(
    "keys",
    [
        {"partial_rotary_factor": 0.5},
        {"rotary_dim": 64},
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor": 0.5},
    ],
)
def test_ling_2_rotates_half_of_a_head_from_the_base_beside_its_parameters(keys: dict[str, Any]) -> None:
    """vllm-project/vllm#43770: the share was 1 without rotary_dim; #56066: the base beside rope_parameters was lost."""
    (group,) = describe({**B, "model_type": "bailing_moe_v2", "rope_theta": 600000, **keys})
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.rotary_dim, group.encoding.frequencies) == (64, Geometric(6e5))


@pytest.mark.transformers_as_pinned
def test_ling_2_6_rotates_the_whole_of_its_latent_slice() -> None:
    """vllm-project/vllm#41185: the share of the layers with linear attention halved the slice of the others."""
    ling = {**B, **LATENT, "model_type": "bailing_hybrid", "num_hidden_layers": 32, "layer_group_size": 8}
    (group,) = describe({**ling, "partial_rotary_factor": 0.5, "rotary_dim": 64, "rope_theta": 6000000})
    assert isinstance(group.encoding, RoPE)
    assert group.layers == (7, 15, 23, 31)
    assert (group.encoding.head_dim, group.encoding.rotary_start, group.encoding.rotary_dim) == (192, 128, 64)


def test_glm_rotates_half_of_a_head_that_no_key_tells_of() -> None:
    """ml-explore/mlx-lm#1698: THUDM/glm-4-9b-chat-hf leaves the share to its class, which has 0.5."""
    (group,) = describe({**B, "model_type": "glm"})
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.rotary_dim, group.encoding.pairing) == (64, "interleaved")


@pytest.mark.transformers_as_pinned
def test_a_share_and_yarn_hold_under_several_coordinates() -> None:
    """AI-Hypercomputer/maxtext#4616: M-RoPE dropped the share; jundot/omlx#3594: and the rule."""
    parameters = {
        **{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 262144, "rope_theta": 1e7},
        **{"partial_rotary_factor": 0.25, "mrope_section": [11, 11, 10], "mrope_interleaved": True},
    }
    (group,) = describe(
        {
            **B,
            "model_type": "qwen3_5_text",
            "head_dim": 256,
            "max_position_embeddings": 262144,
            "rope_parameters": parameters,
        }
    )
    assert isinstance(group.encoding, MRoPE)
    assert (group.encoding.rotary_dim, group.encoding.sections) == (64, (11, 11, 10))
    assert group.encoding.frequencies == YaRN(4.0, trained_length=262144, base=1e7)


@pytest.mark.transformers_as_pinned("olmo3")  # which had one base for all layers, whatever the config says
@pytest.mark.parametrize("model_type", ["gemma3_text", "olmo3"])
def test_parameters_of_a_kind_that_no_layer_has(model_type: str) -> None:
    """huggingface/transformers#48392: an entry for a kind of layer that a tiny model does not have."""
    full, sliding = ({"rope_type": "default", "rope_theta": base} for base in (1e6, 1e4))
    nested = {"full_attention": full, "sliding_attention": sliding}
    config = {**B, "model_type": model_type, "layer_types": ["full_attention"] * 4, "rope_parameters": nested}
    (group,) = describe(config)
    assert isinstance(group.encoding, RoPE)
    assert (group.layers, group.encoding.frequencies) == ((0, 1, 2, 3), Geometric(1e6))


def test_a_short_text_has_the_short_factors_whatever_the_cache_holds() -> None:
    """ggml-org/llama.cpp#24823: the allocated context chose the factors of LongRoPE, not the text."""
    rule = LongRoPE([1.0] * 4, [4.0] * 4, trained_length=16, factor=4, attention_factor=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Transformer(32, 4, 1, RoPE(8, frequencies=rule), causal=True, mlp_dim=8)
        model = model.double().eval().requires_grad_(False)
        x = torch.randn(1, 24, 32, dtype=torch.float64)
    short, cache = model(x[:, :8]), model.new_cache(max_length=64)
    steps = torch.cat([model(x[:, at : at + 1], cache=cache) for at in range(8)], 1)
    torch.testing.assert_close(steps, short)
    plain = Transformer(32, 4, 1, RoPE(8), causal=True, mlp_dim=8).double().eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain(x[:, :8]), short)
    assert not torch.allclose(plain(x), model(x))


MROPE = {"rope_type": "default", "mrope_section": [16, 24, 24]}
STRETCHED = {**MROPE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
BASE = {"rope_theta": 1e6}


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize(
    ("beside", "text", "said"),
    [
        ({"rope_scaling": {**MROPE, "type": "mrope"}, "rope_theta": 1e6}, {"rope_scaling": MROPE, **BASE}, ()),
        ({"rope_theta": 1e6}, {"rope_parameters": MROPE | BASE}, ()),
        ({"rope_scaling": STRETCHED}, {"rope_parameters": MROPE | BASE}, ("rope_scaling",)),
        ({"rope_parameters": STRETCHED | BASE}, {"rope_scaling": MROPE, **BASE}, ("rope_parameters",)),
        (
            {"rope_scaling": MROPE, "rope_theta": 5e6},
            {"rope_scaling": STRETCHED, **BASE},
            ("rope_scaling, rope_theta",),
        ),
        ({"rope_scaling": "auto"}, {"rope_scaling": MROPE, **BASE}, ("rope_scaling",)),
    ],
)
def test_parameters_beside_a_text_config_are_not_its_models(
    beside: dict[str, Any], text: dict[str, Any], said: tuple[str, ...]
) -> None:
    """sgl-project/sglang#27974: a server's flag set YaRN there, and nothing was stretched; files of transformers 4.5
    have both, which say the same."""
    whole = {**B, "model_type": "qwen2_5_vl", **beside, "text_config": {**B, "model_type": "qwen2_5_vl_text", **text}}
    found = describe(whole)
    alone = describe({"model_type": "qwen2_5_vl", "text_config": whole["text_config"]})
    for group, own in zip(found, alone, strict=True):
        assert (str(group.encoding), group.trained_length) == (str(own.encoding), own.trained_length)
    named = [line for line in found.unread if "rope" in line]
    assert named == [
        f"{keys}: outside of text_config; the model reads only text_config, so write them there" for keys in said
    ]


@pytest.mark.transformers_as_pinned
def test_transformers_reads_the_parameters_of_the_text_config() -> None:
    transformers = pytest.importorskip("transformers")
    text = {**B, "model_type": "qwen2_5_vl_text", "rope_scaling": STRETCHED, **BASE}
    config = transformers.Qwen2_5_VLConfig(**B, rope_theta=5e6, rope_scaling=MROPE, text_config=text)
    assert config.text_config.rope_parameters == STRETCHED | BASE


@pytest.mark.transformers_as_pinned
def test_a_kind_of_layer_has_what_stands_beside_too() -> None:
    rule = {"rope_type": "linear", "factor": 8.0}
    whole = {"model_type": "gemma3", "rope_scaling": rule, "text_config": {"model_type": "gemma3_text"}}
    (line,) = [line for line in describe(whole).unread if "rope" in line]
    assert line.startswith("rope_scaling: outside of text_config")
    whole["text_config"] = {"model_type": "gemma3_text", "rope_scaling": rule, "rope_theta": 1e6}
    assert not [line for line in describe(whole).unread if "rope" in line]


@pytest.mark.transformers_as_pinned
def test_hunyuan_4_rotates_neighbouring_pairs_as_its_weights_are_stored() -> None:
    """WestWaters/pollard-weights#70: transformers pairs halves; vLLM, SGLang and llama.cpp pair neighbours."""
    (group,) = describe({**B, **LATENT, "model_type": "hy_v4", "rope_parameters": {"rope_theta": 1e7}})
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.pairing, group.encoding.rotary_start) == ("interleaved", 128)
    assert "the module of transformers" in group.notes[0]


def test_a_scaling_without_a_base_says_that_the_base_is_the_default_of_the_class() -> None:
    """unslothai/unsloth#7028: a linear rule without the base, in a file of a model of base 500000."""
    rule = {"rope_type": "linear", "factor": 2.0}
    for base in ({}, {"rope_theta": None}):
        (group,) = describe({**B, "model_type": "llama", "rope_parameters": {**rule, **base}})
        assert isinstance(group.encoding, RoPE)
        assert group.encoding.frequencies == Linear(2.0)
        assert group.notes[-1] == "the config has no rope_theta: 10000 is the default of its class"
    for given in ({"rope_parameters": {**rule, "rope_theta": 5e5}}, {"rope_scaling": rule, "rope_theta": 5e5}):
        (group,) = describe({**B, "model_type": "llama", **given})
        assert not any("rope_theta" in note for note in group.notes)


def test_the_factor_of_llama_3_2_in_its_params_json() -> None:
    """meta-llama/llama-models#241: the code has 8, and the models of 1B and 3B were trained with 32."""
    file = {"n_heads": 32, "n_kv_heads": 8, "rope_theta": 500000.0, "use_scaled_rope": True, "vocab_size": 128256}
    for dim, layers, factor in ((2048, 16, 32.0), (3072, 28, 32.0), (4096, 32, 8.0)):
        described = describe({**file, "dim": dim, "n_layers": layers})
        assert isinstance(described.groups[0].encoding, RoPE)
        assert described.groups[0].encoding.frequencies == Llama3(factor, trained_length=8192)
        assert any("rope_scaling_factor" in each for each in described.unread) == (factor == 32)
    told = describe({**file, "dim": 2048, "n_layers": 16, "rope_scaling_factor": 16})
    assert isinstance(told.groups[0].encoding, RoPE)
    assert (told.groups[0].encoding.frequencies, told.unread) == (Llama3(16.0, trained_length=8192), ())


FULL, SLIDING = "full_attention", "sliding_attention"


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # vllm-project/speculators#649: one base was taken for both kinds of Laguna's layers, and YaRN dropped.
        (
            {
                **{"model_type": "laguna", "layer_types": [FULL, SLIDING, SLIDING, SLIDING]},
                "rope_parameters": {
                    FULL: {
                        **{"rope_type": "yarn", "rope_theta": 5e5, "factor": 64.0, "beta_fast": 64.0},
                        **{"original_max_position_embeddings": 4096, "attention_factor": 1.0},
                        "partial_rotary_factor": 0.5,
                    },
                    SLIDING: {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
                },
            },
            {
                (0,): (YaRN(64.0, trained_length=4096, base=5e5, beta_fast=64.0, attention_factor=1.0), 64),
                (1, 2, 3): (Geometric(1e4), 128),
            },
        ),
        # Blaizzy/mlx-vlm#2196: Gemma 3's base of 1000000 was taken for a model that has 10000 and YaRN in all layers.
        (
            {
                **{"model_type": "gemma3_text", "rope_theta": 10000, "rope_local_base_freq": 10000},
                **{"sliding_window": 32768, "layer_types": [FULL] * 4},
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192},
            },
            {(0, 1, 2, 3): (YaRN(4.0, trained_length=8192), 128)},
        ),
        # sgl-project/sglang#26187, ml-explore/mlx-lm#908: LFM 2's rule under rope_parameters was dropped.
        (
            {
                **{"model_type": "lfm2_moe", "layer_types": ["conv", FULL] * 2},
                "rope_parameters": {
                    **{"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e6},
                    "original_max_position_embeddings": 16384,
                },
            },
            {(1, 3): (YaRN(2.0, trained_length=16384, base=1e6), 128)},
        ),
        # vllm-project/vllm#52706: a base for each layer, 0 where there is no rotation.
        (
            {
                **{"model_type": "granite_swa", "layer_types": [FULL, SLIDING, SLIDING, SLIDING]},
                **{"sliding_window": 128, "layer_rope_theta": [0, 1e4, 1e4, 1e4]},
            },
            {(1, 2, 3): (Geometric(1e4), 128)},
        ),
        # NVIDIA-NeMo/Safe-Synthesizer#623: a linear rule with the base and the length beside it.
        (
            {
                **{"model_type": "llama", "max_position_embeddings": 2048},
                "rope_parameters": {
                    **{"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
                    "original_max_position_embeddings": 2048,
                },
            },
            {(0, 1, 2, 3): (Linear(2.0), 128)},
        ),
        # vllm-project/vllm#48621: equal weights are YaRN without its temperature on cos and sin; 1.277 was taken.
        (
            {
                **{"model_type": "mistral", "rope_theta": 1e6},
                "rope_scaling": {
                    **{"type": "yarn", "factor": 16.0, "mscale": 1.0, "mscale_all_dim": 1.0},
                    "original_max_position_embeddings": 2048,
                },
            },
            {(0, 1, 2, 3): (YaRN(16.0, trained_length=2048, base=1e6, attention_factor=1.0), 128)},
        ),
    ],
)
def test_each_layer_has_its_own_rule_and_share(config: dict[str, Any], expected: dict[Any, Any]) -> None:
    found = {
        group.layers: (group.encoding.frequencies, group.encoding.rotary_dim)
        for group in describe({**B, **config})
        if isinstance(group.encoding, RoPE)
    }
    assert found == expected


def test_a_temperature_beside_the_parameters_is_named_where_the_class_does_not_read_it() -> None:
    """vllm-project/vllm#48621: vLLM reads llama_4_scaling beside the parameters, and transformers within them."""
    yarn = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 2048, "rope_theta": 1e6}
    config = {**B, "model_type": "ministral3", "rope_parameters": yarn}
    scaling = {"beta": 0.1, "original_max_position_embeddings": 2048}
    assert describe({**config, "llama_4_scaling": scaling}).unread == ("llama_4_scaling: not used",)
    assert describe({**config, "rope_parameters": {**yarn, "llama_4_scaling_beta": 0.1}}).unread == ()


def test_a_stale_base_beside_the_parameters_is_refused() -> None:
    """THUDM/slime#1720: GLM-4.6V's 500000 stands among its parameters, and the class's 10000 was read."""
    parameters = {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 0.5, "mrope_section": [8, 12, 12]}
    config = {**B, "model_type": "glm4v_moe_text", "rope_parameters": parameters}
    (group,) = describe(config)
    assert isinstance(group.encoding, MRoPE)
    assert group.encoding.frequencies == Geometric(5e5)
    with pytest.raises(ValueError, match=r"rope_theta is 500000\.0 in the rotary parameters and 10000\.0 beside them"):
        describe({**config, "rope_theta": 10000.0})

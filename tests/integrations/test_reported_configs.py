"""Reports of 2026 about configs that other libraries misread: what is read here."""

from typing import Any

import pytest
import torch

from posenc import MRoPE, RoPE
from posenc.frequencies import Geometric, LongRoPE, YaRN
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
        f"{keys}: beside text_config, which alone its model reads; write there what is meant" for keys in said
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
    assert line.startswith("rope_scaling: beside text_config")
    whole["text_config"] = {"model_type": "gemma3_text", "rope_scaling": rule, "rope_theta": 1e6}
    assert not [line for line in describe(whole).unread if "rope" in line]


@pytest.mark.transformers_as_pinned
def test_hunyuan_4_rotates_neighbouring_pairs_as_its_weights_are_stored() -> None:
    """WestWaters/pollard-weights#70: transformers pairs halves; vLLM, SGLang and llama.cpp pair neighbours."""
    (group,) = describe({**B, **LATENT, "model_type": "hy_v4", "rope_parameters": {"rope_theta": 1e7}})
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.pairing, group.encoding.rotary_start) == ("interleaved", 128)
    assert "the module of transformers" in group.notes[0]

"""Configs of public repositories that say what is not read: it is named, or refused, and never passed over.

Each is made small. The right answer is that of transformers' class, of mlx-lm's port or of sglang's.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from posenc import RoPE
from posenc.frequencies import Geometric
from posenc.integrations.transformers import Description, describe

pytest.importorskip("transformers")

B: dict[str, Any] = {
    **{"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 4, "max_position_embeddings": 4096},
    "rope_theta": 1e4,
}


def by_label(described: Description) -> dict[str, tuple[tuple[int, ...], float, int, int]]:
    """For each kind of layer: its layers, base, head_dim and rotary_dim."""
    found = {}
    for group in described:
        rope: Any = group.encoding
        assert isinstance(rope, RoPE)
        assert isinstance(rope.frequencies, Geometric)
        found[group.label] = (group.layers, rope.frequencies.base, rope.head_dim, rope.rotary_dim)
    return found


@pytest.mark.parametrize(
    "model_type",
    [
        *("apertus", "cwm", "dory", "higgs_audio_v2", "lfm3", "ministral3", "mistral4", "mistral_large4_text"),
        *("moonshine_streaming", "muse_spark_text", "cosmos3_edge_text", "mimo_v2_flash", "gemma4_text"),
    ],
)
@pytest.mark.transformers_as_pinned
def test_a_base_that_a_class_drops_for_its_own_rule_is_named(model_type: str) -> None:
    """Ministral 3 with a flat rope_theta has the YaRN of its class, whatever the base says."""
    described = describe({"model_type": model_type, "rope_theta": 12345.0})
    assert any(text.startswith("rope_theta") for text in described.unread)
    bases = [getattr(getattr(group.encoding, "frequencies", None), "base", None) for group in described]
    assert 12345.0 not in bases


def test_a_base_that_a_class_takes_is_not_named() -> None:
    for model_type in ("llama", "gemma3_text", "gpt_oss", "qwen3_next", "phi3"):
        described = describe({"model_type": model_type, "rope_theta": 12345.0})
        assert described.unread == (), model_type
    old = {"model_type": "gemma3_text", "head_dim": 64, "rope_theta": 5e5, "rope_local_base_freq": 2e4}
    assert describe({**B, **old}).unread == ()


@pytest.mark.transformers_as_pinned
def test_what_mimo_v2_flash_says_of_its_layers_is_read_though_its_class_drops_it() -> None:
    """XiaomiMiMo/MiMo-V2-Flash: transformers reads none of these keys, and has the numbers of the release for all."""
    released = {
        **{"model_type": "mimo_v2_flash", "hidden_size": 4096, "num_hidden_layers": 6, "head_dim": 192},
        **{"num_attention_heads": 64, "max_position_embeddings": 262144, "partial_rotary_factor": 0.334},
        **{"rope_theta": 5e6, "swa_rope_theta": 1e4, "hybrid_layer_pattern": [0, 1, 1, 1, 1, 0]},
    }
    described = describe(released)
    assert described.unread == ()
    assert by_label(described)["full_attention"] == ((0, 5), 5e6, 192, 64)
    other = {**released, "rope_theta": 1e7, "partial_rotary_factor": 0.5, "hybrid_layer_pattern": [0, 1, 0, 1, 0, 1]}
    (unread,) = describe(other).unread
    assert "hybrid_layer_pattern and its bases, which its class drops" in unread
    assert by_label(describe({**other, "rope_scaling": None, "swa_head_dim": 192})) == {
        "full_attention": ((0, 2, 4), 1e7, 192, 96),
        "sliding_attention": ((1, 3, 5), 1e4, 192, 96),
    }
    with pytest.raises(ValueError, match="hybrid_layer_pattern has 2 entries for 6 layers"):
        describe({**other, "hybrid_layer_pattern": [0, 1]})


def test_mimo_v2_has_a_base_for_layers_with_a_window() -> None:
    """MiMo-V2.5 and its like, as sglang reads them."""
    tiny = {
        **{"model_type": "mimo_v2", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4},
        **{"hybrid_layer_pattern": [0, 1, 1, 0], "head_dim": 96, "swa_head_dim": 48, "max_position_embeddings": 64},
        **{"rope_theta": 1e7, "swa_rope_theta": 1e4, "partial_rotary_factor": 0.334},
    }
    described = describe(tiny)
    assert by_label(described) == {
        "full_attention": ((0, 3), 1e7, 96, 32),
        "sliding_attention": ((1, 2), 1e4, 48, 16),
    }
    assert described.unread == ()
    with pytest.raises(ValueError, match="hybrid_layer_pattern has 2 entries for 4 layers"):
        describe({**tiny, "hybrid_layer_pattern": [0, 1]})
    with pytest.raises(ValueError, match="rope_scaling of a 'mimo_v2' is not read"):
        describe({**tiny, "rope_scaling": {"type": "yarn", "factor": 4.0}})


def test_layers_of_baichuan_m1_with_a_window_have_wider_heads() -> None:
    """As mlx-lm reads them: 40 heads of 128 channels, and 20 of 256."""
    config = {
        **{"model_type": "baichuan_m1", "hidden_size": 5120, "num_hidden_layers": 4, "num_attention_heads": 40},
        **{"num_swa_attention_heads": 20, "rope_theta": 1e6, "sliding_window_layers": [1, 3]},
        "max_position_embeddings": 32768,
    }
    assert by_label(describe(config)) == {
        "full_attention": ((0, 2), 1e6, 128, 128),
        "sliding_attention": ((1, 3), 1e6, 256, 256),
    }


@pytest.mark.transformers_as_pinned
def test_a_flat_config_whose_sizes_are_the_defaults_by_chance() -> None:
    """ai-dynamo/aiconfigurator, Step-3.7-Flash: its class would take its own layers for those of the config."""
    types = ["full_attention" if i % 4 == 0 else "sliding_attention" for i in range(45)]
    step = {
        **{"model_type": "step3p7", "num_hidden_layers": 45, "hidden_size": 4096, "num_attention_heads": 64},
        **{"head_dim": 128, "max_position_embeddings": 65536, "sliding_window": 512, "layer_types": types},
    }
    described = describe(step)
    assert {group.label: len(group.layers) for group in described} == {"full_attention": 12, "sliding_attention": 33}
    assert {group.trained_length for group in described} == {65536}


def test_a_part_that_is_not_known_for_one_is_named() -> None:
    """moonshotai/Kimi-K3: the tower of images has neither a model type nor a usual name for its layers."""
    tower = {"vt_hidden_size": 1024, "vt_num_hidden_layers": 27, "pos_emb_type": "divided_fixed"}
    text = {**B, "model_type": "qwen3"}
    described = describe({"model_type": "kimi_k3", "text_config": text, "vision_config": tower})
    (entry,) = described.unread
    assert entry.startswith("vision_config: it has neither a model_type")
    described = describe({"model_type": "kimi_k3", "text_config": text, "vision_config": {"vt_hidden_size": 1024}})
    assert described.unread == ()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"swa_rope_theta": 20000.0}, "swa_rope_theta = 20000.0, which is not read and may change the rotation"),
        ({"rope_scale": 0.25}, "rope_scale = 0.25, which is not read"),
        ({"rope_percent": 0.25}, "rope_percent = 0.25, which is not read"),
        ({"rope_dim": 16}, "rope_dim = 16, which is not read"),
        ({"nope_layer_interval": 4}, "nope_layer_interval = 4, which is not read"),
        ({"nope_layers": [3]}, "nope_layers = "),
        ({"use_rope": False}, "use_rope = False, which turns off the rotation"),
        ({"position_embedding_type": "alibi"}, "'alibi', which is no rotation"),
        ({"alibi": True}, "alibi = True, which is no rotation"),
        ({"d_head": 128}, "d_head = 128, and posenc computed another width"),
        ({"swa_head_dim": 128}, "swa_head_dim = 128, and posenc computed another width for the heads"),
        ({"num_swa_attention_heads": 8}, "so that some heads have another width"),
        ({"qk_rope_head_dim": 32}, "add qk_nope_head_dim"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_unknown_model_type_that_says_more_of_its_rotation_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe({**B, "model_type": "homemade", **keys}, pairing="half")


def test_an_unknown_model_type_that_says_the_same_in_other_words_is_read() -> None:
    same = {
        **{"use_rope": True, "position_embedding_type": "rope", "rope_scale": 1.0, "d_head": 64, "alibi": False},
        **{"alibi_bias_max": 8.0, "rope_cache_size": 4096, "num_swa_attention_heads": 16, "rope_full_precision": True},
    }
    (group,) = describe({**B, "model_type": "homemade", **same}, pairing="half")
    assert (group.layers, group.encoding.head_dim) == ((0, 1, 2, 3), 64)  # type: ignore[attr-defined]
    kinds = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    types = ["full_attention", *["sliding_attention"] * 3]
    bases = {**B, "rope_theta": None, "rope_parameters": kinds, "layer_types": types}
    described = describe({**bases, "model_type": "homemade"}, pairing="half")
    assert by_label(described)["full_attention"] == ((0,), 1e6, 64, 64)


def test_a_switch_that_a_class_does_not_read_is_named() -> None:
    assert describe({**B, "model_type": "llama", "use_rope": False}).unread == ("use_rope: not used",)
    assert describe({**B, "model_type": "llama", "nope_layer_interval": 4}).unread == ("nope_layer_interval: not used",)


@pytest.mark.parametrize("model_type", ["gemma3_text", "homemade"])
def test_a_pattern_in_other_words_is_refused(model_type: str) -> None:
    """Every letter but G was taken for a layer with a window."""
    with pytest.raises(ValueError, match="the pattern of layers is 'interleave', expected a string of L"):
        describe({**B, "model_type": model_type, "sliding_window_pattern": "interleave"}, pairing="half")


def test_a_file_beside_the_config_is_refused(tmp_path: Path) -> None:
    """Tencent-Hunyuan/Hunyuan-A13B: its tokenizer_config.json names GPT-2, whose 12 layers were described."""
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({"model_type": "gpt2", "tokenizer_class": "HYTokenizer"}))
    with pytest.raises(ValueError, match=r"belongs to a tokenizer; give the config\.json beside it"):
        describe(file)


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("model_type", ["cohere2", "gemma2", "gpt_oss", "ministral", "exaone4", "afmoe"])
def test_a_second_base_that_a_class_does_not_read_turns_no_layer(model_type: str) -> None:
    """The key of Gemma 3 in the config of another: layers with a window were said to turn by it."""
    config = {"model_type": model_type, "rope_local_base_freq": 777.0}
    described, plain = describe(config), describe({"model_type": model_type})
    assert [group.encoding.to_dict() for group in described] == [group.encoding.to_dict() for group in plain]
    assert any(text.startswith("rope_local_base_freq, 777.0") for text in described.unread)


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("model_type", ["gemma3_text", "olmo3", "modernbert", "t5gemma2_text"])
def test_the_old_name_of_a_rule_that_a_class_does_not_take_is_named(model_type: str) -> None:
    """Classes with parameters by kind of layer set rope_type to default beside {"type": "linear"}."""
    old = {"model_type": model_type, "rope_scaling": {"type": "linear", "factor": 4.0}}
    assert any(text.startswith("rope_scaling.type, linear: ") for text in describe(old).unread)
    new = {"model_type": model_type, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    assert describe(new).unread == ()
    assert describe({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 4.0}}).unread == ()


@pytest.mark.transformers_as_pinned
def test_a_share_beside_parameters_by_kind_is_refused() -> None:
    """Mellum looks at those of each kind alone, and DiffusionGemma copies it into those that have none."""
    for model_type in ("mellum", "diffusion_gemma_text"):
        with pytest.raises(ValueError, match=r"partial_rotary_factor is 0\.5 beside rotary parameters by kind"):
            describe({"model_type": model_type, "partial_rotary_factor": 0.5})


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("rule", ["linear", "dynamic", "yarn", "llama3"])
def test_moonshine_is_scaled_by_its_rule(rule: str) -> None:
    import numpy as np
    from transformers import MoonshineConfig
    from transformers.models.moonshine.modeling_moonshine import MoonshineRotaryEmbedding

    keys: dict[str, Any] = {"rope_type": rule, "rope_theta": 54321.0, "factor": 8.0}
    if rule in ("yarn", "llama3"):
        keys["original_max_position_embeddings"] = 256
    if rule == "llama3":
        keys |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = {"model_type": "moonshine", "rope_parameters": keys}
    theirs: Any = MoonshineRotaryEmbedding(MoonshineConfig.from_dict(json.loads(json.dumps(config))))
    described = describe(config)
    assert {group.label for group in described} == {"encoder", "decoder"}
    for group in described:
        rope: Any = group.encoding
        rates = rope.frequencies.inv_freq(rope.rotary_dim)
        np.testing.assert_allclose(theirs.inv_freq.double().numpy(), rates, rtol=1e-5)
        assert theirs.attention_scaling == pytest.approx(rope.frequencies.attention_factor)


def test_a_part_that_is_another_model_is_named() -> None:
    """vLLM, transformers_utils/configs/ultravox.py: audio_model_id and text_model_id stand for the parts. LLaVA 1.5
    names its vision tower."""
    ultravox: dict[str, Any] = {"model_type": "ultravox", "architectures": ["UltravoxModel"], "hidden_size": 4096}
    ultravox |= {"audio_model_id": "openai/whisper-large-v3-turbo", "stack_factor": 8, "vocab_size": 128256}
    ultravox |= {"text_model_id": "meta-llama/Llama-3.1-8B-Instruct"}
    with pytest.raises(ValueError, match=r"text_model_id: meta-llama/Llama-3\.1-8B-Instruct, a model with a config"):
        describe(ultravox)
    whisper = {"model_type": "whisper", "d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4}
    described = describe(ultravox | {"audio_config": {**whisper, "max_source_positions": 1500}})
    assert [each.partition(":")[0] for each in described.unread] == ["text_model_id"]
    llava: dict[str, Any] = {"model_type": "llava_llama", "hidden_size": 64, "num_attention_heads": 4}
    llava |= {"num_hidden_layers": 2, "mm_vision_tower": "openai/clip-vit-large-patch14-336"}
    assert describe(llava).unread[-1].startswith("mm_vision_tower: openai/clip-vit-large-patch14-336, a model")

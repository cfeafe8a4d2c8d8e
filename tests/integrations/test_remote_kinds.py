"""Models whose code lies beside their weights, against the formulas of that code, written anew from what it computes.

Read in public repositories: OpenMOSS/MOSS, modeling_moss; turingmotors/heron, modeling_japanese_stablelm_alpha;
ssbuild/deep_training, modeling_bluelm and modeling_xverse; foldl/chatllm.cpp (BlueLM-7B-32K); ztxz16/fastllm and a copy
of XVERSE-13B-256K's rotary module; PaddleMIX's CogVLM and tongxiao2002/vllm-for-LMMs' CogVLM2; ports of StableLM-Alpha
and of Ling 2.5 to vLLM, and of Ring-mini-linear to MLX; generative-computing/granite-switch; kyutai-labs/moshi,
modules/rope.py and transformer.py; mlx-lm's lille-130m, afm7 and longcat_flash_ngram.
"""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from posenc import MRoPE, NoPE, RoPE, XPos
from posenc.embeddings import LearnedGrid
from posenc.frequencies import DynamicNTK, Geometric, NTKMixed
from posenc.integrations.transformers import describe

SIZES: dict[str, Any] = {"hidden_size": 512, "num_attention_heads": 4, "num_hidden_layers": 4}
LATENT = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
POSITIONS = np.array([0.0, 1.0, 77.0, 1023.0])


def rates(dim: int, base: float = 10_000.0) -> NDArray[np.float64]:
    return np.asarray(base ** (-np.arange(0, dim, 2) / dim))


def turned(x: torch.Tensor, inv_freq: NDArray[np.float64], *, pairs: str, start: int = 0) -> torch.Tensor:
    """Channels start to start + 2 len(inv_freq), turned by position times rate: neighbours or halves."""
    dim = 2 * len(inv_freq)
    part = x[..., start : start + dim].numpy()
    first, second = (part[..., ::2], part[..., 1::2]) if pairs == "neighbours" else np.split(part, 2, axis=-1)
    angle = POSITIONS[:, None] * inv_freq
    rows = (first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle))
    joined = np.stack(rows, -1).reshape(part.shape) if pairs == "neighbours" else np.concatenate(rows, -1)
    return torch.cat((x[..., :start], torch.from_numpy(joined), x[..., start + dim :]), dim=-1)


def assert_turns(encoding: Any, inv_freq: NDArray[np.float64], *, pairs: str, start: int = 0) -> None:
    q = torch.randn(1, 2, len(POSITIONS), encoding.head_dim, dtype=torch.float64)
    found = encoding.on_queries_keys(q, q, torch.from_numpy(POSITIONS))[0]
    torch.testing.assert_close(found, turned(q, inv_freq, pairs=pairs, start=start))


@pytest.mark.parametrize("keys", [{"rotary_dim": 64}, {}])
def test_moss_turns_neighbours_of_the_first_channels(keys: dict[str, int]) -> None:
    """The class has 64 where the config has nothing; the head is 256 wide."""
    moss = {"model_type": "moss", "n_embd": 6144, "n_head": 24, "n_layer": 34, "n_ctx": 2048, "n_positions": 2048}
    described = describe({**moss, **keys})
    (group,) = described
    assert (len(group.layers), group.trained_length) == (34, 2048)
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.head_dim == 256
    assert_turns(group.encoding, rates(64), pairs="neighbours")
    assert described.unread == ()
    with pytest.raises(ValueError, match="rotary_dim of a 'moss' is None, expected the number of rotated channels"):
        describe({**moss, "rotary_dim": None})


def test_stablelm_alpha_turns_halves_of_a_quarter() -> None:
    """stablelm-base-alpha-3b-v2: num_heads, and no num_attention_heads."""
    alpha = {"model_type": "stablelm_alpha", "hidden_size": 2560, "num_heads": 32, "num_hidden_layers": 32}
    alpha |= {"rotary_pct": 0.25, "rotary_emb_base": 10000, "max_position_embeddings": 4096}
    described = describe({**alpha, "rotary_scaling_factor": 1.0})
    (group,) = described
    assert group.trained_length == 4096
    assert_turns(group.encoding, rates(20), pairs="halves")
    assert described.unread == ()
    assert (
        describe({key: value for key, value in alpha.items() if "rotary" not in key}).groups[0].encoding.rotary_dim
        == 20
    )  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="rotary_scaling_factor of a 'stablelm_alpha' is 2"):
        describe({**alpha, "rotary_scaling_factor": 2.0})


def test_japanese_stablelm_alpha_fades_besides() -> None:
    """Its class has no model type. Queries are multiplied by a power that the keys are divided by (xPos)."""
    alpha = {"architectures": ["JapaneseStableLMAlphaForCausalLM"], **SIZES, "rotary_pct": 0.25}
    alpha |= {"rotary_emb_base": 10000, "rotary_scale_base": 512, "max_position_embeddings": 1024}
    described = describe(alpha)
    (group,) = described
    assert isinstance(group.encoding, XPos)
    assert (described.model_type, described.unread) == ("japanese_stablelm_alpha", ())
    q = torch.randn(1, 2, len(POSITIONS), 128, dtype=torch.float64)
    found = group.encoding.on_queries_keys(q, q, torch.from_numpy(POSITIONS))
    dim = 32
    zeta = (np.arange(0, dim, 2) + 0.4 * dim) / (1.4 * dim)
    scale = np.tile(zeta ** ((POSITIONS - 1024 // 2) / 512)[:, None], 2)
    plain = turned(q, rates(dim), pairs="halves")
    for got, power in zip(found, (scale, 1 / scale), strict=True):
        whole = np.concatenate((power, np.ones((len(POSITIONS), 128 - dim))), axis=-1)
        torch.testing.assert_close(got, plain * torch.from_numpy(whole))


def test_bluelm_32k_slows_all_pairs_by_a_power_of_their_number() -> None:
    """BlueLM-7B-Chat-32K: type ntkmixed, factor 16, power 0.3: rate / exp(a i^b) where a = ln k / (d/2)^b, i from 1."""
    scaling = {"type": "ntkmixed", "factor": 16, "power": 0.3}
    blue = {"model_type": "BlueLM", **SIZES, "max_position_embeddings": 2048, "rope_scaling": scaling}
    (group,) = describe(blue)
    slowed = rates(128) / np.exp(np.log(16) / 64**0.3 * np.arange(1, 65) ** 0.3)
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == NTKMixed(16, 0.3)
    assert (group.trained_length, group.longest) == (2048, 32768)
    assert_turns(group.encoding, slowed, pairs="halves")
    for gone in ("factor", "power"):
        less = {key: value for key, value in scaling.items() if key != gone}
        with pytest.raises(ValueError, match=f"the rule 'ntkmixed' lacks {gone}"):
            describe({**blue, "rope_scaling": less})


def test_xverse_says_which_code_it_is_of_or_is_not_read() -> None:
    xverse = {"model_type": "xverse", **SIZES}
    (first,) = describe({**xverse, "max_position_embeddings": 8192})
    assert_turns(first.encoding, rates(128), pairs="halves")
    with pytest.raises(ValueError, match="XVERSE-13B-256K has the base 500000"):
        describe({**xverse, "max_position_embeddings": 32768})
    scaling = {"type": "dynamic", "factor": 2.0}
    (long,) = describe(
        {**xverse, "max_position_embeddings": 32768, "rope_theta": 500000, "rope_scaling": scaling},
    )
    assert isinstance(long.encoding, RoPE)
    rule = long.encoding.frequencies
    assert rule == DynamicNTK(2.0, trained_length=32768, base=5e5)
    for length in (1000, 50_000, 200_000):  # the code: alpha is the length over half of the trained one, less 1
        alpha = max(length / (32768 / 2) - 1, 1)
        np.testing.assert_allclose(
            rule.inv_freq(128, length=length), rates(128, 5e5 * alpha ** (128 / 126)), rtol=1e-12
        )


@pytest.mark.parametrize("count", [20, 22])
def test_ring_linear_rotates_half_of_a_head_in_the_last_layer_of_each_group(count: int) -> None:
    """Ring-mini-linear-2.0; the layers of a last group that is not whole have full attention too."""
    ring = {
        **{"model_type": "bailing_moe_linear", "hidden_size": 2048, "num_attention_heads": 16, "head_dim": 128},
        **{"num_hidden_layers": count, "layer_group_size": 5, "partial_rotary_factor": 0.5, "rope_theta": 600000},
        "max_position_embeddings": 131072,
    }
    described = describe(ring)
    (group,) = described
    assert group.layers == tuple([4, 9, 14, 19, 20, 21][: 4 if count == 20 else 6])
    assert_turns(group.encoding, rates(64, 6e5), pairs="halves")
    assert described.unread == ()


@pytest.mark.parametrize("installed", [True, False])
def test_ling_2_5_is_read_with_and_without_its_class(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if installed:
        transformers = pytest.importorskip("transformers")
        if "bailing_hybrid" not in transformers.CONFIG_MAPPING:
            pytest.skip("this transformers has no bailing_hybrid")
    else:
        monkeypatch.setattr(
            "posenc.integrations.transformers.description.normalise.config_class", lambda model_type: None
        )
    ling = {
        **{"model_type": "bailing_hybrid", **SIZES, **LATENT, "num_hidden_layers": 32, "layer_group_size": 8},
        **{"rope_theta": 6000000, "partial_rotary_factor": 0.5, "rotary_dim": 64, "max_position_embeddings": 131072},
    }
    described = describe(ling)
    (group,) = described
    assert (group.layers, group.trained_length) == ((7, 15, 23, 31), 131072)
    assert_turns(group.encoding, rates(64, 6e6), pairs="neighbours", start=128)
    assert described.unread == ("rotary_dim: not used",)  # by these layers: it is of those with linear attention


@pytest.mark.transformers_as_pinned
def test_a_last_group_that_is_not_whole_is_told_of_where_a_class_drops_it() -> None:
    ling = {"model_type": "bailing_hybrid", **SIZES, **LATENT, "num_hidden_layers": 10, "layer_group_size": 8}
    (found,) = describe({**ling, "rope_theta": 6000000}).unread
    assert found == "layer_group_size, which its class drops: it says that the layers [7, 8, 9] have attention"


def test_granite_switch_counts_places_of_its_switch_as_layers() -> None:
    switch = {"model_type": "granite_switch", **SIZES, "num_hidden_layers": 42, "rope_theta": 10000000}
    switch |= {"max_position_embeddings": 131072, "layer_types": ["attention"] * 42, "position_embedding_type": "rope"}
    for keys, count in (({}, 42), ({"num_adapters": 2}, 41), ({"num_adapters": 2, "ms_code_m": 6}, 40)):
        (group,) = describe({**switch, **keys})
        assert group.layers == tuple(range(count))
        assert_turns(group.encoding, rates(128, 1e7), pairs="halves")
    (group,) = describe({**switch, "position_embedding_type": "nope"})
    assert isinstance(group.encoding, NoPE)
    (group,) = describe({key: value for key, value in switch.items() if key != "rope_theta"})
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == Geometric()


@pytest.mark.transformers_as_pinned
def test_a_length_that_a_class_writes_under_another_name_is_not_lost() -> None:
    """bailing_hybrid and kimi_linear: model_max_length in what the class writes, no length in the description."""
    keys = {**SIZES, **LATENT, "max_position_embeddings": 32768, "rope_theta": 6e6}
    linear = {"full_attn_layers": [4], "kda_layers": [1, 2, 3], "num_heads": 4, "head_dim": 128}
    for config in (
        {"model_type": "bailing_hybrid", "layer_group_size": 4, **keys},
        {"model_type": "kimi_linear", "linear_attn_config": {**linear, "short_conv_kernel_size": 4}, **keys},
    ):
        assert [group.trained_length for group in describe(config)] == [32768]


def test_qwen3_asr_deals_its_pairs_to_three_coordinates() -> None:
    """sophgo/LLM-TPU, Qwen3-ASR as it is released: its text has a model type of its own, in thinker_config."""
    scaling = {"interleaved": True, "mrope_interleaved": True, "mrope_section": [24, 20, 20], "type": "default"}
    text = {
        **{"model_type": "qwen3_asr_text", "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 28},
        **{"head_dim": 128, "max_position_embeddings": 65536, "rope_theta": 1000000},
        "rope_scaling": {**scaling, "rope_type": "default"},
    }
    thinker = {"model_type": "qwen3_asr_thinker", "text_config": text}
    (group,) = describe({"model_type": "qwen3_asr", "thinker_config": thinker})
    assert isinstance(group.encoding, MRoPE)
    places = np.array([[5.0, 7.0, 11.0]])
    axis = np.zeros(64, dtype=int)
    axis[1:60:3], axis[2:60:3] = 1, 2  # time at each pair that is neither height's nor width's
    angle = places[0, axis] * rates(128, 1e6)
    q = torch.randn(1, 1, 1, 128, dtype=torch.float64)
    first, second = np.split(q.numpy(), 2, axis=-1)
    wanted = (first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle))
    found = group.encoding.on_queries_keys(q, q, torch.from_numpy(places)[None])[0]
    torch.testing.assert_close(found, torch.from_numpy(np.concatenate(wanted, axis=-1)))


def test_a_rotation_that_no_encoding_has_is_refused_in_words_of_what_it_is() -> None:
    """sophgo/LLM-TPU, Falcon-Perception."""
    falcon = {"model_type": "falcon_perception", "dim": 1024, "n_layers": 28, "n_heads": 16, "head_dim": 128}
    with pytest.raises(ValueError, match=r"the second by row and column, with rates for each head.*freqs_cis_golden"):
        describe({**falcon, "max_seq_len": 8192, "rope_theta": 10000})


@pytest.mark.transformers_as_pinned
def test_sections_that_are_not_those_of_the_head_are_told_by_their_key() -> None:
    """It was an error of MRoPE's, which named no key."""
    narrow = {**SIZES, "model_type": "qwen3_5_text", "head_dim": 64, "layer_types": ["full_attention"] * 4}
    narrow |= {"rope_theta": 1e7, "partial_rotary_factor": 0.25, "max_position_embeddings": 4096}
    words = r"qwen3_5_text: mrope_section is \[11, 11, 10\], the default of its code, .* rotates 8 pairs .* add"
    with pytest.raises(ValueError, match=words):
        describe(narrow)
    with pytest.raises(ValueError, match=r"mrope_section is \[4, 4, 4\], which sums to 12, .* correct mrope_section"):
        describe({**narrow, "rope_scaling": {"type": "default", "mrope_section": [4, 4, 4]}})


@pytest.mark.parametrize("empty", [{}, {"model_type": None}, {"model_type": ""}])
def test_a_config_without_a_model_type_is_read_by_its_architecture(empty: dict[str, Any]) -> None:
    """So are files of before transformers wrote model types."""
    pytest.importorskip("transformers")
    named = {"architectures": ["LlamaForCausalLM"], **SIZES, **empty, "max_position_embeddings": 2048}
    described = describe(named)
    (group,) = described
    assert described.model_type == "llama"
    assert (group.trained_length, group.notes[-1]) == (
        2048,
        "no model_type in the config: read as llama, which is that of LlamaForCausalLM",
    )
    assert_turns(group.encoding, rates(128), pairs="halves")
    (own,) = describe({**named, "architectures": ["BaichuanForCausalLM"]})
    assert own.encoding.to_dict() == group.encoding.to_dict()
    for other in ({"auto_map": {"AutoConfig": "configuration_own.Config"}}, {"architectures": ["NothingForCausalLM"]}):
        with pytest.raises(ValueError, match="there is no model_type in the config; add"):
            describe({**named, "rope_theta": 1e4, **other})


@pytest.mark.parametrize(("heads", "base", "image"), [({}, 1e4, 490), ({"num_multi_query_heads": 8}, 5e5, 1344)])
def test_cogvlms_have_a_base_in_their_code_and_no_model_type(heads: dict[str, int], base: float, image: int) -> None:
    tower = {"hidden_size": 1792, "image_size": image, "num_heads": 16, "num_hidden_layers": 3, "patch_size": 14}
    config = {"architectures": ["CogVLMForCausalLM"], **SIZES, **heads, "max_position_embeddings": 2048}
    tower["num_positions"] = (image // 14) ** 2 + 1
    described = describe({**config, "vocab_size": 32000, "vision_config": tower})
    text, vision = described
    assert_turns(text.encoding, rates(128, base), pairs="halves")
    assert (text.trained_length, len(text.layers), described.unread) == (2048, 4, ())
    assert isinstance(vision.encoding, LearnedGrid)
    assert (vision.part, vision.encoding.grid, vision.encoding.prefix) == ("vision_config", (image // 14,) * 2, 1)
    wrong = describe({**config, "vision_config": {**tower, "num_positions": 7}}).unread
    assert "num_positions is 7" in wrong[0]
    if not heads:
        with pytest.raises(ValueError, match="no num_multi_query_heads"):
            describe({**config, "vocab_size": 128256})
        agent = {**config, "architectures": ["CogAgentForCausalLM"], "cross_image_size": 1120, "vision_config": tower}
        assert "not read: the second tower, for images of cross_image_size" in describe(agent).groups[0].notes[-1]


KYUTAI: dict[str, Any] = {
    **{"dim": 2048, "num_heads": 32, "num_layers": 16, "context": 750, "max_period": 1e5, "n_q": 32, "dep_q": 8},
    **{"card": 2048, "text_card": 8000, "positional_embedding": "rope", "depformer_dim": 1024, "gating": "silu"},
    **{"depformer_num_heads": 16, "depformer_num_layers": 6, "depformer_pos_emb": "none", "causal": True},
}


@pytest.mark.parametrize("kind", ["stt", "tts", "hibiki", "moshi", None])
def test_kyutais_own_configs_say_neighbours_and_their_own_period(kind: str | None) -> None:
    """transformers has a class for moshi, which would fill in its defaults, and its weights are permuted to halves."""
    main, depth = describe({**KYUTAI, **({} if kind is None else {"model_type": kind})})
    assert_turns(main.encoding, rates(64, 1e5), pairs="neighbours")
    assert (main.layers, main.trained_length) == (tuple(range(16)), None)
    assert (depth.label, depth.layers, isinstance(depth.encoding, NoPE)) == ("depformer", tuple(range(6)), True)
    assert len(describe({**KYUTAI, "dep_q": 0}).groups) == 1
    halves, turning = describe(
        {**KYUTAI, "positional_embedding": "rope_concat", "depformer_pos_emb": "rope", "depformer_max_period": 8}
    )
    assert_turns(halves.encoding, rates(64, 1e5), pairs="halves")
    assert_turns(turning.encoding, rates(64, 8.0), pairs="neighbours")
    with pytest.raises(ValueError, match="positional_embedding is 'sin', expected 'rope', 'rope_concat' or 'none'"):
        describe({**KYUTAI, "positional_embedding": "sin"})


def test_lille_and_afm_turn_neighbours() -> None:
    lille = {"model_type": "lille-130m", "n_embd": 640, "n_head": 10, "n_kv_heads": 2, "n_layer": 24}
    (group,) = describe({**lille, "rope_theta": 1e4, "block_size": 512})
    assert_turns(group.encoding, rates(64), pairs="neighbours")
    assert (len(group.layers), group.trained_length) == (24, 512)
    afm = {"model_type": "afm7", "hidden_dim": 2048, "num_layers": 56, "num_heads": 16, "num_kv_reuse_layers": 21}
    for keys, base in (({}, 5e4), ({"rope_theta": 5e5}, 5e5), ({"rope_parameters": {"rope_theta": 7e5}}, 7e5)):
        (group,) = describe({**afm, **keys})
        assert_turns(group.encoding, rates(128, base), pairs="neighbours")
        assert len(group.layers) == 56


def test_longcats_other_is_longcat() -> None:
    longcat = {**LATENT, "hidden_size": 6144, "num_attention_heads": 64, "num_layers": 28, "rope_theta": 1e7}
    one, other = (
        describe({**longcat, "max_position_embeddings": 131072, "model_type": name}, pairing="interleaved").groups[0]
        for name in ("longcat_flash", "longcat_flash_ngram")
    )
    assert_turns(one.encoding, rates(64, 1e7), pairs="neighbours", start=128)
    assert one.layers == tuple(range(28))
    assert (one.encoding.to_dict(), one.layers) == (other.encoding.to_dict(), other.layers)


def test_configs_of_tensorrt_llm_are_refused_as_such() -> None:
    """They have an architecture, as timm's have, and sizes."""
    own = {"architecture": "LlamaForCausalLM", "position_embedding_type": "rope_gpt_neox", **SIZES}
    for config in (own, {"version": "0.15", "pretrained_config": own, "build_config": {"max_seq_len": 2048}}):
        with pytest.raises(ValueError, match=r"a checkpoint or an engine of TensorRT-LLM; give the config\.json"):
            describe(config)

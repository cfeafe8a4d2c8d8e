"""Configs as they lie on a disk: reports and released files made small, each kind with the right answer beside it."""

import json
from pathlib import Path
from typing import Any

import pytest

from posenc import ALiBi, Compose, Learned, NoPE, RoPE, Sinusoidal, T5Bias, Temperature
from posenc.frequencies import DynamicNTK, Geometric, Linear, Llama3, YaRN
from posenc.integrations.transformers import Description, describe, to_transformers
from posenc.scores import DeBERTa

pytest.importorskip("transformers")

B: dict[str, Any] = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "max_position_embeddings": 32768,
    "rope_theta": 1e6,
}
YARN = {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192}


def rotated(described: Description, base: float | None = None) -> list[int]:
    """The layers that rotate; those of one base."""
    found: list[Any] = []
    for group in described:
        encoding = group.encoding.parts[0] if isinstance(group.encoding, Compose) else group.encoding
        if isinstance(encoding, RoPE) and base in (None, getattr(encoding.frequencies, "base", None)):
            found += group.layers
    return sorted(found)


def all_layers(described: Description) -> list[int]:
    return sorted(layer for group in described for layer in group.layers)


@pytest.mark.parametrize(
    ("config", "rotating", "attending"),
    [
        ({"model_type": "lfm2", "num_hidden_layers": 16, "full_attn_idxs": [2, 5, 8]}, [2, 5, 8], [2, 5, 8]),
        ({"model_type": "lfm2_moe", "num_hidden_layers": 6, "full_attn_idxs": [1, 4]}, [1, 4], [1, 4]),
        (
            {"model_type": "cohere2", "num_hidden_layers": 8, "sliding_window": 4096, "sliding_window_pattern": 4},
            [0, 1, 2, 4, 5, 6],
            list(range(8)),
        ),
        (
            {"model_type": "exaone4", "num_hidden_layers": 8, "sliding_window": 4096, "sliding_window_pattern": 4},
            [0, 1, 2, 4, 5, 6],
            list(range(8)),
        ),
        ({"model_type": "cohere2", "num_hidden_layers": 4, "sliding_window": None}, [], [0, 1, 2, 3]),
        (
            {"model_type": "qwen3_next", "head_dim": 256, "num_hidden_layers": 8, "full_attention_interval": 4},
            [3, 7],
            [3, 7],
        ),
        ({"model_type": "llama4_text", "num_hidden_layers": 8, "no_rope_layers": []}, [0, 1, 2, 4, 5, 6], None),
        ({"model_type": "llama4_text", "num_hidden_layers": 8}, [0, 1, 2, 4, 5, 6], None),
        ({"model_type": "smollm3", "num_hidden_layers": 8}, [0, 1, 2, 4, 5, 6], None),
        ({"model_type": "nemotron_h", "num_hidden_layers": 8, "hybrid_override_pattern": "M-M*M-M-"}, [], [3]),
        ({"model_type": "bamba", "num_hidden_layers": 6, "attn_layer_indices": [2, 5]}, [2, 5], [2, 5]),
        ({"model_type": "jamba", "num_hidden_layers": 16}, [], [4, 12]),
        ({"model_type": "recurrent_gemma", "num_hidden_layers": 6}, [2, 5], [2, 5]),
    ],
)
def test_the_pattern_of_layers_goes_by_many_names_or_by_none(
    config: dict[str, Any], rotating: list[int], attending: list[int] | None
) -> None:
    described = describe({**B, **config})
    assert rotated(described) == rotating
    assert all_layers(described) == (list(range(config["num_hidden_layers"])) if attending is None else attending)
    assert described.reading.startswith("transformers ")


def test_a_config_object_has_the_layers_of_its_own_property() -> None:
    import transformers

    assert all_layers(describe(transformers.BambaConfig(attn_layer_indices=[9, 18, 27]))) == [9, 18, 27]
    assert len(all_layers(describe(transformers.JambaConfig()))) == 4
    assert len(all_layers(describe(transformers.RecurrentGemmaConfig()))) == 8


def test_bases_by_layer_of_gemma_and_modernbert_before_transformers_5() -> None:
    gemma = {"model_type": "gemma3_text", "head_dim": 256, "num_hidden_layers": 12, "rope_local_base_freq": 10000}
    described = describe({**B, **gemma, "sliding_window": 512, "sliding_window_pattern": 6})
    assert rotated(described, 1e6) == [5, 11]
    assert rotated(described, 1e4) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    bert = {"model_type": "modernbert", "num_hidden_layers": 6, "global_attn_every_n_layers": 3, "rope_theta": None}
    described = describe({**B, **bert, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0})
    assert rotated(described, 160000.0) == [0, 3]
    assert rotated(described, 10000.0) == [1, 2, 4, 5]


@pytest.mark.parametrize("model_type", ["step3p5", "of_tomorrow"])
def test_a_base_for_each_layer(model_type: str) -> None:
    """Step-3.5 as it lies on the hub, and the same keys without transformers' class."""
    step = {
        **{"hidden_size": 512, "num_attention_heads": 4, "head_dim": 128, "num_hidden_layers": 8},
        **{"model_type": model_type, "max_position_embeddings": 262144, "rope_theta": [5e6, 1e4, 1e4, 1e4] * 2},
        **{"partial_rotary_factors": [0.5, 1.0, 1.0, 1.0] * 2, "yarn_only_types": ["full_attention"]},
        "layer_types": ["full_attention", *["sliding_attention"] * 3] * 2,
        "rope_scaling": {
            **{"rope_type": "llama3", "factor": 2.0, "original_max_position_embeddings": 131072},
            **{"low_freq_factor": 1.0, "high_freq_factor": 32.0},
        },
    }
    full, sliding = sorted(describe(step, pairing="half"), key=lambda group: group.layers)
    assert (full.layers, sliding.layers) == ((0, 4), (1, 2, 3, 5, 6, 7))
    rule = Llama3(2.0, trained_length=131072, low_freq_factor=1.0, high_freq_factor=32.0, base=5e6)
    assert (full.encoding.rotary_dim, full.encoding.frequencies) == (64, rule)
    assert (sliding.encoding.rotary_dim, sliding.encoding.frequencies) == (128, Geometric(1e4))
    if model_type != "step3p5":
        for broken in ({"layer_types": None}, {"rope_theta": [5e6, 1e4, 1e4, 1e4, 6e6, 1e4, 1e4, 1e4]}):
            with pytest.raises(ValueError, match=r"rope_theta has 8 entries, .* expected one for each kind of layer"):
                describe({**step, **broken}, pairing="half")


@pytest.mark.transformers_as_pinned
def test_one_scaling_of_transformers_4_is_for_the_layers_that_had_it() -> None:
    kinds = ["sliding_attention"] * 3 + ["full_attention"]
    olmo = {"model_type": "olmo3", "num_hidden_layers": 4, "layer_types": kinds, "rope_scaling": YARN}
    sliding, full = describe({**B, **olmo, "rope_theta": 5e5})
    assert isinstance(sliding.encoding, RoPE)
    assert isinstance(full.encoding, RoPE)
    assert sliding.layers == (0, 1, 2)
    assert sliding.encoding.frequencies == Geometric(5e5)
    assert full.encoding.frequencies == YaRN(8.0, trained_length=8192, base=5e5)
    gemma = {"model_type": "gemma3_text", "num_hidden_layers": 6, "rope_scaling": {"type": "linear", "factor": 8.0}}
    local, distant = describe({**B, **gemma, "head_dim": 64})
    assert isinstance(local.encoding, RoPE)
    assert isinstance(distant.encoding, RoPE)
    assert local.encoding.frequencies == Geometric(1e4)
    assert distant.encoding.frequencies == Linear(8.0, base=1e6)


@pytest.mark.transformers_as_pinned
def test_deepseek_v4_has_two_bases_and_one_scaling() -> None:
    config = {
        **{"model_type": "deepseek_v4", "hidden_size": 4096, "num_attention_heads": 64, "num_hidden_layers": 6},
        **{"head_dim": 512, "qk_rope_head_dim": 64, "rope_theta": 10000, "compress_rope_theta": 160000},
        **{"compress_ratios": [0, 0, 4, 128, 4, 128], "max_position_embeddings": 1048576, "sliding_window": 128},
        "rope_scaling": {"type": "yarn", "factor": 16, "original_max_position_embeddings": 65536},
    }
    main, compress = describe(config)
    assert isinstance(main.encoding, RoPE)
    assert isinstance(compress.encoding, RoPE)
    assert main.layers == (0, 1)
    assert main.encoding.frequencies == Geometric(1e4)
    rule = compress.encoding.frequencies
    assert rule.inv_freq(64)[16] == pytest.approx(2.2656e-3, rel=1e-4)
    assert rule.attention_factor == 1.0


def test_a_key_that_changes_the_encoding_overrules_the_model_type() -> None:
    bert = {"model_type": "bert", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    (group,) = describe({**bert, "position_embedding_type": "alibi", "max_position_embeddings": 8192})
    assert isinstance(group.encoding, ALiBi)
    (group,) = describe({**bert, "alibi_starting_size": 512})
    assert isinstance(group.encoding, ALiBi)
    (group,) = describe({**bert, "position_embedding_type": "absolute"})
    assert isinstance(group.encoding, Learned)
    with pytest.raises(ValueError, match="relative_key_query"):
        describe({**bert, "position_embedding_type": "relative_key_query"})
    jina = {**bert, "model_type": "xlm-roberta", "position_embedding_type": "rotary", "rotary_emb_base": 20000.0}
    assert rotated(describe(jina), 20000.0) == [0, 1]
    electra = {**bert, "model_type": "electra", "position_embedding_type": "none"}
    assert isinstance(describe(electra).groups[0].encoding, NoPE)


def test_nomic_and_qwen_1_by_the_keys_of_their_own_code() -> None:
    nomic = {
        **{"model_type": "nomic_bert", "n_embd": 64, "n_head": 2, "n_layer": 2, "n_positions": 8192},
        **{"rotary_emb_base": 1000, "rotary_emb_fraction": 0.5, "rotary_emb_interleaved": True},
        **{"rotary_scaling_factor": 2, "max_trained_positions": 2048},
    }
    (group,) = describe(nomic)
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == DynamicNTK(2, trained_length=2048, base=1000.0)
    assert (group.encoding.rotary_dim, group.encoding.pairing, group.trained_length) == (16, "interleaved", 2048)
    qwen = {
        **{"model_type": "qwen", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2},
        **{"seq_length": 2048, "rotary_pct": 1.0, "rotary_emb_base": 10000, "use_dynamic_ntk": True},
        "use_logn_attn": True,
    }
    described = describe(qwen)
    assert isinstance(described.groups[0].encoding, Compose)
    assert isinstance(described.groups[0].encoding.parts[1], Temperature)
    assert "use_dynamic_ntk: not used" in described.unread
    assert described.reading == "the keys alone"


def test_params_json_of_meta_and_of_mistral(tmp_path: Path) -> None:
    meta = {"dim": 256, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "rope_theta": 5e5, "use_scaled_rope": True}
    (tmp_path / "params.json").write_text(json.dumps(meta))
    (group,) = describe(tmp_path)
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == Llama3(8.0, trained_length=8192)
    assert group.encoding.pairing == "interleaved"
    yarn = {"original_max_position_embeddings": 8192, "factor": 16, "apply_scale": False, "beta": 32, "alpha": 1}
    mistral = {**meta, "use_scaled_rope": False, "yarn": yarn, "max_position_embeddings": 131072, "head_dim": 64}
    scaling = {"original_max_position_embeddings": 8192, "beta": 0.1}
    (group,) = describe({**mistral, "llama_4_scaling": scaling})
    assert isinstance(group.encoding, Compose)
    rotation, temperature = group.encoding.parts
    assert isinstance(rotation, RoPE)
    assert rotation.frequencies == YaRN(16, trained_length=8192, base=5e5, attention_factor=1.0)
    assert isinstance(temperature, Temperature)


def test_an_unknown_model_type_is_read_by_keys_that_say_everything() -> None:
    latent = {"model_type": "homemade", "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "num_hidden_layers": 2}
    (group,) = describe({**B, **latent}, pairing="interleaved")
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.head_dim, group.encoding.rotary_start, group.encoding.rotary_dim) == (192, 128, 64)
    share = {"model_type": "homemade", "rotary_dim": 64, "head_dim": 128, "num_hidden_layers": 2}
    (group,) = describe({**B, **share}, pairing="half")
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.head_dim, group.encoding.rotary_start, group.encoding.rotary_dim) == (128, 0, 64)
    described = describe({**B, **share, "rope_wobble": 3}, pairing="half")
    assert "rope_wobble: not used" in described.unread
    blocks = [{"attention": {"no_op": i == 1}} for i in range(3)]
    nas = {**B, "model_type": "nemotron-nas", "num_hidden_layers": 3, "block_configs": blocks}
    assert all_layers(describe(nas)) == [0, 2]


@pytest.mark.parametrize(
    ("config", "base", "rotary_dim"),
    [({"model_type": "llama"}, 1e4, 64), ({"model_type": "gpt_neox"}, 1e4, 16), ({"model_type": "lfm2"}, 1e6, 64)],
)
def test_absent_keys_have_the_defaults_of_the_class(config: dict[str, Any], base: float, rotary_dim: int) -> None:
    given = {key: value for key, value in B.items() if key != "rope_theta"}
    (group,) = describe({**given, "num_hidden_layers": 2, **config})
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == Geometric(base)
    assert group.encoding.rotary_dim == rotary_dim


def test_t5_without_its_newer_key() -> None:
    for model_type in ("t5", "mt5", "umt5"):
        groups = describe({"model_type": model_type, "num_heads": 4, "num_layers": 2, "d_model": 64}).groups
        assert isinstance(groups[0].encoding, T5Bias)
        assert groups[0].encoding.max_distance == 128


@pytest.mark.transformers_as_pinned
def test_one_part_that_cannot_be_read_does_not_hide_the_others() -> None:
    text = {**B, "model_type": "llama", "num_hidden_layers": 2}
    for broken in ({"model_type": "convnext", "rope_theta": 1e4}, {"model_type": "siglip", "depth": "two"}):
        described = describe({"model_type": "llava", "text_config": text, "vision_config": broken})
        assert [group.part for group in described] == ["text_config"]
        assert any(entry.startswith("vision_config: ") for entry in described.unread)
    whole = {"model_type": "homemade_vl", "text_config": text, "vision_config": {"model_type": "no_such"}}
    assert [group.part for group in describe(whole)] == ["text_config"]
    flat = {**B, "model_type": "qwen2_vl", "num_hidden_layers": 2, "num_attention_heads": 8}
    assert {"text_config", "vision_config"} == {group.part for group in describe(flat)}


def test_the_length_beside_a_linear_factor_is_said_to_be_ambiguous() -> None:
    vicuna = {**B, "model_type": "llama", "num_hidden_layers": 2, "max_position_embeddings": 4096}
    (group,) = describe({**vicuna, "rope_scaling": {"type": "linear", "factor": 4.0}})
    assert (group.trained_length, group.longest) == (4096, 16384)
    assert any("trained with 1024" in note for note in group.notes)
    (group,) = describe({**vicuna, "rope_scaling": {"type": "yarn", "factor": 4.0}})
    assert group.trained_length == 4096
    assert any("original_max_position_embeddings is not given" in note for note in group.notes)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rope_scaling": {"type": "linear", "factor": "4.0"}}, r"rope_scaling.factor is '4.0', of type str.*quotes"),
        ({"max_position_embeddings": "8192"}, "max_position_embeddings is '8192', of type str"),
        ({"rope_scaling": {**YARN, "beta_fast": "32"}}, "rope_scaling.beta_fast is '32'"),
        ({"rope_scaling": "linear"}, "rope_scaling is 'linear', of type str, expected an object"),
        ({"rope_scaling": ["linear", 2.0]}, "rope_scaling is .*of type list, expected an object"),
        ({"rope_theta": [1e4]}, "rope_theta is a list, and LlamaConfig takes one number"),
        ({"rope_theta": [1e4, "x"]}, "an entry of rope_theta is 'x', of type str, expected a finite number"),
        ({"rope_theta": True}, "rope_theta is True, of type bool"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, expected at most"),
        ({"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers has 1 entries for 2 layers|no_rope_layers"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor 0.5, expected 1 or more.*reciprocal, 2"),
    ],
)
def test_values_of_a_wrong_type_are_refused_by_key_and_type(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe({**B, "model_type": "llama", "num_hidden_layers": 2, **keys})


def test_values_that_say_nothing() -> None:
    llama = {**B, "model_type": "llama", "num_hidden_layers": 2}
    (group,) = describe({**llama, "rope_scaling": {"type": None, "factor": None}})
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == Geometric(1e6)
    assert describe({**llama, "max_position_embeddings": -1}).groups[0].trained_length is None
    with pytest.raises(ValueError, match="no model_type in the config; add it"):
        describe({"hidden_size": 64})
    (group,) = describe({**B, "num_hidden_layers": 2}, pairing="half")
    assert group.layers == (0, 1)


def test_the_folder_of_an_adapter_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    with pytest.raises(ValueError, match=r"adapter.*'org/base'"):
        describe(tmp_path)


def test_tables_and_biases_of_models_that_said_nothing() -> None:
    import transformers

    (opt,) = describe(transformers.OPTConfig(word_embed_proj_dim=32, hidden_size=64, num_attention_heads=4))
    assert isinstance(opt.encoding, Learned)
    assert opt.encoding.dim == 64
    (mpnet,) = describe(transformers.MPNetConfig())
    assert isinstance(mpnet.encoding, Compose)
    assert [type(part) for part in mpnet.encoding.parts] == [Learned, T5Bias]
    assert describe(transformers.FalconConfig(alibi=True)).groups[0].trained_length == 2048
    assert isinstance(describe(transformers.BigBirdConfig()).groups[0].encoding, Learned)
    assert [group.longest for group in describe(transformers.LEDConfig())] == [16384, 1024]
    deberta = transformers.DebertaV2Config(
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=256, max_relative_positions=512
    )
    assert isinstance(describe(deberta).groups[0].encoding, DeBERTa)


@pytest.mark.transformers_as_pinned
def test_what_a_model_has_instead_is_said() -> None:
    import transformers

    described = describe(transformers.MusicgenConfig())
    (group,) = (group for group in described if group.part == "decoder")
    assert isinstance(group.encoding, Sinusoidal)
    assert group.notes == ("its cosines come before its sines",)
    for config, words in (
        (transformers.Wav2Vec2Config(), "a convolution over the frames"),
        (transformers.XLNetConfig(), "Transformer-XL's relative positions"),
    ):
        with pytest.raises(ValueError, match=words):
            describe(config)
    codec = transformers.CONFIG_MAPPING["xcodec2"]()
    assert isinstance(describe(codec).groups[0].encoding, NoPE)  # it turns heads by their number


@pytest.mark.transformers_as_pinned("deepseek_v4")
@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "phi3", "rope_scaling": {"type": "su", "short_factor": [1.0] * 32, "long_factor": [2.0] * 32}},
        {"model_type": "exaone4", "num_hidden_layers": 8, "sliding_window": 4096, "sliding_window_pattern": "LLLG"},
        {"model_type": "gemma3_text", "head_dim": 64, "num_hidden_layers": 6, "rope_local_base_freq": 10000},
        {"model_type": "gemma3_text", "head_dim": 64, "rope_scaling": {"type": "linear", "factor": 8.0}},
        {"model_type": "modernbert", "rope_theta": None, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0},
        {"model_type": "olmo3", "layer_types": ["sliding_attention"] * 3 + ["full_attention"], "rope_scaling": YARN},
        {"model_type": "llama4_text", "num_hidden_layers": 8, "no_rope_layers": []},
        {"model_type": "smollm3", "num_hidden_layers": 8},
        {"model_type": "cohere2", "num_hidden_layers": 8, "sliding_window": 4096, "sliding_window_pattern": 4},
        {"model_type": "hunyuan_v1_dense", "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0}},
        {"model_type": "deepseek_v4", "head_dim": 512, "qk_rope_head_dim": 64, "rope_scaling": YARN},
        {
            "model_type": "qwen2",
            "rope_scaling": {"type": "yarn", "factor": None, "original_max_position_embeddings": 8192},
        },
    ],
    ids=lambda config: config["model_type"],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_written_is_loaded_and_means_the_same(config: dict[str, Any]) -> None:
    import transformers

    raw = {**B, "num_hidden_layers": 4, "pad_token_id": 0, "original_max_position_embeddings": None, **config}
    if config["model_type"] == "phi3":
        raw["original_max_position_embeddings"] = 4096
    described = describe(raw)
    written = to_transformers(described, raw)
    loaded = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(json.loads(json.dumps(written)))
    again = describe(loaded)
    assert [(g.layers, g.encoding.to_dict()) for g in again] == [(g.layers, g.encoding.to_dict()) for g in described]


def test_what_the_class_would_read_otherwise_is_not_written() -> None:
    llama4 = {**B, "model_type": "llama4_text", "num_hidden_layers": 8}
    smol = describe({**B, "model_type": "smollm3", "num_hidden_layers": 8, "no_rope_layers": [1, 0] * 4})
    with pytest.raises(ValueError, match="this config cannot express the encoding"):
        to_transformers(smol, {**llama4, "model_type": "llama"})


def test_layers_with_keys_of_their_own_by_either_way_of_writing_the_number() -> None:
    import transformers

    for count in (2, 12):
        config = transformers.Gemma4TextConfig(num_hidden_layers=count, head_dim=64, hidden_size=64)
        widths = {group.label: group.encoding.head_dim for group in describe(config)}  # type: ignore[attr-defined]
        assert widths == {"sliding_attention": 64, "full_attention": 512}


def test_layers_of_cross_attention_do_not_rotate() -> None:
    mllama = {**B, "model_type": "mllama_text_model", "num_hidden_layers": 8, "cross_attention_layers": [3, 7]}
    assert rotated(describe(mllama)) == [0, 1, 2, 4, 5, 6]


def test_a_pattern_that_the_class_drops_is_named() -> None:
    minimax = {"model_type": "minimax", "num_hidden_layers": 8, "attn_type_list": [0] * 7 + [1]}
    described = describe({**B, **minimax})
    assert "attn_type_list, which its class drops: it says that the layers [7] have attention" in described.unread


@pytest.mark.transformers_as_pinned
def test_a_base_that_the_class_moves_into_the_parameters_is_read() -> None:
    mimo = {
        "model_type": "mimo_v2_flash",
        "num_hidden_layers": 4,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        "head_dim": 192,
    }
    described = describe({**B, **mimo, "swa_rope_theta": 10000, "rope_theta": 5000000, "sliding_window": 128})
    assert (rotated(described, 5e6), rotated(described, 1e4)) == ([0, 3], [1, 2])
    assert described.unread == ()


def test_a_pattern_of_layers_without_their_number_is_refused() -> None:
    config = {"model_type": "mine", "hidden_size": 64, "num_attention_heads": 4, "rope_theta": 1e4}
    with pytest.raises(ValueError, match="full_attention_interval is 4, and the config gives no number of layers"):
        describe({**config, "full_attention_interval": 4}, pairing="half")


@pytest.mark.transformers_as_pinned("1000000000000000000000000000000", "1099511627776")
@pytest.mark.parametrize("rows", [10**30, 1 << 40, float("inf")])
def test_a_table_that_no_model_has_is_refused_before_it_is_made(rows: float) -> None:
    tower = {
        "model_type": "qwen3_vl",
        "hidden_size": 1152,
        "num_heads": 16,
        "depth": 2,
        "num_position_embeddings": rows,
    }
    text = {"model_type": "qwen3_vl_text", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    described = describe({"model_type": "qwen3_vl", "vision_config": tower, "text_config": text})
    assert any("num_position_embeddings" in text or "patches" in text for text in described.unread)


def test_a_large_base_is_no_size() -> None:
    """Sizes have a bound, and bases have none."""
    config = {"model_type": "gpt_neox", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    for base in (1e8, 5e8, 1e11):
        (group,) = describe({**config, "rotary_emb_base": base, "rotary_pct": 1.0})
        assert group.encoding.frequencies == Geometric(base)
    speech = {"model_type": "wav2vec2-conformer", "position_embeddings_type": "rotary", "rotary_embedding_base": 10**8}
    (group,) = describe({**speech, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2})
    assert group.encoding.frequencies == Geometric(1e8)

"""Configs of models that have attention in some of their layers, or a base that follows from other numbers.

Read from the code beside the weights: modeling_telechat.py, evo2 and StripedHyena's positional_embeddings.py.
"""

from typing import Any

import pytest

from posenc import ALiBi, Learned, NoPE, RoPE
from posenc.frequencies import Geometric, Linear, NTKAlpha
from posenc.integrations.transformers import check, describe, to_transformers

EVO: dict[str, Any] = {
    **{"model_type": "stripedhyena", "hidden_size": 4096, "num_attention_heads": 32, "num_layers": 32},
    **{"attn_layer_idxs": [8, 16, 24], "rotary_emb_base": 10000, "max_seqlen": 8192, "rotary_emb_scaling_factor": 1},
    "use_interpolated_rotary_pos_emb": False,
}
SOME: dict[str, Any] = {
    **{"model_type": "of_tomorrow", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4},
    **{"rope_theta": 10000.0, "max_position_embeddings": 128},
}


@pytest.mark.parametrize(
    ("given", "rule", "length"),
    [
        ({}, Geometric(1e4), 8192),
        # evo-1-131k-base and evo2_7b, whose positions are divided by the factor; StripedHyena-Nous has another base
        (
            {"use_interpolated_rotary_pos_emb": True, "rotary_emb_scaling_factor": 16, "max_seqlen": 131072},
            Linear(16.0, base=1e4),
            131072,
        ),
        (
            {
                **{"model_type": "evo2", "rotary_emb_base": 100000000000, "rotary_emb_scaling_factor": 128},
                **{"use_interpolated_rotary_pos_emb": True, "max_seqlen": 1048576},
            },
            Linear(128.0, base=1e11),
            1048576,
        ),
        ({"rotary_emb_base": 500000, "max_seqlen": 32768, "rotary_emb_scaling_factor": 4}, Geometric(5e5), 32768),
    ],
    ids=["evo-1-8k", "evo-1-131k", "evo2", "nous"],
)
def test_a_hyena_rotates_in_the_layers_that_have_attention(given: dict[str, Any], rule: Any, length: int) -> None:
    (group,) = describe({**EVO, **given})
    assert isinstance(group.encoding, RoPE)
    assert group.layers == (8, 16, 24)
    assert (group.encoding.frequencies, group.encoding.pairing, group.encoding.rotary_dim) == (rule, "half", 128)
    assert group.trained_length == length
    with pytest.raises(ValueError, match="has no attn_layer_idxs"):
        describe({key: value for key, value in {**EVO, **given}.items() if key != "attn_layer_idxs"})


@pytest.mark.parametrize(
    ("trained", "first", "alpha"),
    [(8192, 8192, 1), (8192, 4096, 3), (16384, 4096, 7), (6000, 4096, 3), (4096, 8192, 1)],
)
def test_telechat_stretches_its_base_by_two_lengths(trained: int, first: int, alpha: float) -> None:
    """get_ntk_alpha: max(2^(ceil(log2(length / base_seqlen) + 1)) - 1, 1), of training_seqlen at least."""
    config = {"model_type": "telechat", "hidden_size": 4096, "n_layer": 2, "n_head": 32, "seq_length": 8192}
    (group,) = describe({**config, "training_seqlen": trained, "base_seqlen": first, "logn": True})
    assert isinstance(group.encoding, RoPE)
    rates = group.encoding.frequencies.inv_freq(128)
    assert rates[1] == pytest.approx((10_000 * alpha ** (128 / 126)) ** (-2 / 128), rel=1e-12)
    assert group.encoding.frequencies == (Geometric() if alpha == 1 else NTKAlpha(alpha))
    assert group.trained_length == trained


def test_tables_and_slopes_of_code_beside_the_weights() -> None:
    jais = {"model_type": "jais", "n_embd": 1536, "n_head": 12, "n_layer": 2, "n_positions": 2048}
    (group,) = describe({**jais, "position_embedding_type": "learned"})
    assert isinstance(group.encoding, Learned)
    assert (group.encoding.dim, group.encoding.length) == (1536, 2048)
    replit = {"model_type": "replit_lm", "d_model": 2560, "n_heads": 24, "n_layers": 2, "max_seq_len": 2048}
    (group,) = describe({**replit, "alibi": True, "alibi_bias_max": 8})
    assert isinstance(group.encoding, ALiBi)
    assert (group.encoding.rule, group.encoding.num_heads) == ("mpt", 24)


@pytest.mark.parametrize(
    "given",
    [
        {"full_attention_layers": [1, 3]},
        {"attn_layers": [3]},
        {"attention_layer_indices": [1]},
        {"hybrid_layer_ids": [3]},
        {"mamba_layers": [0, 1]},
        {"hyena_layer_idxs": [0, 2]},
        {"is_attention_layer": [True, False, True, False]},
        {"linear_attn_config": {"full_attn_layers": [1], "kda_layers": [2, 3, 4]}},
        {"layer_pattern": "MMMA"},
        {"block_type": ["mamba", "mamba", "attn", "mamba"]},
    ],
    ids=lambda given: next(iter(given)),
)
def test_layers_without_attention_are_not_passed_over_in_an_unknown_type(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="may say that some layers have no attention"):
        describe({**SOME, **given}, pairing="half")


def test_a_kind_of_layer_that_is_not_known_is_refused_in_an_unknown_type() -> None:
    with pytest.raises(ValueError, match="layers of the kind 'gdn', which may have attention or not"):
        describe({**SOME, "layer_types": ["full_attention", "gdn"] * 2}, pairing="half")
    (group,) = describe({**SOME, "layer_types": ["full_attention", "linear_attention"] * 2}, pairing="half")
    assert group.layers == (0, 2)
    (group,) = describe({**SOME, "attn_layer_idxs": [3]}, pairing="half")
    assert group.layers == (3,)


@pytest.mark.parametrize(
    "given", [{"moe_layer_freq": [0, 1, 1, 1]}, {"attention_window": [4] * 4}, {"sliding_window_layers": [0, 1]}]
)
def test_other_lists_of_an_unknown_type_change_nothing(given: dict[str, Any]) -> None:
    (group,) = describe({**SOME, **given}, pairing="half")
    assert group.layers == (0, 1, 2, 3)


@pytest.mark.parametrize("installed", [True, False])
def test_dory_counts_blocks_in_its_files_and_layers_in_its_class(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without transformers its attentions had the numbers of blocks: 0, 2, 4, ..."""
    if not installed:
        monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    elif "dory" not in pytest.importorskip("transformers").CONFIG_MAPPING:
        pytest.skip("this transformers has no Dory")
    kinds = ["sliding_attention", "mlp", "full_attention", "mlp"] * 2
    bases = {"sliding_attention": 10_000.0, "full_attention": 10_000_000.0}
    config = {
        **{"model_type": "dory", "hidden_size": 64, "num_attention_heads": 4, "head_dim": 16, "num_hidden_layers": 8},
        **{"n_input_layers": 2, "n_recurrent_layers": 4, "n_output_layers": 2, "max_position_embeddings": 128},
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
    }
    found = describe({**config, "layer_types": kinds})
    assert {group.layers: group.encoding.frequencies.base for group in found} == {
        (0, 2): 10_000.0,
        (1, 3): 10_000_000.0,
    }
    if not installed:
        assert found.reading == "the keys alone"
        with pytest.raises(ValueError, match="alternately attention and mlp"):
            describe({**config, "layer_types": [*kinds[:-1], "full_attention"]})


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("model_type", ["granite_swa", "granitemoe_swa"])
def test_a_base_for_each_layer_stands_in_the_place_of_the_one_for_all(model_type: str) -> None:
    """Bases that differ were refused as contradicting it, and a sound live model was accused."""
    import transformers

    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 64}
    config = {**sizes, "model_type": model_type, "num_hidden_layers": 4, "layer_rope_theta": [1e4, 0, 1e4, 5e6]}
    config |= {"layer_types": ["sliding_attention", "full_attention"] * 2, "vocab_size": 50, "pad_token_id": None}
    config |= {"bos_token_id": 1, "eos_token_id": 2}
    first, none, last = describe(config)
    assert isinstance(first.encoding, RoPE)
    assert isinstance(last.encoding, RoPE)
    assert (first.layers, first.encoding.frequencies) == ((0, 2), Geometric(1e4))
    assert (none.layers, isinstance(none.encoding, NoPE)) == ((1,), True)
    assert (last.layers, last.encoding.frequencies) == ((3,), Geometric(5e6))
    written = to_transformers(describe(config), config)
    assert written["layer_rope_theta"] == config["layer_rope_theta"]
    cls = transformers.CONFIG_MAPPING[model_type]
    model = transformers.AutoModelForCausalLM.from_config(cls.from_dict(config))
    assert check(model).findings == ()
    model.model.rotary_embs[1].inv_freq.mul_(2)
    assert [finding.module for finding in check(model).findings] == ["model.rotary_embs.1"]

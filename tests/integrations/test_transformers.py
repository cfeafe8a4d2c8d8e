"""A Hugging Face config is read into encodings, and written back, without transformers."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from posenc import (
    ALiBi,
    AxialRoPE,
    Compose,
    Geometric,
    Learned,
    MRoPE,
    NoPE,
    RoPE,
    Sinusoidal,
    SSMax,
    Temperature,
    YaRN,
)
from posenc.frequencies import (
    NTK,
    Custom,
    DynamicNTK,
    Linear,
    Llama3,
    LongRoPE,
    NTKAlpha,
    NTKMixed,
    Proportional,
    Tensor2Tensor,
)
from posenc.integrations.transformers import describe, to_transformers

LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 6,
    "max_position_embeddings": 8192,
}


def llama(**keys: Any) -> dict[str, Any]:
    return {**LLAMA, "rope_theta": 10_000.0, **keys}


def only_rope(config: dict[str, Any]) -> RoPE:
    (group,) = describe(config)
    assert isinstance(group.encoding, RoPE)
    assert group.layers == tuple(range(6))
    return group.encoding


YARN = {"factor": 4.0, "original_max_position_embeddings": 2048}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 1024}
LONG = {"short_factor": [1.0] * 32, "long_factor": [2.0] * 32, "original_max_position_embeddings": 2048}


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (None, Geometric()),
        ({"type": "linear", "factor": 2.0}, Linear(2.0)),
        ({"rope_type": "linear", "type": "linear", "factor": 2.0}, Linear(2.0)),
        ({"type": "dynamic", "factor": 2.0}, DynamicNTK(2.0, trained_length=8192)),
        ({"type": "dynamic", "alpha": 1000.0, "factor": 1.0, "mscale": 1.0}, NTKAlpha(1000.0)),
        ({"type": "yarn", **YARN}, YaRN(4.0, trained_length=2048)),
        ({"type": "yarn", **YARN, "finetuned": True}, YaRN(4.0, trained_length=2048)),
        ({"type": "yarn", **YARN, "truncate": False}, YaRN(4.0, trained_length=2048, ends="exact")),
        ({"type": "yarn", "factor": 4.0}, YaRN(4.0, trained_length=8192)),  # as transformers reads it
        ({"type": "yarn", **YARN, "attention_factor": 1.5}, YaRN(4.0, trained_length=2048, attention_factor=1.5)),
        ({"rope_type": "llama3", **LLAMA3}, Llama3(8.0, trained_length=1024, base=10_000)),
        ({"type": "su", **LONG}, LongRoPE([1.0] * 32, [2.0] * 32, trained_length=2048, factor=4.0)),
        ({"type": "longrope", **LONG}, LongRoPE([1.0] * 32, [2.0] * 32, trained_length=2048, factor=4.0)),
    ],
)
def test_rope_scaling_of_transformers_4_is_read(scaling: Any, expected: Any) -> None:
    assert only_rope(llama(rope_scaling=scaling)).frequencies == expected
    if scaling is not None:  # and the same as rope_parameters of transformers 5
        config = {**LLAMA, "rope_parameters": {**scaling, "rope_theta": 10_000.0}}
        assert only_rope(config).frequencies == expected


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rope_scaling": {"type": "linear"}}, "lacks factor"),
        ({"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 2048}}, "lacks factor"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "expected 1 or more"),
        ({"rope_scaling": {"factor": 2.0}}, "got a factor and no rope_type"),
        ({"rope_scaling": {"type": "liner", "factor": 2.0}}, "did you mean 'linear'"),
        ({"rope_scaling": {"type": "linear", "rope_type": "yarn", **YARN}}, "expected one rule"),
        ({"rope_scaling": {"type": "yarn", **YARN, "attn_factor": 1.0}}, "write attention_factor"),
        ({"rope_scaling": {"type": "yarn", **YARN, "beta_fst": 32}}, "did you mean 'beta_fast'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "beta_fast": 32}}, "it belongs to 'yarn'"),
        ({"rope_scaling": {"type": "default", "factor": 2.0}}, "has no key 'factor'"),
        (
            {"rope_scaling": {"rope_type": "default", "fope_init_factor": 0.5, "fope_sep_head": True}},
            r"got fope_init_factor, fope_sep_head, which say that the model has FoPE.* build posenc\.FoPE",
        ),
        ({"rope_scaling": {"rope_type": "default", "num_inv_freq": 40}}, "got num_inv_freq, .* FoPE"),
        ({"rope_scaling": {"type": "yarn", **YARN, "original_max_position_embeddings": 16_384}}, "the longer one"),
        (
            {"rope_scaling": {"type": "longrope", **LONG, "long_factor": [1.0] * 8}},
            "expected lists of the same length",
        ),
        (
            {"rope_scaling": {"type": "longrope", **LONG, "long_factor": [1.0] * 8, "short_factor": [1.0] * 8}},
            "use rotary_dim=16",
        ),
        ({"rope_scaling": {"type": "llama3", **LLAMA3, "low_freq_factor": 9}}, "low_freq_factor <= high_freq_factor"),
        ({"rope_parameters": {"rope_theta": 5e5}}, "expected one base"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2}, "rope_scaling": {"type": "yarn"}},
            "they differ",
        ),
        ({"partial_rotary_factor": 0.5}, "rotates whole heads under the plain rule"),
        ({"partial_rotary_factor": 1.5, "rope_scaling": {"type": "linear", "factor": 2.0}}, "at most 1"),
        ({"partial_rotary_factor": 0.3, "rope_scaling": {"type": "yarn", **YARN}}, "19 channels"),
        ({"rotary_dim": 32}, "rotary_dim is 32"),
        ({"rope_theta": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "no rope_theta"),
        ({"rope_theta": 0.5}, "expected more than 1"),
        ({"num_hidden_layers": None}, "refuses this config: .*num_hidden_layers"),
        ({"model_type": "homemade"}, "pairing="),
        ({"rope_parameters": {"rope_theta": 1e4, "llama_4_scaling_beta": 0.1}}, "does not read llama_4_scaling_beta"),
    ],
)
def test_what_is_unknown_or_contradicts_itself_is_refused_with_what_to_change(keys: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe(llama(**keys))


def test_a_config_without_any_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="says nothing of a positional encoding"):
        describe({"model_type": "resnet"})


def test_an_unknown_model_type_needs_a_pairing() -> None:
    (group,) = describe(llama(model_type="homemade"), pairing="interleaved")
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.pairing == "interleaved"


@pytest.mark.parametrize("model_type", ["gpt_neox", "stablelm", "phi", "glm"])
def test_partial_rotation_is_read_where_the_model_reads_it(model_type: str) -> None:
    small = llama(model_type=model_type, head_dim=64)
    assert only_rope({**small, "partial_rotary_factor": 0.25}).rotary_dim == 16
    parameters = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25}
    assert only_rope({**small, "rope_parameters": parameters}).rotary_dim == 16
    described = describe({**small, "rotary_pct": 0.125})  # GPT-NeoX's own name
    assert any(text.startswith("rotary_pct") for text in described.unread) == (model_type != "gpt_neox")
    assert (described.groups[0].encoding.rotary_dim == 8) == (model_type == "gpt_neox")  # type: ignore[attr-defined]


def test_proportional_rotation_spans_the_head() -> None:
    config = llama(rope_scaling={"rope_type": "proportional", "partial_rotary_factor": 0.25})
    rope = only_rope(config)
    assert rope.rotary_dim == rope.head_dim == 64
    assert rope.frequencies == Proportional(0.25)


@pytest.mark.transformers_as_pinned("keys2-rotated2")
@pytest.mark.parametrize(
    ("keys", "rotated"),
    [
        ({"model_type": "smollm3", "no_rope_layers": [1, 1, 1, 0, 1, 1]}, [0, 1, 2, 4, 5]),
        ({"model_type": "smollm3", "no_rope_layer_interval": 3}, [0, 1, 3, 4]),
        ({"model_type": "granite_swa", "layer_rope_theta": [1e4, 0, 1e4, 1e4, 0, 1e4]}, [0, 2, 3, 5]),
        (
            {
                "model_type": "beam",
                "rope_theta": None,
                "layer_types": ["sliding_attention", "full_attention"] * 3,
                "rope_parameters": {"sliding_attention": {"rope_theta": 1e4}, "full_attention": None},
            },
            [0, 2, 4],
        ),
        (
            {
                "model_type": "cohere2",
                "sliding_window": 128,
                "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
            },
            [0, 1, 2, 3, 4],
        ),
    ],
)
def test_layers_without_rotation_are_found_in_every_way_that_says_so(keys: Any, rotated: list[int]) -> None:
    described = describe(llama(**keys))
    for layer in range(6):
        encoding = described.layer(layer).encoding
        rotation = encoding.parts[0] if isinstance(encoding, Compose) else encoding
        assert isinstance(rotation, RoPE if layer in rotated else NoPE), layer


def test_latent_attention_without_rotary_channels_has_no_encoding() -> None:
    config = llama(model_type="deepseek_v3", qk_rope_head_dim=0, qk_nope_head_dim=128)
    assert isinstance(describe(config).layer(0).encoding, NoPE)


def test_latent_attention_rotates_the_last_channels_of_each_head() -> None:
    yarn = {
        "type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    }
    config = llama(
        model_type="deepseek_v3",
        qk_rope_head_dim=64,
        qk_nope_head_dim=128,
        max_position_embeddings=163_840,
        rope_scaling=yarn,
    )
    rope = only_rope(config)
    assert (rope.head_dim, rope.rotary_start, rope.rotary_dim, rope.pairing) == (192, 128, 64, "interleaved")
    assert rope.frequencies.attention_factor == 1
    assert rope.temperature(torch.arange(1)) == pytest.approx(1.8739, abs=1e-4)  # (0.1 ln 40 + 1)^2


def test_bases_by_kind_of_layer_are_read_from_transformers_4_and_5() -> None:
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    old = llama(
        model_type="gemma3_text",
        rope_theta=1e6,
        rope_local_base_freq=1e4,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
        layer_types=kinds,
    )
    full = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    new = {
        **LLAMA,
        "model_type": "gemma3_text",
        "layer_types": kinds,
        "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": full},
    }
    for config in (old, new):
        local, distant = describe(config)
        assert (local.label, local.layers) == ("sliding_attention", (0, 1, 3, 4))
        assert (distant.label, distant.layers) == ("full_attention", (2, 5))
        assert isinstance(local.encoding, RoPE)
        assert isinstance(distant.encoding, RoPE)
        assert local.encoding.frequencies == Geometric(1e4)
        assert distant.encoding.frequencies == Linear(8.0, base=1e6)


@pytest.mark.transformers_as_pinned
def test_a_temperature_stands_beside_the_rotation_or_alone() -> None:
    llama4 = llama(
        model_type="llama4_text",
        no_rope_layers=[1, 1, 1, 0, 1, 1],
        attn_temperature_tuning=True,
        attn_scale=0.1,
        floor_scale=8192,
    )
    encoding = describe(llama4).layer(3).encoding
    assert isinstance(encoding, Compose)
    assert [type(part) for part in encoding.parts] == [NoPE, Temperature]
    assert isinstance(describe(llama4).layer(0).encoding, RoPE)
    parameters = {"rope_type": "yarn", "rope_theta": 1e6, "llama_4_scaling_beta": 0.1, **YARN}
    (group,) = describe({**LLAMA, "model_type": "ministral3", "rope_parameters": parameters})
    assert isinstance(group.encoding, Compose)
    assert [type(part) for part in group.encoding.parts] == [RoPE, Temperature]
    group = describe(llama(model_type="mistral_large4_text", qk_rope_head_dim=16, qk_nope_head_dim=48)).groups[0]
    assert isinstance(group.encoding, Compose)
    assert isinstance(group.encoding.parts[1], SSMax)


def test_several_coordinates_are_read() -> None:
    sections = {"type": "mrope", "mrope_section": [8, 12, 12]}
    (group,) = describe(llama(model_type="qwen2_vl_text", rope_scaling=sections))
    assert isinstance(group.encoding, MRoPE)
    assert group.encoding.sections == (8, 12, 12)
    (group,) = describe(
        {**LLAMA, "model_type": "pixtral", "rope_parameters": {"rope_type": "axial", "rope_theta": 1e4}}
    )
    assert isinstance(group.encoding, AxialRoPE)
    assert group.encoding.layout == "dealt_half"


def test_a_rotation_by_the_negative_angle_has_negative_rates() -> None:
    frequencies = only_rope(llama(model_type="nanochat")).frequencies
    assert isinstance(frequencies, Custom)
    assert frequencies.rates[0] == -1


def test_models_that_are_not_rotary_are_read() -> None:
    (bloom,) = describe({"model_type": "bloom", "n_head": 8, "n_layer": 2, "hidden_size": 64})
    assert isinstance(bloom.encoding, ALiBi)
    (opt,) = describe({**LLAMA, "model_type": "opt", "word_embed_proj_dim": 32})
    assert isinstance(opt.encoding, Learned)
    assert (opt.encoding.length, opt.encoding.dim) == (8192, 256)  # its table is as wide as the hidden states
    assert "row p + 2" in opt.notes[0]
    (marian,) = describe({**LLAMA, "model_type": "marian", "d_model": 256, "encoder_layers": 2})
    assert isinstance(marian.encoding, Sinusoidal)


def test_parts_of_a_model_are_told_apart() -> None:
    text = llama(model_type="qwen2_vl_text", rope_scaling={"type": "mrope", "mrope_section": [8, 12, 12]})
    vision = {"model_type": "clip_vision_model", "hidden_size": 96, "num_hidden_layers": 2}
    described = describe({"model_type": "qwen2_vl", "text_config": text, "vision_config": vision})
    assert "text_config" in {group.part for group in described}
    llava = {"model_type": "llava", "text_config": llama(), "vision_config": vision}
    described = describe(llava)
    assert {group.part: type(group.encoding).__name__ for group in described} == {
        "text_config": "RoPE",
        "vision_config": "LearnedGrid",
    }
    described = describe({**llava, "vision_config": {"model_type": "convnext"}})
    assert [group.part for group in described] == ["text_config"]
    assert "vision_config: convnext" in described.unread
    assert all(key == "vision_config: convnext" or "not used" in key for key in described.unread)


def test_a_folder_a_file_a_config_and_a_model_are_read_alike(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    config.save_pretrained(tmp_path)
    described = [
        describe(source).groups[0].encoding.to_dict()
        for source in (
            config,
            transformers.LlamaModel(config),
            config.to_dict(),
            tmp_path,
            str(tmp_path / "config.json"),
        )
    ]
    assert all(each == described[0] for each in described)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no file"), ("[1]", "holds a value of type list"), ("{", "is not valid JSON")],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        describe(tmp_path)


def test_other_sources_are_refused() -> None:
    with pytest.raises(TypeError, match="got a value of type int"):
        describe(3)


def test_without_transformers_the_keys_are_read_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(llama()))
    (tmp_path / "gemma.json").write_text(json.dumps(llama(model_type="gemma3_text", head_dim=64)))
    code = (
        "import importlib.util, sys; find = importlib.util.find_spec; "
        "importlib.util.find_spec = lambda name, *rest: None if name == 'transformers' else find(name, *rest); "
        "from posenc.integrations.transformers import describe, to_transformers; "
        f"found = describe({str(tmp_path)!r}); to_transformers(found); "
        "assert 'transformers' not in sys.modules; assert found.reading == 'the keys alone'\n"
        f"try: describe({str(tmp_path / 'gemma.json')!r})\n"
        "except ValueError as error: assert 'install transformers' in str(error)\n"
        "else: raise SystemExit('layers were claimed that the config does not tell')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def default_configs() -> dict[str, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    configs = {}
    for model_type in transformers.CONFIG_MAPPING:
        try:
            config = transformers.CONFIG_MAPPING[model_type]()
        except Exception:  # some defaults are refused by transformers itself
            continue
        whole = config.to_dict()
        configs[model_type] = {k: v for k, v in whole.items() if not (isinstance(v, dict) and "model_type" in v)}
    return configs


@pytest.mark.transformers_as_pinned
@pytest.mark.filterwarnings("ignore")
def test_every_default_config_of_transformers_survives_the_way_there_and_back() -> None:
    checked = 0
    for model_type, config in default_configs().items():
        try:
            before = describe(config)
            written = to_transformers(before, copy.deepcopy(config))
        except ValueError:
            continue  # no encoding, not a rotary one, or a default that contradicts itself: the census lists them
        after = describe(written)
        assert [group.encoding.to_dict() for group in after] == [group.encoding.to_dict() for group in before], (
            model_type
        )
        assert [group.layers for group in after] == [group.layers for group in before], model_type
        checked += 1
    assert checked > 200


@pytest.mark.parametrize(
    "frequencies",
    [
        Geometric(5e5),
        Linear(4.0),
        DynamicNTK(2.0, trained_length=4096),
        YaRN(4.0, trained_length=2048, ends="exact", beta_fast=16),
        Llama3(8.0, trained_length=8192),
        LongRoPE([1.0] * 32, [3.0] * 32, trained_length=2048, factor=4.0),
        LongRoPE([1.0] * 32, [3.0] * 32, trained_length=2048, factor=4.0, switch="long"),
        LongRoPE([1.5] * 32, [3.0] * 32, trained_length=2048, factor=4.0, switch="short"),
        NTK(4.0, base=1e5),
        YaRN(4.0, trained_length=2048, ramp="paper"),
        YaRN(4.0, trained_length=2048, clamp="pairs"),
        Custom([0.8**n for n in range(32)], attention_factor=1.3),
        Tensor2Tensor(),
        Proportional(0.25, base=1e6),
        NTKAlpha(100.0),
    ],
    ids=str,
)
def test_what_is_written_means_the_same_to_transformers(frequencies: Any) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    written = to_transformers(RoPE(head_dim=64, frequencies=frequencies), LLAMA)
    described = describe({**LLAMA, **written})
    encoding = described.groups[0].encoding
    assert isinstance(encoding, RoPE)
    if isinstance(frequencies, NTKAlpha):  # whose rule Hunyuan's models alone have
        assert encoding.frequencies == frequencies
        return
    config = transformers.LlamaConfig(
        **{key: value for key, value in {**LLAMA, **written}.items() if key != "model_type"}
    )
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        theirs = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config).inv_freq
        torch.testing.assert_close(theirs.double(), torch.from_numpy(frequencies.inv_freq(64)), rtol=2e-6, atol=0)
        return
    theirs, factor = ROPE_INIT_FUNCTIONS[kind](config)
    assert factor == pytest.approx(frequencies.attention_factor)
    torch.testing.assert_close(theirs.double(), torch.from_numpy(frequencies.inv_freq(64)), rtol=2e-6, atol=0)
    torch.testing.assert_close(theirs.double(), torch.from_numpy(encoding.frequencies.inv_freq(64)), rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        (NoPE(), "no layer with a rotation"),
        (RoPE(8, frequencies=Custom([1.0] * 4)), "pass the config, whose max_position_embeddings holds it"),
        (RoPE(8, frequencies=Custom([1.0, 0.1, 0.01, 0.0])), "rates above 0"),
        (RoPE(8, frequencies=Custom([-1.0, 0.1, 0.01, 0.1])), "rates above 0"),
        (
            RoPE(8, frequencies=YaRN(2.0, trained_length=99, ramp="paper", mscale_all_dim=1.0)),
            "does not change the softmax scale",
        ),
        (Compose(RoPE(8), Temperature("log", length=4096)), "no config of transformers can express"),
        (ALiBi(4), "expected RoPE"),
    ],
)
def test_what_transformers_does_not_have_is_not_written(encoding: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_transformers(encoding)


@pytest.mark.parametrize(("mixed_b", "exponent"), [(None, 1.0), (0.75, 0.75)])
def test_the_rule_that_vllm_calls_ntk_is_read(mixed_b: float | None, exponent: float) -> None:
    rule = {"rope_type": "ntk", "factor": 4.0} | ({} if mixed_b is None else {"mixed_b": mixed_b})
    config = {
        **{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2},
        **{"max_position_embeddings": 4096, "rope_theta": 500.0, "rope_scaling": rule},
    }
    (group,) = describe(config).groups
    assert group.encoding.frequencies == NTKMixed(4.0, exponent, base=500.0)
    assert (group.trained_length, group.longest) == (4096, 16384)
    assert any("transformers does not have it" in note for note in group.notes)
    with pytest.raises(ValueError, match="the rule 'ntk' lacks factor"):
        describe(config | {"rope_scaling": {"rope_type": "ntk"}})


def test_a_model_inside_another_module_is_described() -> None:
    """As ``accelerate``, ``replace``, ``extend`` and ``check`` take it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=16
    )
    model = transformers.LlamaForCausalLM(config)
    for wrapped in (torch.nn.Sequential(torch.nn.Identity(), model), torch.nn.DataParallel(model)):
        assert repr(describe(wrapped)) == repr(describe(config))
    with pytest.raises(TypeError, match="got a value of type Linear, expected a model"):
        describe(torch.nn.Linear(2, 2))

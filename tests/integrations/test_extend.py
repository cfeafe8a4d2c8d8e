"""Another frequency rule, or a longer table, in a live model: it computes what it computes when loaded again."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posenc import Compose, Geometric, RoPE, YaRN
from posenc.frequencies import (
    NTK,
    Custom,
    DynamicNTK,
    Frequencies,
    LearnedRates,
    Linear,
    Llama3,
    LongRoPE,
    NTKAlpha,
    Proportional,
)
from posenc.integrations.transformers import describe, extend

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

MIXED: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "intermediate_size"), 64),
    **{"num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 99},
    **{"max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0},
}
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}


def build(model_type: str, **options: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[model_type](**{**SMALL, **options})
    kind = transformers.AutoModelForCausalLM if options.get("is_decoder") is not False else transformers.AutoModel
    model = kind.from_config(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5 if parameter.ndim > 1 else 0.1)
    return model


def read(model: Any, length: int = 48) -> Tensor:
    tokens = torch.randint(1, 64, (2, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=tokens)[0]  # type: ignore[no-any-return]


def state(model: Any) -> dict[str, Any]:
    config = {key: value for key, value in model.config.to_dict().items() if key not in ("architectures", "dtype")}
    return {"config": copy.deepcopy(config), **{name: buffer.clone() for name, buffer in model.named_buffers()}}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(value, b[key]) if isinstance(value, Tensor) else value == b[key] for key, value in a.items()
    )


def check(model: Any, rule: Any, folder: Path, *, length: int | None, changes: bool = True) -> dict[str, Any]:
    """Extended, saved, loaded and taken back; the config in between."""
    before, untouched = state(model), read(model, 24)
    with extend(model, rule, length=length):
        extended, longer = read(model, 24), read(model)
        config = copy.deepcopy(model.config.to_dict())
        model.save_pretrained(folder)
        loaded = type(model).from_pretrained(folder)
        assert torch.equal(read(loaded), longer)
        assert torch.equal(read(loaded, 24), extended)
        assert torch.equal(extended, untouched) != changes
    assert same(state(model), before)
    assert torch.equal(read(model, 24), untouched)
    return config


RULES: list[Frequencies] = [
    Geometric(5e5),
    Linear(2.0),
    NTK(2.0),
    NTKAlpha(2.0),
    YaRN(2.0, trained_length=32),
    YaRN(2.0, trained_length=32, ends="exact"),
    YaRN(2.0, trained_length=32, ramp="paper"),
    YaRN(2.0, trained_length=32, clamp="pairs"),
    Llama3(2.0, trained_length=32),
    LongRoPE([1.0] * 8, [1.0, 1.5, *[2.0] * 6], trained_length=32, factor=2.0),
    LongRoPE([1.0] * 8, [1.0, 1.5, *[2.0] * 6], trained_length=32, factor=2.0, switch="long"),
    Custom([0.9**n for n in range(8)], attention_factor=1.2),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_is_what_the_model_computes_when_it_was_loaded_again(rule: Frequencies, tmp_path: Path) -> None:
    unchanged_when_short = isinstance(rule, LongRoPE) and rule.switch == "sequence"
    base = rule.base if isinstance(rule, Llama3) else 1e4
    config = check(
        build("llama", rope_parameters={"rope_type": "default", "rope_theta": base}), rule, tmp_path, length=64
    )
    assert config["max_position_embeddings"] == 64
    found = describe(config).groups[0].encoding.frequencies  # type: ignore[attr-defined]
    length = None if unchanged_when_short else 64
    assert found.attention_factor == pytest.approx(rule.attention_factor)
    torch.testing.assert_close(found.inv_freq(16, length=length), rule.inv_freq(16, length=length))


@pytest.mark.transformers_as_pinned
def test_dynamic_ntk_keeps_the_trained_length(tmp_path: Path) -> None:
    config = check(build("llama"), DynamicNTK(2.0, trained_length=32), tmp_path, length=64, changes=False)
    assert config["max_position_embeddings"] == 32


EXPERTS = {"head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 1}


@pytest.mark.parametrize(
    ("model_type", "options", "rule"),
    [
        ("gpt_neox", {}, Linear(2.0)),
        ("gpt_neox", {}, YaRN(2.0, trained_length=32, ramp="paper")),
        ("phi3", {"original_max_position_embeddings": 32}, YaRN(2.0, trained_length=32, ramp="paper")),
        ("cohere", {}, Llama3(2.0, trained_length=32)),
        ("glm", {"head_dim": 16}, YaRN(2.0, trained_length=32)),
        ("gpt_oss", {**EXPERTS, "max_position_embeddings": 4096}, Geometric(1e8)),
        ("nanochat", {}, Linear(2.0)),
        ("smollm3", {}, NTK(2.0, base=2e6)),
    ],
)
def test_other_families_follow(model_type: str, options: Any, rule: Frequencies, tmp_path: Path) -> None:
    check(build(model_type, **options), rule, tmp_path, length=8192)


def test_the_softmax_scale_of_latent_attention_follows(tmp_path: Path) -> None:
    options = {
        **{"n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16},
        **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16},
    }
    model = build("deepseek_v3", **options)
    scale = model.model.layers[0].self_attn.scaling
    rule = YaRN(4.0, trained_length=32, mscale=0.7, mscale_all_dim=0.7)
    with extend(model, rule, length=128):
        assert model.model.layers[0].self_attn.scaling == pytest.approx(scale * rule.score_factor)
    assert model.model.layers[0].self_attn.scaling == scale
    check(model, rule, tmp_path, length=128)
    with pytest.raises(ValueError, match="its code does not read mscale_all_dim"):
        extend(build("llama"), rule)


def test_layers_with_a_window_keep_their_rule(tmp_path: Path) -> None:
    model = build("gemma3_text", head_dim=16, layer_types=["sliding_attention", "full_attention"], sliding_window=8)
    config = check(model, Linear(4.0, base=1e6), tmp_path, length=128)
    rules = {group.label: group.encoding.frequencies for group in describe(config)}  # type: ignore[attr-defined]
    assert rules == {"sliding_attention": Geometric(1e4), "full_attention": Linear(4.0, base=1e6)}
    windowed = build("gemma3_text", head_dim=16, layer_types=["sliding_attention"] * 2, sliding_window=8)
    with pytest.raises(ValueError, match="nothing to extend"):
        extend(windowed, Linear(2.0))


def test_a_temperature_stays(tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16, "rope_theta": 1e4}
    model = build("ministral3", head_dim=16, rope_parameters={**yarn, "llama_4_scaling_beta": 0.1})
    config = check(model, Linear(2.0), tmp_path, length=64)
    assert isinstance(describe(config).groups[0].encoding, Compose)
    with pytest.raises(ValueError, match="would change the temperature"):
        extend(model, YaRN(2.0, trained_length=32))


def test_the_text_of_a_model_of_text_and_images_is_extended() -> None:
    text = {**SMALL, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
    vision = {"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": 32}
    config = transformers.Qwen2VLConfig(text_config=text, vision_config=vision)
    model = transformers.Qwen2VLForConditionalGeneration(config).eval()
    before = state(model)
    with extend(model, YaRN(2.0, trained_length=32), length=64):
        assert model.config.text_config.max_position_embeddings == 64
        assert model.config.text_config.rope_parameters["mrope_section"] == [2, 3, 3]
        assert model.model.language_model.rotary_emb.attention_scaling == pytest.approx(1.0693147)
    assert same(state(model), before)


YARN_4 = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}
LINEAR_4 = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
DYNAMIC_4 = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("own", "rule", "said"),
    [
        (LINEAR_4, Linear(2.0), "reaches 4 x 32 = 128 tokens, and Linear.* reaches 2 x 32 = 64"),
        (LINEAR_4, NTK(2.0), "4 x 32 = 128 tokens, and NTK.* reaches 2 x 32 = 64"),
        (LINEAR_4, Llama3(2.0, trained_length=32, base=1e4), "4 x 32 = 128 tokens, and Llama3.* 2 x 32 = 64"),
        (
            LINEAR_4,
            LongRoPE([1.0] * 8, [2.0] * 8, trained_length=32, attention_factor=1.0),
            "and LongRoPE.* reaches 2 x 32 = 64",
        ),
        (LINEAR_4, Geometric(1e4), "4 x 32 = 128 tokens, and Geometric.* reaches 1 x 32 = 32"),
        (YARN_4, YaRN(2.0, trained_length=32), "4 x 32 = 128 tokens, and YaRN.* reaches 2 x 32 = 64"),
        (YARN_4, Linear(3.0), "4 x 32 = 128 tokens, and Linear.* 3 x 32 = 96.* a factor above 4"),
        (DYNAMIC_4, Linear(2.0), "4 x 32 = 128 tokens, and Linear.* 2 x 32 = 64"),
        (LINEAR_4, Linear(4.0), None),
        (LINEAR_4, Linear(8.0), None),
        (LINEAR_4, DynamicNTK(2.0, trained_length=32), None),
        (LINEAR_4, YaRN(4.0, trained_length=8), None),  # 32 is the length after the scaling
        (LINEAR_4, Geometric(1e8), None),
        (YARN_4, YaRN(2.0, trained_length=128), None),
        ({"rope_type": "default", "rope_theta": 1e4}, Linear(1.0), None),
    ],
    ids=str,
)
def test_a_rule_that_makes_the_context_shorter_is_warned_of(own: Any, rule: Frequencies, said: str | None) -> None:
    """Linear(2) after Linear(4) was taken for twice the length, and was half of it."""
    model = build("llama", rope_parameters=own)
    before = state(model)
    if said is None:
        extend(model, rule, length=256)  # warnings are errors here
    else:
        with pytest.raises(UserWarning, match=f"the context of LlamaForCausalLM becomes shorter: .*{said}"):
            extend(model, rule)
        assert same(state(model), before)  # it comes before the change
        with pytest.warns(UserWarning, match="The new rule replaces the old one"):
            extend(model, rule).undo()


TABLES = {
    "gpt2": (0, {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}),
    "gpt_neo": (0, {"num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]], "window_size": 8}),
    "openai-gpt": (0, {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}),
    "opt": (2, {"ffn_dim": 32, "word_embed_proj_dim": 32, "do_layer_norm_before": True}),
    "bert": (0, {"is_decoder": True}),
    "roberta": (1, {"is_decoder": True, "max_position_embeddings": 33}),
}


def table_of(model: nn.Module) -> Tensor:
    names = ("wpe.weight", "position_embeddings.weight", "embed_positions.weight", "positions_embed.weight")
    (found,) = [parameter for name, parameter in model.named_parameters() if name.endswith(names)]
    return found.detach().clone()


@pytest.mark.parametrize("model_type", TABLES)
def test_a_learned_table_is_stretched(model_type: str, tmp_path: Path) -> None:
    kept, options = TABLES[model_type]
    model = build(model_type, **options)
    before = table_of(model)
    with pytest.raises((IndexError, RuntimeError)):
        read(model)
    check(model, "interpolate", tmp_path, length=63)
    with extend(model, "interpolate", length=63):
        after = table_of(model)
    assert len(after) == 63 + kept
    assert torch.equal(after[:kept], before[:kept])
    assert torch.equal(after[kept::2], before[kept:])  # 62 steps for 31: every other row is an old one
    torch.testing.assert_close(after[kept + 1 :: 2], (before[kept:-1] + before[kept + 1 :]) / 2)
    assert torch.equal(table_of(model), before)


def test_both_tables_of_an_encoder_and_decoder_are_stretched(tmp_path: Path) -> None:
    sizes = {f"{end}_{name}": n for end in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 32))}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = transformers.BartConfig(d_model=32, vocab_size=64, max_position_embeddings=32, **sizes, **heads)
    model = transformers.BartModel(config).eval()
    check(model, "interpolate", tmp_path, length=64)


@pytest.mark.parametrize(
    ("model_type", "options", "rule", "length", "message"),
    [
        ("llama", {}, LearnedRates(), None, "fixed rates"),
        ("llama", {}, Custom([1.0] * 4), None, "4 rates for 16 channels"),
        ("llama", {}, Custom([0.0] * 8), None, "rates above 0"),
        ("llama", {}, Proportional(0.5), None, "counts its pairs over the whole head"),
        (
            "llama",
            {},
            YaRN(2.0, trained_length=64),
            None,
            "expected max_position_embeddings, the extended length, to be the longer",
        ),
        ("llama", {}, YaRN(2.0, trained_length=32), 16, "expected at least the trained length"),
        ("llama", {}, "interpolate", 64, "expected one learned table"),
        (
            "gptj",
            {"n_embd": 32, "n_layer": 1, "n_head": 2, "rotary_dim": 8},
            Linear(2.0),
            None,
            "the model's code fixes",
        ),
        ("bloom", {"n_layer": 1, "n_head": 2}, Linear(2.0), None, "with ALiBi, expected rotary layers"),
        ("gpt2", TABLES["gpt2"][1], Linear(2.0), None, 'a learned table takes "interpolate"'),
        ("gpt2", TABLES["gpt2"][1], "interpolate", 32, "expected more than 32, the number of rows"),
        ("gpt2", TABLES["gpt2"][1], "interpolate", None, "expected more than 32, the number of rows"),
    ],
)
def test_what_does_not_apply_is_refused_and_nothing_changes(
    model_type: str, options: Any, rule: Any, length: int | None, message: str
) -> None:
    model = build(model_type, **options)
    before, untouched = state(model), read(model, 24)
    with pytest.raises(ValueError, match=message):
        extend(model, rule, length=length)
    assert same(state(model), before)
    assert torch.equal(read(model, 24), untouched)


BASE: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e6}


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Linear, {"factor": 2.0}),
        (NTK, {"factor": 2.0}),
        (NTKAlpha, {"alpha": 2.0}),
        (DynamicNTK, {"factor": 2.0, "trained_length": 32}),
        (YaRN, {"factor": 2.0, "trained_length": 32}),
        (YaRN, {"factor": 2.0, "trained_length": 32, "ramp": "paper"}),
        (Llama3, {"factor": 2.0, "trained_length": 32}),
        (LongRoPE, {"short_factors": [1.0] * 8, "long_factors": [2.0] * 8, "trained_length": 32, "factor": 2.0}),
    ],
    ids=lambda made: getattr(made, "__name__", ""),
)
def test_a_rule_of_another_base_is_refused_as_it_would_change_the_base_too(make: Any, options: Any) -> None:
    """vllm-project/vllm-ascend#5201: a YaRN with a base that is not the model's, and nonsense without an error."""
    model = build("qwen2", rope_parameters=dict(BASE))
    before, untouched = state(model), read(model, 24)
    with pytest.raises(ValueError, match=r"starts from its base; give base=1000000\.0, or change the base first"):
        extend(model, make(**options), length=64)
    assert same(state(model), before)
    assert torch.equal(read(model, 24), untouched)
    with extend(model, make(**options, base=1e6), length=64):
        assert model.config.rope_parameters["rope_theta"] >= 1e6
    other = make(**options)
    with extend(model, Geometric(other.base)), extend(model, other, length=64):  # on purpose
        assert describe(model).groups[0].encoding.frequencies.inv_freq(16)[0] > 0  # type: ignore[attr-defined]
    assert torch.equal(read(model, 24), untouched)


def test_a_window_with_a_base_of_its_own_is_no_reason_to_refuse() -> None:
    model = build("gemma3_text", head_dim=16, layer_types=["sliding_attention", "full_attention"])
    with pytest.raises(ValueError, match=r"give base=1000000\.0"):
        extend(model, Linear(2.0), length=64)
    with extend(model, Linear(2.0, base=1e6), length=64):
        assert model.config.rope_parameters["sliding_attention"]["rope_theta"] == 1e4


def test_other_things_than_models_and_rules_are_refused() -> None:
    with pytest.raises(TypeError, match="expected a model of transformers"):
        extend(nn.Linear(2, 2), Linear(2.0))
    with pytest.raises(TypeError, match="expected an instance of Frequencies"):
        extend(build("llama"), 2.0)  # type: ignore[arg-type]


def test_patches_are_undone_last_in_first_out() -> None:
    model = build("llama")
    before = state(model)
    first = extend(model, Linear(2.0))
    second = extend(model, YaRN(2.0, trained_length=16))
    with pytest.raises(ValueError, match=r"undone first: Patch\(.extend LlamaForCausalLM by YaRN"):
        first.undo()
    second.undo()
    first.undo()
    first.undo()
    assert "undone" in repr(first)
    assert same(state(model), before)


def test_a_patched_model_may_be_moved_copied_and_trained_and_the_patch_forgotten() -> None:
    model = build("llama")
    before = state(model)
    patch = extend(model, Linear(2.0))
    twin = copy.deepcopy(model)
    model.to(torch.float64).to(torch.float32)
    patch.undo()
    assert not same(state(twin), before)
    assert same(state(model), before)
    extend(model, Linear(2.0))  # not kept
    extend(model, YaRN(2.0, trained_length=16)).undo()
    assert same(state(model), state(twin))


@pytest.mark.parametrize(
    ("config", "unrotated"),
    [
        (lambda: transformers.SmolLM3Config(**MIXED), (3, 7)),
        (lambda: transformers.Cohere2Config(**MIXED, sliding_window=16), (3, 7)),
        (
            lambda: transformers.Llama4TextConfig(**MIXED, head_dim=16, num_local_experts=2, intermediate_size_mlp=48),
            (3, 7),
        ),
        (lambda: transformers.Exaone4Config(**MIXED, sliding_window=16, sliding_window_pattern=4), (3, 7)),
    ],
)
@pytest.mark.parametrize("rule", [YaRN(2.0, trained_length=128, base=1e4), Linear(2.0, base=1e4)], ids=str)
def test_models_that_mix_rotated_and_unrotated_layers_are_lengthened(
    config: Any, unrotated: tuple[int, ...], rule: Any, tmp_path: Path
) -> None:
    """Two groups of layers with one label, of which one does not rotate; saved, loaded and described the same."""
    said = config()
    said.rope_parameters = {"rope_type": "default", "rope_theta": 1e4}
    model = transformers.AutoModelForCausalLM.from_config(said)
    before = [group.encoding.to_dict() for group in describe(model)]
    with extend(model, rule, length=256):
        groups = list(describe(model))
        layers = {layer: group for group in groups for layer in group.layers}
        for layer in range(8):
            parts = getattr(layers[layer].encoding, "parts", (layers[layer].encoding,))
            rules = [part.frequencies for part in parts if isinstance(part, RoPE)]
            assert rules == ([] if layer in unrotated else [rule])
        model.save_pretrained(tmp_path)
        ids = torch.arange(1, 9)[None]
        with torch.no_grad():
            loaded = type(model).from_pretrained(tmp_path)
            assert torch.equal(loaded.eval()(ids).logits, model.eval()(ids).logits)
        assert [group.encoding.to_dict() for group in describe(tmp_path)] == [g.encoding.to_dict() for g in groups]
    assert [group.encoding.to_dict() for group in describe(model)] == before

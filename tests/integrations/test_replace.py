"""Any encoding for another in live models: what is put in acts, decoding and padding included, and can be taken out."""

import copy
import warnings
from typing import Any

import pytest
import torch
from tests.integrations import families
from tests.integrations.family_inputs import tokens
from torch import Tensor

import posenc
from posenc import frequencies
from posenc.integrations.transformers import Patch, describe, extend, replace

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

ENCODINGS = {
    "rope": lambda: posenc.RoPE(16, frequencies=posenc.Geometric(500.0)),
    "interleaved": lambda: posenc.RoPE(16, pairing="interleaved"),
    "partial": lambda: posenc.RoPE(16, rotary_dim=8),
    "dynamic": lambda: posenc.RoPE(16, frequencies=frequencies.DynamicNTK(2.0, trained_length=8)),
    "xpos": lambda: posenc.XPos(16),
    "pope": lambda: posenc.PoPE(16, num_heads=4, num_kv_heads=2),
    "alibi": lambda: posenc.ALiBi(4),
    "t5": lambda: posenc.T5Bias(4),
    "kerple": lambda: posenc.KERPLE(4),
    "fire": lambda: posenc.FIRE(4),
    "cope": lambda: posenc.CoPE(4, 16),
    "both": lambda: posenc.Compose(posenc.RoPE(16), posenc.ALiBi(4)),
    "none": posenc.NoPE,
}


def build(model_type: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return families.build(model_type)


def made(name: str) -> Any:
    torch.manual_seed(0)
    encoding = ENCODINGS[name]()
    for parameter in encoding.parameters():
        torch.nn.init.uniform_(parameter, *((-5.0, -1.0) if name == "pope" else (0.1, 1.0)))
    return encoding


def logits(model: Any, ids: Tensor, **options: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **options).logits  # type: ignore[no-any-return]


IDS = tokens(2, 12)


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_what_is_put_in_acts_and_can_be_taken_out(model_type: str, name: str) -> None:
    model = build(model_type)
    state, before = copy.deepcopy(model.state_dict()), logits(model, IDS)
    with replace(model, posenc.NoPE()):
        none = logits(model, IDS)
    with replace(model, made(name)) as patch:
        full = logits(model, IDS)
        assert (
            torch.equal(none[:, 0], full[:, 0]) or float((none[:, 0] - full[:, 0]).abs().max()) < 1e-5 or name == "fire"
        )
        far = float((none[:, 1:] - full[:, 1:]).abs().max())
        assert far < 1e-5 if name == "none" else far > 2e-5
        _generates_as_it_reads(model, full, relaxed=name == "dynamic")
        assert type(made(name)).__name__ in repr(patch)
    assert torch.equal(logits(model, IDS), before)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def _generates_as_it_reads(model: Any, full: Tensor, *, relaxed: bool) -> None:
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "disable_compile": True}
    for more in ({}, {"cache_implementation": "static"}):
        result = model.generate(IDS, return_dict_in_generate=True, output_logits=True, **options, **more)
        again = logits(model, result.sequences[:, :-1])[:, 11:]
        if not relaxed:  # the length that a dynamic rule sees is that of the step
            torch.testing.assert_close(torch.stack(result.logits, 1), again, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(result.logits[0], full[:, -1], rtol=1e-4, atol=1e-5)
    padded = torch.cat((torch.zeros(2, 3, dtype=torch.long), IDS), dim=1)
    mask = torch.cat((torch.zeros(2, 3, dtype=torch.long), torch.ones_like(IDS)), dim=1)
    beside = logits(model, padded, attention_mask=mask)[:, 3:]
    torch.testing.assert_close(beside, full, rtol=1e-4, atol=1e-5)


def test_the_same_rotation_gives_the_same_model() -> None:
    for model_type in ("llama", "cohere", "gpt_neox", "glm"):
        model = build(model_type)
        encoding = describe(model).groups[0].encoding
        before = logits(model, IDS)
        with replace(model, encoding):
            torch.testing.assert_close(logits(model, IDS), before, rtol=1e-4, atol=1e-5)


def test_alibi_is_the_alibi_of_a_model_that_has_it() -> None:
    """GPT-2's attention with ALiBi, beside the formula written out."""
    model = build("gpt2")
    attention = model.transformer.h[0].attn
    with replace(model, posenc.ALiBi(4)):
        x = torch.randn(1, 6, 64)
        with torch.no_grad():
            mask = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
            found = attention(x, attention_mask=mask)[0]
            q, k, v = (t.view(1, 6, 4, 16).transpose(1, 2) for t in attention.c_attn(x).split(64, dim=2))
            slopes = torch.tensor([2.0 ** (-8 * (head + 1) / 4) for head in range(4)])[:, None, None]
            distance = torch.arange(6)[:, None] - torch.arange(6)
            scores = (q @ k.mT) / 4 - slopes * distance
            weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
            wanted = attention.c_proj((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_parameters_are_the_models_and_are_trained() -> None:
    model = build("llama")
    bias = made("t5")
    (weight,) = bias.parameters()
    with replace(model, bias):
        assert any(parameter is weight for parameter in model.parameters())
        model(input_ids=IDS, labels=IDS).loss.backward()
        assert weight.grad is not None
        assert float(weight.grad.abs().max()) > 0
        twin = copy.deepcopy(model)
        with torch.no_grad():
            weight.add_(1.0 + torch.rand_like(weight))
        assert not torch.equal(logits(twin, IDS), logits(model, IDS))
    assert not hasattr(model, "posenc_encoding")


def test_another_model_of_the_same_class_is_left_alone() -> None:
    model, other = build("llama"), build("llama")
    before = logits(other, IDS)
    with replace(model, posenc.ALiBi(4)):
        assert torch.equal(logits(other, IDS), before)


def test_a_table_takes_the_codes_of_another_encoding_and_is_saved_with_them(tmp_path: Any) -> None:
    model = build("gpt2")
    with replace(model, posenc.Sinusoidal(64)):
        codes = posenc.Sinusoidal(64).codes(torch.arange(128)).float()
        assert torch.equal(model.transformer.wpe.weight, codes)
        assert not model.transformer.wpe.weight.requires_grad
        model.save_pretrained(tmp_path)
        here = logits(model, IDS)
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert torch.equal(logits(loaded, IDS), here)
    assert model.transformer.wpe.weight.requires_grad


def test_jumps_in_positions_are_refused_when_they_come() -> None:
    model = build("llama")
    positions = torch.arange(12)[None].clone()
    positions[:, 6:] += 100
    mask = torch.ones(2, 12, dtype=torch.long)
    with replace(model, posenc.ALiBi(4)), pytest.raises(ValueError, match="position_ids with jumps"):
        logits(model, IDS, position_ids=positions, attention_mask=mask)


@pytest.mark.parametrize(
    ("positions", "mask"),
    [
        ([0, 1, 0, 1], None),  # packed
        ([0, 1, 0, 1], [1, 1, 1, 1]),
        ([3, 2, 1, 0], None),
        ([0, 1, 1, 2], None),  # one twice
        ([0, 0, 1, 2], [1, 0, 1, 1]),  # a hidden token between others takes a place too
        ([0, 2, 4, 6], None),
    ],
)
@pytest.mark.parametrize("by_name", [True, False])
def test_positions_that_are_not_one_after_the_other_are_refused(positions: Any, mask: Any, by_name: bool) -> None:
    model = build("llama")
    ids, places = IDS[:1, :4], torch.tensor([positions])
    seen = None if mask is None else torch.tensor([mask])
    given = (
        ((), {"input_ids": ids, "position_ids": places, "attention_mask": seen})
        if by_name
        else ((ids, seen, places), {})
    )
    with replace(model, posenc.ALiBi(4)), pytest.raises(ValueError, match="position_ids with jumps"):
        model(*given[0], **given[1])


@pytest.mark.parametrize(
    ("positions", "mask"),
    [([1, 1, 0, 1], [0, 0, 1, 1]), ([0, 1, 2, 0], [1, 1, 1, 0]), ([5, 6, 7, 8], None), ([0, 0, 1, 2], [0, 1, 1, 1])],
)
def test_positions_of_hidden_tokens_do_not_matter(positions: Any, mask: Any) -> None:
    model = build("llama")
    seen = torch.ones(1, 4, dtype=torch.long) if mask is None else torch.tensor([mask])
    with replace(model, posenc.ALiBi(4)):
        plain = logits(model, IDS[:1, :4], attention_mask=seen)
        given = logits(model, IDS[:1, :4], attention_mask=seen, position_ids=torch.tensor([positions]))
    assert torch.equal(plain[seen.bool()], given[seen.bool()])


def whisper(cls: str) -> Any:
    config = transformers.WhisperConfig(
        d_model=64, vocab_size=99, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, num_mel_bins=8,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_source_positions=50,
        max_target_positions=32, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    return getattr(transformers, cls)(config)


@pytest.mark.parametrize("cls", ["WhisperModel", "WhisperForConditionalGeneration"])
def test_the_table_of_whispers_decoder_is_found(cls: str) -> None:
    """Its rows are counted by max_target_positions, which was not looked at."""
    model = whisper(cls)
    (table,) = (p for name, p in model.named_parameters() if name.endswith("decoder.embed_positions.weight"))
    before = table.clone()
    with replace(model, posenc.Sinusoidal(64)):
        (now,) = (p for name, p in model.named_parameters() if name.endswith("decoder.embed_positions.weight"))
        assert torch.equal(now, posenc.Sinusoidal(64).codes(torch.arange(32)).float())
    with extend(model, "interpolate", length=48):
        assert model.config.max_target_positions == 48
        assert model.config.max_source_positions == 50
    assert torch.equal(table, before)


def test_a_patch_that_touches_nothing_is_an_error() -> None:
    model = build("llama")
    patch = Patch(model, "do nothing")
    with pytest.raises(ValueError, match="nothing was changed"):
        patch.commit()
    rule = describe(model).groups[0].encoding.frequencies  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="nothing was changed"):
        extend(model, rule)


@pytest.mark.parametrize(
    ("model_type", "encoding", "message"),
    [
        ("llama", lambda: posenc.ALiBi(3), "3 heads|num_heads"),
        ("llama", lambda: posenc.RoPE(32), "head_dim"),
        ("llama", lambda: posenc.Sinusoidal(64), "no table of positions"),
        ("llama", lambda: posenc.Forgetting(4, 64), "carries a state"),
        ("llama", lambda: posenc.MRoPE(16, sections=(4, 2, 2)), "several coordinates"),
        ("gpt2", lambda: posenc.Sinusoidal(32), "expected 64, as in the model's table"),
        ("gpt2", lambda: posenc.Learned(64, length=16), "expected 128"),
        ("bloom", posenc.NoPE, "a model with ALiBi, expected one learned table"),
        ("t5", posenc.NoPE, r"a model with T5Bias \(encoder\), T5Bias \(decoder\), expected"),
        ("openai-gpt", lambda: posenc.ALiBi(4), "computed in its own module"),
        ("gemma2", lambda: posenc.ALiBi(4), "its scores are capped"),
        ("mistral", lambda: posenc.FIRE(4), "because a sliding window"),
        ("roformer", lambda: posenc.ALiBi(4), "cannot be removed"),
    ],
)
def test_what_cannot_be_replaced_is_refused_and_nothing_changes(model_type: str, encoding: Any, message: str) -> None:
    model = build(model_type)
    own = [(set(vars(module)), set(module._modules)) for module in model.modules()]
    kinds = [getattr(module, "config", None) and module.config._attn_implementation for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        replace(model, encoding())
    assert [(set(vars(module)), set(module._modules)) for module in model.modules()] == own
    assert [getattr(m, "config", None) and m.config._attn_implementation for m in model.modules()] == kinds


def test_other_things_are_refused() -> None:
    with pytest.raises(TypeError, match="got 'alibi' as encoding, expected an instance of Encoding"):
        replace(build("llama"), "alibi")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got the class ALiBi as encoding"):
        replace(build("llama"), posenc.ALiBi)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a model of transformers"):
        replace(torch.nn.Linear(2, 2), posenc.NoPE())

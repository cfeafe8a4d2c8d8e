"""With an encoding put in, a model decodes with any cache, padded and by beams, as it does without a cache."""

from typing import Any

import pytest
import torch
from tests.integrations.family_inputs import tokens
from tests.integrations.test_replace import build, made
from torch import Tensor

import posenc
from posenc.integrations.transformers import replace

pytest.importorskip("transformers")

NEW = 6
#: What reads rows, columns or a state: rotations, biases of distances and of positions, and one of what is between.
IN_ATTENTION = ("rope", "xpos", "pope", "alibi", "t5", "near fire", "cope", "both", "none")
TABLES = {
    "sinusoidal": lambda: posenc.Sinusoidal(64),
    "learned": lambda: posenc.Learned(64, length=128),
    "sinusoidal and alibi": lambda: posenc.Compose(posenc.Sinusoidal(64), posenc.ALiBi(4)),
}
CASES = [("llama", name) for name in IN_ATTENTION] + [
    (model_type, name) for model_type in ("gpt2", "opt") for name in (*TABLES, "rope", "alibi", "near fire")
]


def encoding_of(name: str) -> Any:
    torch.manual_seed(0)
    if name == "near fire":  # whose bias depends on the position from the fourth token on
        encoding = made("fire")
        encoding.threshold = 4.0
        return encoding
    return TABLES[name]() if name in TABLES else made(name)


def padded(on_the_left: tuple[int, ...], length: int = 10) -> dict[str, Tensor]:
    """Rows of unequal length, as a batch of prompts is."""
    ids = tokens(len(on_the_left), length)
    mask = torch.ones_like(ids)
    for row, count in enumerate(on_the_left):
        ids[row, :count] = 0
        mask[row, :count] = 0
    return {"input_ids": ids, "attention_mask": mask}


def generated(model: Any, prompts: dict[str, Tensor], **options: Any) -> tuple[Tensor, Tensor]:
    """The tokens, and the logits that they were chosen by, step by step."""
    fixed = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    kept = {"return_dict_in_generate": True, "output_logits": True, "disable_compile": True}
    result = model.generate(**prompts, **fixed, **kept, **options)
    return result.sequences, torch.stack(result.logits, dim=1)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("on_the_left", [(0, 0), (4, 0, 7)], ids=["full", "padded"])
@pytest.mark.parametrize(("model_type", "name"), CASES)
def test_a_cache_changes_nothing(model_type: str, name: str, on_the_left: tuple[int, ...], beams: int) -> None:
    model, prompts = build(model_type), padded(on_the_left)
    options = {"num_beams": beams} if beams > 1 else {}
    with replace(model, encoding_of(name)):
        tokens, logits = generated(model, prompts, use_cache=False, **options)
        for cache in ({}, {"cache_implementation": "static"}):
            again, others = generated(model, prompts, use_cache=True, **options, **cache)
            assert torch.equal(again, tokens), cache
            torch.testing.assert_close(others, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ["rope", "alibi", "t5", "none"])
def test_a_cache_of_a_window_changes_nothing(name: str, beams: int) -> None:
    model, options = build("mistral"), {"num_beams": beams} if beams > 1 else {}
    for prompts in (padded((0, 0), 20), padded((4, 0, 7), 20), padded((0, 0), 12)):
        with replace(model, encoding_of(name)):
            tokens, logits = generated(model, prompts, use_cache=False, **options)
            for cache in ({}, {"cache_implementation": "static"}):
                again, others = generated(model, prompts, use_cache=True, **options, **cache)
                assert torch.equal(again, tokens), cache
                torch.testing.assert_close(others, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("on_the_left", [(0, 0), (4, 0, 7)], ids=["full", "padded"])
def test_rates_that_follow_the_length_do_not_see_what_a_static_cache_has_to_spare(on_the_left: tuple[int, ...]) -> None:
    """Without a cache they would differ: there earlier tokens are read again at the present length."""
    model, prompts = build("llama"), padded(on_the_left)
    with replace(model, made("dynamic")):
        tokens, logits = generated(model, prompts)
        again, others = generated(model, prompts, cache_implementation="static")
    assert torch.equal(again, tokens)
    torch.testing.assert_close(others, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("model_type", "name"), CASES)
def test_a_row_decodes_as_it_does_without_padding(model_type: str, name: str) -> None:
    model, prompts = build(model_type), padded((4, 0, 7))
    with replace(model, encoding_of(name)):
        tokens, logits = generated(model, prompts)
        for row, count in enumerate((4, 0, 7)):
            alone = {key: value[row : row + 1, count:] for key, value in prompts.items()}
            found, others = generated(model, alone)
            assert torch.equal(tokens[row, count:], found[0])
            torch.testing.assert_close(logits[row], others[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("model_type", "name"), [("llama", "rope"), ("llama", "alibi"), ("gpt2", "sinusoidal")])
def test_what_is_compared_acts(model_type: str, name: str) -> None:
    model, prompts = build(model_type), padded((4, 0, 7))
    with replace(model, encoding_of(name)):
        _, logits = generated(model, prompts)
    with replace(model, posenc.NoPE()):
        assert float((generated(model, prompts)[1] - logits)[:, 0].abs().max()) > 1e-3

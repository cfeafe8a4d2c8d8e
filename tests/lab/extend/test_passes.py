"""The loss of every token in one pass."""

import contextlib
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from posenc import YaRN
from posenc.integrations.transformers import describe, extend
from posenc.lab.checkpoint import memory
from posenc.lab.extend.candidates import candidates, longrope
from posenc.lab.extend.measure import ruled
from posenc.lab.extend.passes import full_pass, position_bins

transformers = pytest.importorskip("transformers")

TEXT = torch.randint(0, 97, (150,), generator=torch.Generator().manual_seed(0))
SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}
GPT2: dict[str, Any] = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4}


def make(family: str, **config: Any) -> Any:
    """A tiny model with random weights, large enough that tokens matter to one another."""
    sizes = GPT2 if family == "GPT2" else SIZES
    config = getattr(transformers, f"{family}Config")(**{**sizes, "initializer_range": 0.3, **config})
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@torch.no_grad()
def in_one_forward(model: Any, tokens: torch.Tensor) -> NDArray[np.float32]:
    logits = model(input_ids=tokens[None], use_cache=False).logits[0, :-1]
    return F.cross_entropy(logits.float(), tokens[1:], reduction="none").numpy()


MODELS = {
    "llama": lambda: make("Llama"),
    "yarn": lambda: make(
        "Llama",
        rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
        | {"original_max_position_embeddings": 64},
    ),
    "sliding window below the chunk": lambda: make("Mistral", sliding_window=7),
    "sliding and full layers": lambda: make("Gemma3Text", head_dim=8, sliding_window=16, sliding_window_pattern=2),
    "scaled logits": lambda: make("Cohere", logit_scale=0.25),
    "learned table": lambda: make("GPT2", n_positions=150),
    "parallel, partly rotated": lambda: make("GPTNeoX", rotary_pct=0.5),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunk", [1, 32, 149, 512])
def test_a_pass_in_chunks_equals_one_forward(name: str, chunk: int) -> None:
    model = MODELS[name]()
    losses = full_pass(model, TEXT, chunk=chunk)
    assert losses.dtype == np.float32
    expected = in_one_forward(model, TEXT)
    assert np.std(expected) > 0.2  # a model that reads its text
    np.testing.assert_allclose(losses, expected, atol=2e-5)


def test_past_the_end_of_a_learned_table_there_is_no_loss() -> None:
    model = make("GPT2", n_positions=100)
    losses = full_pass(model, TEXT, chunk=32)
    assert losses.shape == (149,)
    np.testing.assert_allclose(losses[:99], in_one_forward(model, TEXT[:100]), atol=2e-5)
    assert np.isfinite(losses[:100]).all()  # position 99 foretells token 100
    assert np.isnan(losses[100:]).all()


def test_a_model_that_breaks_down_is_reported_and_not_repaired() -> None:
    model = make("Llama")
    with torch.no_grad():
        model.lm_head.weight[5] = math.inf
    assert not np.isfinite(full_pass(model, TEXT)).any()


def test_a_rotation_that_changes_within_the_text_is_refused() -> None:
    dynamic = make("Llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    with pytest.raises(ValueError, match=r"DynamicNTK, whose rotation changes within 150 tokens.*Candidate.measured"):
        full_pass(dynamic, TEXT)
    within = full_pass(dynamic, TEXT[:64], chunk=16)
    np.testing.assert_allclose(within, in_one_forward(dynamic, TEXT[:64]), atol=2e-5)


def test_dynamic_ntk_as_measured_is_what_one_forward_computes() -> None:
    """transformers gives all tokens of one forward the base for its length; so does the fixed rule."""
    dynamic = make("Llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    expected = in_one_forward(dynamic, TEXT)
    base = 1e4 * (2.0 * 150 / 64 - 1) ** (8 / 6)
    fixed = make("Llama", rope_parameters={"rope_type": "default", "rope_theta": base})
    fixed.load_state_dict(dynamic.state_dict())
    np.testing.assert_allclose(full_pass(fixed, TEXT, chunk=32), expected, atol=2e-4)


def test_searched_factors_given_twice_do_not_change() -> None:
    twice = {"rope_type": "longrope", "rope_theta": 1e4, "attention_factor": 1.0, "factor": 4.0}
    twice |= {"short_factor": [1.0, 1.5, 2.0, 4.0], "original_max_position_embeddings": 64}
    model = make("Llama", rope_parameters={**twice, "long_factor": [1.0, 1.5, 2.0, 4.0]})
    np.testing.assert_allclose(full_pass(model, TEXT, chunk=32), in_one_forward(model, TEXT), atol=2e-5)
    changing = make("Llama", rope_parameters={**twice, "long_factor": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(ValueError, match="LongRoPE"):
        full_pass(changing, TEXT)


def test_no_more_than_a_chunk_of_logits_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = make("Llama"), []
    model.lm_head.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[1]))
    monkeypatch.setattr(memory, "LOGIT_BYTES", 4 * 97 * 20)
    full_pass(model, TEXT, chunk=64)
    assert max(sizes) == 20
    assert sum(sizes) == 150


def test_progress_counts_tokens() -> None:
    seen: list[int] = []
    full_pass(make("Llama"), TEXT, chunk=64, on_progress=seen.append)
    assert seen == [64, 128, 150]


def test_a_mistake_is_said() -> None:
    with pytest.raises(ValueError, match="expected a row of at least 2"):
        full_pass(make("Llama"), TEXT[:1])
    with pytest.raises(ValueError, match="chunk 0"):
        full_pass(make("Llama"), TEXT, chunk=0)


@pytest.mark.parametrize(
    ("trained_length", "length", "bins"),
    [
        (8192, 12288, [0, 2048, 4096, 8192, 10240, 12288]),
        (8192, 12000, [0, 2048, 4096, 8192, 10240, 12000]),
        (8192, 10500, [0, 2048, 4096, 8192, 10500]),
        (8192, 32768, [0, 2048, 4096, 8192, 12288, 16384, 20480, 24576, 28672, 32768]),
        (8192, 4096, [0, 2048, 4096]),
        (8192, 8192, [0, 2048, 4096, 8192]),
    ],
)
def test_bins_split_the_trained_length_and_what_lies_beyond(trained_length: int, length: int, bins: list[int]) -> None:
    assert position_bins(trained_length, length) == list(itertools.pairwise(bins))


@pytest.mark.parametrize("trained_length", [1, 7, 512, 8192])
@pytest.mark.parametrize("times", [1.01, 1.5, 2, 3.7, 64])
def test_bins_cover_every_position_once(trained_length: int, times: float) -> None:
    length = math.ceil(trained_length * times)
    bins = position_bins(trained_length, length)
    assert [position for first, end in bins for position in range(first, end)] == list(range(length))
    assert len(bins) <= 10


@pytest.mark.parametrize("present", ["default", "yarn", "dynamic", "learned table"])
def test_every_candidate_can_be_set_and_measured(present: str) -> None:
    """What is set while measuring gives a pass what one forward of the model with the rule itself computes."""
    rules = {
        "default": {"rope_type": "default", "rope_theta": 1e4},
        "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
        "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 64},
    }
    learned = present == "learned table"
    model = make("GPT2", n_positions=64) if learned else make("Llama", rope_parameters=rules[present])
    own = None if learned else describe(model).groups[0].encoding.frequencies  # type: ignore[attr-defined]
    tried = candidates(present=own, trained_length=64, length=150)
    if own is not None:
        tried.append(longrope([1.0, 1.2, 1.5, 2.0], present=own, trained_length=64, factor=150 / 64))
    assert len(tried) >= (2 if learned else 12)
    seen = {}
    for candidate in tried:
        setting = candidate.measured(150)
        with extend(model, setting, length=150) if setting is not None else contextlib.nullcontext():
            seen[candidate.name] = full_pass(model, TEXT, chunk=32)
        if candidate.rule is None and learned:
            continue  # its table ends
        with extend(model, candidate.rule, length=150) if candidate.rule is not None else contextlib.nullcontext():
            expected = in_one_forward(model, TEXT)
        np.testing.assert_allclose(seen[candidate.name], expected, atol=1e-3, err_msg=candidate.name)
    assert len({losses.tobytes() for losses in seen.values()}) == len(tried)  # each is a rule of its own


def test_a_rule_that_is_shorter_than_the_model_s_own_is_measured_without_a_warning() -> None:
    """Its loss says the same, of each length."""
    model = MODELS["yarn"]()
    shorter = YaRN(2.0, trained_length=64)
    with pytest.warns(UserWarning, match="becomes shorter"):
        extend(model, shorter).undo()
    with ruled(model, shorter, 128):  # warnings are errors here
        assert model.config.rope_parameters["factor"] == 2.0

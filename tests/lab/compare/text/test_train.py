"""Training steps."""

import numpy as np
import pytest
import torch

from posenc.lab.compare.text.config import ModelConfig, Precision, TrainConfig
from posenc.lab.compare.text.decoder import build
from posenc.lab.compare.text.presets import ROAD
from posenc.lab.compare.text.train import Training
from posenc.lab.encodings.spec import parse
from posenc.lab.run.schedule import batch_at, learning_rate_at

SIZES = ModelConfig(dim=16, num_layers=1, num_heads=2)
SCHEDULE = TrainConfig(length=8, batch=4, steps=30, learning_rate=1e-2, warmup=5)
TEXT = torch.from_numpy(np.random.default_rng(0).integers(0, 32, 500).astype(np.uint8))


def training(
    spec: str = "learned", *, seed: int = 0, tokens: torch.Tensor = TEXT, precision: Precision = "float32"
) -> Training:
    model = build(SIZES, parse(spec), vocabulary_size=32, length=8, seed=seed)
    return Training(model, tokens, SCHEDULE, seed=seed, precision=precision)


def mean_loss(one: Training, steps: int = 5) -> float:
    for _ in range(steps):
        one.advance()
    return one.take_mean_loss(steps)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    sizes = {"batch": 4, "length": 8}
    first = batch_at(TEXT, seed=0, step=3, **sizes)
    assert torch.equal(first, batch_at(TEXT, seed=0, step=3, **sizes))
    assert not torch.equal(first, batch_at(TEXT, seed=0, step=4, **sizes))
    assert not torch.equal(first, batch_at(TEXT, seed=1, step=3, **sizes))


def test_a_batch_is_made_of_windows_of_the_text_and_reaches_both_its_ends() -> None:
    text = torch.arange(12)
    starts = set()
    for step in range(50):
        for window in batch_at(text, seed=0, step=step, batch=4, length=8):
            assert torch.equal(window, torch.arange(9) + window[0])
            starts.add(int(window[0]))
    assert starts == {0, 1, 2, 3}


def test_all_encodings_are_given_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    for spec in ("none", "learned", "rope", "alibi"):
        one = training(spec)
        seen[spec] = []
        monkeypatch.setattr(one, "_forward", lambda x, own=seen[spec], model=one.model: own.append(x) or model(x))
        for _ in range(3):
            one.advance()
    for spec in seen:
        assert all(torch.equal(a, b) for a, b in zip(seen[spec], seen["none"], strict=True)), spec


def test_the_learning_rate_warms_up_and_decays_to_a_tenth() -> None:
    rates = [learning_rate_at(step, SCHEDULE) for step in range(SCHEDULE.steps)]
    assert rates[0] == pytest.approx(SCHEDULE.learning_rate / 5)
    assert max(rates) == rates[4]
    assert 0.1 < rates[-1] / SCHEDULE.learning_rate < 0.14
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_a_repeated_phrase_is_learned() -> None:
    phrase = torch.arange(8, dtype=torch.uint8).repeat(60)
    one = training("rope", tokens=phrase)
    one.advance()
    before = one.take_mean_loss(1)
    for _ in range(29):
        one.advance()
    assert one.take_mean_loss(29) < before / 2


def test_a_training_loaded_from_its_state_goes_on_with_the_same_numbers() -> None:
    unbroken = training()
    for _ in range(20):
        unbroken.advance()
    first = training()
    for _ in range(7):
        first.advance()
    state = {name: value.clone() for name, value in first.state().items()}
    second = training(seed=0)
    second.load(state)
    for _ in range(13):
        second.advance()
    assert second.step == 20
    expected = unbroken.state()
    assert second.state().keys() == expected.keys()
    for name, value in second.state().items():
        assert torch.equal(value, expected[name]), name


def test_only_the_matrices_of_the_blocks_decay() -> None:
    one = training("learned")
    decay = {id(p): group["weight_decay"] for group in one.optimizer.param_groups for p in group["params"]}
    for name, parameter in one.model.named_parameters():
        assert (decay[id(parameter)] > 0) == (name.startswith("blocks.") and parameter.ndim == 2), name


@pytest.mark.parametrize("spec", ROAD)
def test_bfloat16_trains_as_float32_does_up_to_its_rounding(spec: str) -> None:
    rounded, exact = mean_loss(training(spec, precision="bfloat16")), mean_loss(training(spec))
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ROAD)
def test_a_compiled_model_trains_as_the_plain_one_does(spec: str) -> None:
    # What a GPU runs; traced and differentiated here by the same front end, without its code generator.
    compiled = training(spec)
    compiled._forward = torch.compile(compiled.model, backend="aot_eager", fullgraph=True)
    assert mean_loss(compiled) == pytest.approx(mean_loss(training(spec)), rel=1e-4)

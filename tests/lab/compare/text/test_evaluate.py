"""The two protocols of validation."""

import math

import pytest
import torch
from torch import Tensor, nn

from posenc.lab.compare.text.config import EvaluateConfig, ModelConfig
from posenc.lab.compare.text.decoder import build
from posenc.lab.compare.text.evaluate import evaluate, mean_nats, whole_windows, windows_with_same_end
from posenc.lab.encodings.spec import parse

TEXT = torch.randint(0, 16, (1000,), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
NUMBERED = torch.arange(1000)  # a text whose tokens tell where they are


class Uniform(nn.Module):
    """Gives every token the same chance."""

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros(*tokens.shape, 16)


class Unigram(nn.Module):
    """Gives token 0 the chance 1/2, and halves it for each of the others."""

    def forward(self, tokens: Tensor) -> Tensor:
        return -math.log(2) * torch.arange(16.0).expand(*tokens.shape, 16)


def test_perplexity_of_a_model_that_knows_nothing_is_the_size_of_the_vocabulary() -> None:
    rows = list(evaluate(Uniform(), TEXT, EvaluateConfig(tokens=256, last=4), length=8, max_positions=None))
    assert [row["length"] for row in rows] == [8, 8, 16, 16, 32, 32, 64, 64]
    for row in rows:
        assert row["perplexity"] == pytest.approx(16, rel=1e-6)
        assert row["nats"] == pytest.approx(math.log(16), rel=1e-6)


def test_loss_of_a_unigram_model_is_what_the_counts_of_the_scored_tokens_say() -> None:
    windows = whole_windows(TEXT, 32, longest=64, total=256)
    scored = windows[:, 1:].double()
    total = math.log(sum(2.0**-i for i in range(16)))
    expected = (scored * math.log(2) + total).mean().item()
    assert mean_nats(Unigram(), windows, scored=32) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scored", [3, 32])
def test_loss_equals_that_of_a_loop_over_single_tokens(scored: int) -> None:
    model = build(
        ModelConfig(dim=16, num_layers=2, num_heads=2), parse("rope"), vocabulary_size=16, length=8, seed=0
    ).eval()
    windows = whole_windows(TEXT, 32, longest=64, total=256)[:3]
    losses = []
    with torch.no_grad():
        for window in windows:
            for at in range(32 - scored, 32):  # the token at `at` and those before it foretell the next
                logits = model(window[None, : at + 1])[0, -1].double()
                losses.append((logits.logsumexp(0) - logits[window[at + 1]]).item())
    assert mean_nats(model, windows, scored=scored) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_whole_windows_score_the_same_tokens_at_every_length_once() -> None:
    scored = {n: whole_windows(NUMBERED, n, longest=64, total=256)[:, 1:].flatten() for n in (8, 16, 64)}
    assert len(scored[8].unique()) == len(scored[8]) == 256
    for length in (16, 64):
        assert torch.equal(scored[length].sort().values, scored[8].sort().values)


def test_the_last_tokens_are_the_same_at_every_length_and_are_scored_once() -> None:
    sizes = {"longest": 64, "scored": 4, "total": 100}
    scored = {n: windows_with_same_end(NUMBERED, n, **sizes)[:, -4:] for n in (8, 16, 64)}
    assert torch.equal(scored[8], scored[64])
    assert torch.equal(scored[16], scored[64])
    assert len(scored[8].unique()) == scored[8].numel() == 100


def test_windows_lie_in_the_text_and_reach_both_its_ends() -> None:
    windows = whole_windows(NUMBERED, 16, longest=64, total=256)
    assert (int(windows.min()), int(windows.max())) == (0, 999)
    assert torch.equal(windows - windows[:, :1], torch.arange(17).expand_as(windows))


def test_a_short_text_is_scored_once_and_not_over_and_over() -> None:
    windows = whole_windows(NUMBERED[:200], 64, longest=64, total=10_000)
    assert len(windows) == 3
    assert len(windows[:, 1:].unique()) == 3 * 64


def test_a_length_past_the_table_is_said_to_be_refused_and_not_run() -> None:
    rows = list(evaluate(Uniform(), TEXT, EvaluateConfig(tokens=128, last=4), length=8, max_positions=16))
    refused = [row for row in rows if "refused" in row]
    assert {row["length"] for row in refused} == {32, 64}
    assert {row["refused"] for row in refused} == {"past its table of 16 positions"}
    assert all("nats" not in row for row in refused)
    assert all(row["perplexity"] > 1 for row in rows if row["length"] <= 16)

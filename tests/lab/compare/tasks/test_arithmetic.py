"""The task arithmetic: its problems, its schemes of positions, and what they find past the trained digits."""

import re

import numpy as np
import pytest
import torch
from tests.lab.compare.trained import train

from posenc.lab.compare.find_task import find
from posenc.lab.compare.task import Sizes
from posenc.lab.compare.tasks import arithmetic


def test_sums_are_right_in_rows_of_different_lengths() -> None:
    lengths, copies = np.array([4, 1, 2] * 20), np.array([False, False, True, True, False, False] * 10)
    tokens, answer = arithmetic.problems(copies, lengths, np.random.default_rng(0))
    texts = ["".join("0123456789+=>; "[token] for token in row) for row in tokens.tolist()]
    for text, copy, length, said in zip(texts, copies, lengths, answer, strict=True):
        numbers = [int(part[::-1]) for part in re.split("[+=>]", text.rstrip(" ;"))]
        assert numbers[0] == numbers[1] if copy else numbers[0] + numbers[1] == numbers[2]
        wanted = length + 1 if copy else length + 2  # a sum has a digit more, and each answer an end
        assert (said.sum().item(), text.rstrip().index(";") + 1) == (wanted, len(text.rstrip()))
        assert said.nonzero().flatten().tolist() == list(range(len(text.rstrip()) - wanted, len(text.rstrip())))


def test_hints_stand_before_their_digits_and_are_part_of_the_answer() -> None:
    given = arithmetic.problems(np.array([False, True]), np.array([2, 2]), np.random.default_rng(0))
    tokens, answer = arithmetic.hinted(given, torch.tensor([3, 0]))
    hints = tokens >= arithmetic.HINT
    places = (tokens - arithmetic.HINT)[hints].tolist()
    assert places == [3, 4, 3, 4, 3, 4, 5, 0, 1, 0, 1]
    assert torch.equal(
        tokens[~hints & (tokens != arithmetic.PADDING)], given.tokens[given.tokens != arithmetic.PADDING]
    )
    assert bool((tokens[:, 1:][hints[:, :-1]] < 10).all())  # what follows a hint is a digit
    assert answer.sum(dim=1).tolist() == [2 * 3 + 1, 2 * 2 + 1]


@pytest.mark.parametrize("spec", arithmetic.Arithmetic.encodings)
def test_every_scheme_sees_nothing_of_the_token_that_it_predicts(spec: str) -> None:
    sizes = Sizes(dim=16, num_heads=2, num_layers=1, length=3)
    torch.manual_seed(0)
    model = arithmetic.Adder(spec, sizes).eval()
    given = arithmetic.problems(np.zeros(2, bool), np.array([3, 3]), np.random.default_rng(0))
    (tokens, _), first = model.written(given, np.random.default_rng(1))
    before = model(tokens, first, np.random.default_rng(1))
    assert before.shape[:2] == tokens.shape
    last = tokens.shape[1] - 2  # the last digit of the sum
    changed = tokens.clone()
    changed[:, last] = (changed[:, last] + 1) % 10
    after = model(changed, first, np.random.default_rng(1))
    # The logits at an index are those of the next token: a change is seen from its own index on, and not before.
    torch.testing.assert_close(after[:, :last], before[:, :last])
    assert not torch.equal(after[:, last], before[:, last])


def test_places_are_drawn_in_training_alone() -> None:
    model = arithmetic.Adder("abacus", Sizes(dim=8, num_heads=2, num_layers=1, length=3))
    given = arithmetic.problems(np.zeros(500, bool), np.full(500, 12), np.random.default_rng(0))
    _, first = model.written(given, np.random.default_rng(0))
    assert first.max() == 0  # a sum of numbers of 4 x 3 digits has 13, as many as there are places
    shorter = arithmetic.problems(np.zeros(500, bool), np.full(500, 3), np.random.default_rng(0))
    assert model.written(shorter, np.random.default_rng(0))[1].unique().tolist() == list(range(10))
    assert model.eval().written(shorter, np.random.default_rng(0))[1].max() == 0


@pytest.mark.slow
def test_abacus_adds_past_the_trained_digits_and_rope_does_not() -> None:
    """The ordering of McLeish et al. 2024, at a small setting: some two minutes on one core."""
    task = find("arithmetic")
    past = {}
    for spec in ("abacus", "rope"):
        found = list(task.measure(train(task, spec, task.sizes, 0), spec, task.sizes))
        past[spec] = {m.size: m.value for m in found if m.unit == task.unit}
    assert past["abacus"]["1x"] > 80
    assert past["abacus"]["1.5x"] > 20 + past["rope"]["1.5x"]

"""The evolutionary search, on a loss whose lowest point is known."""

import math

import numpy as np
import pytest

from posenc.frequencies import NTK, Geometric, YaRN
from posenc.lab.extend.search import Factors, Step, known_factors, search

STARTS = known_factors(base=10_000.0, trained_length=2048, factor=4, rotary_dim=32)
GOAL = np.linspace(1, 4.5, 16)


def distance(factors: Factors) -> float:
    return float(np.abs(np.array(factors) - GOAL).mean())


def run(budget: int = 200, seed: int = 0, **more: object) -> tuple[Factors, float, tuple[Step, ...]]:
    found = search(distance, pairs=16, factor=4, starts=STARTS, budget=budget, seed=seed, **more)  # type: ignore[arg-type]
    return found.factors, found.loss, found.history


@pytest.mark.parametrize("seed", range(5))
def test_every_list_that_is_measured_is_monotone_and_within_the_range(seed: int) -> None:
    for step in run(seed=seed)[2]:
        assert (np.diff(step.factors) >= 0).all()
        assert step.factors[0] >= 1
        assert step.factors[-1] <= 5


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_better_than_it_starts_from(seed: int) -> None:
    factors, loss, history = run(budget=300, seed=seed)
    assert loss == distance(factors) == min(step.loss for step in history)
    assert loss < 0.5 * min(map(distance, STARTS))
    assert {step.origin for step in history} == {"start", "mutation", "crossover"}


def test_the_same_seed_gives_the_same_search_and_another_one_another() -> None:
    assert run() == run()
    assert run()[0] != run(seed=1)[0]


def test_the_budget_is_what_is_measured_and_nothing_twice() -> None:
    seen: list[Step] = []
    _, _, history = run(budget=57, on_step=seen.append)
    assert tuple(seen) == history
    assert [step.number for step in history] == list(range(1, 58))
    assert len({step.factors for step in history}) == 57
    assert [step.best for step in history] == np.minimum.accumulate([step.loss for step in history]).tolist()


def test_the_starts_are_measured_first_and_suffice_for_a_budget() -> None:
    factors, loss, history = run(budget=3)
    assert [step.origin for step in history] == ["start"] * 3
    assert np.allclose([step.factors for step in history], STARTS, rtol=1e-12)
    assert loss == min(map(distance, (step.factors for step in history)))
    assert len(factors) == 16


def test_a_loss_that_is_no_number_never_wins() -> None:
    found = search(
        lambda factors: math.nan if factors[-1] > 3.9 else distance(factors),
        pairs=16,
        factor=4,
        starts=STARTS,
        budget=100,
        seed=0,
    )
    assert found.loss == math.inf or found.factors[-1] <= 3.9
    assert not any(math.isnan(step.loss) for step in found.history)


def test_one_pair_and_an_exhausted_range_end() -> None:
    found = search(lambda factors: abs(factors[0] - 1.1), pairs=1, factor=1, starts=[(1.0,)], budget=1000, seed=0)
    assert found.factors == (1.1,)
    assert len(found.history) <= 26  # 1.00, 1.01, ..., 1.25


def test_known_factors_are_those_of_the_rules() -> None:
    linear, ntk, yarn = STARTS
    plain = Geometric().inv_freq(32)
    assert linear == (4.0,) * 16
    assert np.allclose(plain / ntk, NTK(4).inv_freq(32), rtol=1e-14)
    assert np.allclose(plain / yarn, YaRN(4, trained_length=2048).inv_freq(32), rtol=1e-14)


@pytest.mark.parametrize("start", [(1.0,) * 15, (*(2.0,) * 15, 1.0), (0.5,) + (1.0,) * 15, (1.0,) * 15 + (6.0,)])
def test_a_start_outside_of_the_range_is_refused(start: Factors) -> None:
    with pytest.raises(ValueError, match="expected 16 factors from 1 to 5"):
        search(distance, pairs=16, factor=4, starts=[start], budget=10, seed=0)


def test_a_budget_below_the_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="3 starts and a budget of 2"):
        run(budget=2)

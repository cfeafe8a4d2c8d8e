"""The search of LongRoPE: evolution of a factor for each pair."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from posenc.frequencies import NTK, Frequencies, Geometric, Linear, YaRN

Factors = tuple[float, ...]

PARENTS = 8
MUTATION = 0.3  # the probability for each factor, as in the paper
REACH = 1.25  # the largest factor, as a multiple of the ratio of the lengths
TRIES = 100  # attempts to make a child that was not measured before


@dataclass(frozen=True)
class Step:
    """One evaluation.

    Attributes:
        number: counted from 1.
        origin: how the factors were made.
        factors: one for each pair.
        loss: their loss; infinite if it is NaN.
        best: the lowest loss so far.
    """

    number: int
    origin: Literal["start", "mutation", "crossover"]
    factors: Factors
    loss: float
    best: float


@dataclass(frozen=True)
class SearchResult:
    """The best factors, their loss, and every evaluation in order."""

    factors: Factors
    loss: float
    history: tuple[Step, ...]


def search(
    loss_of: Callable[[Factors], float],
    *,
    pairs: int,
    factor: float,
    starts: Sequence[Factors],
    budget: int,
    seed: int,
    on_step: Callable[[Step], None] | None = None,
) -> SearchResult:
    r"""Factors :math:`1 \le \lambda_0 \le \lambda_1 \le \dots \le 1.25\,s` of low loss, found by evolution.

    The starts are measured first. Then the best eight have children, alternately: a mutation redraws some factors, each
    between its neighbours; a crossover takes the fast pairs of one parent and the slow pairs of another. A child takes
    the place of the worst parent if it is better. No factors are measured twice.

    Args:
        loss_of: the loss of factors, such as the gap losses at long distances and without a gap, added. The search fits
            the text that it reads: a few hundred scored tokens are too few, and another text must confirm the result.
        pairs: the number of factors.
        factor: :math:`s`, the wanted length divided by the trained length.
        starts: the initial factors, such as :func:`known_factors`.
        budget: the number of evaluations of ``loss_of``, including the starts.
        seed: of the random numbers; the same seed gives the same search.
        on_step: called after each evaluation.

    Returns:
        The best factors, and the history. There are fewer evaluations than the budget if the range is exhausted.

    Raises:
        ValueError: starts that are not ``pairs`` monotone factors within the range; no starts, or a budget that does
            not suffice for them.

    Differs from the paper: children come one by one and not in generations, so that a small budget is used well (the
    paper measures some thousands); factors are rounded to hundredths as there, and mutations are drawn so that they are
    monotone, instead of redrawn until they are. The unscaled first tokens are not searched: released models have none.

    References:
        Ding et al. LongRoPE. 2024. arXiv:2402.13753, section 3.3, algorithm 1.
    """
    largest = REACH * factor
    begin = [_checked(start, pairs=pairs, largest=largest) for start in starts]
    if not begin or budget < len(begin):
        raise ValueError(
            f"search: got {len(begin)} starts and a budget of {budget} evaluations, expected at least one start and an "
            "evaluation for each."
        )
    chance = random.Random(seed)
    history: list[Step] = []
    measured: set[Factors] = set()
    parents: list[Step] = []

    def measure(factors: Factors, origin: Literal["start", "mutation", "crossover"]) -> None:
        measured.add(factors)
        loss = float(loss_of(factors))
        loss = math.inf if math.isnan(loss) else loss
        step = Step(len(history) + 1, origin, factors, loss, min([loss, *(parent.loss for parent in parents)]))
        history.append(step)
        parents.append(step)
        parents.sort(key=lambda parent: parent.loss)  # stable sort: of equal losses, the older one is kept
        del parents[PARENTS:]
        if on_step is not None:
            on_step(step)

    for start in dict.fromkeys(begin):
        measure(start, "start")
    mutate = True
    while len(history) < budget:
        for _ in range(TRIES):
            if mutate or len(parents) == 1:
                child = _mutated(chance.choice(parents).factors, chance, largest)
            else:
                one, other = chance.sample(parents, 2)
                child = _crossed(one.factors, other.factors, chance)
            if child not in measured:
                break
            mutate = True  # few parents have few possible crossovers
        else:
            break
        measure(child, "mutation" if mutate or len(parents) == 1 else "crossover")
        mutate = not mutate
    return SearchResult(parents[0].factors, parents[0].loss, tuple(history))


def known_factors(*, base: float, trained_length: int, factor: float, rotary_dim: int) -> tuple[Factors, ...]:
    """The factors of position interpolation, NTK and YaRN, as starts of a search."""
    plain = Geometric(base).inv_freq(rotary_dim)
    rules: tuple[Frequencies, ...] = (
        Linear(factor, base=base),
        NTK(factor, base=base),
        YaRN(factor, trained_length=trained_length, base=base),
    )
    return tuple(tuple((plain / rule.inv_freq(rotary_dim)).tolist()) for rule in rules)


def _checked(start: Factors, *, pairs: int, largest: float) -> Factors:
    factors = np.asarray(start, dtype=np.float64)
    slack = 1e-9
    if factors.shape != (pairs,) or not (
        (np.diff(factors) >= -slack).all() and factors[0] >= 1 - slack and factors[-1] <= largest + slack
    ):
        raise ValueError(
            f"search: got the start {tuple(start)}, expected {pairs} factors from 1 to {largest:g}, none smaller than "
            "the factor before it."
        )
    return tuple(np.maximum.accumulate(np.clip(factors, 1, largest)).tolist())


def _mutated(factors: Factors, chance: random.Random, largest: float) -> Factors:
    """Redraw some of the factors, each between its neighbours."""
    child = list(factors)
    chosen = [pair for pair in range(len(child)) if chance.random() < MUTATION] or [chance.randrange(len(child))]
    chance.shuffle(chosen)
    for pair in chosen:
        low = child[pair - 1] if pair else 1.0
        high = child[pair + 1] if pair + 1 < len(child) else largest
        child[pair] = min(max(round(chance.uniform(low, high), 2), low), high)
    return tuple(child)


def _crossed(one: Factors, other: Factors, chance: random.Random) -> Factors:
    """Combine the fast pairs of one parent and the slow pairs of the other, in the order that is monotone."""
    if len(one) == 1:
        return one
    cut = chance.randrange(1, len(one))
    fast, slow = (one, other) if one[cut - 1] <= other[cut] else (other, one)
    return fast[:cut] + slow[cut:]

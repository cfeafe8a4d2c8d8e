"""Chooses a rule from the losses alone: the same numbers give the same sentence.

The baseline is the untouched model on the same tokens: it reads the text from its start up to the trained length, and
beyond it in windows of the trained length, in which each token has at least half a window as context. Every
comparison is paired, token by token, so that hard and easy passages of the text cancel out.

A rule *holds* if in every bin of positions its perplexity is at most ``HELD`` times the baseline's: beyond the trained
length, and within it, so that short texts do not lose more either. Of the rules that hold, the one with the lowest
loss over the whole text is recommended; rules whose paired difference to it is within two standard errors count as
equal, and of these, the one with the lowest cost on short texts is chosen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from posenc.lab.drawing.words import HELD

BLOCK = 64
"""Tokens averaged before the standard error is computed, because losses of neighbours are not independent."""

Nats = NDArray[np.floating]
Bins = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Mean:
    """A mean in nats per token, and its standard error, which is NaN if there are too few tokens."""

    nats: float
    error: float


def mean(values: Nats) -> Mean | None:
    """The mean of losses or of differences of losses; None if there are none, or if one is NaN."""
    values = np.asarray(values, dtype=np.float64)
    if not values.size or np.isnan(values).any():
        return None
    if not np.isfinite(values).all():
        return Mean(math.inf, math.nan)
    count = max(1, values.size // BLOCK)
    blocks = np.array([part.mean() for part in np.array_split(values, count)])
    error = float(blocks.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    return Mean(float(values.mean()), error)


def perplexity(nats: float) -> float:
    """The perplexity of a mean loss; infinite if it overflows."""
    return math.exp(nats) if nats < 700 else math.inf


def perplexities(losses: Nats, bins: Bins) -> list[float | None]:
    """The perplexity of each bin; None if a loss is missing."""
    found = [mean(losses[first:last]) for first, last in bins]
    return [None if one is None else perplexity(one.nats) for one in found]


def difference(losses: Nats, others: Nats) -> Mean | None:
    """The mean difference of two series of losses, token by token; None if a loss is missing."""
    losses, others = np.asarray(losses, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if np.isposinf(losses).any() and np.isfinite(others).all():
        return Mean(math.inf, math.nan)
    with np.errstate(invalid="ignore"):
        return mean(losses - others)


def excess(losses: Nats, baseline: Nats, bins: Bins) -> list[Mean | None]:
    """The excess of a rule's losses over the baseline, for each bin."""
    return [difference(losses[first:last], baseline[first:last]) for first, last in bins]


def holds(above: Sequence[Mean | None]) -> bool:
    """Whether a rule holds, from its excess over the baseline in each bin."""
    return all(one is not None and one.nats <= math.log(HELD) for one in above)


def worst(above: Sequence[Mean | None]) -> float:
    """The largest excess of a rule over the baseline; infinite if a bin has no number."""
    return max((math.inf if one is None else one.nats for one in above), default=math.inf)


@dataclass(frozen=True)
class Verdict:
    """The decision.

    Attributes:
        kind: "rule" (use it), "none needed" (the untouched model holds), or "none of them".
        rule: the rule to use; "none" if none is needed; if none holds, the closest rule.
    """

    kind: Literal["rule", "none needed", "none of them"]
    rule: str


def decide(losses: Mapping[str, Nats], baseline: Nats, bins: Bins, *, trained_length: int) -> Verdict:
    """Decide among the rules whose losses are given, "none" included.

    Args:
        losses: for each rule (n - 1,) nats; NaN where a model has no position.
        baseline: (n - 1,) nats of the untouched model on the same tokens, within its trained length and in windows.
        bins: ranges of positions.
        trained_length: tokens, the end of a bin.
    """
    above = {name: excess(found, baseline, bins) for name, found in losses.items()}
    if holds(above["none"]):
        return Verdict("none needed", "none")
    tried = [name for name in losses if name != "none"]
    good = [name for name in tried if holds(above[name])]
    if not good:
        return Verdict("none of them", min(tried, key=lambda name: worst(above[name])) if tried else "none")
    best = min(good, key=lambda name: float(np.mean(losses[name], dtype=np.float64)))
    equal = [name for name in good if name == best or _equal(losses[name], losses[best])]
    return Verdict("rule", min(equal, key=lambda name: _cost(losses[name], losses["none"], trained_length)))


def _equal(losses: Nats, best: Nats) -> bool:
    found = difference(losses, best)
    return found is not None and (found.nats <= 2 * found.error or found.nats == 0)


def _cost(losses: Nats, untouched: Nats, trained_length: int) -> float:
    found = difference(losses[:trained_length], untouched[:trained_length])
    return math.inf if found is None else found.nats

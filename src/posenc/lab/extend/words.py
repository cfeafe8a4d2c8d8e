"""Writes the verdict on a run as a sentence, computed from its numbers."""

import math

from posenc.lab.drawing.words import HELD, number
from posenc.lab.extend.folder import Measured, Pass
from posenc.lab.extend.verdict import Verdict

NOT_FINISHED = "This run is not finished: no rule is recommended yet."


def recommendation(found: Verdict, measured: Measured) -> str:
    """The verdict with its reason."""
    passed, config = measured.passes[found.rule], measured.config
    if found.kind == "rule":
        return _take(found.rule, passed, measured)
    windows = f"the same tokens in windows of {config.trained_length:,}"
    if found.kind == "none needed":
        above = 100 * max(0.0, math.expm1(passed.worst or 0.0))
        return (
            f"none needed: without a rule, {config.label} has a {_spans(passed)} up to {config.length:,} tokens, at "
            f"most {above:.0f} % above the baseline ({windows})."
        )
    limit = f"within {100 * (HELD - 1):.0f} % of the baseline's perplexity (the untouched model on {windows})"
    if found.rule == "none":
        return f"none of them: without a rule the model does not stay {limit}, and no rule was tried."
    nats = [math.inf if one is None else one.nats for one in passed.above or ()]
    far, (first, last) = max(zip(nats, measured.bins, strict=True), key=lambda pair: pair[0])
    said = "no finite perplexity" if math.isinf(far) else f"{math.exp(min(far, 700.0)):.3g} times the baseline"
    return (
        f"none of them: no rule stays {limit}; the closest, {found.rule}, has {said} at positions {first:,} to "
        f"{last:,}. Train with it (--tune), or give a smaller --to."
    )


def _take(name: str, passed: Pass, measured: Measured) -> str:
    trained, cost = measured.config.trained_length, passed.cost
    price = "" if cost is None else f"; its cost within the first {trained:,} tokens is {cost.nats:+.2f} nats per token"
    return f"{name}: {_spans(passed)} up to {measured.config.length:,} tokens, {_elsewhere(passed, measured)}{price}."


def _elsewhere(passed: Pass, measured: Measured) -> str:
    """The untouched model's perplexity beyond its trained length, in the bin where it is worst relative to the rule."""
    trained = measured.config.trained_length
    both = zip(measured.bins, passed.perplexity, measured.passes["none"].perplexity, strict=True)
    pairs = [(theirs / own, own, theirs) for (first, _), own, theirs in both if first >= trained and own and theirs]
    if not pairs:
        return f"where the untouched model has no position past {trained:,}"
    _, own, theirs = max(pairs)
    return f"and {number(own, 1)} where the untouched model has {number(theirs, 1)}"


def _spans(passed: Pass) -> str:
    known = [value for value in passed.perplexity if value is not None]
    low, high = number(min(known), 1), number(max(known), 1)
    return f"perplexity of {low}" if low == high else f"perplexity of {low} to {high}"

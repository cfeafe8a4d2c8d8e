"""Writes the verdict on a run as a sentence, computed from its numbers."""

import math

from posenc.lab.drawing.words import HELD, number
from posenc.lab.extend.folder import Losses, Measured
from posenc.lab.extend.verdict import Bins, Verdict, difference, excess, perplexities, worst

NOT_FINISHED = "This run is not finished: no rule is recommended yet."


def recommendation(found: Verdict, measured: Measured) -> str:
    """The verdict with its reason."""
    if found.kind == "rule":
        return _take(found.rule, measured)
    if measured.baseline is None:
        raise ValueError("recommendation: got no baseline, expected the results of the untouched model.")
    above = excess(measured.losses[found.rule], measured.baseline, measured.bins)
    config = measured.config
    if found.kind == "none needed":
        return (
            f"none needed: without a rule, {config.label} has a {_spans(measured.losses['none'], measured.bins)} up to "
            f"{config.length:,} tokens, at most {_percent(worst(above))} above the baseline (the same tokens in "
            f"windows of {config.trained_length:,})."
        )
    limit = (
        f"within {100 * (HELD - 1):.0f} % of the baseline's perplexity (the untouched model on the same tokens in "
        f"windows of {config.trained_length:,})"
    )
    if found.rule == "none":
        return f"none of them: without a rule the model does not stay {limit}, and no rule was tried."
    nats = [math.inf if one is None else one.nats for one in above]
    far, (first, last) = max(nats), measured.bins[nats.index(max(nats))]
    said = "no finite perplexity" if math.isinf(far) else f"{math.exp(min(far, 700.0)):.3g} times the baseline"
    return (
        f"none of them: no rule stays {limit}; the closest, {found.rule}, has {said} at positions {first:,} to "
        f"{last:,}. Train with it (--tune), or give a smaller --to."
    )


def _take(name: str, measured: Measured) -> str:
    losses, trained = measured.losses[name], measured.config.trained_length
    cost = difference(losses[:trained], measured.losses["none"][:trained])
    price = "" if cost is None else f"; its cost within the first {trained:,} tokens is {cost.nats:+.2f} nats per token"
    return (
        f"{name}: {_spans(losses, measured.bins)} up to {measured.config.length:,} tokens, "
        f"{_elsewhere(name, measured)}{price}."
    )


def _elsewhere(name: str, measured: Measured) -> str:
    """The untouched model's perplexity beyond its trained length, in the bin where it is worst relative to the rule."""
    trained = measured.config.trained_length
    beyond = [one for one in measured.bins if one[0] >= trained]
    mine, untouched = (perplexities(measured.losses[which], beyond) for which in (name, "none"))
    pairs = [(theirs / own, own, theirs) for own, theirs in zip(mine, untouched, strict=True) if own and theirs]
    if not pairs:
        return f"where the untouched model has no position past {trained:,}"
    _, own, theirs = max(pairs)
    return f"and {number(own, 1)} where the untouched model has {number(theirs, 1)}"


def _spans(losses: Losses, bins: Bins) -> str:
    known = [value for value in perplexities(losses, bins) if value is not None]
    low, high = number(min(known), 1), number(max(known), 1)
    return f"perplexity of {low}" if low == high else f"perplexity of {low} to {high}"


def _percent(nats: float) -> str:
    return f"{100 * max(0.0, math.expm1(nats)):.0f} %"

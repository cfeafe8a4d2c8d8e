"""What a run found, in sentences computed from its numbers."""

import math
from collections.abc import Mapping, Sequence

from posenc.lab.extend.config import ExtendConfig
from posenc.lab.extend.verdict import HELD, Bins, Mean, Nats, Verdict, difference, mean, worst
from posenc.lab.run.config import Data

NOT_FINISHED = "This run is not finished: no rule is recommended yet."


def recommendation(
    found: Verdict, losses: Mapping[str, Nats], above: Sequence[Mean | None], bins: Bins, config: ExtendConfig
) -> str:
    """The verdict with its reason, in one sentence; ``above`` is what its rule is above the baseline in each bin."""
    if found.kind == "rule":
        return _take(found.rule, losses, bins, config)
    if found.kind == "none of them":
        return _refuse(found.rule, above, bins, config)
    return (
        f"none needed: as it is, {config.label} keeps {_spans(losses['none'], bins)} up to {config.length:,} tokens, "
        f"at most {_percent(worst(above))} above what it has on the same tokens within {config.trained_length:,}."
    )


def _take(name: str, losses: Mapping[str, Nats], bins: Bins, config: ExtendConfig) -> str:
    trained = config.trained_length
    cost = difference(losses[name][:trained], losses["none"][:trained])
    price = "" if cost is None else f", for {cost.nats:+.2f} nats within the first {trained:,}"
    return (
        f"{name}: keeps {_spans(losses[name], bins)} up to {config.length:,} tokens, "
        f"{_elsewhere(name, losses, bins, config)}{price}."
    )


def _elsewhere(name: str, losses: Mapping[str, Nats], bins: Bins, config: ExtendConfig) -> str:
    """What the untouched model does beyond its trained length, in the bin where it is worst against the rule."""
    beyond = [one for one in bins if one[0] >= config.trained_length]
    mine, untouched = (perplexities(losses[which], beyond) for which in (name, "none"))
    pairs = [(theirs / own, own, theirs) for own, theirs in zip(mine, untouched, strict=True) if own and theirs]
    if not pairs:
        return f"where the untouched model has no position past {config.trained_length:,}"
    _, own, theirs = max(pairs)
    return f"and at {_round(own)} where none rises to {_round(theirs)}"


def _refuse(name: str, above: Sequence[Mean | None], bins: Bins, config: ExtendConfig) -> str:
    limit = (
        f"within {100 * (HELD - 1):.0f} % of the perplexity that the untouched model has on the same tokens within "
        f"{config.trained_length:,}"
    )
    if name == "none":
        return f"none of them: as it is, the model does not stay {limit}, and no rule was tried."
    at = max(range(len(bins)), key=lambda index: math.inf if above[index] is None else above[index].nats)  # type: ignore[union-attr]
    far = worst(above)
    said = "has no number" if math.isinf(far) else f"has {math.exp(min(far, 700.0)):.3g} times that"
    return (
        f"none of them: no rule stays {limit}; the closest, {name}, {said} at {_place(bins[at])}. "
        "Train with it (--tune), or want fewer tokens."
    )


def _spans(losses: Nats, bins: Bins) -> str:
    known = [value for value in perplexities(losses, bins) if value is not None]
    low, high = _round(min(known)), _round(max(known))
    return f"perplexity at {low}" if low == high else f"perplexity at {low} to {high}"


def _round(value: float) -> str:
    if not math.isfinite(value):
        return "more than any number"
    return f"{value:.0f}" if 10 <= value < 1000 else f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def _percent(nats: float) -> str:
    return f"{100 * max(0.0, math.expm1(nats)):.0f} %"


def _place(one: Sequence[int]) -> str:
    return f"{one[0]:,} to {one[1]:,}"


def perplexities(losses: Nats, bins: Bins) -> list[float | None]:
    """Of each bin; None where there is no number."""
    found = [mean(losses[first:last]) for first, last in bins]
    return [None if one is None else perplexity(one.nats) for one in found]


def perplexity(nats: float) -> float:
    """exp, which beyond all numbers is infinite."""
    return math.exp(nats) if nats < 700 else math.inf


def _spread(error: float | None) -> str:
    """A standard error, or nothing where there are too few tokens for one."""
    return "" if error is None or not math.isfinite(error) else f" ± {error:.3f}"


def summary(results: Data) -> list[str]:
    """The run in a few sentences computed from its numbers; the first is the recommendation."""
    said = [results["verdict"]["sentence"]]
    trust = results["trust"]
    if trust is not None:
        said.append(
            f"Whether a rule holds at some distance, the probe and the full pass agree on {trust['agree']} of "
            f"{len(trust['points'])} cells; at the median they differ by {trust['difference']:.3f} nats."
        )
    for rule in results["rules"]:
        if rule["retrieval"]:
            answers = rule["retrieval"]
            right = sum(answer["correct"] for answer in answers)
            said.append(f"Retrieval with {rule['name']}: {right} of {len(answers)} answers are right.")
    if (tuned := results["tuned"]) is not None and tuned["lowered"]["beyond"] is not None:
        beyond = tuned["lowered"]["beyond"]
        verb = "lowered" if beyond["nats"] >= 0 else "raised"
        said.append(
            f"Training with {tuned['rule']} {verb} the loss beyond {results['config']['trained_length']:,} tokens by "
            f"{abs(beyond['nats']):.3f}{_spread(beyond['error'])} nats."
        )
    return said

"""The results of a run of ``posenc extend``, computed from its folder alone: the content of ``results.json``."""

import math
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from posenc.lab.drawing.words import HELD
from posenc.lab.extend import config as files
from posenc.lab.extend import words
from posenc.lab.extend.config import ExtendConfig, load_config, retrieval_file, rule_folder
from posenc.lab.extend.flags import flags
from posenc.lab.extend.folder import Losses, Measured, Pass, Probe, Probed, read_pass, rule_of
from posenc.lab.extend.gaps import Gaps
from posenc.lab.extend.retrieval import TASKS, Retrieval
from posenc.lab.extend.verdict import Bins, Mean, difference, mean, perplexities
from posenc.lab.run import folder as runs
from posenc.lab.run.config import NO_COMMAND, Data, read, to_dict

POINTS = 48
"""Points of a curve by position."""


class Lowered(msgspec.Struct):
    """The decrease of the loss by training, in nats, within the trained length and beyond it."""

    within: Mean | None
    beyond: Mean | None


class Tuned(Pass, kw_only=True):
    """The full pass of the model after training with a rule, and the ``report`` of the training."""

    rule: str
    report: Data | None
    lowered: Lowered


class Rule(msgspec.Struct):
    """The results of a rule; None for what was not measured."""

    name: str
    rule: Data | str | None
    probe: Probe | None
    passed: Pass | None = msgspec.field(name="pass")
    retrieval: list[Retrieval] | None


class Answers(msgspec.Struct):
    """The file of a task of retrieval."""

    answers: list[Retrieval]


class Recommendation(msgspec.Struct):
    """The verdict, and a sentence that gives its reason."""

    kind: Literal["rule", "none needed", "none of them", "not finished"]
    rule: str | None
    sentence: str


class Curves(msgspec.Struct):
    """Nats by position, each the mean of neighbouring tokens; ``windows`` is the baseline."""

    positions: list[float]
    rules: dict[str, list[float | None]]
    windows: list[float | None] | None


class Point(msgspec.Struct):
    """Nats above the baseline for the same rule and gap, from the probe and from the full pass."""

    rule: str
    gap: int
    probe: float
    passed: float = msgspec.field(name="pass")


class Trust(msgspec.Struct):
    """Probe against full pass: ``agree`` points agree on whether the rule holds; ``difference`` is the median one."""

    points: list[Point]
    agree: int
    difference: float


class Search(msgspec.Struct):
    """The result of the search for LongRoPE factors: see :func:`posenc.lab.extend.search.search`."""

    factors: list[float]
    loss: float
    start_loss: float
    evaluations: int
    best: list[float]


class Results(msgspec.Struct, kw_only=True):
    """The content of ``results.json``. The file has null for an infinite number or NaN."""

    run: str
    config: ExtendConfig
    command: str
    environment: Data
    bins: Bins
    windows: list[float | None] | None
    rules: list[Rule]
    probe: Gaps | None
    finished: bool
    verdict: Recommendation
    curves: Curves
    trust: Trust | None
    search: Search | None
    tuned: Tuned | None
    flags: dict[str, str] | None
    summary: list[str] = []

    @property
    def probed(self) -> Probed:
        return Probed({rule.name: rule.probe for rule in self.rules if rule.probe}, self.config.trained_length)

    @property
    def rows(self) -> dict[str, Pass]:
        """The rules that had the full pass, and the rule of the training."""
        found = {rule.name: rule.passed for rule in self.rules if rule.passed}
        return found if self.tuned is None else {**found, f"{self.tuned.rule} tuned": self.tuned}

    def to_dict(self) -> Data:
        """As plain data, for JSON."""
        return to_dict(files.KIND, self) | {"config": self.config.to_dict()}


def collect(run: Path) -> Results:
    """Collect the results of a run, finished or not.

    Raises:
        RunError: the folder is no run of ``posenc extend``, has another format, or contains a damaged file.
    """
    config = load_config(run)
    measured = Measured.read(run, config)
    environment, search = run / runs.ENVIRONMENT, run / files.SEARCH
    verdict = _recommendation(measured)
    results = Results(
        run=run.resolve().name,
        config=config,
        command=config.command or NO_COMMAND,
        environment=runs.read_json(environment) if environment.exists() else {},
        bins=measured.bins,
        windows=None if measured.baseline is None else perplexities(measured.baseline, measured.bins),
        rules=[_rule(measured, name) for name in measured.rules],
        probe=measured.probed.plan if measured.probed.probes else None,
        finished=not measured.lacks(),
        verdict=verdict,
        curves=_curves(measured),
        trust=_trust(measured),
        search=read(search, Search) if search.exists() else None,
        tuned=_tuned(measured),
        flags=None if verdict.rule is None else _flags(measured, verdict.rule),
    )
    results.summary = _summary(results)
    return results


def _rule(measured: Measured, name: str) -> Rule:
    run = measured.run
    candidate = rule_folder(run, name) / files.CANDIDATE
    asked = [path for task in TASKS if (path := retrieval_file(run, name, task)).exists()]
    return Rule(
        name,
        runs.read_json(candidate).get("rule") if candidate.exists() else None,
        measured.probed.probes.get(name),
        measured.passes.get(name),
        [answer for path in asked for answer in read(path, Answers).answers] or None,
    )


def _recommendation(measured: Measured) -> Recommendation:
    if measured.baseline is None or measured.lacks():
        return Recommendation("not finished", None, words.NOT_FINISHED)
    found = measured.verdict()
    return Recommendation(found.kind, found.rule, words.recommendation(found, measured))


def _curves(measured: Measured) -> Curves:
    """Smoothed curves by position: means over some hundred tokens, in nats."""
    length = measured.config.length
    edges = np.linspace(0, length - 1, min(POINTS, max(2, length // 4)) + 1).round().astype(int)
    parts = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))

    def curve(losses: Losses) -> list[float | None]:
        found = [mean(losses[first:last]) for first, last in parts]
        return [None if one is None or not math.isfinite(one.nats) else one.nats for one in found]

    return Curves(
        [(first + last) / 2 for first, last in parts],
        {name: curve(losses) for name, losses in measured.losses.items()},
        None if measured.baseline is None else curve(measured.baseline),
    )


def _trust(measured: Measured) -> Trust | None:
    """Compare the probe with the full pass, for each rule and gap that both have measured.

    Both are nats above a baseline. The probe's baseline is the untouched model at the largest gap whose blocks end
    within the trained length (or the gap itself, if it is smaller). The full pass is averaged over the tokens before
    the end of the blocks: an eighth of the trained length, or as many as there are. The untouched model within its
    trained length has zero in both by definition, and is left
    out. They agree if both say that the rule holds there, or both that it does not.
    """
    probed, baseline, trained = measured.probed, measured.baseline, measured.config.trained_length
    if baseline is None or "none" not in probed.probes:
        return None
    plan, homes = probed.plan, probed.baseline()
    points = []
    for name, losses in measured.losses.items():
        for at, gap in enumerate(plan.gaps):
            if name not in probed.probes or (name == "none" and at <= probed.within):
                continue
            end = gap + 2 * plan.block
            first = max(0, end - max(1, trained // 8))
            found = difference(losses[first:end], baseline[first:end])
            home, nats = homes[at], probed.probes[name].mean[at]
            if found is not None and home is not None and nats is not None:
                points.append(Point(name, gap, nats - home, found.nats))
    if not points:
        return None
    limit = math.log(HELD)
    return Trust(
        points,
        sum((point.probe <= limit) == (point.passed <= limit) for point in points),
        float(np.median([abs(point.probe - point.passed) for point in points])),
    )


def _tuned(measured: Measured) -> Tuned | None:
    """The effect of training: the full pass of the model with its rule, before and after."""
    trained = measured.config.trained_length
    for name, before in measured.losses.items():
        folder = rule_folder(measured.run, name) / files.TUNED
        if (folder / files.PASS).exists():
            after, seconds = read_pass(folder / files.PASS)
            report = folder / files.TUNE_REPORT
            return Tuned(
                **msgspec.structs.asdict(measured.passed(after, seconds, measured.losses.get("none"))),
                rule=name,
                report=runs.read_json(report) if report.exists() else None,
                lowered=Lowered(
                    difference(before[:trained], after[:trained]), difference(before[trained:], after[trained:])
                ),
            )
    return None


def _flags(measured: Measured, name: str) -> dict[str, str]:
    """The flags of other programs for a rule."""
    config = measured.config
    return flags(
        rule_of(measured.run, name),
        trained_length=config.trained_length,
        length=config.length,
        rotary_dim=config.rotary_dim,
        head_dim=config.head_dim,
        factors=config.factors,
    )


def _summary(results: Results) -> list[str]:
    """The results in a few sentences; the first is the recommendation."""
    said = [results.verdict.sentence]
    if (trust := results.trust) is not None:
        said.append(
            f"Whether a rule holds at some distance, the probe and the full pass agree on {trust.agree} of "
            f"{len(trust.points)} cells; at the median they differ by {trust.difference:.3f} nats."
        )
    for rule in results.rules:
        if answers := rule.retrieval:
            right = sum(answer.correct for answer in answers)
            said.append(f"Retrieval with {rule.name}: {right} of {len(answers)} answers are right.")
    if results.tuned is not None and (beyond := results.tuned.lowered.beyond) is not None:
        verb = "lowered" if beyond.nats >= 0 else "raised"
        error = f" ± {beyond.error:.3f}" if math.isfinite(beyond.error) else ""
        said.append(
            f"Training with {results.tuned.rule} {verb} the loss beyond {results.config.trained_length:,} tokens by "
            f"{abs(beyond.nats):.3f}{error} nats."
        )
    return said

"""Reads the folder of a run of ``posenc extend``: the results so far, and the work that is left."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from posenc.frequencies import Frequencies
from posenc.lab.drawing.words import names
from posenc.lab.extend import config as files
from posenc.lab.extend.candidates import Setting
from posenc.lab.extend.config import ExtendConfig, rule_folder
from posenc.lab.extend.gaps import Gaps
from posenc.lab.extend.passes import position_bins
from posenc.lab.extend.verdict import Bins, Mean, Verdict, decide, difference, excess, holds, perplexities, worst
from posenc.lab.run import folder as runs
from posenc.lab.run.config import read
from posenc.lab.run.errors import RunError

Losses = NDArray[np.float32]


class Probe(msgspec.Struct, kw_only=True):
    """The gap probe of a rule.

    Attributes:
        gaps, block, scored, places: as in :class:`Gaps`.
        losses: nats for each gap and place; None where the loss is NaN.
        seconds: the time that it took.
        mean: the mean over the places, for each gap.
        score: the mean of all losses; None if one is missing.
    """

    gaps: tuple[int, ...]
    block: int
    scored: int
    places: int
    losses: list[list[float | None]]
    seconds: float | None = None
    mean: list[float | None] = []
    score: float | None = None

    def __post_init__(self) -> None:
        if [len(row) for row in self.losses] != [self.places] * len(self.plan.gaps):
            raise ValueError(f"expected a loss for each of {len(self.gaps)} gaps and {self.places} places")
        cells = np.array(self.losses, dtype=np.float64)  # None is NaN
        self.mean = [None if np.isnan(row).any() else float(row.mean()) for row in cells]
        self.score = None if np.isnan(cells).any() else float(cells.mean())

    @property
    def plan(self) -> Gaps:
        return Gaps(self.gaps, self.block, self.scored, self.places)


@dataclass(frozen=True)
class Probed:
    """The probes of some rules, all with the same gaps."""

    probes: Mapping[str, Probe]
    trained_length: int

    @property
    def plan(self) -> Gaps:
        return next(iter(self.probes.values())).plan

    def ranked(self) -> list[tuple[str, Probe]]:
        """ "none", then from the rule with the lowest score."""

        def rank(name: str) -> tuple[bool, float]:
            score = self.probes[name].score
            return name != "none", math.inf if score is None else score

        return [(name, self.probes[name]) for name in sorted(self.probes, key=rank)]

    @property
    def within(self) -> int:
        """The index of the largest gap whose blocks end within the trained length; the first gap if there is none."""
        ends = [gap + 2 * self.plan.block for gap in self.plan.gaps]
        return max((at for at, end in enumerate(ends) if end <= self.trained_length), default=0)

    def baseline(self) -> list[float | None]:
        """For each gap, the loss of the untouched model there, or at the largest gap within its trained length."""
        if "none" not in self.probes:
            return [None] * len(self.plan.gaps)
        untouched = self.probes["none"].mean
        return [untouched[min(at, self.within)] for at in range(len(untouched))]


class Pass(msgspec.Struct, kw_only=True):
    """The full pass of a rule.

    Attributes:
        perplexity: for each range of positions; None if it is not finite.
        above: nats above the baseline, for each range.
        holds: whether the rule holds, that is, stays near the baseline in all ranges.
        worst: the largest value of ``above``.
        cost: nats above the untouched model within the trained length.
        gain: nats below the baseline beyond the trained length.
        seconds: the time that it took.
    """

    perplexity: list[float | None]
    above: list[Mean | None] | None
    holds: bool | None
    worst: float | None
    cost: Mean | None
    gain: Mean | None
    seconds: float


@dataclass(frozen=True)
class Measured:
    """The measurements of a run so far.

    Attributes:
        run: its folder.
        config: its configuration.
        rules: the names of the rules, including a rule that the search found.
        probed: the probes so far.
        losses: for each rule with a full pass, (length - 1,) nats.
        seconds: the time that these passes took.
        baseline: the losses of the untouched model within the trained length, and beyond it in windows of that length.
    """

    run: Path
    config: ExtendConfig
    rules: list[str]
    probed: Probed
    losses: dict[str, Losses] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    baseline: Losses | None = None

    @classmethod
    def read(cls, run: Path, config: ExtendConfig) -> Self:
        """Read the folder.

        Raises:
            RunError: a damaged file.
        """
        rules = [*config.rules]
        if config.search and (rule_folder(run, "longrope") / files.CANDIDATE).exists() and "longrope" not in rules:
            rules.append("longrope")
        probes = {name: rule_folder(run, name) / files.PROBE for name in rules}
        passes = {name: rule_folder(run, name) / files.PASS for name in rules}
        read_passes = {name: read_pass(path) for name, path in passes.items() if path.exists()}
        losses = {name: nats for name, (nats, _) in read_passes.items()}
        baseline = None
        if "none" in losses and (run / files.WINDOWS).exists():
            baseline = losses["none"].copy()
            baseline[config.trained_length :] = read_pass(run / files.WINDOWS)[0]
        return cls(
            run,
            config,
            rules,
            Probed({name: read(path, Probe) for name, path in probes.items() if path.exists()}, config.trained_length),
            losses,
            {name: seconds for name, (_, seconds) in read_passes.items()},
            baseline,
        )

    @cached_property
    def bins(self) -> Bins:
        """The ranges of positions over which losses are averaged."""
        return position_bins(self.config.trained_length, self.config.length)

    @cached_property
    def passes(self) -> dict[str, Pass]:
        """The full passes, by rule."""
        untouched = self.losses.get("none")
        others = {name: None if name == "none" else untouched for name in self.losses}
        return {name: self.passed(self.losses[name], self.seconds[name], other) for name, other in others.items()}

    def passed(self, losses: Losses, seconds: float, untouched: Losses | None) -> Pass:
        """A full pass, compared with the untouched model, and with the baseline if it is measured."""
        trained, baseline = self.config.trained_length, self.baseline
        above = None if baseline is None else excess(losses, baseline, self.bins)
        return Pass(
            perplexity=perplexities(losses, self.bins),
            above=above,
            holds=None if above is None else holds(above),
            worst=None if above is None else worst(above),
            cost=None if untouched is None else difference(losses[:trained], untouched[:trained]),
            gain=None if untouched is None else difference(untouched[trained:], losses[trained:]),
            seconds=seconds,
        )

    def finalists(self) -> list[str]:
        """The rules that get the full pass: "none", then the best by the probe, or all that the user named."""
        if self.config.chosen:
            return ["none", *(name for name in self.rules if name != "none")]
        return ["none", *[name for name, _ in self.probed.ranked() if name != "none"][: self.config.full]]

    def lacks(self) -> list[str]:
        """The work that is left, in words."""
        lacking = []
        if self.config.search and not (self.run / files.SEARCH).exists():
            lacking.append("the search")
        if waiting := [name for name in self.rules if name not in self.probed.probes]:
            lacking.append(f"the probe of {names(waiting)}")
        elif passing := [name for name in self.finalists() if name not in self.losses]:
            lacking.append(f"the full pass of {names(passing)}")
        if not (self.run / files.WINDOWS).exists():
            lacking.append("the pass in windows")
        return lacking

    def verdict(self) -> Verdict:
        """Decide among the rules that had their full pass.

        Raises:
            RunError: the untouched model has no full pass yet.
        """
        if self.baseline is None:
            raise RunError(
                f"{self.run}: the run is not finished, so no rule has been chosen yet; continue the run first."
            )
        return decide(self.losses, self.baseline, self.bins, trained_length=self.config.trained_length)

    def chosen(self) -> str:
        """The rule to save or to train with: the only one that the user named, else the recommended or closest one."""
        tried = [name for name in self.rules if name != "none"]
        return tried[0] if self.config.chosen and len(tried) == 1 else self.verdict().rule


def read_pass(path: Path) -> tuple[Losses, float]:
    """Read the losses of a full pass, and its time in seconds."""
    tensors = runs.load_tensors(path)
    if missing := {"nats", "seconds"} - tensors.keys():
        raise RunError(f"{path}: there is no tensor {sorted(missing)[0]!r}; the file is damaged.")
    return tensors["nats"].numpy(), float(tensors["seconds"])


def rule_of(run: Path, name: str) -> Setting:
    """Read the rule of this name from the run."""
    path = rule_folder(run, name) / files.CANDIDATE
    candidate = runs.read_json(path)
    rule = candidate.get("rule", "")
    if not (rule is None or rule == "interpolate" or isinstance(rule, Mapping)):
        raise RunError(f"{path}: expected a rule, got none; the file is damaged.")
    try:
        return Frequencies.from_dict(rule) if isinstance(rule, Mapping) else rule
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path}: {error}; the file is damaged.") from error

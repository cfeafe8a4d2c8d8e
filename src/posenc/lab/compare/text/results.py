"""The results of a run of ``posenc compare``, computed from its folder alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

import posenc
from posenc.lab.compare.results import two_errors
from posenc.lab.compare.text.config import Given, RunConfig, load_config
from posenc.lab.compare.text.continuation import Parts, parts
from posenc.lab.compare.text.folder import PROTOCOLS, Protocol, Seed, encodings_of, read_trial
from posenc.lab.drawing.words import BROKE, HELD, names, times
from posenc.lab.encodings import road
from posenc.lab.encodings.properties import Properties, measure
from posenc.lab.run import folder as runs
from posenc.lab.run.config import NO_COMMAND, Data, read, to_dict


class Cell(msgspec.Struct):
    """Perplexity at one length, over the seeds; or the reason why there is none; or neither if no seed is that far."""

    length: int
    values: list[float]
    refused: str | UnsetType = UNSET
    mean: float | UnsetType = UNSET
    spread: float | UnsetType | None = UNSET


class Speed(msgspec.Struct):
    """The entry of ``speed.json`` for an encoding."""

    seconds_per_step: float
    relative_to_none: float


class Entry(msgspec.Struct, kw_only=True):
    """The results of one encoding. Cells are indexed by protocol and by the multiple of the trained length."""

    label: str
    spec: str
    state: str
    perplexity: dict[Protocol, dict[int, Cell]]
    parameters_added: int | None
    speed: Speed | None
    continuation: Parts | None
    seeds: list[Seed]

    @property
    def refused(self) -> str:
        """The reason why it cannot read the longest texts, or None."""
        return next((cell.refused for cell in self.perplexity["last"].values() if cell.refused), "")


@dataclass(frozen=True, kw_only=True)
class Described(Properties):
    """The properties of an encoding, measured without training, and its step on the way from integers to ALiBi."""

    relative: bool
    max_positions: int | None
    step: road.Step


class NotBuilt(msgspec.Struct):
    """The reason why an encoding cannot be built here."""

    why_not: str


class Results(msgspec.Struct, kw_only=True):
    """The content of ``results.json``; ``written`` is the content of the run's config file, stored there as
    ``config``."""

    run: str
    config: RunConfig
    written: Data
    command: str
    environment: Data
    encodings: list[Entry]
    finished: bool
    summary: list[str] = []
    properties: dict[str, Described | NotBuilt] = {}

    @property
    def factors(self) -> tuple[int, ...]:
        """The evaluated multiples of the trained length."""
        return self.config.evaluate.factors

    def to_dict(self) -> Data:
        """As plain data, for JSON."""
        plain = to_dict("compare", self)
        plain["config"] = plain.pop("written")
        return plain


def collect(run: Path, encodings: Mapping[str, posenc.Encoding | str] | None = None) -> Results:
    """Collect the results that the report shows.

    ``encodings`` are those of :func:`encodings_of`, if they were built already.

    Raises:
        RunError: a folder without a config, a damaged file in it, a run of another job or another format.
    """
    results = measured(run)
    results.properties = _properties(results.config, encodings_of(run) if encodings is None else encodings)
    return results


def measured(run: Path) -> Results:
    """The measured results: perplexity, loss, speed, parameters."""
    config = load_config(run)
    speeds = read(run / runs.SPEED, dict[str, Speed]) if (run / runs.SPEED).exists() else {}
    folders = [runs.of_trial(run, given.label, seed) for given in config.encodings for seed in config.seeds]
    environments = [path for folder in folders if (path := folder / runs.ENVIRONMENT).exists()]
    encodings = [_entry(run, given, config, speeds.get(given.label)) for given in config.encodings]
    results = Results(
        run=run.resolve().name,
        config=config,
        written=runs.read_json(run / runs.CONFIG),
        command=config.command or NO_COMMAND,
        environment=runs.read_json(environments[0]) if environments else {},
        encodings=encodings,
        finished=all(entry.state == "done" for entry in encodings),
    )
    results.summary = summary(results)
    return results


def _entry(run: Path, given: Given, config: RunConfig, speed: Speed | None) -> Entry:
    trials = [read_trial(runs.of_trial(run, given.label, seed), seed, config) for seed in config.seeds]
    seeds, written = [seed for seed, _ in trials], trials[0][1]
    return Entry(
        label=given.label,
        spec=given.spec,
        state=seeds[0].state if len({seed.state for seed in seeds}) == 1 else "unfinished",
        perplexity={protocol: _over_seeds(seeds, protocol) for protocol in PROTOCOLS},
        parameters_added=next((seed.parameters_added for seed in seeds if seed.state == "done"), None),
        speed=speed,
        continuation=parts(run, written, config.train.length) if written else None,
        seeds=seeds,
    )


def growth(entry: Entry, results: Results, protocol: Protocol = "last") -> tuple[int, float] | None:
    """(factor, ratio of the perplexity there to that at the trained length) for the longest length that was evaluated.

    By default with the last-tokens protocol, in which every length scores the same tokens. Infinite if
    the perplexity is infinite; None if there is nothing to compare.
    """
    found = {
        factor: cell.mean
        for factor in results.factors
        if (cell := entry.perplexity[protocol].get(factor)) is not None and cell.mean is not UNSET
    }
    if len(found) < 2 or not found.get(1):
        return None
    return max(found), found[max(found)] / found[1] if math.isfinite(found[max(found)]) else math.inf


def verdict(entry: Entry, results: Results, protocol: Protocol = "last") -> Literal["held", "rose", "broke", "unclear"]:
    """A word for the change of the perplexity from the trained length to the longest one.

    With several seeds, the mean of the log ratios decides; within two standard errors of a limit it is "unclear"
    (``HELD``, ``BROKE``). With one seed there is no error estimate, and the ratio itself decides.
    """
    cells = entry.perplexity[protocol]
    known = {factor: cells[factor].values for factor in results.factors if factor in cells and cells[factor].values}
    if len(known) < 2 or 1 not in known or len(known[max(known)]) != len(known[1]):
        return "unclear"
    pairs = zip(known[max(known)], known[1], strict=True)
    logs = [math.log(far / near) if math.isfinite(far) else math.inf for far, near in pairs]
    middle = float(np.mean(logs))
    if not math.isfinite(middle):
        return "broke"
    error = two_errors(logs)
    if middle + error <= math.log(HELD):
        return "held"
    if middle - error >= math.log(BROKE):
        return "broke"
    return "rose" if middle - error > math.log(HELD) and middle + error < math.log(BROKE) else "unclear"


def summary(results: Results) -> list[str]:
    """The result of the run in a few sentences, computed from its numbers."""
    length, seeds = results.config.train.length, len(results.config.seeds)
    said = []
    if unfinished := [entry.label for entry in results.encodings if entry.state != "done"]:
        verb = "is" if len(unfinished) == 1 else "are"
        said.append(f"This run is not finished: {names(unfinished)} {verb} still to be trained to the end.")
    longest = max(results.factors)
    groups: dict[str, list[tuple[float, str]]] = {"held": [], "rose": [], "broke": [], "unclear": []}
    for entry in results.encodings:
        grown = growth(entry, results)
        if grown is not None and grown[0] == longest and not entry.refused:
            groups[verdict(entry, results)].append((grown[1], entry.label))
    parts = []
    verbs = {"held": "hold", "rose": "rise", "broke": "break"}
    limits = {"held": f" (up to {times(HELD)})", "rose": "", "broke": f" (from {times(BROKE)} on)"}
    for kind, verb in verbs.items():
        if members := _with_ratios(groups[kind]):
            parts.append(f"{names(members)} {verb}{'s' * (len(members) == 1)}{limits[kind]}")
    if members := _with_ratios(groups["unclear"]):
        parts.append(f"the seeds of {names(members)} differ too much to tell")
    if parts:
        far = longest * length
        said.append(
            f"Trained on {length} tokens and read at {far}. In brackets, the perplexity at {far} divided by that at "
            f"{length}: {'; '.join(parts)}."
        )
    by_end: dict[int, list[str]] = {}
    for entry in results.encodings:
        if entry.refused:
            read = [cell.length for cell in entry.perplexity["last"].values() if not cell.refused]
            by_end.setdefault(max(read, default=length), []).append(entry.label)
    for end, labels in by_end.items():
        verb = "have" if len(labels) > 1 else "has"
        where = "the trained length" if end == length else f"{end} tokens, {end // length} times the trained length,"
        said.append(f"{names(labels)} {verb} no code past {where} and cannot go further.")
    for protocol in reversed(PROTOCOLS):
        known = ranked(results, protocol, 1)
        if len(known) > 1:
            (low, best), (high, worst) = known[0], known[-1]
            said.append(
                f"At the trained length itself {best} was best with a perplexity of {low:.2f} and {worst} last with "
                f"{high:.2f}."
            )
            break
    if seeds == 1 and len(results.encodings) > 1:
        said.append("With one seed, differences of a few per cent between two encodings may be noise.")
    elif seeds > 1:
        said.append(f"Numbers are means over {seeds} seeds, ± one standard deviation between them.")
    return said


def _with_ratios(group: list[tuple[float, str]]) -> list[str]:
    return [f"{label} ({times(ratio)})" for ratio, label in sorted(group)]


def ranked(results: Results, protocol: Protocol, factor: int) -> list[tuple[float, str]]:
    """Mean perplexity and label of each encoding that has a value there, from the lowest."""
    cells = {entry.label: entry.perplexity[protocol].get(factor) for entry in results.encodings}
    return sorted(
        (cell.mean, label)
        for label, cell in cells.items()
        if cell is not None and cell.mean is not UNSET and math.isfinite(cell.mean)
    )


def _over_seeds(seeds: Sequence[Seed], protocol: Protocol) -> dict[int, Cell]:
    cells = {}
    for factor in sorted({factor for seed in seeds for factor in seed.evaluate[protocol]}):
        found = [seed.evaluate[protocol][factor] for seed in seeds if factor in seed.evaluate[protocol]]
        values = [row.perplexity for row in found if row.perplexity is not None and row.perplexity is not UNSET]
        cell = cells[factor] = Cell(found[0].length, values)
        if refused := [row.refused for row in found if row.refused]:
            cell.refused = refused[0]
        elif values:
            cell.mean = float(np.mean(values))
            cell.spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return cells


def _properties(config: RunConfig, encodings: Mapping[str, posenc.Encoding | str]) -> dict[str, Described | NotBuilt]:
    found: dict[str, Described | NotBuilt] = {}
    for label, encoding in encodings.items():
        if isinstance(encoding, str):
            found[label] = NotBuilt(encoding)
            continue
        properties = measure(encoding, dim=config.model.dim, num_heads=config.model.num_heads)
        found[label] = Described(
            **vars(properties),
            relative=encoding.relative,
            max_positions=encoding.max_positions,
            step=road.step(encoding),
        )
    return found

"""The results of a task run, computed from its folder alone."""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from posenc.lab.compare.folder import KIND, TaskConfig, TrialResult, trials
from posenc.lab.compare.task import Task
from posenc.lab.drawing.words import names
from posenc.lab.run import folder as runs
from posenc.lab.run.config import Data, read, to_dict
from posenc.lab.run.errors import RunError

HOLDS = 0.9  # smallest share of the value at the trained size, at every other size, that counts as holding
NEAR = 0.8  # of the best value at the trained size: who is worse has learned too little for "holds" to mean anything


class Cell(msgspec.Struct):
    """The values at one size, one for each seed; None for a value that is missing, with the reason."""

    values: list[float | None]
    trained: bool
    note: str = ""


class Row(msgspec.Struct):
    """One measured unit of an encoding, used in one way and trained at one length. ``row`` is the name of the row."""

    row: str
    unit: str
    encoding: str
    way: str
    length: int
    sizes: dict[str, Cell]


class Results(msgspec.Struct, kw_only=True):
    """The content of ``results.json``. ``units`` says for each unit whether more is better. ``examples`` has, for each
    input, the output of each encoding. ``losses`` has pairs (step, loss) for each encoding and seed."""

    task: str
    title: str
    units: dict[str, bool]
    expected: str
    config: TaskConfig
    rows: list[Row]
    examples: dict[str, dict[str, str]]
    losses: dict[str, list[list[tuple[int, float]]]]
    summary: list[str] = []

    def to_dict(self) -> Data:
        """As plain data, for JSON."""
        return to_dict(KIND, self) | {"config": to_dict(KIND, self.config)}

    def of(self, unit: str, length: int | None = None) -> list[Row]:
        """The rows of one unit, optionally of one trained length."""
        return [row for row in self.rows if row.unit == unit and length in (None, row.length)]


def collect(run: Path, task: Task, config: TaskConfig) -> Results:
    """Collect all measurements of a run.

    Raises:
        RunError: a trial of the run is not done, or its result is damaged.
    """
    lacking = [folder for *_, folder in trials(run, config) if not (folder / runs.RESULTS).exists()]
    if lacking:
        every = sum(1 for _ in trials(run, config))
        raise RunError(
            f"{run}: {len(lacking)} of {every} trials are not done; continue with: "
            f"{shlex.join(['posenc', 'compare', '--resume', str(run)])}"
        )
    rows: dict[tuple[str, str], Row] = {}
    examples: dict[str, dict[str, str]] = {}
    losses: dict[str, list[list[tuple[int, float]]]] = {}
    for label, length, seed, folder in trials(run, config):
        result = read(folder / runs.RESULTS, TrialResult)
        encoding = f"{label}, length {length}" if len(config.lengths) > 1 else label
        losses.setdefault(encoding, []).append(result.losses)
        for example in result.examples if seed == config.seeds[0] else ():
            examples.setdefault(example.given, {})[encoding] = example.written
        for m in result.measurements:
            name, unit = f"{encoding}, {m.row}" if m.row else encoding, m.unit or task.unit
            row = rows.setdefault((unit, name), Row(name, unit, label, m.row, length, {}))
            cell = row.sizes.setdefault(m.size, Cell([], m.trained, m.note))
            cell.values.append(m.value if m.value is None or math.isfinite(m.value) else None)
    units = {task.unit: task.more_is_better, **task.other_units}
    results = Results(
        task=config.task,
        title=task.title,
        units={unit: more for unit, more in units.items() if any(row.unit == unit for row in rows.values())},
        expected=task.expected,
        config=config,
        rows=list(rows.values()),
        examples=examples,
        losses=losses,
    )
    results.summary = summary(results)
    return results


def sizes_of(rows: list[Row]) -> dict[str, bool]:
    """The columns of a table, and for each whether all rows with a value there were trained at that size."""
    cells: dict[str, list[bool]] = {}
    for row in rows:
        for size, cell in row.sizes.items():
            cells.setdefault(size, []).append(cell.trained)
    return {size: all(trained) for size, trained in cells.items()}


def known(cell: Cell | None) -> list[float] | None:
    """The values of all seeds; None if one is missing."""
    values = [] if cell is None else [value for value in cell.values if value is not None]
    return values if cell is not None and values and len(values) == len(cell.values) else None


def mean(cell: Cell | None) -> float | None:
    """The mean over seeds; None if a seed has no value."""
    values = known(cell)
    return None if values is None else float(np.mean(values))


def summary(results: Results) -> list[str]:
    """Sentences on which encoding is best at the trained size and which hold beyond it, as far as the seeds allow."""
    lines = []
    lengths = results.config.lengths
    for unit, more_is_better in results.units.items():
        for length in lengths:
            said = _about(results.of(unit, length), unit, more_is_better)
            if said and len(lengths) > 1:
                said[0] = f"Trained at {length}: {said[0][0].lower()}{said[0][1:]}"
            lines += said
    if len(results.config.seeds) == 1:
        lines.append("One seed: small differences may be noise.")
    return lines


def _about(rows: list[Row], unit: str, more: bool) -> list[str]:
    trained = {_quoted(row): values for row in rows if (values := known(_at_trained(row))) is not None}
    if not trained:
        return []
    better = max if more else min
    best, said = _best(trained, better)
    lines = [f"At the trained size {best} is best: {said[0]} {unit}{said[1]}"]
    past = {_quoted(row): p for row in rows if _quoted(row) in trained and (p := _past(row)) is not None}
    if not past:
        return lines
    first, said = _best({name: np.mean(sizes, axis=0).tolist() for name, sizes in past.items()}, better)
    lines.append(f"Past it {first} is best: {said[0]} {unit}, the mean of its sizes{said[1]}")
    limit = NEAR * float(np.mean(trained[best]))
    learned = [name for name in past if not more or np.mean(trained[name]) >= limit]
    worst = {name: (np.min if more else np.max)(past[name], axis=0).tolist() for name in learned}
    kept = {name: holds(worst[name], trained[name], more) for name in learned}
    lines.append(
        f"Within a tenth of its value at the trained size at every size: {names(held)}."
        if (held := [name for name, kind in kept.items() if kind == "yes"])
        else "No row stays within a tenth of its value at the trained size at every size."
    )
    if unclear := [name for name, kind in kept.items() if kind == "unclear"]:
        lines.append(f"Within two standard errors of that limit: {names(unclear)}.")
    return lines


def _quoted(row: Row) -> str:
    """The name of a row for use in a sentence: in quotation marks if it contains a comma."""
    return f"\u201c{row.row}\u201d" if "," in row.row else row.row


def _best(values: Mapping[str, list[float]], better: Callable[..., str]) -> tuple[str, tuple[str, str]]:
    """The row with the best mean, that mean, and the rows that may be as good."""
    best = better(values, key=lambda name: float(np.mean(values[name])))
    others = [name for name in values if name != best and _may_be_as_good(values[name], values[best])]
    verb = "is" if len(others) == 1 else "are"
    return best, (_said(values[best]), f"; {names(others)} {verb} not distinguishable from it." if others else ".")


def two_errors(values: Sequence[float] | np.ndarray[Any, Any]) -> float:
    """Two standard errors of the mean over the seeds; 0 for a single seed, whose error is unknown."""
    return float(2 * np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def holds(past: list[float], trained: list[float], more: bool) -> Literal["yes", "no", "unclear"]:
    """Whether the values beyond the trained size stay within a tenth of the trained size's values, seed by seed.

    With several seeds, the mean difference from the limit decides; within two standard errors of 0 it is unclear.
    """
    room = np.asarray(past) - HOLDS * np.asarray(trained) if more else np.asarray(trained) / HOLDS - np.asarray(past)
    if abs(room.mean()) < two_errors(room):
        return "unclear"
    return "yes" if room.mean() >= 0 else "no"


def shown(cell: Cell | None) -> str:
    """The mean and, for several seeds, half the range."""
    values = known(cell)
    if values is None:
        return "past its table" if cell and "got position" in cell.note else "-"
    return _said(values)


def _said(values: list[float]) -> str:
    value = float(np.mean(values))
    digits = 1 if abs(value) >= 10 else 2
    spread = f" ± {(max(values) - min(values)) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{value:.{digits}f}{spread}"


def _at_trained(row: Row) -> Cell | None:
    return next((cell for cell in row.sizes.values() if cell.trained), None)


def _past(row: Row) -> list[list[float]] | None:
    """The values of the seeds at each size past the trained one; None if one is missing."""
    cells = [known(cell) for cell in row.sizes.values() if not cell.trained]
    found = [values for values in cells if values is not None]
    return found if found and len(found) == len(cells) else None


def _may_be_as_good(values: list[float], best: list[float]) -> bool:
    """Whether the seeds do not decide which of two is better: the mean difference is below two standard errors."""
    if len(values) < 2 or len(values) != len(best):
        return values == best
    apart = np.asarray(values) - np.asarray(best)
    return float(abs(apart.mean())) <= two_errors(apart)

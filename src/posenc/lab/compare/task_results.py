"""Everything that a run of a task found, computed from its folder alone."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posenc.lab.compare.task import Task
from posenc.lab.drawing.words import names
from posenc.lab.run import folder as runs
from posenc.lab.run.config import Data

HOLDS = 0.9  # of the value at the trained size, at every other one
NEAR = 0.8  # of the best value at the trained size: who is worse has learned too little for "holds" to mean anything


def trials(run: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, int, int, Path]]:
    """Label, trained length, seed and folder of each trial."""
    for seed in config["seeds"]:
        for length in config["lengths"]:
            for label in config["encodings"]:
                among = f"-length{length}" if len(config["lengths"]) > 1 else ""
                yield label, length, seed, run / f"{label}{among}-seed{seed}"


def collect(run: Path, task: Task, config: Data) -> Data:
    """All measurements: for each unit a row for each encoding, way of using it and trained length; in it a cell for
    each size, with a value for each seed."""
    rows: dict[tuple[str, ...], Data] = {}
    examples: dict[str, dict[str, str]] = {}
    losses: dict[str, list[list[list[float]]]] = {}
    for label, length, seed, folder in trials(run, config):
        result = runs.read_json(folder / runs.RESULTS)
        encoding = f"{label}, length {length}" if len(config["lengths"]) > 1 else label
        losses.setdefault(encoding, []).append(result["losses"])
        for example in result["examples"] if seed == config["seeds"][0] else ():
            examples.setdefault(example["given"], {})[encoding] = example["written"]
        for m in result["measurements"]:
            name, unit = f"{encoding}, {m['row']}" if m["row"] else encoding, m["unit"] or task.unit
            row = rows.setdefault(
                (unit, name),
                {"row": name, "unit": unit, "encoding": label, "way": m["row"], "length": length, "sizes": {}},
            )
            cell = row["sizes"].setdefault(m["size"], {"values": [], "trained": m["trained"], "note": m["note"]})
            value = m["value"]
            cell["values"].append(value if value is None or math.isfinite(value) else None)
    results = {
        "task": config["task"], "title": task.title,
        "units": {unit: more for unit, more in {task.unit: task.more_is_better, **task.other_units}.items()
                  if any(row["unit"] == unit for row in rows.values())},
        "expected": task.expected, "config": config, "rows": list(rows.values()), "examples": examples,
        "losses": losses,
    }  # fmt: skip
    return results | {"summary": summary(results)}


def sizes_of(rows: list[Data]) -> dict[str, bool]:
    """The columns of a table, and whether every row that has one was trained at it."""
    cells: dict[str, list[bool]] = {}
    for row in rows:
        for size, cell in row["sizes"].items():
            cells.setdefault(size, []).append(cell["trained"])
    return {size: all(trained) for size, trained in cells.items()}


def mean(cell: Data | None) -> float | None:
    """The mean over seeds; None where a seed has no value."""
    if cell is None or not cell["values"] or any(value is None for value in cell["values"]):
        return None
    return float(np.mean(cell["values"]))


def rows_of(results: Data, unit: str, length: int | None = None) -> list[Data]:
    """The rows of one unit, and of one trained length if it is given."""
    return [row for row in results["rows"] if row["unit"] == unit and length in (None, row["length"])]


def summary(results: Data) -> list[str]:
    """What is best at the trained size, and what holds past it, in the words that the seeds allow."""
    lines = []
    lengths = results["config"]["lengths"]
    for unit, more_is_better in results["units"].items():
        for length in lengths:
            said = _about(rows_of(results, unit, length), unit, more_is_better)
            if said and len(lengths) > 1:
                said[0] = f"Trained at {length}: {said[0][0].lower()}{said[0][1:]}"
            lines += said
    if len(results["config"]["seeds"]) == 1:
        lines.append("One seed: small differences may be noise.")
    return lines


def _about(rows: list[Data], unit: str, more: bool) -> list[str]:
    trained = {row["row"]: c for row in rows if (c := _at_trained(row)) is not None and mean(c) is not None}
    if not trained:
        return []
    better = max if more else min
    values = {name: v for name, cell in trained.items() if (v := mean(cell)) is not None}
    best = better(values, key=values.__getitem__)
    as_good = [name for name in values if name != best and _may_be_as_good(trained[name], trained[best])]
    lines = [f"At the trained size {best} is best: {shown(trained[best])} {unit}" + _not_apart(as_good)]
    past = {row["row"]: p for row in rows if row["row"] in values and (p := _past(row)) is not None}
    if not past:
        return lines
    average = {name: {"values": list(np.mean(sizes, axis=0))} for name, sizes in past.items()}
    first = better(average, key=lambda name: float(np.mean(average[name]["values"])))
    as_good = [name for name in average if name != first and _may_be_as_good(average[name], average[first])]
    lines.append(
        f"Past it {first} is best: {shown(average[first])} {unit}, the mean of its sizes" + _not_apart(as_good)
    )
    worst = {name: list(np.asarray(sizes).min(0) if more else np.asarray(sizes).max(0)) for name, sizes in past.items()}
    learned = [n for n in worst if not more or values[n] >= NEAR * values[best]]
    kept = {name: holds(worst[name], trained[name]["values"], more) for name in learned}
    lines.append(
        f"Within a tenth of its value at the trained size at every size: {names(held)}."
        if (held := [name for name, kind in kept.items() if kind == "yes"])
        else "No row stays within a tenth of its value at the trained size at every size."
    )
    if unclear := [name for name, kind in kept.items() if kind == "unclear"]:
        lines.append(f"Within two standard errors of that limit: {names(unclear)}.")
    return lines


def holds(past: list[float], trained: list[float], more: bool) -> Literal["yes", "no", "unclear"]:
    """Whether the values past the trained size stay within a tenth of those at it, seed by seed.

    With several seeds the mean difference from the limit counts, and is unclear within two standard errors of 0.
    """
    room = np.asarray(past) - HOLDS * np.asarray(trained) if more else np.asarray(trained) / HOLDS - np.asarray(past)
    error = 2 * room.std(ddof=1) / math.sqrt(len(room)) if len(room) > 1 else 0.0
    if abs(room.mean()) < error:
        return "unclear"
    return "yes" if room.mean() >= 0 else "no"


def shown(cell: Data | None) -> str:
    """Mean and, of several seeds, half the range."""
    if cell is None or (value := mean(cell)) is None:
        return "past its table" if cell and "got position" in cell.get("note", "") else "-"
    digits = 1 if abs(value) >= 10 else 2
    if len(cell["values"]) == 1:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ± {(max(cell['values']) - min(cell['values'])) / 2:.{digits}f}"


def _at_trained(row: Data) -> Data | None:
    return next((cell for cell in row["sizes"].values() if cell["trained"]), None)


def _past(row: Data) -> list[list[float]] | None:
    """The values of the seeds at each size past the trained one; None if one is missing."""
    cells = [cell for cell in row["sizes"].values() if not cell["trained"]]
    if not cells or any(mean(cell) is None for cell in cells):
        return None
    return [cell["values"] for cell in cells]


def _may_be_as_good(cell: Data, best: Data) -> bool:
    """Whether seeds leave open which of the two is better: the mean difference is below two standard errors."""
    if len(cell["values"]) < 2 or len(cell["values"]) != len(best["values"]):
        return bool(cell["values"] == best["values"])
    apart = np.asarray(cell["values"]) - np.asarray(best["values"])
    return float(abs(apart.mean())) <= float(2 * apart.std(ddof=1) / math.sqrt(len(apart)))


def _not_apart(others: list[str]) -> str:
    verb = "is" if len(others) == 1 else "are"
    return f"; {names(others)} {verb} not told apart from it." if others else "."

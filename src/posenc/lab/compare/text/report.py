"""Writes the report of a run from its folder alone: results.json, a self-contained page, a table for the terminal."""

from pathlib import Path
from typing import Any

from msgspec import UNSET
from rich.console import Console

from posenc.lab.compare.text.folder import encodings_of
from posenc.lab.compare.text.page import figures_of, page
from posenc.lab.compare.text.results import collect, measured
from posenc.lab.compare.text.table import print_results
from posenc.lab.drawing.plots import Picture
from posenc.lab.drawing.tables import tidy
from posenc.lab.run import folder as runs


def write(run: Path) -> Path:
    """Write ``results.json`` and ``report.html`` into the run's folder; return the path of the page."""
    encodings = encodings_of(run)
    results = collect(run, encodings)
    runs.write_json(run / runs.RESULTS, results.to_dict())
    path = run / "report.html"
    runs.write(path, page(results, encodings))
    return path


def print_table(run: Path, console: Console) -> None:
    """Print the table of a run in the terminal."""
    print_results(measured(run), console)


def figures(run: Path) -> list[Picture]:
    """Return the figures of a run: perplexity by length, loss by step, and the pictures of each encoding."""
    return figures_of(measured(run), encodings_of(run))


def rows(run: Path) -> list[dict[str, Any]]:
    """Return every number of a run, one a row: see :func:`posenc.lab.load`."""
    found: list[dict[str, Any]] = []

    def add(measure: str, unit: str, value: Any, **about: Any) -> None:
        found.append({"encoding": entry.label, **about, "measure": measure, "unit": unit, "value": value})

    for entry in measured(run).encodings:
        for seed in entry.seeds:
            for step, loss in seed.loss:
                add("training loss", "nats/token", loss, seed=seed.seed, step=step)
            for protocol, cells in seed.evaluate.items():
                for factor, cell in cells.items():
                    at = {"seed": seed.seed, "protocol": protocol, "factor": factor, "length": cell.length}
                    add("perplexity", "", None if cell.perplexity is UNSET else cell.perplexity, **at)
                    add("loss", "nats/token", None if cell.nats is UNSET else cell.nats, **at)
        if entry.speed:
            add("time of a training step", "s", entry.speed.seconds_per_step)
            add("training speed relative to none", "", entry.speed.relative_to_none)
        add("parameters added", "", entry.parameters_added)
    return tidy(found, ("encoding", "seed", "step", "protocol", "factor", "length"))

"""The report of a run, made from its folder alone: results.json, one self-contained page, a table for the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from posenc.lab.compare.results import collect_with, encodings_of, measured
from posenc.lab.drawing.words import finite
from posenc.lab.run import folder as runs

if TYPE_CHECKING:
    from rich.console import Console

    from posenc.lab.drawing.plots import Picture


def write(run: Path) -> Path:
    """Make ``results.json`` and ``report.html`` in the run's folder, and say where the page is."""
    from posenc.lab.compare.page import page  # draws with matplotlib

    encodings = encodings_of(run)
    results = collect_with(run, encodings)
    runs.write_json(run / runs.RESULTS, results)
    path = run / "report.html"
    runs.write(path, page(results, encodings))
    return path


def print_table(run: Path, console: "Console") -> None:
    """The table of a run in the terminal."""
    from posenc.lab.compare.table import print_results

    print_results(finite(measured(run)), console)


def figures(run: Path) -> "list[Picture]":
    """The figures of a run: perplexity by length, loss by step, and the pictures of each encoding."""
    from posenc.lab.compare.page import figures_of

    encodings = encodings_of(run)
    return figures_of(finite(measured(run)), encodings)


def rows(run: Path) -> list[dict[str, Any]]:
    """Every number of a run, one a row: see :func:`posenc.lab.load`."""
    results = measured(run)
    found: list[dict[str, Any]] = []
    for entry in results["encodings"]:
        name = {"encoding": entry["label"]}
        for seed in entry["seeds"]:
            about = {**name, "seed": seed["seed"]}
            for step, loss in seed["loss"]:
                found.append({**about, "measure": "training loss", "unit": "nats/token", "step": step, "value": loss})
            for protocol, cells in seed["evaluate"].items():
                for factor, cell in cells.items():
                    at = {**about, "protocol": protocol, "factor": int(factor), "length": cell["length"]}
                    found.append({**at, "measure": "perplexity", "unit": "", "value": cell.get("perplexity")})
                    found.append({**at, "measure": "loss", "unit": "nats/token", "value": cell.get("nats")})
        if entry["speed"]:
            seconds, relative = (entry["speed"][key] for key in ("seconds_per_step", "relative_to_none"))
            found.append({**name, "measure": "time of a training step", "unit": "s", "value": seconds})
            found.append({**name, "measure": "training speed relative to none", "unit": "", "value": relative})
        found.append({**name, "measure": "parameters added", "unit": "", "value": entry["parameters_added"]})
    return found

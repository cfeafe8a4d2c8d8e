"""The report of a run, made from its folder alone: results.json, one self-contained page, a table for the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING

from posenc.lab.compare.results import collect_with, encodings_of, measured
from posenc.lab.drawing.words import finite
from posenc.lab.run import folder as runs

if TYPE_CHECKING:
    from rich.console import Console


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

"""The report of a run of ``posenc extend``, made from its folder alone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from posenc.lab.extend.results import collect
from posenc.lab.run import folder as runs

if TYPE_CHECKING:
    from rich.console import Console


def write(run: Path) -> Path:
    """Make ``results.json`` and ``report.html`` in the run's folder, and say where the page is."""
    from posenc.lab.extend.page import page  # draws with matplotlib

    results = collect(run)
    runs.write(run / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    path = run / "report.html"
    runs.write(path, page(results))
    return path


def print_table(run: Path, console: "Console") -> None:
    """The tables of a run in the terminal, with the recommendation."""
    from posenc.lab.extend.table import print_results

    print_results(collect(run), console)

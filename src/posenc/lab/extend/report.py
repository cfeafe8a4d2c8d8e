"""The report of a run of ``posenc extend``, made from its folder alone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posenc.lab.extend.results import collect
from posenc.lab.run import folder as runs
from posenc.lab.run.config import Data

if TYPE_CHECKING:
    from rich.console import Console

    from posenc.lab.drawing.plots import Picture


def write(run: Path, results: Data | None = None) -> Path:
    """Make ``results.json`` and ``report.html`` in the run's folder, and say where the page is.

    ``results`` are those of :func:`collect`, if they were collected already.
    """
    from posenc.lab.extend.page import page  # draws with matplotlib

    results = collect(run) if results is None else results
    runs.write(run / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    path = run / "report.html"
    runs.write(path, page(results))
    return path


def print_table(run: Path, console: "Console", results: Data | None = None) -> None:
    """The tables of a run in the terminal, with the recommendation."""
    from posenc.lab.extend.table import print_results

    print_results(collect(run) if results is None else results, console)


def figures(run: Path) -> "list[Picture]":
    """The figures of a run."""
    from posenc.lab.extend.pictures import pictures

    return pictures(collect(run))


def rows(run: Path) -> list[dict[str, Any]]:
    """Every number of a run, one a row: see :func:`posenc.lab.load`."""
    results = collect(run)
    found: list[dict[str, Any]] = []
    passed = [(rule["name"], rule["pass"]) for rule in results["rules"] if rule["pass"]]
    if results["tuned"] is not None:
        passed.append((f"{results['tuned']['rule']} tuned", results["tuned"]))
    for name, one in passed:
        about = {"rule": name}
        for (first, last), value in zip(results["bins"], one["perplexity"], strict=True):
            found.append({**about, "measure": "perplexity", "unit": "", "first": first, "last": last, "value": value})
        for measure in ("cost", "gain"):
            mean = one[measure] or {"nats": None, "error": None}
            found.append({**about, "measure": measure, "unit": "nats/token", "value": mean["nats"]})
            error = f"standard error of {measure}"
            found.append({**about, "measure": error, "unit": "nats/token", "value": mean["error"]})
    for name, curve in results["curves"]["rules"].items():
        for position, nats in zip(results["curves"]["positions"], curve, strict=True):
            at = {"rule": name, "first": position, "last": position}
            found.append({**at, "measure": "loss", "unit": "nats/token", "value": nats})
    for rule in results["rules"]:
        for gap, nats in zip(
            *((rule["probe"][key] for key in ("gaps", "mean")) if rule["probe"] else ((), ())), strict=True
        ):
            at = {"rule": rule["name"], "gap": gap}
            found.append({**at, "measure": "loss of the probe", "unit": "nats/token", "value": nats})
        for answer in rule["retrieval"] or ():
            at = {"rule": rule["name"], "task": answer["task"], "length": answer["length"], "depth": answer["depth"]}
            found.append({**at, "measure": "right answer", "unit": "", "value": int(answer["correct"])})
    return found

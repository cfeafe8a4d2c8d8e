"""Writes the report of a task run: ``results.json``, a page, terminal tables, figures and numbers as files."""

import math
import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

from posenc.lab.compare.find_task import find
from posenc.lab.compare.folder import SHOWN, TrialResult, load_config, trials
from posenc.lab.compare.results import Results, collect, known, mean, shown, sizes_of
from posenc.lab.drawing import html, plots
from posenc.lab.drawing.tables import print_first_that_fits, tidy
from posenc.lab.drawing.tables import table as empty
from posenc.lab.run import folder as runs
from posenc.lab.run.config import read
from posenc.lab.run.printable import escape


def write(run: Path) -> Path:
    """Write ``results.json`` and ``report.html``; return the path of the page."""
    results = _results(run)
    runs.write_json(run / runs.RESULTS, results.to_dict())
    page = run / "report.html"
    runs.write(page, _page(results, _pictures(run, results)))
    return page


def print_table(run: Path, console: Console) -> None:
    """Print the tables of a run in the terminal."""
    results = _results(run)
    for unit in results.units:
        sizes = list(sizes_of(results.of(unit)).items())
        ways = [
            [_terminal_table(results, unit, dict(sizes[at : at + width])) for at in range(0, len(sizes), width)]
            for width in range(len(sizes), 0, -1)
        ]
        print_first_that_fits(console, ways)
    console.print("\n".join(results.summary), markup=False)


def _terminal_table(results: Results, unit: str, sizes: Mapping[str, bool]) -> Table:
    table = empty(escape(f"{results.title}: {unit}"))
    table.add_column("encoding", no_wrap=True)
    for size, trained in sizes.items():
        table.add_column(f"{size}\n(trained)" if trained else size, justify="right", no_wrap=True)
    for row in results.of(unit):
        table.add_row(escape(row.row), *(shown(row.sizes.get(size)) for size in sizes))
    return table


def figures(run: Path) -> list[plots.Picture]:
    """Return the figures of a run: each measured unit by size, the loss by step, and the task's own pictures."""
    results = _results(run)
    return [*_curves(results), *_pictures(run, results)]


def rows(run: Path) -> list[dict[str, Any]]:
    """Return every number of a run, one a row: see :func:`posenc.lab.load`."""
    results, found = _results(run), []
    for row in results.rows:
        about = {"encoding": row.encoding, "way": row.way, "trained_length": row.length}
        for size, cell in row.sizes.items():
            at = {"measure": row.unit, "unit": row.unit, "size": size, "trained": cell.trained}
            for seed, value in zip(results.config.seeds, cell.values, strict=True):
                found.append({**about, **at, "seed": seed, "value": value})
    for label, length, seed, folder in trials(run, results.config):
        for step, loss in read(folder / runs.RESULTS, TrialResult).losses:
            about = {"encoding": label, "trained_length": length, "seed": seed, "step": step}
            found.append({**about, "measure": "training loss", "unit": "", "value": loss})
    return tidy(found, ("encoding", "way", "trained_length", "seed", "size", "trained", "step"))


def _results(run: Path) -> Results:
    config = load_config(run)
    return collect(run, find(config.task), config)


def _page(results: Results, pictures: list[plots.Picture]) -> str:
    config = results.config
    about = {
        "command": config.command, **asdict(config.sizes), "length": ", ".join(map(str, config.lengths)),
        "seeds": len(config.seeds), "threads": config.threads, "posenc": config.posenc,
    }  # fmt: skip
    return html.page(
        Path(__file__).with_name("report.html"),
        title=results.title,
        results=results,
        hues=plots.hues(list(config.encodings)),
        tables=[_table(results, unit) for unit in results.units],
        curves=_curves(results),
        pictures=pictures,
        about=about,
        mean=mean,
        shown=shown,
    )


def _table(results: Results, unit: str) -> dict[str, Any]:
    """One unit of a task: its rows and sizes, and the best value of each size."""
    rows, more = results.of(unit), results.units[unit]
    sizes, best = sizes_of(rows), {}
    for size in sizes:
        values = [value for row in rows if (value := mean(row.sizes.get(size))) is not None]
        best[size] = (max if more else min)(values) if len(set(values)) > 1 else None  # all equal: none is best
    return {"unit": unit, "more": more, "rows": rows, "sizes": sizes, "best": best}


def _pictures(run: Path, results: Results) -> list[plots.Picture]:
    """The task's own pictures, of the first seed."""
    found = {}
    config = results.config
    for label, length, seed, folder in trials(run, config):
        if seed == config.seeds[0] and length == config.lengths[0]:
            found[label] = runs.load_tensors(folder / SHOWN)
    return list(find(config.task).pictures(found))


def _curves(results: Results) -> list[plots.Picture]:
    hues = plots.hues(list(results.config.encodings))
    several = [unit for unit in results.units if len(sizes_of(results.of(unit))) > 1]
    pictures = [_by_size(results, unit, hues) for unit in several]
    curves = {encoding: curve for encoding, seeds in results.losses.items() if (curve := plots.by_step(seeds))}
    if curves:
        title = "Training loss by step"
        pictures.append(plots.loss_by_step(curves, title=title, caption=_over_seeds(results), unit=""))
    return pictures


def _over_seeds(results: Results) -> str:
    return "The mean over seeds; the band is their range." if len(results.config.seeds) > 1 else ""


def _by_size(results: Results, unit: str, hues: dict[str, str]) -> plots.Picture:
    rows = results.of(unit)
    sizes = list(sizes_of(rows))
    columns = 2 if max(len(row.row) for row in rows) > 14 else 4

    def draw(axes: Axes) -> None:
        styles = ("-", "--", ":", "-.")
        ways: dict[str, int] = {}
        for row in rows:
            style = styles[ways.setdefault(row.encoding, 0) % len(styles)]
            ways[row.encoding] += 1
            cells = [(x, values) for x, s in enumerate(sizes) if (values := known(row.sizes.get(s))) is not None]
            curve = [(float(x), np.array(values)) for x, values in cells]
            plots.line_of_seeds(axes, curve, hues[row.encoding], linestyle=style, marker="o", label=row.row)
        axes.set_xticks(range(len(sizes)), sizes, rotation=20 if sum(map(len, sizes)) > 40 else 0)
        axes.set_ylabel(textwrap.fill(unit, 36))
        axes.grid(axis="y")
        axes.figure.legend(loc="outside lower center", ncols=columns, fontsize=7, handlelength=3)

    caption = _over_seeds(results)
    if len({row.encoding for row in rows}) < len(rows):
        caption += " Same hue: same encoding."
    height = plots.HEIGHT + 0.2 * math.ceil(len(rows) / columns)  # a line of the legend, in inches
    return plots.Picture(unit, f"{unit} by size", caption.strip(), draw, height=height)

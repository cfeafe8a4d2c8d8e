"""What a run of a task found: a table, a page, and ``results.json``."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

from posenc.lab.compare.task import Task, find
from posenc.lab.drawing import html as shell
from posenc.lab.drawing import plots
from posenc.lab.drawing.html import text
from posenc.lab.run import folder as runs

RESULTS = "results.json"
HOLDS = 0.9  # of the value at the trained size, at every other one
Data = dict[str, Any]


def write(run: Path) -> Path:
    """Write ``results.json`` and ``report.html``; the page's path."""
    config = runs.read_json(run / runs.CONFIG)
    results = collect(run, find(config["task"]), config)
    runs.write_json(run / RESULTS, results)
    page = run / "report.html"
    runs.write(page, _page(results))
    return page


def collect(run: Path, task: Task, config: Data) -> Data:
    """All measurements: a row for each encoding and way of using it, a column for each size, a value for each seed."""
    rows: dict[str, Data] = {}
    examples = {}
    for label in config["encodings"]:
        for seed in config["seeds"]:
            result = runs.read_json(run / f"{label}-seed{seed}" / "result.json")
            if seed == config["seeds"][0] and result["example"]:
                examples[label] = result["example"]
            for m in result["measurements"]:
                name = f"{label}, {m['row']}" if m["row"] else label
                row = rows.setdefault(name, {"row": name, "encoding": label, "sizes": {}})
                cell = row["sizes"].setdefault(m["size"], {"values": [], "trained": m["trained"], "note": m["note"]})
                cell["values"].append(m["value"])
    results = {
        "task": config["task"], "title": task.title, "unit": task.unit, "more_is_better": task.more_is_better,
        "expected": task.expected, "config": config, "rows": list(rows.values()), "examples": examples,
    }  # fmt: skip
    return results | {"summary": summary(results)}


def mean(cell: Data) -> float | None:
    """The mean over seeds; None where a seed has no value."""
    return None if any(v is None for v in cell["values"]) else float(np.mean(cell["values"]))


def summary(results: Data) -> list[str]:
    """What is best at the trained size, and what holds past it."""
    better = max if results["more_is_better"] else min
    at = {row["row"]: next((c for c in row["sizes"].values() if c["trained"]), None) for row in results["rows"]}
    trained = {name: value for name, cell in at.items() if cell and (value := mean(cell)) is not None}
    if not trained:
        return ["Nothing was measured at the trained size."]
    best = better(trained, key=trained.__getitem__)
    lines = [f"At the trained size {best} is best: {_shown(at[best])} {results['unit']}."]
    past: dict[str, float] = {}
    holding = []
    for row in results["rows"]:
        others = [mean(c) for c in row["sizes"].values() if not c["trained"]]
        if row["row"] not in trained or not others or any(v is None for v in others):
            continue
        worst = (min if results["more_is_better"] else max)(v for v in others if v is not None)
        past[row["row"]] = worst
        ratio = worst / trained[row["row"]] if trained[row["row"]] else 0.0
        good = trained[row["row"]] >= 0.8 * trained[best] if results["more_is_better"] else True
        if good and (ratio >= HOLDS if results["more_is_better"] else ratio <= 1 / HOLDS):
            holding.append(row["row"])
    if past:
        first = better(past, key=past.__getitem__)
        lines.append(f"Past it {first} is best: never worse than {past[first]:.1f} {results['unit']}.")
    lines.append(
        f"Within a tenth of their value at the trained size, at every size measured: {', '.join(holding)}."
        if holding
        else "None stays within a tenth of its value at the trained size at every size measured."
    )
    if len(results["config"]["seeds"]) == 1:
        lines.append("One seed: small differences may be noise.")
    return lines


def print_table(run: Path, console: Console) -> None:
    """The table on the console."""
    results = runs.read_json(run / RESULTS)
    table = Table(title=f"{results['title']}: {results['unit']}", title_justify="left")
    table.add_column("encoding")
    sizes = _sizes(results)
    for size, trained in sizes.items():
        table.add_column(f"{size} (trained)" if trained else size, justify="right")
    for row in results["rows"]:
        table.add_row(row["row"], *(_shown(row["sizes"].get(size)) for size in sizes))
    console.print(table)
    console.print(" ".join(results["summary"]), highlight=False)


def _sizes(results: Data) -> dict[str, bool]:
    return {size: cell["trained"] for row in results["rows"] for size, cell in row["sizes"].items()}


def _shown(cell: Data | None) -> str:
    """Mean and, of several seeds, half the range."""
    if cell is None or (value := mean(cell)) is None:
        return "past its table" if cell and "got position" in cell["note"] else "-"
    if len(cell["values"]) == 1:
        return f"{value:.1f}"
    return f"{value:.1f} ± {(max(cell['values']) - min(cell['values'])) / 2:.1f}"


def _page(results: Data) -> str:
    sizes = _sizes(results)
    better = max if results["more_is_better"] else min
    best = {
        size: better(
            (v for row in results["rows"] if (c := row["sizes"].get(size)) and (v := mean(c)) is not None), default=None
        )
        for size in sizes
    }
    head = "".join(f"<th>{text(size)}{' (trained)' if trained else ''}</th>" for size, trained in sizes.items())
    hues = plots.hues(list(dict.fromkeys(row["encoding"] for row in results["rows"])))
    body = []
    for row in results["rows"]:
        cells = []
        for size in sizes:
            cell = row["sizes"].get(size)
            mark = ' class="best"' if cell is not None and mean(cell) == best[size] else ""
            cells.append(f"<td{mark}>{text(_shown(cell))}</td>")
        body.append(f"<tr><th>{shell.swatch(hues[row['encoding']])}{text(row['row'])}</th>{''.join(cells)}</tr>")
    examples = "".join(f"<h3>{text(label)}</h3><pre>{text(what)}</pre>" for label, what in results["examples"].items())
    config = results["config"]
    facts = {**config["sizes"], "seeds": len(config["seeds"]), "threads": config["threads"], "posenc": config["posenc"]}
    return shell.page(
        Path(__file__).with_name("task.html"),
        title=results["title"],
        summary=text(" ".join(results["summary"])),
        expected=f"<p><b>Published work:</b> {text(results['expected'])}</p>" if results["expected"] else "",
        unit=text(results["unit"]),
        direction="more is better" if results["more_is_better"] else "less is better",
        table=f"<thead><tr><th>encoding</th>{head}</tr></thead><tbody>{''.join(body)}</tbody>",
        figure=shell.figure(_picture(results, hues)),
        examples=f"<h2>What each wrote</h2>{examples}" if examples else "",
        facts=shell.facts(facts),
    )


def _picture(results: Data, hues: dict[str, str]) -> plots.Picture:
    sizes = list(_sizes(results))

    def draw(axes: Axes) -> None:
        styles = ("-", "--", ":", "-.")
        ways: dict[str, int] = {}
        for row in results["rows"]:
            style = styles[ways.setdefault(row["encoding"], 0) % len(styles)]
            ways[row["encoding"]] += 1
            points = [(x, v) for x, s in enumerate(sizes) if (c := row["sizes"].get(s)) and (v := mean(c)) is not None]
            axes.plot(*zip(*points, strict=True), style, marker="o", color=hues[row["encoding"]], label=row["row"])
        axes.set_xticks(range(len(sizes)), sizes)
        axes.set_ylabel(results["unit"])
        axes.legend(frameon=False, fontsize=7)

    return plots.Picture(
        f"task {results['task']}", f"{results['unit']} by size", "The mean over seeds. Same hue: same encoding.", draw
    )

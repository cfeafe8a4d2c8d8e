"""Writes the report of a run of ``posenc extend`` from its folder alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from posenc.lab.drawing.tables import tidy
from posenc.lab.drawing.words import HELD, number
from posenc.lab.extend.results import Results, collect
from posenc.lab.extend.verdict import BLOCK
from posenc.lab.run import folder as runs

if TYPE_CHECKING:
    from rich.console import Console

    from posenc.lab.drawing.plots import Picture


def write(run: Path, results: Results | None = None) -> Path:
    """Make ``results.json`` and ``report.html`` in the run's folder, and say where the page is.

    ``results`` are those of :func:`collect`, if they were collected already.
    """
    results = collect(run) if results is None else results
    runs.write_json(run / runs.RESULTS, results.to_dict())
    path = run / "report.html"
    runs.write(path, _page(results))
    return path


def print_table(run: Path, console: "Console", results: Results | None = None) -> None:
    """Print the tables of a run in the terminal, with the recommendation."""
    from posenc.lab.extend.table import print_results

    print_results(collect(run) if results is None else results, console)


def figures(run: Path) -> "list[Picture]":
    """Return the figures of a run."""
    from posenc.lab.extend.pictures import of_passes, of_probes

    results = collect(run)
    return [*of_passes(results), *of_probes(results)]


def rows(run: Path) -> list[dict[str, Any]]:
    """Return every number of a run, one a row: see :func:`posenc.lab.load`."""
    results = collect(run)
    found: list[dict[str, Any]] = []

    def add(rule: str, measure: str, unit: str, value: float | None, **about: Any) -> None:
        found.append({"rule": rule, "measure": measure, "unit": unit, "value": value, **about})

    for name, one in results.rows.items():
        for (first, last), value in zip(results.bins, one.perplexity, strict=True):
            add(name, "perplexity", "", value, first=first, last=last)
        for measure, mean in (("cost", one.cost), ("gain", one.gain)):
            add(name, measure, "nats/token", None if mean is None else mean.nats)
            add(name, f"standard error of {measure}", "nats/token", None if mean is None else mean.error)
    for (first, last), value in zip(results.bins, results.windows or (), strict=False):
        add("none, in windows", "perplexity", "", value, first=first, last=last)
    for name, curve in results.curves.rules.items():
        for position, nats in zip(results.curves.positions, curve, strict=True):
            add(name, "loss", "nats/token", nats, first=position, last=position)
    for rule in results.rules:
        if rule.probe is not None:
            for gap, nats in zip(rule.probe.gaps, rule.probe.mean, strict=True):
                add(rule.name, "loss of the probe", "nats/token", nats, gap=gap)
        for answer in rule.retrieval or ():
            at = {"task": answer.task, "length": answer.length, "depth": answer.depth}
            add(rule.name, "right answer", "", int(answer.correct), **at)
    return tidy(runs.finite(found), ("rule", "first", "last", "gap", "task", "length", "depth"))


def _page(results: Results) -> str:
    from posenc.lab.drawing import html
    from posenc.lab.extend import pictures, table  # importing matplotlib is slow

    config = results.config
    lengths, retrieval = table.retrieval_rows(results)
    report = (results.tuned and results.tuned.report) or {}
    described = {key: value for key, value in config.to_dict().items() if key not in ("format", "kind")}
    described |= {key: value for key, value in results.environment.items() if key not in described}
    return html.page(
        Path(__file__).with_name("page.html"),
        title=f"{config.label} at {config.length:,} tokens",
        results=results,
        best=table.lowest(results),
        palette=pictures.hues(results),
        inside=sum(1 for first, _ in results.bins if first < config.trained_length),
        passes=pictures.of_passes(results),
        probes=pictures.of_probes(results),
        lengths=lengths,
        retrieval=retrieval,
        tuning={key: html.flat(value) for key, value in report.items() if key != "history"},
        about={key: html.flat(value) for key, value in described.items()} | {"text": html.files(config.text)},
        held=HELD,
        block=BLOCK,
        bin_name=table.bin_name,
        nats_text=table.nats_text,
        rounded=number,
        value_text=table.value_text,
    )

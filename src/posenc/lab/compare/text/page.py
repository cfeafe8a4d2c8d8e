"""The report of ``posenc compare`` as one self-contained page."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

import posenc
from posenc.lab.compare.text import continuation
from posenc.lab.compare.text.config import RunConfig
from posenc.lab.compare.text.folder import PROTOCOLS, Protocol
from posenc.lab.compare.text.results import Described, Entry, Results, growth, verdict
from posenc.lab.compare.text.table import best, cell_text, heading
from posenc.lab.drawing import html, plots
from posenc.lab.drawing.plots import TIMES
from posenc.lab.drawing.words import HELD, counted, names, times
from posenc.lab.encodings.pictures import pictures_of
from posenc.lab.encodings.properties import EXACT

_COUNTS = dict(enumerate(("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")))


def page(results: Results, encodings: Mapping[str, posenc.Encoding | str]) -> str:
    """Return the page, from the content of ``results.json`` and the encodings to draw."""
    count = len(results.encodings)
    return html.page(
        Path(__file__).with_name("report.html"),
        title=f"{_COUNTS.get(count, count)} positional encoding{'s' * (count > 1)} in one small decoder",
        subtitle=_subtitle(results),
        unfinished=_unfinished(results),
        results=results,
        hues=plots.hues([entry.label for entry in results.encodings]),
        headings={protocol: heading(protocol, results) for protocol in PROTOCOLS},
        columns=results.factors,
        best=best(results),
        perplexity=_perplexity_figures(results),
        loss=_loss(results),
        continued=[entry for entry in results.encodings if entry.continuation],
        continuation_factor=continuation.FACTOR,
        refused={label: said for label, said in encodings.items() if isinstance(said, str)},
        drawn={
            label: _pictures_of(label, encoding, results.config)
            for label, encoding in encodings.items()
            if not isinstance(encoding, str)
        },
        about=_about(results),
        exact=EXACT,
        held=HELD,
        cell_text=cell_text,
        in_words=_in_words,
        linked=_linked,
        property_cells=_property_cells,
    )


def _subtitle(results: Results) -> str:
    model, train, seeds = results.config.model, results.config.train, results.config.seeds
    return (
        f"{model.num_layers} layers, {model.dim} channels, {model.num_heads} heads; "
        f"{train.steps:,} steps of {train.batch} {TIMES} {train.length} tokens; "
        f"{counted(len(seeds), 'seed')}; run {results.run}"
    )


def _unfinished(results: Results) -> list[str]:
    return [
        f"{entry.label}{f', seed {seed.seed}' if len(entry.seeds) > 1 else ''} {seed.state} "
        f"({seed.steps:,} of {seed.steps_planned:,} steps)"
        for entry in results.encodings
        for seed in entry.seeds
        if seed.state != "done"
    ]


def figures_of(results: Results, encodings: Mapping[str, posenc.Encoding | str]) -> list[plots.Picture]:
    """All figures of the page."""
    drawn = {label: encoding for label, encoding in encodings.items() if not isinstance(encoding, str)}
    of_each = [picture for name, encoding in drawn.items() for picture in _pictures_of(name, encoding, results.config)]
    return [*_perplexity_figures(results), *_loss(results), *of_each]


def _perplexity_figures(results: Results) -> list[plots.Picture]:
    length = results.config.train.length
    found = []
    for protocol in PROTOCOLS:
        curves: dict[str, list[tuple[float, Any]]] = {}
        ends = {}
        for entry in results.encodings:
            points = []
            for cell in entry.perplexity[protocol].values():
                values = np.array([value for value in cell.values if math.isfinite(value)])
                if len(values) and not cell.refused:
                    points.append((float(cell.length), values))
                elif cell.refused:
                    ends[entry.label] = " (ends)"
            if points:
                curves[entry.label] = sorted(points, key=lambda point: point[0])
        if curves:
            kept, far = _who_held(results, protocol)
            title = f"Perplexity by length, {heading(protocol, results)}: {kept} at {far}{TIMES}"
            what = "every token of each window" if protocol == "windows" else "the same last tokens at every length"
            found.append(
                plots.perplexity_by_length(
                    curves, trained_length=length, title=title, name=protocol, caption=f"Scored: {what}.", ends=ends
                )
            )
    return found


def _who_held(results: Results, protocol: Protocol) -> tuple[str, int]:
    longest = max(results.factors)
    grown = [(entry, growth(entry, results, protocol)) for entry in results.encodings]
    there = [entry for entry, far in grown if far is not None and far[0] == longest]
    held = [entry.label for entry in there if verdict(entry, results, protocol) == "held"]
    return (f"{names(held)} hold" + "s" * (len(held) == 1) if held else "no encoding holds"), longest


def _loss(results: Results) -> list[plots.Picture]:
    curves: dict[str, list[tuple[float, Any]]] = {}
    window = 1
    for entry in results.encodings:
        if curve := plots.by_step([seed.loss for seed in entry.seeds]):
            window = max(1, len(curve) // 20)
            curves[entry.label] = _smooth(curve, window)
    if not curves:
        return []
    last = {label: float(curve[-1][1].mean()) for label, curve in curves.items()}
    low, high = min(last, key=lambda label: last[label]), max(last, key=lambda label: last[label])
    ends = f"between {last[low]:.2f} ({low}) and {last[high]:.2f} ({high})" if len(last) > 1 else f"at {last[low]:.2f}"
    title = f"Loss by step: it ends {ends}"
    caption = f"Running mean over {window} logged steps." if window > 1 else ""
    return [plots.loss_by_step(curves, title=title, caption=caption)]


def _smooth(rows: list[tuple[float, Any]], window: int) -> list[tuple[float, Any]]:
    """Running means over ``window`` logged steps for each seed, where all these steps have the same number of seeds."""
    smoothed = []
    for at, (step, values) in enumerate(rows):
        recent = [past for _, past in rows[max(0, at - window + 1) : at + 1] if len(past) == len(values)]
        smoothed.append((step, np.mean(recent, axis=0)))
    return smoothed


def _residual(value: float) -> str:
    return f"{value:.0e}" if value < EXACT else f"{100 * value:.0f}\u00a0%"


def _property_cells(entry: Entry, found: Described, results: Results) -> Iterator[tuple[str, bool | None, str]]:
    """For each property its value, whether it holds, and a note."""
    unknown = ("", None, "")
    for dtype in ("float32", "bfloat16"):
        unique = (found.unique or {}).get(dtype)
        if unique is None:
            yield unknown
        elif unique.distinct == unique.positions:
            yield f"{unique.distance:.3g}", True, ""
        else:
            first, again = unique.pair
            yield f"{again} is {first}", False, f"{unique.distinct:,} differ"
    linear = found.linear_map
    yield unknown if linear is None else (_residual(linear.worst), linear.worst < EXACT, "")
    grown = growth(entry, results)
    if entry.refused:
        yield "no code", False, ""
    else:
        yield unknown if grown is None else (times(grown[1]), grown[1] <= HELD, f"at {grown[0]}{TIMES}")
    cost = found.cost
    per = f"{cost.bytes_per_position:,.0f} B a position" if cost.bytes_per_position else ""
    yield (
        f"{cost.parameters:,}",
        None if cost.deterministic is None else cost.deterministic and not cost.parameters,
        per,
    )
    grid = found.grid
    if grid is None:
        yield unknown
    else:
        both = grid.distance > 0 and grid.residual < EXACT
        yield f"{grid.distance:.3g}", both, f"map misses {_residual(grid.residual)}"
    yield _residual(found.order), found.order > EXACT, ""


def _pictures_of(label: str, encoding: posenc.Encoding, config: RunConfig) -> list[plots.Picture]:
    """The pictures of an encoding, under names that are unique in the run."""
    pictures = pictures_of(
        encoding,
        dim=config.model.dim,
        num_heads=config.model.num_heads,
        length=min(128, config.train.length),
        trained_length=config.train.length,
    )
    return [replace(picture, name=f"{label}-{picture.name}") for picture in pictures]


def _linked(paper: str) -> Markup:
    """The source, with a link if it is on arXiv; the page itself fetches nothing."""
    return Markup(
        re.sub(r"arXiv:(\d{4}\.\d{4,5})", r'<a href="https://arxiv.org/abs/\1">arXiv:\1</a>', str(escape(paper)))
    )


def _in_words(entry: Entry, found: Described, results: Results) -> str:
    said = []
    unique = found.unique or {}
    if alone := [dtype for dtype, one in unique.items() if one.distinct == one.positions]:
        count = unique[alone[0]].positions
        said.append(f"All of {count:,} positions have their own code in {' and '.join(alone)}.")
    for dtype, one in unique.items():
        if dtype not in alone:
            first, again = one.pair
            said.append(
                f"In {dtype} {one.positions:,} positions share {one.distinct:,} codes: {again} is the first that "
                f"looks like another, {first}."
            )
    if found.linear_map is not None:
        worst = found.linear_map.worst
        if worst < EXACT:
            said.append(f"One matrix takes every code to the one k tokens on (it misses {worst:.0e} of the step).")
        else:
            said.append(f"The best matrix still misses {100 * worst:.0f}\u00a0% of a step of k tokens.")
    grown = growth(entry, results)
    if grown is not None:
        said.append(f"Perplexity at {grown[0]}{TIMES} the trained length over that at 1{TIMES}: {times(grown[1])}.")
    if entry.refused:
        said.append(f"Longer texts are refused: {entry.refused}.")
    order = found.order
    if order < EXACT:
        said.append(f"Reordering the other words changes nothing for a word ({order:.0e}).")
    else:
        said.append(f"Reordering the other words changes a word's output by up to {100 * order:.0f}\u00a0%.")
    return " ".join(said)


def _about(results: Results) -> dict[str, Any]:
    config = results.config
    shown = {
        "encodings": ", ".join(given.spec for given in config.encodings),
        "seeds": ", ".join(map(str, config.seeds)),
        "posenc": results.written.get("posenc"),
    }
    for key, value in results.written.items():
        if key not in ("format", "kind", "posenc", "encodings", "seeds", "text", "command"):
            shown[key] = html.flat(value)
    for role, files in config.text.items():
        shown[f"{role} text"] = html.files(files)
    for key, value in results.environment.items():
        shown[key if key not in shown else f"{key} (machine)"] = html.flat(value)
    return shown

"""The pictures of a run of ``posenc extend``."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from numpy.typing import NDArray

from posenc.lab.drawing.plots import (
    GRID,
    HUES,
    MARKERS,
    MUTED,
    TIMES,
    Picture,
    in_turn,
    label_ends,
    mark_trained_length,
    round_values,
)
from posenc.lab.drawing.words import HELD, number
from posenc.lab.extend.folder import Probed
from posenc.lab.extend.results import Results
from posenc.lab.extend.verdict import perplexity

FloatArray = NDArray[np.float64]


def hues(results: Results) -> dict[str, str]:
    """A hue for each row of the table: grey for "none", the others in the order of the rules."""
    labels = list(results.rows) or [rule.name for rule in results.rules]
    free = in_turn()
    return {label: HUES["grey"][0] if label == "none" else next(free) for label in labels}


def by_position(results: Results) -> Picture:
    """Perplexity by position, one line for each rule."""
    curves, trained = results.curves, results.config.trained_length
    lines = {name: np.exp(np.minimum(_floats(values), 700)) for name, values in curves.rules.items()}
    windows = None if curves.windows is None else np.exp(np.minimum(_floats(curves.windows), 700))

    def draw(axes: Axes) -> None:
        x = np.array(curves.positions)
        known = np.concatenate([values[np.isfinite(values)] for values in lines.values()])
        low = float(known.min())
        high = min(float(known.max()), 60 * low)  # one very large value must not flatten all other lines
        axes.set_yscale("log")
        axes.set_ylim(low / 1.1, high * 1.15)
        axes.set_yticks(round_values(*axes.get_ylim()), [f"{v:g}" for v in round_values(*axes.get_ylim())])
        if windows is not None:
            beyond = x >= trained
            axes.plot(x[beyond], windows[beyond], color=MUTED, linewidth=1.1, linestyle=(0, (1, 1.4)))
        axes.set_ylabel("perplexity (log)")
        _lines(axes, results, lines)

    caption = (
        "Means over neighbouring tokens. All lines are for the same text, so they share its easy and hard passages."
    )
    if windows is not None:
        caption += f" Dotted: the untouched model on the same tokens in windows of {trained:,}."
    return Picture("position", _position_title(results), caption, draw, height=3.3)


def _position_title(results: Results) -> str:
    to = f"to {results.config.length:,} tokens"
    said = {
        "rule": f": {results.verdict.rule} holds {to}",
        "none needed": f": the model holds {to} as it is",
        "none of them": f": nothing holds {to}",
        "not finished": ", as far as it was measured",
    }
    return f"Perplexity by position{said[results.verdict.kind]}"


def above_home(results: Results) -> Picture | None:
    """The cost or gain of each rule by position, relative to the baseline on the same tokens."""
    curves, trained = results.curves, results.config.trained_length
    if curves.windows is None:
        return None
    home = _floats(curves.windows)
    lines = {name: np.exp(np.clip(_floats(values) - home, -5, 5)) for name, values in curves.rules.items()}

    def draw(axes: Axes) -> None:
        known = np.concatenate([values[np.isfinite(values)] for values in lines.values()])
        high = float(np.clip(known.max() * 1.05, 1.3, 4.0))
        low = min(0.9, float(known.min()) * 0.98)
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        ticks = [v for v in (0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 2.5, 3, 4) if low <= v <= high]
        axes.set_yticks(ticks, [f"{v:g}{TIMES}" for v in ticks])
        axes.axhspan(low, HELD, color=HUES["green"][0], alpha=0.08, linewidth=0)
        axes.axhline(1, color=MUTED, linewidth=0.8)
        axes.set_ylabel("times the untouched model (log)")
        _lines(axes, results, lines)

    return Picture(
        "above",
        f"Against the untouched model within {trained:,} tokens, on the same tokens",
        f"Green: up to {HELD:g} times its perplexity counts as held. Left of the mark is the cost on short texts.",
        draw,
        height=3.3,
    )


def trust(results: Results) -> Picture | None:
    """The probe compared with the full pass."""
    found = results.trust
    if found is None or len(found.points) < 2:
        return None
    palette = hues(results)
    points = [point for point in found.points if math.isfinite(point.passed)]
    names = list(dict.fromkeys(point.rule for point in found.points))

    def draw(axes: Axes) -> None:
        values = np.array([[point.probe, point.passed] for point in points])
        low, high = min(-0.1, float(values.min())), max(0.3, float(values.max()))
        pad = 0.06 * (high - low)
        axes.set_xlim(low - pad, high + pad)
        axes.set_ylim(low - pad, high + pad)
        for line in (axes.axhline, axes.axvline):
            line(math.log(HELD), color=HUES["green"][0], linewidth=0.8, alpha=0.6)
        axes.axline((0, 0), slope=1, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
        axes.grid()
        for name, marker in zip(names, MARKERS * len(names), strict=False):
            mine = [point for point in points if point.rule == name]
            axes.plot(
                [point.probe for point in mine],
                [point.passed for point in mine],
                marker,
                color=palette[name],
                label=name,
                markersize=5,
                alpha=0.85,
            )
        axes.set_xlabel("probe: nats above the baseline")
        axes.set_ylabel("full pass: the same")
        axes.legend()

    return Picture(
        "trust",
        f"How far to trust the probe: {found.agree} of {len(found.points)} cells agree",
        "A point for each rule and gap that the probe and the full pass have measured. On the dashed line they are "
        "equal. The rule holds by the probe left of the vertical green line, and by the full pass below the "
        "horizontal one.",
        draw,
        height=3.3,
    )


_HEAT = LinearSegmentedColormap.from_list(
    "posenc-heat",
    [
        (0.0, (0.1, 0.47, 0.78, 0.55)),
        (0.25, (0.1, 0.47, 0.78, 0.0)),
        (0.25, (0.85, 0.37, 0.05, 0.0)),
        (1.0, (0.85, 0.37, 0.05, 0.9)),
    ],
)
"""Blue below the untouched model, the page's background at equality, orange above."""


def heatmap(probed: Probed) -> Picture:
    """Perplexity by rule and gap."""
    found, plan = probed.ranked(), probed.plan
    nats = np.array([_floats(probe.mean) for _, probe in found])
    above = nats - _floats(probed.baseline())
    gaps = plan.gaps

    def draw(axes: Axes) -> None:
        axes.imshow(above, cmap=_HEAT, norm=Normalize(-0.5, 1.5), aspect="auto", interpolation="none")
        for row, column in np.ndindex(*nats.shape):
            value = float(nats[row, column])
            said = "no code" if math.isnan(value) else number(perplexity(value), 1)
            axes.text(column, row, said, ha="center", va="center", fontsize=8)
        axes.set_xticks(range(len(gaps)), [f"{gap:,}" for gap in gaps])
        axes.set_yticks(range(len(found)), [name for name, _ in found])
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(len(gaps) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(found) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=GRID, linewidth=0.6)
        axes.tick_params(which="minor", length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("gap in positions")

    title = f"The probe: perplexity by rule and gap, trained on {probed.trained_length:,} tokens"
    caption = (
        f"{plan.scored} tokens that attend to {plan.block} tokens across the gap, mean of {plan.places} places. "
        "Orange: above the untouched model at gaps within its trained length; blue: below."
    )
    return Picture("heatmap", title, caption, draw, height=0.8 + 0.26 * len(found))


def of_passes(results: Results) -> list[Picture]:
    """The pictures of the full passes, if there are any."""
    found = [by_position(results), above_home(results)] if results.rows else []
    return [picture for picture in found if picture is not None]


def of_probes(results: Results) -> list[Picture]:
    """The pictures of the probes, if there are any."""
    found = [heatmap(results.probed) if results.probe else None, trust(results)]
    return [picture for picture in found if picture is not None]


def _floats(values: Sequence[float | None]) -> FloatArray:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _lines(axes: Axes, results: Results, lines: Mapping[str, FloatArray]) -> None:
    """Draw a line by position for each rule, with its name at the end, and a mark at the trained length."""
    x, palette, ends = np.array(results.curves.positions), hues(results), []
    for name, values in lines.items():
        axes.plot(x, values, color=palette[name], zorder=3 if name == "none" else 2)
        finite = np.flatnonzero(np.isfinite(values))
        if finite.size:
            ends.append((float(x[finite[-1]]), float(values[finite[-1]]), name, palette[name]))
    axes.set_xlim(0, results.config.length)
    axes.minorticks_off()
    axes.grid(axis="y")
    mark_trained_length(axes, results.config.trained_length, before=True)
    axes.set_xlabel("position in the text, in tokens")
    _thousands(axes, results.config.trained_length, results.config.length)
    label_ends(axes, ends)


def _thousands(axes: Axes, trained: int, length: int) -> None:
    """Ticks that include the trained length and the end, without others too near to them."""
    step = trained // 4 if length <= 2.5 * trained else trained
    while length / step > 7:
        step *= 2
    ticks = [at for at in range(0, length + 1, max(1, step)) if at == trained or abs(at - trained) > step / 2]
    ticks = [at for at in ticks if length - at > step / 2] + [length]
    axes.set_xticks(ticks, [f"{at:,}" for at in ticks])

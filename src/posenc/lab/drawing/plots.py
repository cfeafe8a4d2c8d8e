"""The look of every figure, and the figures of a run.

Each figure is drawn once, for both themes: axes and text have one colour that becomes ``currentColor``, and
each hue becomes a CSS variable, which the dark theme replaces. pyplot is not used, so there is no global state.
"""

import io
import itertools
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import CenteredNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from posenc.lab.run import folder as runs

TIMES = "\u00d7"
INK, MUTED, GRID = "#1c1d1f", "#6a6b6d", "#d9dadb"

HUES = {  # on white, on black; distinguishable for colour-blind readers, and with different markers
    "grey": ("#75777a", "#a3a6aa"),
    "vermilion": ("#c8500a", "#ff8a4c"),
    "gold": ("#b07d00", "#e3b341"),
    "brown": ("#7a4a2e", "#c79a7c"),
    "blue": ("#0a6ebd", "#58a6ff"),
    "pink": ("#c2408f", "#f08cc8"),
    "green": ("#0b8560", "#3fcf9b"),
    "purple": ("#6b3fb8", "#b795f5"),
    "teal": ("#0e7f8c", "#4cc9d6"),
    "red": ("#b3202f", "#ff7b85"),
    "olive": ("#5f7010", "#b5c94e"),
    "navy": ("#2b3a8f", "#94a3ff"),
}
_OF = {
    "none": "grey",
    "integer": "vermilion",
    "normalized": "gold",
    "binary": "brown",
    "sinusoidal": "blue",
    "learned": "pink",
    "rope": "green",
    "alibi": "purple",
}
_IN_TURN = ("green", "blue", "purple", "vermilion", "gold", "pink", "teal", "brown", "red", "olive", "navy")
MARKERS = "osD^vP*X<>hp"

WIDTH, HEIGHT = 4.4, 2.9
"""Width of a figure in inches: its text of 9 points is readable on a phone."""

DIVERGING = LinearSegmentedColormap.from_list(
    "posenc",
    [
        (0.0, (0.85, 0.37, 0.05, 1)),
        (0.5, (0.85, 0.37, 0.05, 0)),
        (0.5, (0.1, 0.47, 0.78, 0)),
        (1.0, (0.1, 0.47, 0.78, 1)),
    ],
)
"""Orange below zero, blue above, and the page's background at zero."""

STYLE: dict[str, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.formatter.useoffset": False,
    "image.composite_image": False,
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Picture:
    """One picture: its title, a caption that explains it, and the function that draws it."""

    name: str
    title: str
    caption: str
    draw: Callable[[Axes], None]
    height: float = HEIGHT


def hues(labels: Sequence[str]) -> dict[str, str]:
    """A hue for each label, on white: an encoding of the catalogue has a fixed hue, others take the next free one."""
    free = iter([name for name in HUES if name not in _OF.values()] * len(labels))
    return {label: HUES[_OF[label] if label in _OF else next(free)][0] for label in labels}


def in_turn() -> Iterator[str]:
    """An endless sequence of hues on white, for lines that do not belong to an encoding."""
    return itertools.cycle(HUES[name][0] for name in _IN_TURN)


def _style(name: str) -> AbstractContextManager[None]:
    """The style while a figure is drawn; its name makes the names of clipping paths unique in a page."""
    options: Any = {**STYLE, "svg.hashsalt": name}
    return matplotlib.rc_context(options)


def svg(picture: Picture) -> str:
    """The picture as an ``<svg>`` element for a page."""
    with _style(picture.name):
        figure = Figure(figsize=(WIDTH, picture.height), layout="constrained")
        picture.draw(figure.add_subplot())
        text = _themed(figure)
    label = re.sub(r"[^\w -]", "", picture.title)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def save(pictures: Sequence[Picture], path: Path, *, heading: str) -> None:
    """Save all pictures as one file: PNG, PDF or SVG by its suffix. Make its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = min(2, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    with _style(heading):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
        figure = Figure(figsize=(WIDTH * columns, 0.3 + 3.4 * rows), layout=layout)
        if heading:
            figure.suptitle(heading, x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False)
        for at, picture in enumerate(pictures):
            axes = figure.add_subplot(rows, columns, at + 1)
            picture.draw(axes)
            wrapped = textwrap.fill(picture.title, 44, break_long_words=False, break_on_hyphens=False)
            axes.set_title(wrapped, loc="left")
        if path.suffix.lower() == ".svg":
            text = _themed(figure)
            dark = "".join(f"--{name}:{on_black};" for name, (_, on_black) in HUES.items())
            rule = (
                f"svg{{background:#fff;color:{INK};font-family:sans-serif}}"
                f"@media(prefers-color-scheme:dark){{svg{{background:#14161a;color:#e6e7e9;--grid:#3a3d42;--muted:#9da1a6;{dark}}}}}"
            )
            names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            text = text.replace("<svg ", f"<svg {names}", 1)
            runs.write(path, text.replace(">", f"><style>{rule}</style>", 1))
            return
        out = io.BytesIO()
        if path.suffix.lower() == ".pdf":
            figure.savefig(out, format="pdf", facecolor="white", metadata={"CreationDate": None})
        else:
            FigureCanvasAgg(figure).print_figure(out, dpi=160, facecolor="white", format="png")
        runs.write(path, out.getvalue())


def heatmap(axes: Axes, values: NDArray[np.float64], *, square: bool = False) -> None:
    """Numbers as colours with a colour bar: blue above zero, orange below, the page's background at zero and NaN."""
    aspect: Any = "equal" if square else "auto"
    image = axes.imshow(values, cmap=DIVERGING, norm=CenteredNorm(), aspect=aspect, interpolation="none")
    axes.spines[:].set_visible(True)
    axes.spines[:].set_linewidth(0.5)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.035, pad=0.02)
    bar.outline.set_linewidth(0.5)
    bar.locator = MaxNLocator(4)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low < high:
        bar.ax.set_ylim(min(low, 0.0), max(high, 0.0))
    bar.update_ticks()


def _themed(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    # Names that nothing refers to would repeat in every picture of a page.
    referred = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in referred else "", text)
    # With viewBox alone, the picture scales to the available width.
    for side in ("width", "height"):
        text = re.sub(rf'(<svg [^>]*?) {side}="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font: ((?:\w+ )?[\d.]+px) [^;\"]*", r"font: \1 sans-serif", text)
    text = text.replace(INK, "currentColor")
    for name, on_white in {"muted": MUTED, "grid": GRID, **{name: hue for name, (hue, _) in HUES.items()}}.items():
        text = text.replace(on_white, f"var(--{name},{on_white})")
    return re.sub(r"\n\s*", "\n", text)


# The figures of a run

Curve = Sequence[tuple[float, NDArray[np.float64]]]
"""(x, one value for each seed) in order of x."""


def by_step(seeds: Sequence[Sequence[tuple[int, float | None]]]) -> list[tuple[float, NDArray[np.float64]]]:
    """The losses of several seeds, pairs (step, loss), as one curve; values that are not finite are left out."""
    found: dict[int, list[float]] = {}
    for step, loss in itertools.chain.from_iterable(seeds):
        if loss is not None and math.isfinite(loss):
            found.setdefault(step, []).append(loss)
    return [(float(step), np.array(values)) for step, values in sorted(found.items())]


def perplexity_by_length(
    curves: Mapping[str, Curve], *, trained_length: int, title: str, name: str, caption: str, ends: Mapping[str, str]
) -> Picture:
    """One line for each encoding, from the trained length on; ``ends`` marks where a line ends for lack of a code."""

    def draw(axes: Axes) -> None:
        everything = np.concatenate([values for curve in curves.values() for _, values in curve])
        lowest = float(everything.min())
        highest = min(float(everything.max()), 1000 * lowest)  # one very large value must not flatten all other lines
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        lengths = sorted({x for curve in curves.values() for x, _ in curve})
        ratio = max(highest / lowest, 1.2)
        axes.set_ylim(lowest / ratio**0.08, highest * ratio**0.12)
        axes.set_xlim(lengths[0] / 1.12, lengths[-1] * 1.06)
        axes.set_xticks(lengths, [f"{x / trained_length:g}{TIMES}\n{x:g}" for x in lengths])
        axes.minorticks_off()
        axes.set_yticks(round_values(*axes.get_ylim()), [f"{v:g}" for v in round_values(*axes.get_ylim())])
        axes.grid(axis="y")
        mark_trained_length(axes, trained_length)
        axes.set(xlabel="length in tokens", ylabel="perplexity (log)")
        _lines(axes, curves, markers=True, notes=ends)

    return Picture(name, title, caption, draw, height=3.3)


def loss_by_step(curves: Mapping[str, Curve], *, title: str, caption: str = "", unit: str = "nats a token") -> Picture:
    """One line for each encoding; the first steep steps are cut off at the top."""

    def draw(axes: Axes) -> None:
        last = max(x for curve in curves.values() for x, _ in curve)
        late = [values.mean() for curve in curves.values() for x, values in curve if x >= 0.15 * last]
        low, high = min(late), max(late)
        room = high - low + 1e-9
        axes.set(ylim=(low - 0.06 * room, high + 0.04 * room), xlim=(0, last * 1.01))
        axes.grid(axis="y")
        axes.set(xlabel="training step", ylabel=f"training loss ({unit})" if unit else "training loss")
        _lines(axes, curves, markers=False, notes={})

    return Picture("loss", title, caption, draw, height=3.3)


def _lines(axes: Axes, curves: Mapping[str, Curve], *, markers: bool, notes: Mapping[str, str]) -> None:
    palette = hues(list(curves))
    ends = []
    for (label, curve), marker in zip(curves.items(), MARKERS * len(curves), strict=False):
        line_of_seeds(axes, curve, palette[label], marker=marker if markers else None)
        x, values = curve[-1]
        ends.append((float(x), float(values.mean()), label + notes.get(label, ""), palette[label]))
    label_ends(axes, ends)


def line_of_seeds(axes: Axes, curve: Curve, color: str, **how: Any) -> None:
    """Draw the mean over seeds as a line and, for several, their range as a band; ``how`` is for the line."""
    x = [at for at, _ in curve]
    axes.plot(x, [values.mean() for _, values in curve], color=color, **how)
    if any(len(values) > 1 for _, values in curve):
        low, high = ([pick(values) for _, values in curve] for pick in (np.min, np.max))
        axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)


def note(axes: Axes, text: str, at: tuple[float, float], away: tuple[float, float], **how: Any) -> None:
    """Write a short label at an offset in points from a place; ``how`` is passed to matplotlib."""
    axes.annotate(text, at, xytext=away, textcoords="offset points", **{"fontsize": 8, "color": MUTED, **how})


def mark_trained_length(axes: Axes, length: int, *, before: bool = False) -> None:
    """Draw a line at the trained length, with its label to the right, or to the left if ``before``."""
    axes.axvline(length, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)), zorder=0)
    side: dict[str, Any] = {"va": "top", "ha": "right" if before else "left"}
    note(axes, "trained length", (length, 1.0), (-4 if before else 4, -2), xycoords=("data", "axes fraction"), **side)


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write the label of each line at its end, moved up or down so that no two overlap."""
    scale = np.log if axes.get_yscale() == "log" else np.asarray
    low, high = scale(axes.get_ylim())
    heights = {end: float(np.clip((scale(end[1]) - low) / (high - low), 0.0, 1.0)) for end in ends}
    gap = min(0.062, 1.0 / max(len(ends), 1))
    placed = spread([heights[end] for end in ends], gap)
    right = axes.get_xlim()[1]
    for end, at in zip(ends, placed, strict=True):
        x, y, text, color = end
        beyond = y > axes.get_ylim()[1]
        axes.annotate(
            f"{text} {y:.3g} ↑" if beyond else text,
            xy=(x, heights[end]) if x < right * 0.9 else (right, heights[end]),
            xycoords=("data", "axes fraction"),
            xytext=(1.045, at),
            textcoords="axes fraction",
            color=color,
            fontsize=8.5,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 2,
                "linestyle": ":",
            },
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """The heights, moved as little as possible to leave ``gap`` between any two, in their order and within 0 .. 1."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    clusters: list[list[float]] = []  # mean of the wanted lowest places of the members, number of members
    for rank, index in enumerate(order):
        clusters.append([heights[index] - rank * gap, 1])
        while len(clusters) > 1 and clusters[-2][0] > clusters[-1][0]:  # they overlap: both move, to their common mean
            mean, count = clusters.pop()
            below, size = clusters[-1]
            clusters[-1] = [(below * size + mean * count) / (size + count), size + count]
    lowest = [mean for mean, count in clusters for _ in range(int(count))]
    ceiling = 1.0 - (len(heights) - 1) * gap
    placed = [0.0] * len(heights)
    for rank, index in enumerate(order):
        placed[index] = min(max(lowest[rank], 0.0), max(ceiling, 0.0)) + rank * gap
    return placed


def round_values(low: float, high: float) -> list[float]:
    """Values for the ticks of a logarithmic axis: 1, 2, 5 times powers of ten, and finer where few of them fit."""
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8), tuple(1 + i / 10 for i in range(90))):
        found = [
            step * 10.0**power
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for step in steps
            if low <= step * 10.0**power <= high
        ]
        if len(found) >= 4:
            return found[:: math.ceil(len(found) / 7)]
    # So narrow that the axis is as good as linear: 3 to 7 multiples of 1, 2 or 5 times a power of ten.
    power = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(step * power for step in (1, 2, 5, 10) if (high - low) / (step * power) <= 6)
    return [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]

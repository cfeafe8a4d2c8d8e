"""`posenc inspect A --against B`: where do two checkpoints differ, and by how much at which position?"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from posenc import MRoPE, RoPE
from posenc.encoding import Encoding
from posenc.integrations.transformers import Description, LayerGroup
from posenc.lab.drawing.words import ranges
from posenc.lab.run.printable import escape, printable

#: Angles that differ by less, in radians, are those of one encoding: float32 in a file costs as much.
SAME = 0.01


@dataclass(frozen=True)
class Difference:
    """Layers that have one encoding in A and one in B.

    Attributes:
        layers: which, counted from 0.
        a: their encoding in A, in short; "" if A has no such layers.
        b: the same in B.
        angles: the largest difference of an angle at each position, radians; None where there are no angles to compare.
        pair: the pair of channels that differs most at the last position.
        others: what else differs, in words.
        aside: what differs and is no matter of the encoding: in which pairs weights are stored, lengths.
    """

    layers: tuple[int, ...]
    a: str
    b: str
    angles: tuple[float, ...] | None
    pair: int | None
    others: tuple[str, ...]
    aside: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether these layers compute something else."""
        return bool(self.others) or (self.angles is not None and max(self.angles) > SAME)


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints, layer by layer.

    Attributes:
        a: the model type of A.
        b: that of B.
        positions: where angles were compared.
        layers: kinds of layers.
    """

    a: str
    b: str
    positions: tuple[int, ...]
    layers: tuple[Difference, ...]

    @property
    def exit_code(self) -> int:
        """0 for two that compute the same, 1 otherwise."""
        return int(any(each.differs for each in self.layers))


def compare(a: Description, b: Description, *, to: int | None = None) -> Comparison:
    """Compare the text part of two models, layer by layer, at positions up to ``to``.

    Args:
        a: one of them.
        b: the other.
        to: tokens; by default the longest context that one of them says it was made for.

    Raises:
        ValueError: ``to`` below 2.
    """
    groups = _text(a), _text(b)
    if to is None:
        to = max((group.longest or group.trained_length or 0 for both in groups for group in both), default=0) or 4096
    if to < 2:
        raise ValueError(f"inspect --against: got --to {to}, expected at least 2 tokens.")
    positions = tuple(dict.fromkeys([*(4**i for i in range(1, 30) if 4**i < to - 1), to - 1]))
    pairs: dict[tuple[int | None, int | None], list[int]] = {}
    for layer in sorted({layer for both in groups for group in both for layer in group.layers}):
        where = [next((i for i, g in enumerate(both) if layer in g.layers), None) for both in groups]
        pairs.setdefault((where[0], where[1]), []).append(layer)
    found = [
        _difference(
            None if i is None else groups[0][i], None if j is None else groups[1][j], tuple(layers), positions, to
        )
        for (i, j), layers in pairs.items()
    ]
    return Comparison(a.model_type, b.model_type, positions, tuple(found))


def _text(description: Description) -> list[LayerGroup]:
    """The groups of the model itself, or of its text."""
    parts = list(dict.fromkeys(group.part for group in description))
    usual = [part for part in ("", "text_config", "thinker_config.text_config") if part in parts]
    chosen = (usual or parts or [""])[0]
    return [group for group in description if group.part == chosen]


def _difference(
    a: LayerGroup | None, b: LayerGroup | None, layers: tuple[int, ...], positions: tuple[int, ...], length: int
) -> Difference:
    if a is None or b is None:
        text = "A has no such layers, or no attention in them" if a is None else "B has no such layers, or no attention"
        return Difference(layers, _short(a), _short(b), None, None, (text,), ())
    others, aside = list(_others(a.encoding, b.encoding)), list(_aside(a, b))
    turning = _rotation(a.encoding), _rotation(b.encoding)
    angles: tuple[float, ...] | None = None
    pair = None
    if turning[0] is not None and turning[1] is not None:
        rates = [
            rotation.frequencies.inv_freq(rotation.rotary_dim, length=float(length)) for rotation in turning if rotation
        ]
        if rates[0].shape == rates[1].shape:
            far: NDArray[np.float64] = np.abs(rates[0] - rates[1])
            pair = int(far.argmax())
            angles = tuple((np.array(positions) * far.max()).tolist())
    return Difference(layers, _short(a), _short(b), angles, pair, tuple(others), tuple(aside))


def _others(a: Encoding, b: Encoding) -> Iterator[str]:
    """What differs besides angles."""
    first, second = _rotation(a), _rotation(b)
    if (first is None) != (second is None):
        yield f"{'A' if first is not None else 'B'} rotates and the other does not"
    elif first is not None and second is not None:
        for name in ("head_dim", "rotary_dim", "rotary_start"):
            if getattr(first, name) != getattr(second, name):
                yield f"{name} is {getattr(first, name)} in A and {getattr(second, name)} in B"
        for name, words in (("attention_factor", "cos and sin times"), ("score_factor", "scores times")):
            x, y = getattr(first.frequencies, name), getattr(second.frequencies, name)
            if abs(x - y) > 1e-5 * abs(x):
                yield f"{words} {x:.6g} in A and {y:.6g} in B"
    rest = [[part.to_dict() for part in each.parts if _rotation(part) is None] for each in (a, b)]
    names = [" and ".join(str(each.pop("name", "")) for each in some) or "nothing" for some in rest]
    if names[0] != names[1] and first is not None and second is not None:
        yield f"besides: {names[0]} in A, {names[1]} in B"
    elif rest[0] != rest[1] and names[0] == names[1]:
        for x, y in zip(rest[0], rest[1], strict=True):
            for key in x.keys() | y.keys():
                if x.get(key) != y.get(key):
                    yield f"{key} is {x.get(key)} in A and {y.get(key)} in B"
    elif names[0] != names[1] and first is None and second is None:
        yield f"{names[0]} in A, {names[1]} in B"


def _aside(a: LayerGroup, b: LayerGroup) -> Iterator[str]:
    first, second = _rotation(a.encoding), _rotation(b.encoding)
    if first is not None and second is not None and first.pairing != second.pairing:
        yield f"pairs are {first.pairing} in A and {second.pairing} in B: right if the weights were permuted for it"
    if a.trained_length != b.trained_length:
        yield f"trained with {a.trained_length} tokens by A, {b.trained_length} by B"


def _rotation(encoding: Encoding) -> RoPE | MRoPE | None:
    return next((part for part in encoding.parts if isinstance(part, (RoPE, MRoPE))), None)


def _short(group: LayerGroup | None) -> str:
    if group is None:
        return ""
    rotation = _rotation(group.encoding)
    if rotation is None:
        return type(group.encoding).__name__
    rule = repr(rotation.frequencies)
    return rule if len(rule) <= 60 else f"{type(rotation.frequencies).__name__}, {rotation.rotary_dim // 2} rates"


def show(found: Comparison, console: Console) -> None:
    """Print the comparison as a table, and what it comes to."""
    table = Table(box=None, header_style="dim", padding=(0, 1))
    shown = found.positions if len(found.positions) <= 5 else (*found.positions[::3], found.positions[-1])
    shown = tuple(dict.fromkeys(shown))
    for heading in ("layers", "A", "B", *(f"at {position}" for position in shown), "most in pair"):
        table.add_column(heading, justify="left" if heading in ("layers", "A", "B") else "right")
    for each in found.layers:
        angles = dict(zip(found.positions, each.angles or (), strict=False))
        cells = [f"{angles[position]:.3g} rad" if position in angles else "" for position in shown]
        pair = "" if each.pair is None or not each.differs else str(each.pair)
        table.add_row(ranges(each.layers, most=6), escape(each.a), escape(each.b), *cells, pair)
    console.print(table, highlight=False)
    for each in found.layers:
        for text in each.others:
            console.print(f"[bold]differs[/] layers {ranges(each.layers, most=6)}: {escape(text)}", highlight=False)
        for text in each.aside:
            console.print(f"layers {ranges(each.layers, most=6)}: {escape(text)}", style="dim", highlight=False)
    differing = [layer for each in found.layers if each.differs for layer in each.layers]
    verdict = f"{len(differing)} layers differ" if differing else f"the same up to {SAME:g} rad"
    console.print(f"[bold]{verdict}[/], at positions up to {found.positions[-1]}", highlight=False)


def as_data(found: Comparison) -> dict[str, Any]:
    """The comparison as plain data."""
    return {
        "a": found.a,
        "b": found.b,
        "positions": list(found.positions),
        "layers": [
            {
                "layers": list(each.layers),
                "a": each.a,
                "b": each.b,
                "largest_angle_difference": None if each.angles is None else list(each.angles),
                "pair": each.pair,
                "others": list(each.others),
                "aside": list(each.aside),
                "differs": each.differs,
            }
            for each in found.layers
        ],
        "differs": bool(found.exit_code),
    }


def draw(found: Comparison, path: Path) -> None:
    """Draw the largest angle difference by position into a .png or .svg.

    Raises:
        ValueError: another suffix; no layers whose angles can be compared.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"inspect: got plot {path}, expected a name that ends in .png or .svg.")
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for each in found.layers:
        if each.angles is not None:
            axes.plot(
                found.positions,
                np.maximum(each.angles, 1e-9),
                marker=".",
                label=f"layers {ranges(each.layers, most=6)}",
            )
    if not axes.lines:
        raise ValueError("inspect --against: there are no angles to compare, so there is nothing to draw.")
    axes.axhline(SAME, linewidth=0.8, color="grey")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(xlabel="position", ylabel="largest angle difference, radians")
    axes.set_title(printable(f"{found.a} against {found.b}"), parse_math=False, fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path)

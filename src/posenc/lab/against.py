"""`posenc inspect A --against B`: in which layers do two checkpoints differ, and by how much at each position?"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from posenc import MRoPE, RoPE
from posenc.encoding import Encoding
from posenc.integrations.transformers import Description, LayerGroup
from posenc.lab.drawing.tables import print_first_that_fits
from posenc.lab.drawing.words import ranges
from posenc.lab.run.folder import check_suffix
from posenc.lab.run.printable import escape, printable

#: Smaller angle differences, in radians, count as equal: rates stored in float32 differ by as much.
SAME = 0.01
#: Arguments that set the initial values or the implementation of an encoding, not its function.
_NO_MATTER = {"std", "implementation", "numerics", "seq_dim"}


@dataclass(frozen=True)
class Difference:
    """A set of layers that share one encoding in A and one in B.

    Attributes:
        part: the part of the model; "" for the model itself, or its text model.
        kind: what the configs call this kind of layer ("decoder", "sliding_attention"); "" if they do not tell kinds
            apart, or by different words.
        layers: their numbers, counted from 0.
        a: a short description of their encoding in A; "" if A has no such layers.
        b: the same in B.
        angles: the largest angle difference at each position, in radians; None if there are no angles to compare.
        pair: the pair of channels that differs most at the last position.
        others: what else differs, in words.
        aside: differences that are not part of the encoding: the order in which weights are stored, lengths.
    """

    part: str
    kind: str
    layers: tuple[int, ...]
    a: str
    b: str
    angles: tuple[float, ...] | None
    pair: int | None
    others: tuple[str, ...]
    aside: tuple[str, ...]

    @property
    def name(self) -> str:
        """Which layers, in words."""
        where = f"layers {ranges(self.layers, most=6)}" if self.layers else "all layers"
        return ", ".join(word for word in (self.part, self.kind, where) if word)

    @property
    def differs(self) -> bool:
        """Whether these layers compute different results in A and B."""
        return bool(self.others) or (self.angles is not None and max(self.angles) > SAME)


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints, layer by layer.

    Attributes:
        a: the model type of A.
        b: that of B.
        positions: where angles were compared.
        layers: kinds of layers.
        aside: parts that only one of the two has, or that could not be read, in words.
    """

    a: str
    b: str
    positions: tuple[int, ...]
    layers: tuple[Difference, ...]
    aside: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 for two that compute the same, 1 otherwise."""
        return int(any(each.differs for each in self.layers))


def compare(a: Description, b: Description, *, to: int | None = None) -> Comparison:
    """Compare two models layer by layer, at positions up to ``to``.

    The model itself, or its text model, is compared with that of the other; other parts are compared by name.

    Args:
        a: the first model.
        b: the second model.
        to: tokens; by default the longest context length that either config states.

    Raises:
        ValueError: ``to`` below 2.
    """
    sides = _parts(a), _parts(b)
    if to is None:
        texts = [group for side in sides for group in side[""]]
        to = max((group.longest or group.trained_length or 0 for group in texts), default=0) or 4096
    if to < 2:
        raise ValueError(f"inspect --against: got --to {to}, expected at least 2 tokens.")
    positions = tuple(dict.fromkeys([*(4**i for i in range(1, 30) if 4**i < to - 1), to - 1]))
    found: list[Difference] = []
    aside = []
    for part in dict.fromkeys([*sides[0], *sides[1]]):
        if part in sides[0] and part in sides[1]:
            for one, other, layers in _pairs(sides[0][part], sides[1][part]):
                found.append(_difference(part, one, other, layers, positions, to))
        else:
            aside.append(f"{part}: {'A' if part in sides[0] else 'B'} alone has it, so it is not compared")
    for side, description in zip("AB", (a, b), strict=True):
        aside += [f"not read in {side}: {text}" for text in description.unread]
    return Comparison(a.model_type, b.model_type, positions, tuple(found), tuple(aside))


def _parts(description: Description) -> dict[str, list[LayerGroup]]:
    """The groups by part; "" is the model itself, or its text model."""
    names = list(dict.fromkeys(group.part for group in description))
    usual = [part for part in ("", "text_config", "thinker_config.text_config") if part in names]
    itself = (usual or names or [""])[0]
    found: dict[str, list[LayerGroup]] = {"": []}
    for group in description:
        found.setdefault("" if group.part == itself else group.part, []).append(group)
    return found


def _pairs(
    a: list[LayerGroup], b: list[LayerGroup]
) -> list[tuple[LayerGroup | None, LayerGroup | None, tuple[int, ...]]]:
    """Pairs of a group of A and a group of B, with their common layers; no layers for a model with one encoding."""
    found: dict[tuple[int, int], tuple[LayerGroup | None, LayerGroup | None, list[int]]] = {}
    numbers: set[int | None] = {layer for group in (*a, *b) for layer in group.layers or (None,)}
    for layer in sorted(numbers, key=lambda number: -1 if number is None else number):
        here = [[g for g in side if layer in g.layers or (layer is None and not g.layers)] for side in (a, b)]
        for one, other in _matched(*here):
            layers = found.setdefault((id(one), id(other)), (one, other, []))[2]
            layers += [] if layer is None else [layer]
    return [(one, other, tuple(layers)) for one, other, layers in found.values()]


def _matched(a: list[LayerGroup], b: list[LayerGroup]) -> list[tuple[LayerGroup | None, LayerGroup | None]]:
    """The groups of one layer, paired by the place where they act; if each model has one group, the two are a pair."""
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    rest, found = list(b), []
    for one in a:
        same = [i for i, other in enumerate(rest) if other.encoding.places == one.encoding.places]
        at = min(same, key=lambda i: rest[i].label != one.label, default=None)
        found.append((one, None if at is None else rest.pop(at)))
    return [*found, *((None, other) for other in rest)]


def _difference(
    part: str,
    a: LayerGroup | None,
    b: LayerGroup | None,
    layers: tuple[int, ...],
    positions: tuple[int, ...],
    length: int,
) -> Difference:
    labels = {group.label for group in (a, b) if group is not None and group.label}
    kind = labels.pop() if len(labels) == 1 else ""
    if a is None or b is None:
        text = f"{'A' if a is None else 'B'} has no such layers, or nothing of the kind in them"
        return Difference(part, kind, layers, _short(a), _short(b), None, None, (text,), ())
    others, aside = list(_others(a.encoding, b.encoding)), list(_aside(a, b))
    if a.positions != b.positions:
        others.append(f"positions are {a.positions or 'counted'} in A and {b.positions or 'counted'} in B")
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
    return Difference(part, kind, layers, _short(a), _short(b), angles, pair, tuple(others), tuple(aside))


def _others(a: Encoding, b: Encoding) -> Iterator[str]:
    """Differences other than angles."""
    first, second = _rotation(a), _rotation(b)
    if (first is None) != (second is None):
        yield f"{'A' if first is not None else 'B'} rotates and the other does not"
    elif first is not None and second is not None:
        for name in ("head_dim", "rotary_dim", "rotary_start"):
            if getattr(first, name) != getattr(second, name):
                yield f"{name} is {getattr(first, name)} in A and {getattr(second, name)} in B"
        if isinstance(first, MRoPE) and isinstance(second, MRoPE):
            for name in ("sections", "layout"):
                if getattr(first, name) != getattr(second, name):
                    yield f"{name} of the coordinates: {getattr(first, name)} in A and {getattr(second, name)} in B"
        for name, words in (("attention_factor", "cos and sin times"), ("score_factor", "scores times")):
            x, y = getattr(first.frequencies, name), getattr(second.frequencies, name)
            if abs(x - y) > 1e-5 * abs(x):
                yield f"{words} {x:.6g} in A and {y:.6g} in B"
    rest = [[part.to_dict() for part in each.parts if _rotation(part) is None] for each in (a, b)]
    names = [" and ".join(str(each.pop("name", "")) for each in some) or "nothing" for some in rest]
    if names[0] == names[1]:
        for one, other in zip(*rest, strict=True):
            for key in sorted((one.keys() | other.keys()) - _NO_MATTER):
                if one.get(key) != other.get(key):
                    yield f"{key} is {one.get(key)} in A and {other.get(key)} in B"
    elif (first is None) == (second is None):
        yield f"{'besides: ' if first is not None else ''}{names[0]} in A, {names[1]} in B"


def _aside(a: LayerGroup, b: LayerGroup) -> Iterator[str]:
    first, second = _rotation(a.encoding), _rotation(b.encoding)
    if first is not None and second is not None and first.pairing != second.pairing:
        yield f"pairs are {first.pairing} in A and {second.pairing} in B: right if the weights were permuted for it"
    if isinstance(first, MRoPE) is not isinstance(second, MRoPE) and None not in (first, second):
        alone = "A" if isinstance(first, MRoPE) else "B"
        yield f"{alone} alone turns the tokens of images by rows and columns; those of a text are compared"
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


def show(found: Comparison, console: Console, *, names: tuple[str, str] | None = None) -> None:
    """Print the ``names`` of both, the differences for each kind of layers, a table of the angles, and the result."""
    for side, name, kind in zip("AB", names or (), (found.a, found.b), strict=False):
        console.print(f"{side}  [bold]{escape(name)}[/]  {escape(kind)}", soft_wrap=True)
    for each in found.layers:
        console.print(f"[bold]{escape(each.name)}[/]")
        for side, short in (("A", each.a), ("B", each.b)):
            console.print(f"  {side}  {escape(short) or 'none'}")
        for text in each.others:
            console.print(f"  [bold]differs[/]  {escape(text)}")
        for text in each.aside:
            console.print(f"  {escape(text)}", style="dim")
    some = found.positions if len(found.positions) <= 5 else (*found.positions[::3], found.positions[-1])
    shown = tuple(dict.fromkeys(some))
    table = Table(box=None, header_style="dim", padding=(0, 1), title="largest difference of an angle, radians")
    table.add_column("")
    for heading in (*(f"at {position}" for position in shown), "in pair"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found.layers:
        if each.angles is not None:
            angles = dict(zip(found.positions, each.angles, strict=True))
            pair = str(each.pair) if each.differs else ""
            table.add_row(escape(each.name), *(f"{angles[position]:.3g}" for position in shown), pair)
    if table.row_count:
        print_first_that_fits(console, [[table]])
    for text in found.aside:
        console.print(escape(text), style="dim")
    differing = [each for each in found.layers if each.differs]
    count = len({(each.part, each.kind, layer) for each in differing for layer in each.layers})
    verdict = (f"{count} layers differ" if count else "they differ") if differing else "the same"
    how = f"; at positions up to {found.positions[-1]}, angles within {SAME:g} rad count as equal"
    reach = how if table.row_count else ""
    console.print(f"[bold]{verdict}[/]{reach}")


def as_data(found: Comparison) -> dict[str, Any]:
    """The comparison as plain data."""
    layers = []
    for each in found.layers:
        renamed = {"angles": "largest_angle_difference"}
        plain = {renamed.get(name, name): value for name, value in asdict(each).items()}
        layers.append(plain | {"differs": each.differs})
    return asdict(found) | {"layers": layers, "differs": bool(found.exit_code)}


def draw(found: Comparison, path: Path) -> None:
    """Draw the largest angle difference by position into a .png, .svg or .pdf.

    Raises:
        ValueError: another suffix; no layers whose angles can be compared.
    """
    from matplotlib.axes import Axes

    from posenc.lab.drawing.plots import MUTED, Picture, in_turn, save

    check_suffix("inspect --plot", path)
    turning = [(each.name, each.angles) for each in found.layers if each.angles is not None]
    if not turning:
        raise ValueError("inspect --against: there are no angles to compare, so there is nothing to draw.")

    def lines(axes: Axes) -> None:
        for (name, angles), color in zip(turning, in_turn(), strict=False):
            label = printable(name).replace("$", r"\$")
            axes.plot(found.positions, np.maximum(angles, 1e-9), marker=".", color=color, label=label)
        axes.axhline(SAME, linewidth=0.8, color=MUTED)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set(xlabel="position (log)", ylabel="radians (log)")
        axes.legend()

    picture = Picture("angles", "Largest difference of an angle, by position", "", lines)
    save([picture], path, heading=printable(f"{found.a} against {found.b}"))

"""`posenc inspect`: describes a model's positional encoding, and warns of settings that are known to be wrong."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from posenc import ALiBi, AxialRoPE, Learned, MRoPE, NoPE, RoPE, Temperature
from posenc.embeddings import LearnedGrid
from posenc.encoding import Encoding
from posenc.frequencies import (
    Custom,
    DynamicNTK,
    Frequencies,
    Geometric,
    LearnedRates,
    LongRoPE,
    NTKAlpha,
    Proportional,
    YaRN,
)
from posenc.integrations.transformers import Description, LayerGroup
from posenc.integrations.transformers.rules.read import NO_TEMPERATURE
from posenc.lab.checkpoint.read import read
from posenc.lab.drawing.tables import print_first_that_fits
from posenc.lab.drawing.words import ranges
from posenc.lab.run.folder import check_suffix
from posenc.lab.run.printable import escape, printable
from posenc.scores import DecomposedBias, LeViTBias, SwinBias, SwinV2Bias

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Wavelengths:
    """The rates of a rotary encoding, and the length that the model was trained on.

    Attributes:
        rates: radians per token of each pair; 0 for pairs that do not rotate.
        plain: the rates without the rule, from the base alone; None if there is no base.
        window: the trained length in tokens, or None.
    """

    rates: FloatArray
    plain: FloatArray | None
    window: int | None

    @property
    def wavelengths(self) -> FloatArray:
        """Tokens per turn; infinite for pairs that do not rotate."""
        with np.errstate(divide="ignore"):
            found: FloatArray = 2 * np.pi / np.abs(self.rates)
        return found

    @property
    def turns(self) -> FloatArray | None:
        """Turns of each pair within the trained length, without the rule; None without a trained length."""
        if self.window is None:
            return None
        plain = self.rates if self.plain is None else np.where(self.rates == 0, 0.0, self.plain)
        found: FloatArray = self.window * np.abs(plain) / (2 * np.pi)
        return found

    @property
    def unfinished(self) -> tuple[int, ...]:
        """The pairs that do not complete a turn within the trained length, without the rule."""
        return () if self.turns is None else tuple(np.flatnonzero(self.turns < 1).tolist())

    def fates(self) -> list[str]:
        """The effect of the rule on each pair: "kept", "blended", "stretched", "sped up" or "still"."""
        moving = self.rates != 0
        plain = self.rates if self.plain is None else self.plain
        ratio = np.divide(plain, self.rates, where=moving, out=np.ones_like(self.rates))
        most = ratio[moving].max(initial=0.0)
        fates = {"still": ~moving, "kept": abs(ratio - 1) < 1e-9, "sped up": ratio < 1}
        fates["stretched"] = ratio > most * (1 - 1e-9)
        found: list[str] = np.select(list(fates.values()), list(fates), default="blended").tolist()
        return found


def wavelengths(group: LayerGroup) -> Wavelengths | None:
    """The wavelengths of a group of layers; None if the group has no rotation."""
    rotation = _rotation(group.encoding)
    if rotation is None:
        return None
    if isinstance(rotation, AxialRoPE):
        ladders = dict.fromkeys(zip(rotation.rules, rotation.widths, strict=True))  # each that differs
        return Wavelengths(np.concatenate([rule.inv_freq(width) for rule, width in ladders]), None, None)
    rule = rotation.frequencies
    length = group.longest if rule.depends_on_length else None
    rates = rule.inv_freq(rotation.rotary_dim, length=length)
    base = _base(rule)
    plain = Geometric(base).inv_freq(rotation.rotary_dim) if base is not None else None
    return Wavelengths(rates, plain, group.trained_length)


def warnings(description: Description) -> list[str]:
    """Settings that are known to be wrong or that may surprise."""
    return [f"{_name(group)}: {text}" for group in description for text in _warnings(group)]


def _warnings(group: LayerGroup) -> Iterator[str]:
    rotation = _rotation(group.encoding)
    if rotation is None or isinstance(rotation, AxialRoPE):  # whose lengths are not numbers of tokens
        return
    rule = rotation.frequencies
    trained, longest = group.trained_length, group.longest
    if isinstance(rule, YaRN):
        if trained and longest and abs(rule.factor * trained - longest) > 1:
            yield f"YaRN's factor {rule.factor:g} x {trained} is {rule.factor * trained:g}, not {longest}."
        if rule.ramp_ends(rotation.rotary_dim)[0] == 0:
            yield "YaRN's ramp starts at the first pair: no pair keeps its rate. Is the trained length right?"
        plain = rule.attention_factor == 1 and rule.score_factor == 1 and rule.factor > 1
        if plain and NO_TEMPERATURE not in group.notes:
            yield "YaRN without its temperature: attention_factor is 1."
    if isinstance(rule, DynamicNTK):
        yield "dynamic NTK changes all rates as a text grows: keys that are cached after rotation go wrong."
    if isinstance(rule, LongRoPE) and rule.switch == "sequence":
        yield f"LongRoPE changes its rates past {rule.trained_length} tokens: cached keys of longer texts go wrong."
    found = wavelengths(group)
    plain = isinstance(rotation, RoPE) and isinstance(rule, (Geometric, Proportional))
    windowed = "sliding" in group.label or "local" in group.label  # there distances end at the window
    if plain and not windowed and trained and found is not None and not found.unfinished:
        yield f"every pair completes a turn within {trained} tokens: no pair tells beginning from end."
    if isinstance(rotation, MRoPE) and isinstance(rule, YaRN):
        yield "YaRN under several coordinates scales rows and columns of images too."


def inspect(
    path: str | Path, *, plot: Path | None = None, pairing: Any = None, console: Console | None = None
) -> Description:
    """Print a model's positional encoding. It works offline, and needs neither weights nor transformers.

    Args:
        path: a folder with a ``config.json``, such a file, a GGUF file (with the package ``gguf``), the name of an
            installed package that ships one of them, the folder of a pipeline or model of diffusers, or the name of a
            model of timm, where those are installed.
        plot: a .png, .svg or .pdf file for a plot of the wavelengths.
        pairing: the pairing of a model type that posenc does not know.
        console: the console to print on; the terminal by default.

    Returns:
        The printed description, as :func:`posenc.integrations.transformers.describe` returns it.

    Raises:
        ValueError: the file does not exist, posenc knows no encoding in it, its keys contradict each other, or ``plot``
            has another suffix.
    """
    if plot is not None:
        check_suffix("inspect --plot", plot)
    found = read(path, pairing=pairing)
    console = console or Console(highlight=False)
    console.print(f"[bold]{escape(str(path))}[/]  {escape(found.model_type)}", soft_wrap=True)
    for group in found:
        _print_group(group, console)
    for part in found.unread:
        console.print(f"not read: {escape(part)}", style="dim")
    if not found.groups and not found.unread:
        console.print("no positional encoding that is known here", style="dim")
    for text in warnings(found):
        console.print(f"[bold]warning[/] {escape(text)}", soft_wrap=True)
    if plot is not None:
        _draw(found, plot)
        console.print(f"Drawn: {escape(plot)}", soft_wrap=True)
    return found


def as_data(description: Description) -> dict[str, Any]:
    """The output of :func:`inspect` as plain data."""
    groups = []
    for group in description:
        found = wavelengths(group)
        entry: dict[str, Any] = {"name": _name(group), "layers": list(group.layers), "facts": facts(group)}
        entry["encoding"] = group.encoding.to_dict()
        if found is not None:
            entry["rates"] = found.rates.tolist()
            entry["by_the_rule"] = found.fates()
        groups.append(entry)
    return {
        "model_type": description.model_type,
        "groups": groups,
        "unread": list(description.unread),
        "warnings": warnings(description),
    }


def _print_group(group: LayerGroup, console: Console) -> None:
    console.print()
    console.print(f"[bold]{escape(_name(group))}[/]")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts(group).items():
        grid.add_row(f"[dim]{name}[/]", escape(value))
    console.print(grid)
    found = wavelengths(group)
    if found is not None:
        print_first_that_fits(console, [[_table(found)]])
        console.print(_summary(found), markup=False, style="dim italic", soft_wrap=True)


def facts(group: LayerGroup) -> dict[str, str]:
    """The facts about a group of layers, as text."""
    encoding = group.encoding
    rotation = _rotation(encoding)
    found = {"encoding": " and ".join(type(part).__name__ for part in encoding.parts)}
    if rotation is not None:
        rules = rotation.rules if isinstance(rotation, AxialRoPE) else (rotation.frequencies,)
        slice_ = f"{rotation.rotary_start} to {rotation.rotary_start + rotation.rotary_dim - 1}"
        found |= {
            "rule": _each(rules, _rule_in_words),
            "base": _each(rules, _base_in_words),
            "pairing": {
                "half": f"half: channel c with c + {rotation.rotary_dim // 2}",
                "interleaved": "interleaved: channel 2c with 2c + 1",
            }[rotation.pairing],
            "rotated channels": f"{slice_} of {rotation.head_dim}"
            if rotation.rotary_dim != rotation.head_dim
            else f"all {rotation.head_dim}",
            "cos and sin": _each(rules, lambda rule: f"times {rule.attention_factor:.6g}"),
        }
        if isinstance(rotation, (AxialRoPE, MRoPE)):
            found["coordinates"] = f"{rotation.coordinates}, laid out {rotation.layout}"
        if isinstance(rotation, AxialRoPE) and len(set(rotation.widths)) > 1:
            found["channels of each"] = " / ".join(map(str, rotation.widths))
    found["temperature"] = _temperature_in_words(encoding)
    found |= {name: value for part in encoding.parts for name, value in _places(part).items()}
    if group.positions:
        found["positions"] = group.positions
    if group.trained_length is not None:
        found["trained with"] = f"{group.trained_length} tokens"
    if group.longest is not None:
        found["made for"] = f"{group.longest} tokens"
    if group.notes:
        found["notes"] = "; ".join(group.notes)
    return found


def _each(rules: tuple[Frequencies, ...], words: Callable[[Frequencies], str]) -> str:
    """The text on the rule, or on the rule of each coordinate if they differ."""
    said = [words(rule) for rule in rules]
    return said[0] if len(set(said)) == 1 else " / ".join(said)


def _places(encoding: Encoding) -> dict[str, str]:
    """The positions that an encoding with a table has."""
    match encoding:
        case ALiBi():
            first, last = max(encoding.slopes), min(encoding.slopes)
            return {"slopes": f"{first:.6g} to {last:.6g} per token, rule {encoding.rule!r}"}
        case Learned():
            return {"positions": f"0 to {encoding.length - 1}, no more"}
        case LearnedGrid(grid=(rows, columns), prefix=prefix):
            after = f" after {prefix} other token{'s' if prefix > 1 else ''}" if prefix else ""
            return {"positions": f"{rows} x {columns} patches{after}, no more"}
        case SwinBias() | SwinV2Bias() | LeViTBias() | DecomposedBias():
            rows, columns = encoding.window
            return {"window": f"{rows} x {columns} patches"}
        case _:
            return {}


def _rule_in_words(rule: Frequencies) -> str:
    match rule:
        case LongRoPE():
            return f"LongRoPE, {len(rule.short_factors)} factors up to {rule.trained_length} tokens, others beyond"
        case Custom():
            return f"Custom, {len(rule.rates)} rates"
        case LearnedRates():
            return f"LearnedRates ({rule.parameter}) from {_rule_in_words(rule.start)}"
        case _:
            return repr(rule)


def _base(rule: Frequencies) -> float | None:
    base: float | None = getattr(rule.start if isinstance(rule, LearnedRates) else rule, "base", None)
    return base


def _base_in_words(rule: Frequencies) -> str:
    base = _base(rule)
    if base is None:
        return "none: the rates are given"
    if isinstance(rule, NTKAlpha):
        return f"{base:g}, raised by alpha {rule.alpha:g}"
    return f"{base:g}"


def _temperature_in_words(encoding: Encoding) -> str:
    words = []
    for part in encoding.parts:
        if isinstance(part, Temperature):
            words.append(f"by position, {part}")
        elif part.scales_scores and isinstance(part, (RoPE, AxialRoPE, MRoPE)):
            rule = part.rules[0] if isinstance(part, AxialRoPE) else part.frequencies
            words.append(f"scores times {rule.score_factor:.6g}")
        elif part.scales_scores:
            words.append(f"learned, {type(part).__name__}")
    return " and ".join(words) or "none"


def _table(found: Wavelengths) -> Table:
    """Some pairs from the fastest to the slowest."""
    table = Table(box=None, header_style="dim", padding=(0, 1))
    for heading in ("pair", "radians per token", "tokens per turn", "turns in training", "by the rule"):
        table.add_column(heading, justify="right")
    fates, turns = found.fates(), found.turns
    for pair in _pairs_to_print(found):
        turned = "" if turns is None else f"{turns[pair]:.4g}"
        tokens = _tokens(found.wavelengths[pair])
        table.add_row(str(pair), f"{found.rates[pair]:.4g}", tokens, turned, fates[pair])
    return table


def _summary(found: Wavelengths) -> str:
    """The number of pairs with each effect, and the pairs that never complete a turn in training."""
    fates, never = found.fates(), found.unfinished
    counts = {fate: fates.count(fate) for fate in ("kept", "blended", "stretched", "sped up", "still") if fate in fates}
    text = f"{len(fates)} pairs: " + ", ".join(f"{number} {fate}" for fate, number in counts.items())
    if found.window is not None:
        text += f"; {len(never)} never complete a turn in {found.window} tokens"
    return f"{text}: {ranges(never)}" if never else text


def _tokens(count: float) -> str:
    """A number of tokens with five digits, without an exponent unless it is very large."""
    return f"{count:.0f}" if 1e5 <= count < 1e9 else f"{count:.5g}"


def _pairs_to_print(found: Wavelengths) -> list[int]:
    """Nine evenly spaced pairs, the last pair that completes a turn in training, and the first that does not."""
    count = len(found.rates)
    pairs = {round(i) for i in np.linspace(0, count - 1, min(count, 9))}
    if found.unfinished:
        pairs |= {pair for pair in (found.unfinished[0] - 1, found.unfinished[0]) if pair >= 0}
    return sorted(pairs)


def _draw(description: Description, path: Path) -> None:
    from matplotlib.axes import Axes

    from posenc.lab.drawing.plots import MUTED, Picture, in_turn, note, save

    turning = [(group, found) for group in description if (found := wavelengths(group)) is not None]
    if not turning:
        raise ValueError(f"inspect: {description.model_type} has no rotation, so there are no wavelengths to draw.")
    lengths = {length for group, _ in turning for length in (group.trained_length, group.longest) if length is not None}

    def draw(axes: Axes) -> None:
        for (group, found), color in zip(turning, in_turn(), strict=False):
            moving = np.flatnonzero(found.rates)
            label = printable(_name(group)).replace("$", r"\$")
            axes.plot(moving, found.wavelengths[moving], marker=".", color=color, label=label)
            if found.plain is not None and not np.array_equal(found.plain, found.rates):
                axes.plot(2 * np.pi / found.plain, linestyle=":", color=color, label="without the rule")
        for length in sorted(lengths):
            axes.axhline(length, linewidth=0.8, color=MUTED)
            note(axes, f"{length} tokens", (1.0, length), (-2, 2), xycoords=("axes fraction", "data"), ha="right")
        axes.set_yscale("log")
        axes.set(xlabel="pair", ylabel="tokens per turn (log)")
        axes.legend()

    save([Picture("wavelengths", "Wavelengths by pair", "", draw)], path, heading=printable(description.model_type))


def _rotation(encoding: Encoding) -> RoPE | AxialRoPE | MRoPE | None:
    found = encoding.at("queries_keys")
    return found if isinstance(found, (RoPE, AxialRoPE, MRoPE)) else None


def _name(group: LayerGroup) -> str:
    layers = ranges(group.layers)
    kind = " ".join(word for word in (group.part, group.label) if word)
    what = "no rotation" if isinstance(group.encoding, NoPE) else "biases" if isinstance(group.encoding, ALiBi) else ""
    return ", ".join(word for word in (kind, f"layers {layers}" if layers else "", what) if word)

"""Draws one encoding: pictures in a file, and a rough drawing in the terminal."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from posenc.encoding import ContextualEncoding, Encoding
from posenc.lab.drawing.plots import save
from posenc.lab.encodings import road
from posenc.lab.encodings.pictures import changing, pictures_of, visible
from posenc.lab.encodings.properties import codes_of
from posenc.lab.encodings.spec import parse
from posenc.lab.run import folder as runs
from posenc.lab.run.printable import escape

_SHADES = " ░▒▓█"
_PLACES = {
    "embeddings": "embeddings, once before the first block",
    "queries_keys": "queries and keys, in each layer before the KV cache",
    "scores": "scores, in each layer after the KV cache",
}


def show(
    spec: str,
    *,
    dim: int = 128,
    heads: int = 4,
    length: int = 128,
    output: Path | None = None,
    run: Path | None = None,
    console: Console | None = None,
) -> None:
    """Draw one encoding: roughly in the terminal, and as pictures in ``output`` if it is given.

    Args:
        spec: an encoding, as for ``posenc compare``: "rope", "rope:pairing=interleaved", "mine.py:Mine".
        dim: channels of the model.
        heads: query heads of the model.
        length: number of positions to draw, also passed to encodings that need a length.
        output: a file that ends in .png, .svg or .pdf.
        run: a run of ``posenc compare`` that has trained this encoding: draw it as trained, with the
            sizes and the length of that run.
        console: the console to draw on; the terminal by default.

    Raises:
        ValueError: an unknown name, sizes that do not fit, another suffix, an output for an encoding without codes, or
            a run that has not trained this encoding.
        RunError: no such run.
    """
    if output is not None:
        runs.check_suffix("show --out", output)
    if length < 2:
        raise ValueError(f"show: got length {length}, expected at least 2 positions to draw.")
    for name, size in (("dim", dim), ("heads", heads)):
        if size < 1:
            raise ValueError(f"show: got {name} {size}, expected at least 1.")
    console = console or Console(highlight=False)
    if run is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a fixed seed for initial weights: the drawing is the same each time
            encoding = parse(spec).build(dim=dim, num_heads=heads, length=length)
    else:
        encoding, dim, heads = _trained(spec, run)
    words = road.step(encoding)
    limit = encoding.max_positions
    nowhere = "the softmax (a temperature)" if encoding.scales_scores else "none"
    facts = {
        "place": " and ".join(_PLACES[place] for place in encoding.places) or nowhere,
        "formula": words.formula,
        "paper": words.paper or "none given",
        "positions": "no limit by construction" if limit is None else f"{limit}, 0 to {limit - 1}",
    }
    numbers = sum(parameter.numel() for parameter in encoding.parameters())
    if run is not None:
        facts["trained"] = f"its {numbers:,} parameters are those of {run}" if numbers else "it learns nothing"
    elif numbers and (drawn := visible(encoding)) is not encoding:
        encoding = drawn
        facts["untrained"] = f"its {numbers:,} parameters start at zero; the drawing uses random values"
    elif numbers:
        facts["untrained"] = f"its {numbers:,} parameters have their initial values, before any training"
    shown = length if limit is None else min(length, limit)
    if encoding.places:  # before anything is printed, because it may need too much memory
        with torch.no_grad():
            codes = changing(codes_of(encoding, torch.arange(shown), dim=dim, num_heads=heads).numpy())
    console.print(f"[bold]{escape(spec)}[/]  for a model of {dim} channels and {heads} heads")
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(f"[dim]{name}[/]", escape(value))
    console.print(grid)
    if not encoding.places:
        if output is not None:
            raise ValueError(
                f"show: {spec} changes no token and no score by its position, so there is nothing to draw in {output}."
            )
        console.print("There is nothing to draw: no position is written into a token or a score.")
        return
    what, row, value = _legend(encoding)
    count = min(shown, 16)
    rows = f"a row for each {row}" if count == shown else f"rows for {count} of {shown} {row}s"
    lines, low, high = drawing(codes, width=min(console.width - 10, 96), height=count)
    for line in lines:
        console.print(line, markup=False, no_wrap=True)
    console.print(
        f"{rows}, {_columns(what, codes.shape[1], min(console.width - 10, 96))}, from {low:.3g} (blank) to {high:.3g} "
        f"(full): {value}",
        style="dim",
    )
    if output is not None:
        heading = f"{spec}  ({words.formula})"
        save(pictures_of(encoding, dim=dim, num_heads=heads, length=shown), output, heading=heading)
        console.print(f"Drawn: {escape(output)}", soft_wrap=True)


def _legend(encoding: Encoding) -> tuple[str, str, str]:
    """What a column, a row and a number of the drawing are."""
    if encoding.places == ("scores",):
        words = ", among words that are all alike" if isinstance(encoding.at("scores"), ContextualEncoding) else ""
        if encoding.relative:
            return "head", "distance", f"what is added to the score of a query and a key so far before it{words}"
        return "head", "position", f"what is added to the score of a query there and the key at 0{words}"
    if encoding.places == ("embeddings",):
        return "channel", "position", "what is added to an embedding"
    if encoding.places == ("queries_keys",):
        return "channel", "position", "a query of ones after the encoding"
    return "channel", "position", "the codes of its places, side by side"


def _columns(what: str, count: int, width: int) -> str:
    if count == 1:
        return f"one {what}"
    some = f"a column for each {what}" if count <= width else f"columns for {width} of {count} {what}s"
    return f"{some} (0 to {count - 1})"


def _trained(spec: str, run: Path) -> tuple[Encoding, int, int]:
    """The trained encoding of a run, with the channels and heads of its model."""
    run, done = runs.find(run), []
    for folder in sorted(run.glob("*-seed*")):
        config, weights = runs.read_json(folder / runs.CONFIG), folder / runs.MODEL
        model = config.get("model")
        if not isinstance(model, dict) or not weights.is_file():
            continue  # a trial of another task, or an unfinished trial
        if spec not in (config["label"], config["spec"]):
            done.append(config["label"])
            continue
        dim, heads, length = model["dim"], model["num_heads"], config["train"]["length"]
        encoding = parse(config["spec"]).build(dim=dim, num_heads=heads, length=length)
        encoding.load_state_dict(runs.load_tensors(weights, below="encoding."))
        return encoding, dim, heads
    raise ValueError(
        f"show: {run} has not trained {spec!r}, expected one of {', '.join(dict.fromkeys(done)) or 'its encodings'}; "
        f"train it: posenc compare {spec}."
    )


def drawing(values: NDArray[np.float64], *, width: int, height: int) -> tuple[list[str], float, float]:
    """Lines of text, darker for larger values, with the smallest and the largest value.

    If not all rows and columns fit, they are sampled evenly.
    """
    rows = np.linspace(0, len(values) - 1, min(height, len(values))).round().astype(int)
    columns = np.linspace(0, values.shape[1] - 1, max(1, min(width, values.shape[1]))).round().astype(int)
    values = values[np.ix_(rows, columns)]
    low, high = float(values.min()), float(values.max())
    level = (values - low) / (high - low or 1.0)
    shades = np.minimum((level * len(_SHADES)).astype(int), len(_SHADES) - 1)
    stretch = max(1, min(8, width // len(columns)))
    lines = [
        f"{row:>6}  " + "".join(_SHADES[shade] * stretch for shade in line)
        for row, line in zip(rows, shades, strict=True)
    ]
    return lines, low, high

"""`posenc explore`: writes the page; its controls start at the parameters of a model or an encoding."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment
from markupsafe import Markup

import posenc
from posenc import Geometric, MixedRoPE, RoPE, YaRN, catalogue
from posenc.encoding import Encoding, ScoreEncoding
from posenc.frequencies import NTK, Frequencies, Linear, Llama3
from posenc.integrations.transformers import LayerGroup
from posenc.lab.checkpoint.read import read
from posenc.lab.encodings.spec import parse
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError
from posenc.lab.run.schedule import seeded

SCRIPTS = ("maths.js", "views.js")
TRAINED = 4096
"""The trained length at which the page starts if the target does not give one."""

DISTANCES, POSITIONS, CHANNELS, HEADS = 257, 64, 32, 4
CURVES = {
    "Sinusoidal": "the dot product of two codes.",
    "ALiBi": "the bias of the first of 4 heads.",
    "KERPLE": "the bias of the first head before training.",
    "Sandwich": "the bias of the first head.",
}
CODES = {
    "Sinusoidal": "Sine and cosine of an angle that grows with the position.",
    "Binary": "The digits of the position: bounded and unique, but they jump.",
    "Integer": "The position itself in every channel: it grows without bound.",
    "Normalized": "The position divided by 64: a code means another position at another length.",
    "Learned": "A learned table before training is noise, without information on the position.",
}


@dataclass(frozen=True)
class Start:
    """The values of the controls when the page opens.

    Attributes:
        name: the title of the page.
        rotation: the rotary encoding at the start.
        trained_length: in tokens.
        longest: the number of tokens to read.
        note: a remark on the choice for the reader.
    """

    name: str
    rotation: RoPE
    trained_length: int
    longest: int
    note: str = ""


def explore(target: str = "rope", out: Path = Path("explore.html")) -> Path:
    """Write a page with controls for the parameters of RoPE.

    Args:
        target: an encoding as ``posenc compare`` takes it ("rope", "rope:frequencies=YaRN(...)"), or a model: a folder
            with a ``config.json``, such a file, or a GGUF file. The page starts with its parameters.
        out: the HTML file. It is self-contained and needs no network.

    Returns:
        The file that was written.

    Raises:
        ValueError: an unknown name, a model without rotary layers, or an output with another suffix.
    """
    runs.check_suffix("explore", out, (".html", ".htm"))
    start = _start(target)
    page = _render(start)
    out.parent.mkdir(parents=True, exist_ok=True)
    runs.write(out, page)
    return out


def _start(target: str) -> Start:
    path = Path(target)
    if path.exists() or path.suffix in (".json", ".gguf"):
        return _of_model(target)
    try:
        spec = parse(target)
    except ValueError:
        with contextlib.suppress(RunError):
            return _of_model(target)  # the name of a package
        raise
    encoding = spec.build(dim=HEADS * 128, num_heads=HEADS, length=TRAINED)
    rotation = _rotation(encoding)
    if rotation is None:
        raise ValueError(
            f"explore: {target} is {type(encoding).__name__}, expected an encoding that rotates by one position, "
            'because the controls of the page are those of RoPE; use "rope", or a model with rotary layers (the page '
            "then also shows the model's other layers)."
        )
    trained = getattr(rotation.frequencies, "trained_length", TRAINED)
    return Start(target, rotation, trained, round(trained * getattr(rotation.frequencies, "factor", 1)))


def _of_model(path: str) -> Start:
    description = read(path)
    rotated = [(group, rotation) for group in description if (rotation := _rotation(group.encoding)) is not None]
    if not rotated:
        kinds = sorted({type(group.encoding).__name__ for group in description})
        raise ValueError(
            f"explore: {path} has no layers that rotate by one position, only {', '.join(kinds) or 'unknown parts'}, "
            "expected at least one with RoPE; `posenc inspect` shows what the model has."
        )
    group, rotation = max(rotated, key=lambda pair: len(pair[0].layers))
    trained = group.trained_length or group.longest or TRAINED
    others = [_layers(other) for other in description if other is not group]
    place = Path(path).resolve()
    name = place.parent.name if place.suffix == ".json" else place.stem if place.suffix == ".gguf" else place.name
    note = f"Starts with {_layers(group)}."
    if others:
        note += f" Not shown: {'; '.join(others)}."
    return Start(f"{name}, {description.model_type}", rotation, trained, max(group.longest or trained, trained), note)


def _layers(group: LayerGroup) -> str:
    numbers = group.layers
    shown = f"layers {', '.join(map(str, numbers[:4]))}{', ...' if len(numbers) > 4 else ''}"
    return f"{shown} ({group.label or type(group.encoding).__name__})"


def _rotation(encoding: Encoding) -> RoPE | None:
    found = encoding.at("queries_keys")
    return found if isinstance(found, RoPE) else None


def _render(start: Start) -> str:
    here = Path(__file__).parent
    template = Environment(autoescape=True).from_string((here / "page.html").read_text(encoding="utf-8"))
    script = "\n".join((here / name).read_text(encoding="utf-8") for name in SCRIPTS)
    # A "</" or "<!--" in a name would end the script early.
    data = json.dumps(_data(start), allow_nan=False).replace("<", "\\u003c")
    return template.render(
        title=start.name,
        note=start.note,
        version=posenc.__version__,
        style=Markup((here / "explore.css").read_text(encoding="utf-8")),
        data=Markup(data),
        script=Markup(script),
    )


def _data(start: Start) -> dict[str, Any]:
    rotation, frequencies = start.rotation, start.rotation.frequencies
    rule, parameters = _rule(frequencies)
    base = float(getattr(frequencies, "base", 10_000.0))
    controls = {
        "head_dim": rotation.head_dim,
        "dim": rotation.rotary_dim,
        "base": base,
        "trained": start.trained_length,
        "tokens": start.longest if start.longest > start.trained_length else 4 * start.trained_length,
        "rule": rule or "file",
        "factor": float(getattr(frequencies, "factor", 4.0)),
        "parameters": parameters,
    }
    file = {
        "name": f"{start.name} ({type(frequencies).__name__})",
        "rates": frequencies.inv_freq(rotation.rotary_dim).tolist(),
        "plain": Geometric(base).inv_freq(rotation.rotary_dim).tolist(),
        "attention_factor": float(frequencies.attention_factor),
    }
    data: dict[str, Any] = {"start": controls, "file": None if rule else file}
    with seeded(0), torch.no_grad():  # a fixed seed for initial weights: the page is the same each time
        return data | {"distances": DISTANCES, "curves": _curves(), "codes": _codes(), "mixed": _mixed()}


def _rule(frequencies: Frequencies) -> tuple[str | None, dict[str, Any]]:
    """The page's name of a rule and its parameters; None for a rule that the page gets as a list of rates."""
    if (name := {Geometric: "none", Linear: "linear", NTK: "ntk"}.get(type(frequencies))) is not None:
        return name, {}
    if isinstance(frequencies, YaRN) and (frequencies.ramp, frequencies.clamp) == ("code", "channels"):
        parameters: dict[str, Any] = {key: getattr(frequencies, key) for key in ("beta_fast", "beta_slow", "ends")}
        usual = YaRN(frequencies.factor, trained_length=frequencies.trained_length).attention_factor
        if frequencies.attention_factor != usual:
            parameters["attention_factor"] = frequencies.attention_factor
        return "yarn", parameters
    if isinstance(frequencies, Llama3):
        return "llama3", {key: getattr(frequencies, key) for key in ("low_freq_factor", "high_freq_factor")}
    return None, {}


def _curves() -> dict[str, Any]:
    """The effect of a distance in other encodings, computed by the library."""
    curves = {}
    for name, note in CURVES.items():
        encoding = catalogue.make(name.lower(), dim=128, num_heads=HEADS)
        if isinstance(encoding, ScoreEncoding):
            keys = torch.arange(DISTANCES)
            values = encoding.bias(keys[-1:], keys)[..., 0, 0, :].flip(-1)
        else:
            codes = encoding.codes(torch.arange(DISTANCES))  # type: ignore[operator]
            values = codes @ codes[0]
        curves[name] = {"values": _rounded(values), "note": note}
    return curves


def _codes() -> dict[str, Any]:
    """The codes that other encodings add to an embedding, computed by the library."""
    codes = {}
    for name, note in CODES.items():
        options = {"length": POSITIONS} if name in ("Normalized", "Learned") else {}
        encoding = catalogue.make(name.lower(), dim=CHANNELS, num_heads=HEADS, **options)
        values = encoding.codes(torch.arange(POSITIONS))  # type: ignore[operator]
        codes[name] = {"values": _rounded(values), "note": note}
    return codes


def _mixed() -> list[list[list[float]]]:
    """The directions (row, column) of each pair, for some heads of a mixed encoding before training."""
    rates = MixedRoPE(64, num_heads=HEADS).rates
    return [_rounded(rates[:, head].flip(0).T) for head in range(HEADS)]


def _rounded(values: torch.Tensor) -> Any:
    return np.vectorize(lambda value: float(f"{value:.6g}"))(values.double().numpy()).tolist()

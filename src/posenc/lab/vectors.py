"""`posenc vectors` and `posenc verify`: golden vectors of a model's rotation, to test a port to other code.

The oracle computes them in float64; it shares no code with posenc's encodings.
"""

import inspect
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from posenc import MRoPE, NoPE, RoPE, Temperature
from posenc.frequencies import LearnedRates
from posenc.integrations.json_file import load_json
from posenc.integrations.transformers import LayerGroup
from posenc.integrations.transformers.rotations.signature import load
from posenc.lab.checkpoint.read import read
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError
from posenc.oracle import temperature as oracle_temperature
from posenc.oracle.queries_keys import mrope as oracle_mrope
from posenc.oracle.queries_keys import rope as oracle_rope

NUMBERS, WORDS = "vectors.npz", "vectors.json"
#: Two heads, so that a layout with heads and tokens exchanged is detected.
HEADS = 2

Array = npt.NDArray[Any]

FORMULA = (
    "angle[p, c] = positions[p] * inv_freq[c]; cos = attention_factor * cos(angle), sin = attention_factor * "
    "sin(angle); for each pair c of channels (a, b): after[a] = before[a] cos - before[b] sin, after[b] = before[a] "
    "sin + before[b] cos; channels outside of the slice are unchanged, and not multiplied by the factor"
)
PAIRS = {
    "half": "pair c is channels (rotary_start + c, rotary_start + c + rotary_dim / 2)",
    "interleaved": "pair c is channels (rotary_start + 2 c, rotary_start + 2 c + 1)",
}


def write(source: str | Path, out: Path, positions: Sequence[int], *, pairing: Any = None) -> dict[str, Any]:
    """Write the vectors of each kind of layer of a model: ``vectors.npz``, and ``vectors.json`` with the formulas.

    Args:
        source: an argument for :func:`posenc.lab.checkpoint.read.read`.
        out: the output folder; it must be new or empty.
        positions: the positions of the tokens of q and k.
        pairing: the pairing of a model type that posenc does not know.

    Returns:
        The content of ``vectors.json``.

    Raises:
        ValueError: no positions, or a position below 0; a model without layers that rotate by one position.
        RunError: the folder is not empty.
    """
    if not positions or min(positions) < 0:
        raise ValueError(f"vectors: got positions {list(positions)}, expected at least one, from 0 on.")
    if max(positions) >= 1 << 53:
        raise ValueError(f"vectors: got position {max(positions)}, expected less than 2**53.")
    described = read(source, pairing=pairing)
    arrays: dict[str, Array] = {}
    kinds: list[dict[str, Any]] = []
    left_out: list[str] = []
    for group in described:
        made = _kind(group, np.array(positions, dtype=np.int64))
        if made is None:
            left_out.append(f"{group.part or 'the model'}, {group.label or 'all'}: {type(group.encoding).__name__}")
            continue
        name = f"kind{len(kinds)}"
        words, numbers = made
        kinds.append({"name": name, **words})
        arrays |= {f"{name}.{key}": value for key, value in numbers.items()}
    if not any(kind["rotates"] for kind in kinds):
        raise ValueError(
            f"vectors: {source} has no layers that rotate by one position, only {', '.join(left_out) or 'none'}; "
            "posenc inspect shows what the model has."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"vectors: {out} is not empty; give a new folder, or an empty one.")
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "model_type": described.model_type,
        "positions": [int(position) for position in positions],
        "layout": "q and k are (batch 1, heads 2, tokens, head_dim); token t has positions[t]",
        "formula": FORMULA,
        "kinds": kinds,
        "left_out": left_out,
    }
    archive = io.BytesIO()
    np.savez(archive, positions=np.array(positions, dtype=np.int64), **arrays)  # type: ignore[arg-type]
    runs.write(out / NUMBERS, archive.getvalue())
    runs.write(out / WORDS, json.dumps(found, indent=2) + "\n")
    return found


def _kind(group: LayerGroup, positions: Array) -> tuple[dict[str, Any], dict[str, Array]] | None:
    """The formulas and numbers of one kind of layer; None for other kinds of encodings."""
    rotation, *others = group.encoding.parts
    temperatures = [part for part in others if isinstance(part, Temperature)]
    if not isinstance(rotation, (RoPE, MRoPE, NoPE)) or len(temperatures) < len(others):
        return None
    turning = None if isinstance(rotation, NoPE) else rotation
    words = {name: getattr(group, name) for name in ("part", "label", "layers", "trained_length", "notes")}
    words |= {"rotates": turning is not None}
    draw = np.random.default_rng(0)
    shape = (1, HEADS, len(positions), 64 if turning is None else turning.head_dim)
    q, k = (draw.standard_normal(shape).astype(np.float32) for _ in range(2))
    numbers: dict[str, Array] = {"q": q, "k": k, "q_after": q.astype(np.float64), "k_after": k.astype(np.float64)}
    if turning is not None:
        meant, rates = _meant(turning, int(positions.max()) + 1)
        angle = positions[:, None].astype(np.float64) * rates
        factor = meant["attention_factor"]
        numbers |= {"inv_freq": rates, "cos": factor * np.cos(angle), "sin": factor * np.sin(angle)}
        numbers |= {f"{name}_after": turned(x, positions, meant, rates) for name, x in (("q", q), ("k", k))}
        words |= meant | {"pairs": PAIRS[turning.pairing]}
    for each in temperatures:
        given = {name: getattr(each, name) for name in ("form", "length", "strength")}
        words["temperature"] = given | {"formula": "the scores of the query at position p are times temperature[p]"}
        numbers["temperature"] = oracle_temperature.temperature(positions, **given)
    return words, numbers


def _meant(rotation: RoPE | MRoPE, length: int) -> tuple[dict[str, Any], Array]:
    """What a rotation does in a text of ``length`` tokens, and its rates."""
    rule = rotation.frequencies
    rule = rule.start if isinstance(rule, LearnedRates) else rule
    found = {name: getattr(rotation, name) for name in ("head_dim", "rotary_dim", "rotary_start", "pairing")}
    found |= {
        "rule": repr(rule),
        "base": getattr(rule, "base", None),
        "attention_factor": float(rule.attention_factor_at(length)),
        "scores_times": float(rule.score_factor),
    }
    if isinstance(rotation, MRoPE):
        found |= {"sections": rotation.sections, "section_layout": rotation.layout}
    return found, rule.inv_freq(rotation.rotary_dim, length=float(length))


def turned(x: Array, positions: Array, meant: dict[str, Any], rates: Array) -> Array:
    """Queries or keys after the described rotation, computed by the oracle."""
    start, width = meant["rotary_start"], meant["rotary_dim"]
    inner = x[..., start : start + width].astype(np.float64)
    if "sections" in meant:
        rotated = oracle_mrope.rotate(
            inner,
            np.stack([positions] * 3, axis=-1),
            inv_freq=rates,
            sections=tuple(meant["sections"]),
            layout=meant["section_layout"],
            pairing=meant["pairing"],
        )
    else:
        rotated = oracle_rope.rotate(inner, positions, inv_freq=rates, pairing=meant["pairing"])
    found = x.astype(np.float64).copy()
    found[..., start : start + width] = meant["attention_factor"] * rotated
    return found


@dataclass(frozen=True)
class Verdict:
    """The result of a function on the vectors of one kind of layer.

    Attributes:
        name: of the kind.
        layers: its layers.
        errors: (position, largest error of q and k, relative to the largest value at this position).
        allowed: the errors that float32 arithmetic may cause, in the same form.
        reason: the mistake that the function makes, if posenc recognises it; "" otherwise.
    """

    name: str
    layers: tuple[int, ...]
    errors: tuple[tuple[int, float], ...]
    allowed: tuple[float, ...]
    reason: str = ""

    @property
    def differs(self) -> bool:
        """Whether an error is larger than float32 arithmetic causes."""
        return any(not error <= most for (_, error), most in zip(self.errors, self.allowed, strict=True))

    def as_data(self) -> dict[str, Any]:
        """The verdict as plain data, for JSON."""
        return {**asdict(self), "differs": self.differs}

    def line(self) -> str:
        """The verdict as a line of text."""
        where, worst = max(self.errors, key=lambda pair: np.inf if np.isnan(pair[1]) else pair[1])
        layers = f"layers {self.layers[0]} to {self.layers[-1]}" if self.layers else "all layers"
        verdict = "DIFFERS" if self.differs else "agrees "
        text = f"{verdict}  {self.name}, {layers}: error {worst:.2g} at position {where}"
        unknown = f"none of the common mistakes gives these numbers; compare the formula with that in {WORDS}"
        if np.isnan(worst):
            unknown = "its result holds NaN, expected finite numbers"
        return f"{text}; {self.reason or unknown}" if self.differs else text


def verify(folder: Path, target: str | Callable[..., Any]) -> list[Verdict]:
    """Call a function with the vectors of each kind of layer, and compare.

    The function is called as ``f(q, k, positions)`` and returns q and k after the rotation; if it has a parameter
    ``layer``, it gets the number of a layer of that kind. q and k are torch tensors (1, 2, tokens, head_dim) in
    float32, and positions is a tensor (tokens,) of int64; the results may be torch, NumPy or array-like.

    Args:
        folder: a folder that :func:`write` wrote.
        target: ``module:function``, ``file.py:function``, or the function.

    Raises:
        ValueError: the function does not exist, or cannot be called in this way.
        RunError: the folder holds no vectors.
    """
    words, numbers = _read(folder)
    function = load(target) if isinstance(target, str) else target
    return [_verdict(kind, numbers, function) for kind in words["kinds"]]


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    if not (folder / WORDS).is_file():
        raise RunError(f"verify: there is no {folder / WORDS}; give a folder that posenc vectors wrote.")
    try:
        words = load_json(folder / WORDS)
        with np.load(folder / NUMBERS, allow_pickle=False) as file:
            numbers = {name: file[name] for name in file.files}
        for kind in words["kinds"]:
            for key in ("q", "k", "q_after", "k_after"):
                numbers[f"{kind['name']}.{key}"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"verify: {folder} holds no vectors ({error}); write them with posenc vectors.") from error
    return words, numbers


def _verdict(kind: dict[str, Any], numbers: dict[str, Array], function: Callable[..., Any]) -> Verdict:
    import torch

    name, positions = kind["name"], numbers["positions"]
    q, k, *after = (numbers[f"{name}.{key}"] for key in ("q", "k", "q_after", "k_after"))
    given = [torch.from_numpy(x.copy()) for x in (q, k, positions)]
    options = {"layer": kind["layers"][0]} if "layer" in inspect.signature(function).parameters else {}
    try:
        result = function(*given, **options)
        got = [np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, dtype=np.float64) for x in result]
    except Exception as error:
        raise ValueError(
            f"verify: f(q, k, positions) with q {q.shape} and positions {positions.shape} raised "
            f"{type(error).__name__}: {str(error)[:200]}; write a function around it that takes these."
        ) from error
    if len(got) != 2 or any(x.shape != right.shape for x, right in zip(got, after, strict=False)):
        shapes = [x.shape for x in got]
        raise ValueError(f"verify: the function gave shapes {shapes}, expected q and k of {q.shape}; return both.")
    errors = _errors(got, after)
    angle = positions[:, None] * np.abs(numbers.get(f"{name}.inv_freq", np.zeros(1)))
    # Angles in float32, as most code computes them, have an error of half a unit in the last place.
    allowed = 1e-5 + 1.5e-7 * angle.max(axis=-1)
    pairs = tuple((int(p), float(e)) for p, e in zip(positions, errors, strict=True))
    found = Verdict(name, tuple(kind["layers"]), pairs, tuple(allowed.tolist()))
    if not found.differs or not kind["rotates"]:
        return found
    for words, other in _alternatives(kind, numbers):
        if (_errors(got, other) <= allowed).all():
            return replace(found, reason=words)
    return found


def _errors(got: Sequence[Array], right: Sequence[Array]) -> Array:
    """The error by token, relative to the largest value."""
    each = [np.abs(x - y).max(axis=(0, 1, 3)) / np.abs(y).max(axis=(0, 1, 3)) for x, y in zip(got, right, strict=True)]
    found: Array = np.maximum(*each)
    return found


def _alternatives(kind: dict[str, Any], numbers: dict[str, Array]) -> Iterator[tuple[str, list[Array]]]:
    """The common mistakes of ports, each in words and with its result."""
    name, positions = kind["name"], numbers["positions"]
    before, rates = [numbers[f"{name}.q"], numbers[f"{name}.k"]], numbers[f"{name}.inv_freq"]

    def by(changes: dict[str, Any], *, rates: Array = rates, positions: Array = positions) -> list[Array]:
        return [turned(x, positions, kind | changes, rates) for x in before]

    other = "interleaved" if kind["pairing"] == "half" else "half"
    yield "it leaves q and k unrotated", [x.astype(np.float64) for x in before]
    yield f"it takes pairs as {other!r}, expected {kind['pairing']!r}", by({"pairing": other})
    yield "it turns by -angle", by({}, rates=-rates)
    yield f"it turns by -angle, and takes pairs as {other!r}", by({"pairing": other}, rates=-rates)
    if kind["attention_factor"] != 1:
        yield f"cos and sin lack the factor {kind['attention_factor']:g}", by({"attention_factor": 1.0})
    if kind["rotary_start"]:
        yield f"it rotates the first channels, expected those from {kind['rotary_start']} on", by({"rotary_start": 0})
    if kind["base"]:
        plain = kind["base"] ** (-np.arange(0, kind["rotary_dim"], 2) / kind["rotary_dim"])
        yield f"it has the plain rates of base {kind['base']:g}, expected {kind['rule']}", by({}, rates=plain)
        bare = by({"attention_factor": 1.0}, rates=plain)
        yield f"it has the plain rates of base {kind['base']:g} and no factor, expected {kind['rule']}", bare
    for shift in (1, -1):
        yield f"its positions are {shift:+d}", by({}, positions=positions + shift)

"""What posenc makes of every transformer of the installed diffusers: ``python -m tests.integrations.diffusers.census``.

Run it in the root of a checkout; it writes ``docs/census_diffusers.md``.
"""

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tests.integrations.diffusers.models import Small, build, outputs
from tests.integrations.diffusers.more_models import ALL

from posenc import AxialRoPE, MRoPE, Sinusoidal
from posenc.embeddings import LearnedGrid, SinusoidalGrid
from posenc.encoding import Encoding
from posenc.integrations.diffusers import accelerate, check, describe, extend

#: Classes of diffusers that are transformers and have positions of their own to encode.
TRANSFORMER = re.compile(r"(Transformer|DiT)(\dD|3D|2D|1D)?(Model)?$|DiTModel$|DiTTransformer$")

#: What is known of classes of which no table is read, besides what their description says.
REASONS = {
    "AllegroTransformer3DModel": "the pipeline gives tables and the place of each token in them",
    "DreamLiteTransformer2DModel": "no rotation",
    "PriorTransformer": "no rotation: a learned table is added to the tokens",
}


#: What switches the rotation on where a class leaves it off by default.
ROTATING = {
    "CogVideoXTransformer3DModel": {"use_rotary_positional_embeddings": True},
    "ConsisIDTransformer3DModel": {"use_rotary_positional_embeddings": True},
}

_NOT_RUN = "no small model here"


@dataclass(frozen=True)
class Row:
    """One class of diffusers."""

    cls: str
    encoding: str
    ends: str
    tables: str
    accelerated: str
    extended: str


def census() -> Iterator[Row]:
    """A row for every transformer of the installed diffusers."""
    import diffusers

    small = {entry.cls: entry for entry in ALL.values()}
    names = {name for name in dir(diffusers) if TRANSFORMER.search(name)} | small.keys()
    for name in sorted(names):
        cls = getattr(diffusers, name, None)
        if isinstance(cls, type) and issubclass(cls, diffusers.ModelMixin):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield row_of(name, small.get(name))


def row_of(name: str, small: Small | None) -> Row:
    """The row of a class: described at its default sizes, and run where there is a small model of it."""
    size = ""
    try:
        found = describe({"_class_name": name, **ROTATING.get(name, {})})
        parts, unread = found.parts, "; ".join(found.unread)
    except ValueError as error:
        parts, unread = (), f"it cannot be built at its default sizes: {_short(error)}"
    if small is not None:
        model = build(small)
        described = describe(model)
        size = "" if len(parts) == len(described) else " (of the small model)"
        parts = parts if not size else described.parts
        unread = "; ".join(described.unread)
    reason = REASONS.get(name, unread)
    words = "; ".join(dict.fromkeys(_words(part.encoding) for part in parts))
    encoding = f"{words}{size}" if words else f"not read: {reason or 'unknown'}"
    ends = "; ".join(dict.fromkeys(_ends(part.ends) for part in parts))
    if small is None:
        return Row(name, encoding, ends, "", _NOT_RUN, "")
    return Row(name, encoding, ends, _tables(model), _accelerated(model, small), _extended(model))


def _tables(model: object) -> str:
    report = check(model)
    if report.findings:
        return f"differ: {report.findings[0].text}"
    return "agree" if report.checked else "from the pipeline" if any("pipeline" in u for u in report.unchecked) else ""


def _accelerated(model: object, small: Small) -> str:
    inputs = small.inputs()
    before = outputs(model, inputs)
    try:
        with accelerate(model, inputs=inputs):
            after = outputs(model, inputs)
    except ValueError as error:
        reason = str(error).split(" cannot be accelerated: ")[-1].removesuffix("; nothing was changed.")
        return f"refused: {reason.split(': tensors of shapes')[0]}"
    if all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        return "same bits"
    far = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(before, after, strict=True))
    return f"within {far:.1g}"


def _extended(model: object) -> str:
    """With the rules that it has: posenc's tables in the place of its own."""
    turning = [part for part in describe(model) if part.encoding.places != ("embeddings",)]
    for part in turning:
        encoding = part.encoding
        if isinstance(encoding, AxialRoPE):
            rules = dict(zip(part.axes, encoding.rules, strict=True))
        elif hasattr(encoding, "frequencies"):
            rules = dict.fromkeys(part.axes, encoding.frequencies)
        else:
            return "refused: its rates are learned"
        try:
            extend(model, rules).undo()
        except ValueError as error:
            return f"refused: {_short(error)}"
    return "yes" if turning else ""


def _short(error: Exception) -> str:
    return str(error).split(": ", 1)[-1][:160].replace("|", "/").replace("\n", " ")


def _words(encoding: Encoding) -> str:
    name = type(encoding).__name__
    if isinstance(encoding, AxialRoPE):
        rules = dict.fromkeys(str(rule) for rule in encoding.rules)
        said = ", ".join(rules) if len(str(rules)) < 120 else type(encoding.rules[0]).__name__
        return f"{name} {'/'.join(map(str, encoding.widths))}, {encoding.layout}, {said}"
    if isinstance(encoding, MRoPE):
        return f"{name} {'/'.join(map(str, encoding.sections))} pairs, {encoding.frequencies}"
    if isinstance(encoding, LearnedGrid):
        return f"{name} {encoding.dim}"
    if isinstance(encoding, (Sinusoidal, SinusoidalGrid)):
        return f"{name} {getattr(encoding, 'dim', '')}, added to the patches"
    rule = getattr(encoding, "frequencies", None)
    return f"{name} {getattr(encoding, 'rotary_dim', '')}, {type(rule).__name__ if rule is not None else 'learned'}"


def _ends(ends: tuple[int | None, ...]) -> str:
    return "none" if not any(ends) else str(ends[0]) if len(set(ends)) == 1 else "/".join(map(str, ends))


def as_markdown(rows: list[Row]) -> str:
    """The page."""
    import diffusers

    read = sum(not row.encoding.startswith("not read") for row in rows)
    fast = [row for row in rows if row.accelerated.startswith(("same", "within"))]
    run = [row for row in rows if row.accelerated != _NOT_RUN]
    same = sum(row.accelerated == "same bits" for row in fast)
    extended = sum(row.extended == "yes" for row in rows)
    lines = [
        "# Census of diffusers",
        "",
        "Every transformer of the installed diffusers: how it encodes positions at its default sizes, where its",
        "table ends, and what `accelerate` and `extend` do to a small model of it with random weights. Made by",
        "`python -m tests.integrations.diffusers.census`.",
        "",
        f"diffusers {diffusers.__version__}, {len(rows)} classes: the encoding of {read} is described. "
        f"Of {len(run)} that were run, {len(fast)} are accelerated, {same} of them with the same bits, "
        f"and {extended} are extended.",
        "",
        "*Tables* says whether the module's own tables are those of the description, within what float32 costs.",
        "*Ends* is the first coordinate without a row. *Within* is the largest difference of an output of the model,",
        "as a share of the largest output. A class without a small model here is described from its config alone.",
        "",
        "| class | encoding | ends | tables | accelerated | extended |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.cls} | {row.encoding} | {row.ends} | {row.tables} | {row.accelerated} | {row.extended} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import diffusers

    diffusers.logging.set_verbosity_error()  # type: ignore[attr-defined]
    logging.disable(logging.WARNING)
    page = as_markdown(list(census()))
    target = Path("docs/census_diffusers.md")
    target.write_text(page, encoding="utf-8")
    sys.stdout.write(f"{target}\n")

"""What a model's own function does to queries and keys, found out by calling it."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from posenc.integrations.transformers.rotations.adapter import posenc_function
from posenc.integrations.transformers.rotations.form import Arguments, Form, Reading
from posenc.kernels.rotate.eager import Pairing

#: Names of arguments, and what they mean.
_ARGUMENTS: dict[tuple[str, ...], Arguments] = {
    ("q", "k", "cos", "sin", "unsqueeze_dim"): "q k cos sin axis",
    ("q", "k", "cos", "sin", "position_ids", "unsqueeze_dim"): "q k cos sin axis",
    ("x", "cos", "sin", "unsqueeze_dim"): "x cos sin axis",
    ("x", "cos", "sin", "position_ids", "unsqueeze_dim"): "x cos sin positions axis",
    ("tensor", "sin", "cos"): "x sin cos",
    ("xq", "xk", "freqs_cis"): "q k complex",
    ("query", "key", "freqs_ci"): "q k complex",
    ("q", "k", "cos", "sin"): "q k cos sin",
}

#: Channels, tokens, heads and rows of the probe, all different, so that a wrong axis fails; coordinates of a token.
_PAIRS, _TOKENS, _HEADS, _ROWS, _AXES = 4, 5, 3, 2, 2


def recognise(function: Callable[..., Any]) -> Form:
    """The form of a function.

    Raises:
        ValueError: it is none of those known here.
    """
    name = f"{function.__module__}.{function.__name__}"
    names = tuple(
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    )
    if names not in _ARGUMENTS:
        raise ValueError(f"its {name} takes ({', '.join(names)}), which is no form of a rotation that posenc knows")
    with torch.device("cpu"):  # whatever the default device: the results of the probe are compared
        for form in _candidates(_ARGUMENTS[names]):
            if _agrees(function, form, 2 * _PAIRS):
                return _details(function, form)
    raise ValueError(f"its {name} is no rotation of pairs that posenc knows")


def _candidates(arguments: Arguments) -> Iterator[Form]:
    readings: tuple[Reading, ...] = ("complex",) if arguments == "q k complex" else ("halves", "neighbours", "pairs")
    pairings: tuple[Pairing, ...] = ("half", "interleaved")
    axes = (2, 1) if arguments in ("x sin cos", "q k complex", "q k cos sin") else (2,)
    shared = {"q k complex": (False, True), "q k cos sin": (True,)}.get(arguments, (False,))
    for reading, pairing, inverse, sorted_out, axis, one in product(
        readings, pairings, (False, True), (False, True), axes, shared
    ):
        if not (sorted_out and pairing == "half"):
            yield Form(arguments, reading, pairing, inverse, sorted_out, token_dim=axis, shared=one)


def _details(function: Callable[..., Any], form: Form) -> Form:
    """What shows only with channels that stay, with narrow heads, and with queries alone."""
    wider = 2 * _PAIRS + 6
    if _runs(function, form, wider):
        fitting = [f for f in (form, replace(form, trailing=True)) if _agrees(function, f, wider)]
        if not fitting:
            raise ValueError(f"its {function.__module__}.{function.__name__} rotates another slice of a head")
        form = fitting[0]
    given = _probe(form, 2 * _PAIRS)
    if form.reading != "complex":
        heads = {name: x.bfloat16() if x.shape[-1] == 2 * _PAIRS and name in "qkx" else x for name, x in given.items()}
        form = replace(form, promotes=_first(_called(function, form, heads)).dtype is torch.float32)
    form = replace(form, prefixed=_leaves_a_prefix(function, form, given))
    strided = {name: given[name].transpose(-3, -2).contiguous().transpose(-3, -2) for name in "qkx"}
    form = replace(form, contiguous=_first(_called(function, form, given | strided)).is_contiguous())
    if form.arguments == "q k cos sin axis":
        try:
            result = function(given["q"], None, given["cos"], given["sin"])
            form = replace(form, alone="tensor" if isinstance(result, Tensor) else "pair")
        except (TypeError, AttributeError):
            pass
    return form


def _probe(form: Form, width: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def heads(number: int) -> Tensor:
        shape = (number, _TOKENS) if form.token_dim == 2 else (_TOKENS, number)
        return draw(_ROWS, *shape, width)

    q, k = heads(_HEADS), heads(1)
    cos, sin = (_table(draw(_ROWS, _TOKENS, _PAIRS), form) for _ in range(2))
    if form.shared:
        cos, sin = cos[0], sin[0]
    if form.arguments == "q k cos sin" and form.token_dim == 1:
        q, k = q[0], k[0]
    return {"q": q, "k": k, "x": q, "cos": cos, "sin": sin}


def _table(numbers: Tensor, form: Form) -> Tensor:
    axes = _AXES if form.arguments == "x cos sin positions axis" else 1
    return torch.cat([_written(part, form.reading) for part in numbers.chunk(axes, dim=-1)], dim=-1)


def _written(numbers: Tensor, reading: Reading) -> Tensor:
    if reading == "halves":
        return torch.cat((numbers, numbers), dim=-1)
    return numbers.repeat_interleave(2, dim=-1) if reading == "neighbours" else numbers


def _called(function: Callable[..., Any], form: Form, given: dict[str, Tensor]) -> Any:
    q, k, x, cos, sin = (given[name] for name in ("q", "k", "x", "cos", "sin"))
    match form.arguments:
        case "x cos sin axis":
            return function(x, cos, sin)
        case "x cos sin positions axis":
            return function(x, cos, sin, torch.zeros(_ROWS, _TOKENS, _AXES, dtype=torch.long), 1)
        case "x sin cos":
            return function(x, sin, cos)
        case "q k complex":
            return function(q, k, torch.complex(cos, sin))
        case _:
            return function(q, k, cos, sin)


def _runs(function: Callable[..., Any], form: Form, width: int) -> bool:
    try:
        _called(function, form, _probe(form, width))
    except Exception:  # whatever it says of a shape that it was not made for
        return False
    return True


def _leaves_a_prefix(function: Callable[..., Any], form: Form, given: dict[str, Tensor]) -> bool:
    shorter = {name: given[name][..., 2:, :] for name in ("cos", "sin")}
    try:
        result = _first(_called(function, form, given | shorter))
    except Exception:  # as many rows as tokens, or one for all
        return False
    axis = form.token_dim if result.ndim == 4 else form.token_dim - 1
    return torch.equal(result.narrow(axis, 0, 2), given["q"].narrow(axis, 0, 2))


def _agrees(function: Callable[..., Any], form: Form, width: int) -> bool:
    given = _probe(form, width)
    try:
        theirs = _called(function, form, given)
    except Exception:
        return False
    ours = _called(posenc_function(form), form, given)
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in pairs(theirs, ours))


def pairs(theirs: Any, ours: Any) -> list[tuple[Tensor, Tensor]]:
    """The tensors of two results."""
    if isinstance(theirs, Tensor):
        return [(theirs, ours)]
    return [(a, b) for a, b in zip(theirs, ours, strict=True) if a is not None]


def _first(result: Any) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]

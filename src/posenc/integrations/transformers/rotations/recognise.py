"""What a model's own function does to queries and keys, found out by calling it; and posenc's that does the same."""

import inspect
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor

from posenc.kernels.precision import compute_dtype
from posenc.kernels.rotate.eager import Pairing
from posenc.kernels.rotate.op import rotate

Arguments = Literal[
    "q k cos sin axis", "x cos sin axis", "x cos sin positions axis", "x sin cos", "q k complex", "q k cos sin"
]
Reading = Literal["halves", "neighbours", "pairs", "complex"]

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


@dataclass(frozen=True)
class Form:
    """How a function of a model rotates.

    Attributes:
        arguments: what it takes.
        reading: how a table holds one number for each pair: twice, by halves or as neighbours; once; or complex.
        pairing: which channels make a pair.
        inverse: True if it turns by -angle.
        sorted_out: True if the result has first channels of pairs first, whatever the pairing.
        trailing: True if the slice that turns is the last one of a head.
        token_dim: the axis of tokens, where no argument tells it.
        shared: True if all rows of a batch have the same tables.
        promotes: True if the result has the wider of the dtypes of head and table.
        prefixed: True if tokens before those of the table stay as they are.
        contiguous: True if the result is laid out anew, not as the heads were; matrix products round by the layout.
        alone: what it returns for queries without keys.
    """

    arguments: Arguments
    reading: Reading
    pairing: Pairing
    inverse: bool = False
    sorted_out: bool = False
    trailing: bool = False
    token_dim: int = 2
    shared: bool = False
    promotes: bool = False
    prefixed: bool = False
    contiguous: bool = False
    alone: Literal["no", "tensor", "pair"] = "no"


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
        raise ValueError(f"its {name} takes ({', '.join(names)}), which is no form of a rotation that is known here")
    for form in _candidates(_ARGUMENTS[names]):
        if _agrees(function, form, 2 * _PAIRS):
            return _details(function, form)
    raise ValueError(f"its {name} is no rotation of pairs that is known here")


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
            raise ValueError(f"its {function.__module__}.{function.__name__} turns another slice of a head")
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


class LastTables:
    """The tables of the last call in the form that the operation takes, while those of the model live."""

    def __init__(self) -> None:
        self._of: tuple[Any, Any, torch.dtype] | None = None
        self._made: tuple[Tensor, Tensor] | None = None

    def get(
        self, cos: Tensor, sin: Tensor, dtype: torch.dtype, make: Callable[[Tensor, torch.dtype], Tensor]
    ) -> tuple[Tensor, Tensor]:
        if torch.compiler.is_compiling():
            return make(cos, dtype), make(sin, dtype)
        if self._of is not None and self._made is not None:
            of_cos, of_sin, of_dtype = self._of
            if of_cos() is cos and of_sin() is sin and of_dtype is dtype:
                return self._made
        made = make(cos, dtype), make(sin, dtype)
        self._of, self._made = (weakref.ref(cos), weakref.ref(sin), dtype), made
        return made

    def __deepcopy__(self, memo: Any) -> "LastTables":
        return LastTables()


def posenc_function(form: Form, *, keeps_dtype: bool = False) -> Callable[..., Any]:
    """posenc's fused rotation behind the arguments of a model's own.

    Args:
        form: how that one rotates.
        keeps_dtype: the result has the dtype of the head, however wide the tables are.
    """
    pairing, inverse, reading, trailing = form.pairing, form.inverse, form.reading, form.trailing
    promotes = form.promotes and not keeps_dtype

    def compact(table: Tensor, dtype: torch.dtype) -> Tensor:
        """One number for each pair, as the fused operation wants it."""
        if reading == "halves":
            table = table[..., : table.shape[-1] // 2]
        elif reading == "neighbours":
            table = table[..., ::2].contiguous()
        elif reading == "complex":
            table = table.contiguous()
        return table if table.dtype is dtype else table.to(dtype)

    def widened(x: Tensor, table: Tensor) -> Tensor:
        return x.to(torch.promote_types(x.dtype, table.dtype)) if promotes else x

    last = LastTables()  # layers share their tables

    def turned(q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor, token_dim: int) -> tuple[Tensor, Tensor]:
        if q.ndim == 3:  # one row of a batch
            a, b = turned(q[None], None if k is None else k[None], cos, sin, token_dim)
            return a[0], b[0]
        q, k = widened(q, cos), None if k is None else widened(k, cos)
        cos, sin = last.get(cos, sin, compute_dtype(q.dtype), compact)
        if form.prefixed and k is not None:
            rows = cos.shape[-2]
            parts = [x.split((x.shape[token_dim] - rows, rows), dim=token_dim) for x in (q, k)]
            turning = turn(parts[0][1], parts[1][1], cos, sin, token_dim)
            q, k = (torch.cat((x[0], y), dim=token_dim) for x, y in zip(parts, turning, strict=True))
            return q, k
        if k is None or k.shape[token_dim] == q.shape[token_dim]:
            return turn(q, k, cos, sin, token_dim)
        tokens = q.shape[token_dim]  # the last of those whose keys these are
        q, _ = turn(q, None, cos[..., -tokens:, :], sin[..., -tokens:, :], token_dim)
        k, _ = turn(k, None, cos, sin, token_dim)
        return q, k

    def turn(
        q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor, token_dim: int, start: int = 0
    ) -> tuple[Tensor, Tensor]:
        if k is None:
            k = q[:, :0] if token_dim == 2 else q[:, :, :0]
        if torch.compiler.is_compiling():  # sizes may come from data: an image has a row for each of its patches
            torch._check(cos.shape[-2] == q.shape[token_dim])
        start = q.shape[-1] - 2 * cos.shape[-1] if trailing else start
        both = rotate(q, k, cos, sin, start=start, token_dim=token_dim, pairing=pairing, inverse=inverse)
        if form.sorted_out:
            width = 2 * cos.shape[-1]
            both = _sorted(both[0], start, width), _sorted(both[1], start, width)
        return (both[0].contiguous(), both[1].contiguous()) if form.contiguous else both

    def q_k_cos_sin_axis(
        q: Tensor,
        k: Tensor | None = None,
        cos: Any = None,
        sin: Any = None,
        position_ids: Any = None,
        unsqueeze_dim: int = 1,
    ) -> Any:
        both = turned(q, k, cos, sin, cos.ndim - unsqueeze_dim)
        if k is None:
            return both[0] if form.alone == "tensor" else (both[0], None)
        return both

    def q_k_cos_sin_axis_only(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Any:
        return q_k_cos_sin_axis(q, k, cos, sin, None, unsqueeze_dim)

    def x_cos_sin_axis(x: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Tensor:
        return turned(x, None, cos, sin, cos.ndim - unsqueeze_dim)[0]

    def x_cos_sin_positions_axis(
        x: Tensor, cos: Tensor, sin: Tensor, position_ids: Tensor, unsqueeze_dim: int = 2
    ) -> Tensor:
        x = widened(x, cos)
        width = 2 * (x.shape[-1] // (2 * position_ids.shape[-1]))  # each coordinate has channels of its own
        for start in range(0, x.shape[-1], width):
            tables = [compact(table[..., start : start + width], compute_dtype(x.dtype)) for table in (cos, sin)]
            x, _ = turn(x, None, tables[0], tables[1], cos.ndim - unsqueeze_dim, start)
        return x

    def x_sin_cos(tensor: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
        return turned(tensor, None, cos, sin, form.token_dim)[0]

    def q_k_complex(*given: Tensor, **named: Tensor) -> tuple[Tensor, Tensor]:
        q, k, table = (*given, *named.values())  # each family has names of its own
        table = (table.flatten(0, -2) if form.shared else table).to(q.device)
        return turned(q, k, table.real, table.imag, form.token_dim)

    def q_k_cos_sin(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return turned(q, k, cos, sin, form.token_dim)

    return {
        "q k cos sin axis": q_k_cos_sin_axis_only if form.alone == "no" else q_k_cos_sin_axis,
        "x cos sin axis": x_cos_sin_axis,
        "x cos sin positions axis": x_cos_sin_positions_axis,
        "x sin cos": x_sin_cos,
        "q k complex": q_k_complex,
        "q k cos sin": q_k_cos_sin,
    }[form.arguments]


def _sorted(x: Tensor, start: int, width: int) -> Tensor:
    """First channels of pairs first."""
    inside: Tensor = x[..., start : start + width].unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
    if width == x.shape[-1]:
        return inside
    return torch.cat((x[..., :start], inside, x[..., start + width :]), dim=-1)

"""posenc's rotation behind the arguments of a model's own function."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from posenc.integrations.transformers.rotations.form import Form
from posenc.kernels.precision import compute_dtype
from posenc.kernels.rotate.op import rotate


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

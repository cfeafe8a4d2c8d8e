"""How a function that rotates reads its tables: found out from one call of it."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor

from posenc.kernels.precision import compute_dtype
from posenc.kernels.rotate.eager import Pairing
from posenc.kernels.rotate.op import rotate

#: How a table holds one number for each pair: twice, by halves or as neighbours; once; in complex numbers; in matrices
#: of two rows and columns; or as angles, twice by halves.
Form = Literal["halves", "neighbours", "pairs", "complex", "matrices", "angles", "joined neighbours"]


@dataclass(frozen=True)
class Given:
    """The arguments of a call, sorted out.

    Attributes:
        heads: what is to be turned: one tensor, or queries and keys.
        tables: what it is to be turned by: cos and sin, or one table of both.
        kind: what the arguments are, without their sizes; equal for calls that read their tables alike.
    """

    heads: tuple[Tensor, ...]
    tables: tuple[Tensor, ...]
    kind: Hashable

    def __str__(self) -> str:
        shapes = [str(tuple(x.shape)) for x in (*self.heads, *self.tables)]
        return f"tensors of shapes {', '.join(shapes)}"

    def with_random_heads(self) -> "Given":
        """The same call about other numbers, laid out in the same way: those of a model may be all zero."""
        generator = torch.Generator().manual_seed(0)
        drawn = []
        for x in self.heads:
            like = torch.empty_strided(x.shape, _dense(x), dtype=x.dtype, device=x.device)
            drawn.append(like.copy_(torch.randn(x.shape, generator=generator)))
        return replace(self, heads=tuple(drawn))

    def arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of the call with these heads."""
        return (*self.heads, *args[len(self.heads) :])


def _dense(x: Tensor) -> tuple[int, ...]:
    """Strides in the order of x's, without gaps."""
    strides, step = [0] * x.ndim, 1
    for axis in sorted(range(x.ndim), key=lambda axis: (x.stride(axis), -axis)):
        strides[axis], step = step, step * max(x.shape[axis], 1)
    return tuple(strides)


def take(args: tuple[Any, ...], options: dict[str, Any]) -> Given | None:
    """The arguments of a call sorted out, or None for a call that turns nothing known here."""
    if not args or not _is_head(args[0]):
        return None
    both = len(args) > 2 and _is_head(args[1]) and args[1].shape[-1] == args[0].shape[-1] and not _is_table(args[1:])
    heads = args[: 2 if both else 1]
    tables: list[Tensor] = []
    kind: list[Hashable] = [(x.ndim, x.dtype) for x in heads]
    for name, value in (*enumerate(args[len(heads) :]), *sorted(options.items())):
        parts = value if isinstance(value, (tuple, list)) else (value,)
        for part in parts:
            if isinstance(part, Tensor):
                tables.append(part)
                # A width of 1 is one for all rows, heads or tokens; and a whole or a half width is another table.
                ones = tuple(size == 1 for size in part.shape[:-1])
                kind.append((name, ones, part.dtype, 2 * part.shape[-1] // max(heads[0].shape[-1], 1)))
            elif part is None or isinstance(part, (bool, int, float, str)):
                kind.append((name, part))
            else:
                return None
    if not 1 <= len(tables) <= 2:
        return None
    return Given(tuple(heads), tuple(tables), tuple(kind))


def _is_head(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim in (3, 4)


def _is_table(rest: tuple[Any, ...]) -> bool:
    """Are cos and sin given one by one, so that the second argument is no key?"""
    tensors = [value for value in rest if isinstance(value, Tensor)]
    return len(tensors) == len(rest) == 2 and tensors[0].shape == tensors[1].shape


@dataclass(frozen=True)
class Reading:
    """How the tables of a call are read.

    Attributes:
        form: how they hold a number for each pair.
        pairing: which channels make a pair.
        token_dim: the axis of tokens of what is turned, 1 or 2.
        axes: what the axes of a table are, those of size 1 left out: b batch, t tokens, h heads.
        inverse: True if it turns by -angle.
        contiguous: True if the result is laid out anew, not as the heads were.
        dtype: that of the result.
    """

    form: Form
    pairing: Pairing
    token_dim: int
    axes: str
    inverse: bool = False
    contiguous: bool = False
    dtype: torch.dtype | None = None

    def fits(self, given: Given) -> bool:
        """Have the tables a row for each token, and a row of the batch or a head where they tell those apart?"""
        cos = _per_pair(given.tables, self.form)[0]
        sizes = [size for size in cos.shape[:-1] if size != 1]
        pairs = cos.shape[-1]
        for x in given.heads:
            found = [self._sizes(x, pairs)[axis] for axis in self.axes]
            if sizes != [size for size in found if size != 1] or (1 in found and self.axes != "t"):
                return False
            if 2 * pairs > x.shape[-1] // (found[self.axes.index("h")] if x.ndim == 3 and "h" in self.axes else 1):
                return False
        return True

    def _sizes(self, x: Tensor, pairs: int) -> dict[str, int]:
        if x.ndim == 3:  # heads are not split yet
            return {"b": x.shape[0], "t": x.shape[1], "h": x.shape[2] // max(2 * pairs, 1)}
        return {"b": x.shape[0], "t": x.shape[self.token_dim], "h": x.shape[3 - self.token_dim]}

    def tables(self, given: Given, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin, ``(batch or heads or both, tokens, pairs)`` or ``(tokens, pairs)``."""
        made = []
        for table in _per_pair(given.tables, self.form):
            sizes = [size for size in table.shape[:-1] if size != 1] if self.axes != "t" else [-1]
            rows = table.reshape(*sizes, table.shape[-1])
            order = [self.axes.index(axis) for axis in "bht" if axis in self.axes]
            rows = rows.permute(*order, len(order))
            rows = rows.flatten(0, 1) if rows.ndim == 4 else rows
            made.append(rows.to(device, dtype).contiguous())
        return made[0], made[1]

    def apply(self, given: Given, tables: tuple[Tensor, Tensor]) -> Any:
        """What the model's own function would give."""
        results = tuple(self._turned(x, *tables) for x in given.heads)
        return results if len(results) == 2 else results[0]

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        four = x
        if x.ndim == 3:
            four = x.unflatten(2, (-1, 2 * cos.shape[-1])) if "h" in self.axes else x.unsqueeze(2)
        if self.dtype is not None and torch.promote_types(x.dtype, self.dtype) is not x.dtype:
            four = four.to(self.dtype)
        token_dim = 1 if x.ndim == 3 else self.token_dim
        turned = (
            self._with_heads(four, cos, sin, token_dim) if "h" in self.axes else self._rotate(four, cos, sin, token_dim)
        )
        if x.ndim == 3:
            turned = turned.flatten(2)
        if self.contiguous:
            turned = turned.contiguous()
        return turned if self.dtype is None else turned.to(self.dtype)

    def _with_heads(self, x: Tensor, cos: Tensor, sin: Tensor, token_dim: int) -> Tensor:
        """Each head has tables of its own: for the operation it is a row of a batch."""
        heads_first = x.movedim(3 - token_dim, 0 if "b" not in self.axes else 1)
        if "b" not in self.axes:
            return self._rotate(heads_first, cos, sin, 2).movedim(0, 3 - token_dim)
        batch, heads = heads_first.shape[:2]
        one = heads_first.flatten(0, 1).unsqueeze(1)
        turned: Tensor = self._rotate(one, cos, sin, 2).squeeze(1).unflatten(0, (batch, heads))
        return turned.movedim(1, 3 - token_dim)

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor, token_dim: int) -> Tensor:
        none = x[:, :0] if token_dim == 2 else x[:, :, :0]
        return rotate(x, none, cos, sin, token_dim=token_dim, pairing=self.pairing, inverse=self.inverse)[0]


def _per_pair(tables: tuple[Tensor, ...], form: Form) -> tuple[Tensor, Tensor]:
    """cos and sin with one number for each pair."""
    first = tables[0]
    match form:
        case "complex":
            return first.real, first.imag
        case "matrices":
            return first[..., 0, 0], first[..., 1, 0]
        case "angles":
            angles = first[..., : first.shape[-1] // 2].float()
            return angles.cos(), angles.sin()
        case "joined neighbours":
            cos, sin = first.chunk(2, dim=-1)
            return cos[..., ::2], sin[..., ::2]
    cos, sin = tables
    if form == "halves":
        return cos[..., : cos.shape[-1] // 2], sin[..., : sin.shape[-1] // 2]
    return (cos[..., ::2], sin[..., ::2]) if form == "neighbours" else (cos, sin)


def readings(given: Given, expected: Any) -> list[tuple[Reading, bool]]:
    """The readings that give what the model's own function gave, each with whether every bit is the same.

    One of several that read these tables alike is enough.
    """
    results = (expected,) if isinstance(expected, Tensor) else tuple(expected)
    if len(results) != len(given.heads) or not all(isinstance(result, Tensor) for result in results):
        return []
    found: dict[tuple[Any, ...], tuple[Reading, bool]] = {}
    for candidate in _candidates(given):
        if not candidate.fits(given):
            continue
        reading = replace(candidate, dtype=results[0].dtype if results[0].dtype is not given.heads[0].dtype else None)
        try:
            tables = reading.tables(given, compute_dtype(given.heads[0].dtype), given.heads[0].device)
            ours = reading.apply(given, tables)
        except (ValueError, RuntimeError, TypeError, IndexError):  # shapes that this reading does not go with
            continue
        ours = (ours,) if isinstance(ours, Tensor) else ours
        if not all(_is_close(a, b) for a, b in zip(results, ours, strict=True)):
            continue
        if any(a.is_contiguous() and not b.is_contiguous() for a, b in zip(results, ours, strict=True)):
            reading = replace(reading, contiguous=True)
        is_exact = all(torch.equal(a, b) for a, b in zip(results, ours, strict=True))
        found.setdefault(
            (reading.form, reading.pairing, reading.inverse, reading.axes, reading.token_dim), (reading, is_exact)
        )
    exact = [entry for entry in found.values() if entry[1]]
    return exact or list(found.values())


def _candidates(given: Given) -> Iterator[Reading]:
    forms: tuple[Form, ...]
    if len(given.tables) == 2:
        forms = ("neighbours", "halves", "pairs")
    elif given.tables[0].is_complex():
        forms = ("complex",)
    elif given.tables[0].shape[-2:] == (2, 2):
        forms = ("matrices",)
    else:
        forms = ("angles", "joined neighbours")
    pairings: tuple[Pairing, ...] = ("interleaved", "half")
    token_dims = (1, 2) if given.heads[0].ndim == 4 else (1,)
    all_axes = ("t", "bt", "th", "ht", "bth", "bht")
    for form in forms:
        for pairing, token_dim, axes, inverse in product(pairings, token_dims, all_axes, (False, True)):
            if token_dim == 1 or "h" not in axes:  # with tables for each head, axes says it all
                yield Reading(form, pairing, token_dim, axes, inverse)


def _is_close(a: Tensor, b: Tensor) -> bool:
    """Equal, but for products that were rounded one by one."""
    if a.shape != b.shape or a.dtype is not b.dtype:
        return False
    if not a.isfinite().all():
        return False
    largest = float(a.abs().max()) if a.numel() else 0.0
    return bool(((a - b).abs() <= 4 * torch.finfo(a.dtype).eps * max(largest, 1e-30)).all())

"""The common part of all rotations of queries and keys."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from posenc.encoding import QueryKeyEncoding
from posenc.frequencies.base import check_choice
from posenc.kernels.choice import Choice, Implementation, explained_by
from posenc.kernels.inputs import check_replicates, check_tensors, is_distributed
from posenc.kernels.kept import LastResult
from posenc.kernels.precision import compute_dtype, may_keep, may_look
from posenc.kernels.rotate import op
from posenc.kernels.rotate.choosing import is_plain
from posenc.kernels.rotate.eager import Pairing, rows_of_tokens
from posenc.kernels.rotate.tables import Tables
from posenc.positions import Positions, resolve, resolve_coordinates
from posenc.queries_keys import _checks
from posenc.queries_keys._rows import (
    TABLE_DTYPES,
    Rows,
    align,
    for_tensor,
    lifted,
    lowered,
    of_table,
    plainly,
    polar,
    tokens_and_rows,
    tokens_at,
)

Role = Literal["query", "key"]
Numerics = Literal["exact", "transformers"]
Length: TypeAlias = int | Tensor | None
Turn: TypeAlias = Callable[..., tuple[Tensor, Tensor]]
_CPU = torch.device("cpu")
_WHOLE = (torch.int64, torch.int32)


class Rotation(QueryKeyEncoding, ABC):
    """Pairs of channels turn by angles that depend on the position. A subclass defines the angles (:meth:`phases`).

    Attributes:
        head_dim: channels of each head.
        rotary_dim: how many of them turn.
        rotary_start: the first of those.
        pairing: which two channels make a pair.
        seq_dim: the dimension of q and k along which the tokens lie.
        blocks: if the rotated slice has parts that are paired separately, the number of pairs of each; else empty.
        coordinates: how many numbers the position of a token has; None for one.
        roles_differ: True if queries and keys turn differently.
        heads_differ: True if heads turn differently.
        signed: True if a tensor of positions of any shape may be negative, because they are not places in a text.
        implementation: the code that rotates: "auto", "eager", "cpu" or "triton".
    """

    numerics: Numerics = "exact"
    implementation: Implementation = "auto"
    blocks: tuple[int, ...] = ()
    coordinates: int | None = None
    roles_differ: ClassVar[bool] = False
    heads_differ: bool = False
    signed: ClassVar[bool] = False
    settled = True
    _shared: Tables | None = None  # rows for the positions 0, 1, 2, ..., where rates are fixed

    def __init__(
        self, head_dim: int, *, pairing: Pairing, rotary_dim: int | None, rotary_start: int, seq_dim: int
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.pairing = pairing
        self.rotary_dim = head_dim - rotary_start if rotary_dim is None else rotary_dim
        self.rotary_start = rotary_start
        self.seq_dim = seq_dim
        _checks.check_layout(type(self).__name__, head_dim, self.rotary_dim, rotary_start, seq_dim)
        check_choice(type(self).__name__, "pairing", pairing, get_args(Pairing))
        self._last = LastResult()
        self._token_axis = {-2: 2, 2: 2, -3: 1, 1: 1}.get(seq_dim)  # in four dimensions, if the fused operation has it

    @abstractmethod
    def phases(self, positions: Tensor, *, role: Role = "query", length: Length = None) -> tuple[Tensor, Tensor]:
        """The angle by which each pair turns, in radians, and the magnitude that multiplies it, float64.

        Args:
            positions: ``(seq,)`` or ``(rows, seq)``, and one dimension more for several coordinates.
            role: "query" or "key", if they turn differently.
            length: tokens of the sequence, for rules that depend on it; computed from the positions by default.

        Returns:
            ``(seq, pairs)``, ``(rows, seq, pairs)`` or, if heads differ, ``(rows, heads, seq, pairs)``; magnitudes may
            be broadcast.
        """

    def waves(self, positions: Tensor, *, role: Role = "query", length: Length = None) -> tuple[Tensor, Tensor]:
        """The cos and sin of :meth:`phases`, times the magnitude: the complex number that multiplies each pair."""
        return polar(*self.phases(positions, role=role, length=length))

    def _explain(
        self,
        q: Tensor,
        k: Tensor,
        positions: Positions = None,
        *,
        k_positions: Positions = None,
        length: Length = None,
    ) -> Choice:
        rows = self._rows_for_both(q, k, positions, k_positions, length)
        if rows is not None:
            return self._explain_rows(q, k, rows)
        self._check(q, k, positions, k_positions)
        of_q = self._explain_rows(q, None, self._rows(positions, q, length=length))
        where = positions if k_positions is None else k_positions
        of_k = self._explain_rows(k, None, self._rows(where, k, role="key", length=length))
        if of_q.implementation == of_k.implementation:
            return of_q
        return Choice(
            "rotate", f"{of_q.implementation} for q, {of_k.implementation} for k", f"of q: {of_q.why}; of k: {of_k.why}"
        )

    def _explain_in_place(self, q: Tensor, k: Tensor, positions: Positions = None, *, length: Length = None) -> Choice:
        rows = self._rows_in_place(q, k, positions, length)
        (four_q, axis), (four_k, _) = (lifted(x, tokens_at(x, self.seq_dim)) for x in (q, k))
        where = (rows.ids, rows.first, self.rotary_start, axis)
        return op.explain_(four_q, four_k, rows.cos, rows.sin, *where, implementation=self.implementation)

    def _explain_rows(self, q: Tensor, k: Tensor | None, rows: Rows) -> Choice:
        """What :meth:`_turn` takes for the same arguments."""
        if not self._is_fused(q, rows):
            _checks.check_plain(type(self).__name__, self.implementation, q, self.seq_dim)
            return Choice("rotate", "eager", _checks.NO_KERNEL)
        return op.explain(q, q if k is None else k, rows.cos, implementation=self.implementation)

    @explained_by(_explain)
    def on_queries_keys(
        self,
        q: Float[Tensor, "batch heads q_len head_dim"],
        k: Float[Tensor, "batch kv_heads k_len head_dim"],
        positions: Positions = None,
        *,
        k_positions: Positions = None,
        length: Length = None,
    ) -> tuple[Tensor, Tensor]:
        """Place 2: q and k, rotated. ``length`` is for frequency rules that depend on it."""
        if k_positions is None and (turned := self._at_once(q, k, positions, op.compiled)) is not None:
            return turned
        rows = self._rows_for_both(q, k, positions, k_positions, length)
        if rows is not None:
            return self._turn_fused(q, k, rows, op.rotate)
        self._check(q, k, positions, k_positions)
        q = self.rotate(q, positions, name="q", length=length)
        k = self.rotate(k, positions if k_positions is None else k_positions, name="k", role="key", length=length)
        return q, k

    @explained_by(_explain_in_place)
    def on_queries_keys_(
        self,
        q: Float[Tensor, "batch heads seq head_dim"],
        k: Float[Tensor, "batch kv_heads seq head_dim"],
        positions: Positions = None,
        *,
        length: Length = None,
    ) -> tuple[Tensor, Tensor]:
        """:meth:`on_queries_keys` in place: q and k are overwritten and returned. No memory is allocated.

        Raises:
            ValueError: before anything is written: a layout that cannot be rotated in place, elements that share
                memory, within q or k or between them, and tensors that autograd does not let anyone write to.
        """
        if (turned := self._at_once(q, k, positions, op.rotate_plain_)) is not None:
            return turned
        return self._turn_fused(q, k, self._rows_in_place(q, k, positions, length), op.rotate_)

    def rotate(
        self,
        x: Float[Tensor, "*heads seq head_dim"],
        positions: Positions = None,
        *,
        role: Role = "query",
        length: Length = None,
        name: str = "x",
    ) -> Tensor:
        """R(p) x for each token of ``x``, whose shape is ``(seq, head_dim)`` or has batch and heads in front.

        Args:
            x: queries or keys.
            positions: None, an int offset, ``(seq,)`` or ``(batch, seq)``; ``(batch, seq, coordinates)`` for encodings
                that have several.
            role: "query" or "key", if they turn differently.
            length: tokens of the sequence: an int, ``(batch,)`` or ``(batch, seq)``. Only rules that depend on it use
                it; by default it is computed from the positions.
            name: what an error calls ``x``.
        """
        _checks.check_tensor(type(self).__name__, name, x, self.head_dim, self.seq_dim)
        return self._turn(x, None, self._rows(positions, x, role=role, length=length))[0]

    def inverse(
        self,
        x: Float[Tensor, "*heads seq head_dim"],
        positions: Positions = None,
        *,
        role: Role = "query",
        length: Length = None,
    ) -> Tensor:
        """The inverse of :meth:`rotate` with the same arguments: it turns ``x`` back and divides by the magnitude."""
        _checks.check_tensor(type(self).__name__, "x", x, self.head_dim, self.seq_dim)
        return self._turn(x, None, self._made_rows(positions, x, role=role, length=length, inverse=True))[0]

    def rotate_by(self, x: Float[Tensor, "*heads seq head_dim"], angle: Tensor, magnitude: Tensor) -> Tensor:
        """``x`` turned by angles in radians and multiplied by magnitudes, in the shapes that :meth:`phases` gives."""
        return self._turn(x, None, self._rounded(*polar(angle, magnitude), x))[0]

    def matrix(self, positions: Tensor) -> Float[Tensor, "*positions head_dim head_dim"]:
        """R(p) for each position, as float64 matrices, for reading and testing; :meth:`rotate` does not build them."""
        cos, sin = (wave[..., None, :] for wave in self.waves(positions))
        columns = torch.eye(self.head_dim, dtype=torch.float64, device=cos.device).expand(*cos.shape[:-2], -1, -1)
        return plainly(columns, cos, sin, self.pairing, self.rotary_start, self.blocks).mT

    def check_range(self, positions: Tensor, dtype: torch.dtype) -> None:
        """Refuse positions that a result of ``dtype`` cannot represent; called only where reading values is free."""
        return

    def _at_once(self, q: Tensor, k: Tensor, positions: Positions, operator: Turn) -> tuple[Tensor, Tensor] | None:
        """What :meth:`_turn_fused` gives, by the shortest way; None where there is more to choose, make or refuse."""
        tables, axis = self._shared, self._token_axis
        if tables is None or axis is None or self.implementation != "auto" or not is_plain(q, k) or q.ndim != 4:
            return None
        tokens = self._common_tokens(q, k)
        if tokens is None:
            return None
        first: object = 0 if positions is None else positions
        if (
            type(first) is Tensor
            and tokens == first.numel() == 1
            and 0 < first.ndim < 3
            and first.is_cpu
            and first.dtype in _WHOLE
        ):
            first = first.item()
        if type(first) is not int or first < 0:
            return None
        made = tables.get(first + tokens, _CPU, TABLE_DTYPES[q.dtype])
        if made is None:
            return None
        return operator(q, k, *made, None, first, self.rotary_start, axis, self.pairing == "interleaved", False)

    def _turn(self, q: Tensor, k: Tensor | None, rows: Rows) -> tuple[Tensor, Tensor]:
        """q and, unless it is None, k by the rows of their tokens: where it can be done, in one call."""
        if self._is_fused(q, rows):
            return self._turn_fused(q, k, rows, op.rotate)
        turned_q = self._plainly(q, rows)
        return turned_q, q if k is None else self._plainly(k, rows)

    def _turn_fused(self, q: Tensor, k: Tensor | None, rows: Rows, operation: Turn) -> tuple[Tensor, Tensor]:
        axis, plain = self._token_axis, False
        if axis is not None and q.ndim == 4:
            plain, four_q, four_k = True, q, k
        else:
            index, ndim = tokens_at(q, self.seq_dim), q.ndim
            four_q, axis = lifted(q, index)
            four_k = None if k is None else lifted(k, index)[0]
        if four_k is None:
            four_k = four_q[:, :0] if axis == 2 else four_q[:, :, :0]
        turned = operation(
            four_q,
            four_k,
            rows.cos,
            rows.sin,
            positions=rows.ids,
            offset=rows.first,
            start=self.rotary_start,
            token_dim=axis,
            pairing=self.pairing,
            implementation=self.implementation,
        )
        if plain:
            return turned
        if operation is op.rotate_:
            return q, q if k is None else k
        return lowered(turned[0], ndim, index), lowered(turned[1], ndim, index) if k is not None else q

    def _plainly(self, x: Tensor, rows: Rows) -> Tensor:
        """In plain torch, which takes every layout."""
        _checks.check_plain(type(self).__name__, self.implementation, x, self.seq_dim)
        index = tokens_at(x, self.seq_dim)
        tables = (rows_of_tokens(table, rows.ids, rows.first, x.shape[index]) for table in (rows.cos, rows.sin))
        cos, sin = (for_tensor(align(table, x.ndim, index), x) for table in tables)
        return plainly(x, cos, sin, self.pairing, self.rotary_start, self.blocks)

    def _is_fused(self, x: Tensor, rows: Rows) -> bool:
        """Whether the fused operation can turn x: one slice, and the same tables for all heads."""
        return 2 <= x.ndim <= 4 and rows.cos.ndim < 4 and not self.blocks and not is_distributed(x)

    def _common_tokens(self, q: Tensor, k: Tensor) -> int | None:
        """How many tokens both have, if one call can rotate them and their shapes and dtypes are right; else None."""
        if type(q) is not Tensor or type(k) is not Tensor:
            check_tensors(type(self).__name__, q=q, k=k)
        if q.is_nested:
            return None
        q_shape, k_shape, dtype, axis = q.shape, k.shape, q.dtype, self._token_axis
        if dtype is not k.dtype or dtype not in TABLE_DTYPES or self.roles_differ or len(q_shape) != len(k_shape):
            return None
        if axis is None or len(q_shape) != 4:  # packed: (seq, heads, head_dim), or (seq, batch, heads, head_dim)
            if len(q_shape) not in (3, 4) or tokens_at(q, self.seq_dim) != 0 or q_shape[:-2] != k_shape[:-2]:
                return None
            axis = 0
        elif q_shape[0] != k_shape[0] or q_shape[axis] != k_shape[axis]:
            return None
        return q_shape[axis] if q_shape[-1] == k_shape[-1] == self.head_dim else None

    def _rows_for_both(
        self, q: Tensor, k: Tensor, positions: Positions, k_positions: Positions, length: Length
    ) -> Rows | None:
        """The rows by which one call turns q and k; None where each needs its own."""
        if k_positions is not None or self._common_tokens(q, k) is None:
            return None
        rows = self._rows(positions, q, length=length)
        return rows if self._is_fused(q, rows) else None

    def _rows(self, positions: Positions, x: Tensor, *, role: Role = "query", length: Length = None) -> Rows:
        """cos, sin, and which of their rows the tokens of ``x`` have."""
        rows = None
        if self._shared is not None and (x.ndim < 4 or (x.ndim == 4 and self._token_axis is not None)) and may_keep():
            rows = of_table(self._shared, positions, x, self.seq_dim)
        return self._made_rows(positions, x, role=role, length=length) if rows is None else rows

    def _rows_in_place(self, q: Tensor, k: Tensor, positions: Positions, length: Length) -> Rows:
        _checks.check_tensor(type(self).__name__, "q", q, self.head_dim, self.seq_dim)
        _checks.check_tensor(type(self).__name__, "k", k, self.head_dim, self.seq_dim)
        if self._common_tokens(q, k) is not None:
            rows = self._rows(positions, q, length=length)
            if self._is_fused(q, rows):
                return rows
        raise ValueError(
            f"{type(self).__name__}: got {self!r}, q {q.dtype} {tuple(q.shape)} and k {k.dtype} {tuple(k.shape)}, "
            "expected tensors of one dtype, batch and length and a layout that can be rotated in place; use "
            "on_queries_keys."
        )

    def _check(self, q: Tensor, k: Tensor, positions: Positions, k_positions: Positions) -> None:
        cls = type(self).__name__
        _checks.check_tensor(cls, "q", q, self.head_dim, self.seq_dim)
        _checks.check_tensor(cls, "k", k, self.head_dim, self.seq_dim)
        if k_positions is None and not isinstance(positions, Tensor):
            _checks.check_lengths(cls, q, k, self.seq_dim)

    def _made_rows(
        self, positions: Positions, x: Tensor, *, role: Role = "query", length: Length = None, inverse: bool = False
    ) -> Rows:
        """Rows made for these tokens, or those of the last call if they are the same."""

        def make() -> Rows:
            where = self.resolve(positions, x)
            if not inverse:
                return self._rounded(*self.waves(where, role=role, length=length), x)
            angle, magnitude = self.phases(where, role=role, length=length)
            return self._rounded(*polar(-angle, 1 / magnitude), x)

        learned = next(self.parameters(), None)
        if isinstance(length, Tensor) or learned is not None:
            check_replicates(type(self).__name__, length, learned)
            return make()
        who = role if self.roles_differ else None
        # q and k share their tables where all heads turn alike, so the number of heads is then no part of the key.
        heads = x.shape if self.heads_differ else None
        key = (*tokens_and_rows(x, self.seq_dim), heads, x.ndim, x.dtype, x.device, length, who, inverse)
        return self._last.get(positions, key, make)

    def resolve(self, positions: Positions, x: Tensor, *, name: str = "positions") -> Tensor:
        """Positions of the tokens of x as a tensor, checked."""
        tokens, rows = tokens_and_rows(x, self.seq_dim)
        _checks.check_axis(type(self).__name__, positions, x, self.seq_dim, several=self.coordinates is not None)
        if self.coordinates is None:
            resolved = resolve(positions, tokens, device=x.device, batch=rows, name=name)
        else:
            resolved = resolve_coordinates(
                positions, tokens, self.coordinates, device=x.device, batch=rows, name=name, signed=self.signed
            )
        if may_look(resolved):
            self.check_range(resolved, x.dtype)
        return resolved

    def _rounded(self, cos: Tensor, sin: Tensor, x: Tensor) -> Rows:
        """Both rounded once, ``([rows, [heads,]] seq, pairs)``."""
        rounded = x.dtype if self.numerics == "transformers" else compute_dtype(x.dtype)

        def made(table: Tensor) -> Tensor:
            if table.ndim == 4:  # heads differ, and a group of query heads has the rates of its key head
                groups = _checks.checked_groups(type(self).__name__, x, self.seq_dim, table.shape[1])
                table = table.repeat_interleave(groups, dim=1)
            return table.to(rounded).to(x.device)

        return Rows(made(cos), made(sin))

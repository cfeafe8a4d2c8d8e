"""What all rotations of queries and keys have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from posenc.encoding import QueryKeyEncoding
from posenc.frequencies import Frequencies, LearnedRates
from posenc.kernels.choice import Choice, Implementation, explained_by
from posenc.kernels.precision import LastResult, compute_dtype, may_look
from posenc.kernels.rotate import op
from posenc.kernels.rotate.eager import Pairing, rotate
from posenc.kernels.rotate.tables import Tables
from posenc.positions import Positions, resolve, resolve_coordinates
from posenc.queries_keys._rows import TABLE_DTYPES, Rows, align, for_tensor, lifted, lowered, of_table

Role = Literal["query", "key"]
Numerics = Literal["exact", "transformers"]
Length: TypeAlias = int | Tensor | None


class Rotation(QueryKeyEncoding, ABC):
    """Pairs of channels turn by angles that the position sets. A subclass says by which (:meth:`phases`).

    Attributes:
        head_dim: channels of each head.
        rotary_dim: how many of them turn.
        rotary_start: the first of those.
        pairing: which two channels make a pair.
        seq_dim: the dimension of q and k along which the tokens lie.
        blocks: in how many equal parts the rotated slice is paired, each for itself.
        coordinates: how many numbers the position of a token has; None for one.
        roles_differ: True if queries and keys turn differently.
        implementation: how they are turned: "auto", "eager", "cpu" or "triton".
    """

    numerics: Numerics = "exact"
    implementation: Implementation = "auto"
    blocks: int = 1
    coordinates: int | None = None
    roles_differ: ClassVar[bool] = False
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
        name = type(self).__name__
        if self.rotary_dim % 2 or not 2 <= self.rotary_dim <= head_dim:
            raise ValueError(
                f"{name}: got rotary_dim {self.rotary_dim} for head_dim {head_dim}, expected an even number from 2 to "
                f"{head_dim}, because channels turn in pairs; "
                + (f"use rotary_dim={head_dim - head_dim % 2}." if head_dim > 1 else "use a head_dim of at least 2.")
            )
        if not 0 <= rotary_start <= head_dim - self.rotary_dim:
            raise ValueError(
                f"{name}: got rotary_start {rotary_start} for rotary_dim {self.rotary_dim} and head_dim {head_dim}, "
                f"expected 0 to {head_dim - self.rotary_dim}, so that the slice fits into the head; the last channels "
                f"are rotary_start={head_dim - self.rotary_dim}."
            )
        if seq_dim not in (-4, -3, -2, 0, 1, 2):
            raise ValueError(
                f"{name}: got seq_dim {seq_dim}, expected -2 for (batch, heads, seq, head_dim), -3 for (batch, seq, "
                "heads, head_dim) or -4 for (seq, batch, heads, head_dim)."
            )
        check_choice(name, "pairing", pairing, get_args(Pairing))
        self._last = LastResult()
        # The axis of the tokens in four dimensions, where the fused operation can count along it.
        self._token_axis = {-2: 2, 2: 2, -3: 1, 1: 1}.get(seq_dim)

    @abstractmethod
    def phases(self, positions: Tensor, *, role: Role = "query", length: Length = None) -> tuple[Tensor, Tensor]:
        """By what each pair turns and is multiplied: angles in radians and magnitudes, float64.

        Args:
            positions: ``(seq,)`` or ``(rows, seq)``, and one dimension more for several coordinates.
            role: whose, where queries and keys differ.
            length: tokens of the sequence, for rules that depend on it; found from the positions by default.

        Returns:
            ``(seq, pairs)``, ``(rows, seq, pairs)`` or, if heads differ, ``(rows, heads, seq, pairs)``; magnitudes may
            be broadcast.
        """

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
        self._check_both(q, k, positions, k_positions)
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
        (four_q, axis), (four_k, _) = (lifted(x, self._seq_index(x)) for x in (q, k))
        where = (rows.ids, rows.first, self.rotary_start, axis)
        return op.explain_(four_q, four_k, rows.cos, rows.sin, *where, implementation=self.implementation)

    def _explain_rows(self, q: Tensor, k: Tensor | None, rows: Rows) -> Choice:
        """What :meth:`_rotate_rows` takes for the same arguments."""
        if not self._is_fused(q, rows):
            return Choice("rotate", "eager", "there is no kernel for this layout of tokens, blocks and heads")
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
        """Place 2: q and k, turned. ``length`` is for frequency rules that depend on it."""
        rows = self._rows_for_both(q, k, positions, k_positions, length)
        if rows is not None:
            return self._rotate_rows(q, k, rows)
        self._check_both(q, k, positions, k_positions)
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
        """:meth:`on_queries_keys` in place: q and k are overwritten, and returned. No memory is taken.

        Raises:
            ValueError: before anything is written: a layout that cannot be rotated in place, elements that share
                memory, within q or k or between them, and tensors that autograd does not let anyone write to.
        """
        return self._rotate_rows(q, k, self._rows_in_place(q, k, positions, length), rotate=op.rotate_)

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
            role: "query" or "key", where they turn differently.
            length: tokens of the sequence: an int, ``(batch,)`` or ``(batch, seq)``. Only rules that depend on it look
                at it, and find it from the positions by default.
            name: what an error calls ``x``.
        """
        self._check(x, name)
        return self._rotate_rows(x, None, self._rows(positions, x, role=role, length=length))[0]

    def inverse(
        self,
        x: Float[Tensor, "*heads seq head_dim"],
        positions: Positions = None,
        *,
        role: Role = "query",
        length: Length = None,
    ) -> Tensor:
        """What :meth:`rotate` with the same arguments made ``x`` of: it turns back, and undoes the magnitude too."""
        self._check(x, "x")
        return self.turn(x, *self._cos_sin(positions, x, role=role, length=length, inverse=True))

    def matrix(self, positions: Tensor) -> Float[Tensor, "*positions head_dim head_dim"]:
        """R(p) for each position, as float64 matrices: for reading and testing, :meth:`rotate` does not build them."""
        angle, magnitude = self.phases(positions)
        cos, sin = (angle.cos() * magnitude)[..., None, :], (angle.sin() * magnitude)[..., None, :]
        columns = torch.eye(self.head_dim, dtype=torch.float64).expand(*angle.shape[:-1], -1, -1)
        return self._turn_plainly(columns, cos, sin).mT

    def check_range(self, positions: Tensor, dtype: torch.dtype) -> None:
        """Refuse positions that a result of ``dtype`` cannot express; called where looking at values is free."""
        return

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The rotated slice of x turned by tables that :meth:`tables` made, the other channels as they are."""
        return self._rotate_rows(x, None, Rows(cos, sin))[0]

    def _rotate_rows(
        self, q: Tensor, k: Tensor | None, rows: Rows, rotate: Callable[..., tuple[Tensor, Tensor]] = op.rotate
    ) -> tuple[Tensor, Tensor]:
        """q and, unless it is None, k by the rows of their tokens: where it can be done, in one call."""
        cos, sin, first, ids = rows
        axis = self._token_axis
        if not self._is_fused(q, rows):
            return self._plain(q, cos, sin), q if k is None else self._plain(k, cos, sin)
        plain = axis is not None and q.ndim == 4
        if plain:
            four_q, four_k = q, k
        else:
            index, ndim = self._seq_index(q), q.ndim
            four_q, axis = lifted(q, index)
            four_k = None if k is None else lifted(k, index)[0]
        if four_k is None:
            four_k = four_q[:, :0] if axis == 2 else four_q[:, :, :0]
        turned = rotate(
            four_q,
            four_k,
            cos,
            sin,
            positions=ids,
            offset=first,
            start=self.rotary_start,
            token_dim=axis,
            pairing=self.pairing,
            implementation=self.implementation,
        )
        if plain:
            return turned
        if rotate is op.rotate_:
            return q, q if k is None else k
        return lowered(turned[0], ndim, index), lowered(turned[1], ndim, index) if k is not None else q

    def _plain(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        index = self._seq_index(x)
        return self._turn_plainly(x, *(for_tensor(align(table, x.ndim, index), x) for table in (cos, sin)))

    def _is_fused(self, x: Tensor, rows: Rows) -> bool:
        """Whether the fused operation can turn x: one slice, and the same tables for all heads."""
        return 2 <= x.ndim <= 4 and rows.cos.ndim < 4 and self.blocks == 1 and type(x).__name__ != "DTensor"

    def _go_together(self, q: Tensor, k: Tensor) -> bool:
        """Whether one call can rotate both, and their shapes and dtypes are right."""
        axis = self._token_axis
        if q.is_nested:
            return False
        q_shape, k_shape, dtype = q.shape, k.shape, q.dtype
        if dtype is not k.dtype or dtype not in TABLE_DTYPES or self.roles_differ or len(q_shape) != len(k_shape):
            return False
        if len(q_shape) != 4 or axis is None:  # packed: (seq, heads, head_dim), or (seq, batch, heads, head_dim)
            if len(q_shape) not in (3, 4) or self._seq_index(q) != 0:
                return False
            return q_shape[-1] == k_shape[-1] == self.head_dim and q_shape[:-2] == k_shape[:-2]
        return q_shape[3] == k_shape[3] == self.head_dim and q_shape[axis] == k_shape[axis] and q_shape[0] == k_shape[0]

    def _rows_for_both(
        self, q: Tensor, k: Tensor, positions: Positions, k_positions: Positions, length: Length
    ) -> Rows | None:
        """The rows by which one call turns q and k; None where each needs its own."""
        if k_positions is not None or not self._go_together(q, k):
            return None
        rows = self._rows(positions, q, length=length)
        return rows if self._is_fused(q, rows) else None

    def _rows(self, positions: Positions, x: Tensor, *, role: Role = "query", length: Length = None) -> Rows:
        """cos, sin, and which of their rows the tokens of ``x`` have."""
        by_shape = x.ndim == 4 and self._token_axis is not None  # so the operation can name positions that do not fit
        if self._shared is not None and (by_shape or (x.ndim < 4 and not isinstance(positions, Tensor))):
            rows = of_table(self._shared, positions, x, x.shape[self._seq_index(x)])
            if rows is not None:
                return rows
        return Rows(*self._cos_sin(positions, x, role=role, length=length))

    def _rows_in_place(self, q: Tensor, k: Tensor, positions: Positions, length: Length) -> Rows:
        self._check(q, "q")
        self._check(k, "k")
        if self._go_together(q, k):
            rows = self._rows(positions, q, length=length)
            if self._is_fused(q, rows):
                return rows
        raise ValueError(
            f"{type(self).__name__}: got {self!r}, q {q.dtype} {tuple(q.shape)} and k {k.dtype} {tuple(k.shape)}, "
            "expected tensors of one dtype, batch and length and a layout that can be turned in place; use "
            "on_queries_keys."
        )

    def _check_both(self, q: Tensor, k: Tensor, positions: Positions, k_positions: Positions) -> None:
        self._check(q, "q")
        self._check(k, "k")
        if k_positions is None and not isinstance(positions, Tensor):
            self._check_lengths(q, k)

    def _turn_plainly(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The same in plain torch, by tables that broadcast with x."""
        if self.blocks == 1:
            return rotate(x, cos, sin, pairing=self.pairing, start=self.rotary_start)
        before, inside, after = x.split(
            (self.rotary_start, self.rotary_dim, self.head_dim - self.rotary_dim - self.rotary_start), dim=-1
        )
        parts = (t.unflatten(-1, (self.blocks, -1)) for t in (inside, cos, sin))
        return torch.cat((before, rotate(*parts, pairing=self.pairing).flatten(-2), after), dim=-1)

    def _check(self, x: Tensor, name: str) -> None:
        cls = type(self).__name__
        if x.is_nested:
            raise TypeError(
                f"{cls}: got a nested tensor for {name}, expected a dense one, because each of its sequences has "
                "positions of its own; rotate its values() with seq_dim=0 and posenc.positions.from_lengths(...)."
            )
        if x.dtype not in TABLE_DTYPES:
            raise ValueError(
                f"{cls}: got {name} of {x.dtype}, expected float64, float32, float16 or bfloat16; cast it before the "
                "rotation and back after it."
            )
        if x.shape[-1] != self.head_dim:
            raise ValueError(
                f"{cls}: {name} has head_dim {x.shape[-1]} but this encoding was built for head_dim {self.head_dim}; "
                f"build it with head_dim={x.shape[-1]}"
                + (
                    f", or rotary_dim={self.head_dim} to rotate part of each head."
                    if x.shape[-1] > self.head_dim
                    else "."
                )
            )
        if not 0 <= self._seq_index(x) < x.ndim - 1:
            raise ValueError(
                f"{cls}: {name} has shape {tuple(x.shape)}, expected tokens along dimension {self.seq_dim} and "
                "channels along the last; build it with another seq_dim."
            )

    def _check_lengths(self, q: Tensor, k: Tensor) -> None:
        """Refuse queries and keys of two lengths for which one offset was given."""
        self._check(q, "q")
        self._check(k, "k")
        q_tokens, k_tokens = q.shape[self._seq_index(q)], k.shape[self._seq_index(k)]
        if q_tokens != k_tokens:
            raise ValueError(
                f"{type(self).__name__}: got q of {q_tokens} tokens and k of {k_tokens} without k_positions, expected "
                "as many of both; give positions and k_positions (cross-attention), or, if the shapes are (batch, seq, "
                "heads, head_dim), build it with seq_dim=-3."
            )

    def _cos_sin(
        self, positions: Positions, x: Tensor, *, role: Role, length: Length, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """cos and sin times the magnitude, rounded once, ``([rows, [heads,]] seq, pairs)``."""

        def make() -> tuple[Tensor, Tensor]:
            angle, magnitude = self.phases(self.resolve(positions, x), role=role, length=length)
            return self.tables(-angle if inverse else angle, 1 / magnitude if inverse else magnitude, x)

        if isinstance(length, Tensor) or next(self.parameters(), None) is not None:
            return make()
        who = role if self.roles_differ else None
        # q and k share their tables, so the number of heads is no part of the key.
        key = (*self._tokens_and_rows(x), x.ndim, x.dtype, x.device, length, who, inverse)
        return self._last.get(positions, key, make)

    def resolve(self, positions: Positions, x: Tensor, *, name: str = "positions") -> Tensor:
        """Positions of the tokens of x as a tensor, checked."""
        tokens, rows = self._tokens_and_rows(x)
        if self.coordinates is None:
            resolved = resolve(positions, tokens, device=x.device, batch=rows, name=name)
        else:
            resolved = resolve_coordinates(positions, tokens, self.coordinates, device=x.device, batch=rows, name=name)
        if may_look(resolved):
            self.check_range(resolved, x.dtype)
        return resolved

    def tables(self, angle: Tensor, magnitude: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin times the magnitude, rounded once, ``([rows, [heads,]] seq, pairs)``."""
        rounded = x.dtype if self.numerics == "transformers" else compute_dtype(x.dtype)

        def made(table: Tensor) -> Tensor:
            if table.ndim == 4:  # heads differ, and a group of query heads has the rates of its key head
                table = table.repeat_interleave(self._groups(x, table.shape[1]), dim=1)
            return table.to(rounded).to(x.device)

        return made(angle.cos() * magnitude), made(angle.sin() * magnitude)

    def _tokens_and_rows(self, x: Tensor) -> tuple[int, int]:
        """How many tokens lie in x, and how many rows of them."""
        index = self._seq_index(x)
        if x.ndim == 4:
            return x.shape[index], x.shape[int(index == 0)]
        return x.shape[index], x.shape[0] if x.ndim == 3 and index == 1 else 1

    def _groups(self, x: Tensor, kv_heads: int) -> int:
        index = self._seq_index(x)
        heads = 1 if x.ndim == 2 else x.shape[index - 1 if index == x.ndim - 2 else x.ndim - 2]
        if heads % kv_heads:
            raise ValueError(
                f"{type(self).__name__}: got {heads} heads, expected a multiple of {kv_heads}, for which there are "
                "rates; build it with num_kv_heads set to the heads of k."
            )
        return heads // kv_heads

    def _seq_index(self, x: Tensor) -> int:
        """The dimension of the tokens. A head that stands alone, (seq, head_dim), has no other."""
        if x.ndim == 2:
            return 0
        return self.seq_dim + x.ndim if self.seq_dim < 0 else self.seq_dim


def check_fixed(cls: str, frequencies: Frequencies) -> None:
    """Refuse rules that an encoding with fixed rates cannot follow."""
    if frequencies.depends_on_length or isinstance(frequencies, LearnedRates):
        raise ValueError(
            f"{cls}: got frequencies {frequencies}, expected a rule with fixed rates; only RoPE takes rates that are "
            "learned or depend on the length."
        )


def check_choice(cls: str, name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuse a name that is not one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{cls}: got {name} {value!r}, expected one of {allowed}.")

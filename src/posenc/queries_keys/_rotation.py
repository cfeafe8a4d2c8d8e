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
from posenc.kernels.precision import LastResult, compute_dtype, may_keep
from posenc.kernels.rotate import op
from posenc.kernels.rotate.eager import Pairing, rotate
from posenc.kernels.rotate.tables import Tables
from posenc.positions import Positions, resolve, resolve_coordinates

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
        together = self._rows_for_both(q, k, positions, k_positions, length)
        if together is not None:
            return op.explain(q, k, together[0], implementation=self.implementation)
        if k_positions is None and not isinstance(positions, Tensor):
            self._check_lengths(q, k)
        of_q = self._explain_turn(q, positions, name="q", length=length)
        where = positions if k_positions is None else k_positions
        of_k = self._explain_turn(k, where, name="k", role="key", length=length)
        if of_q.implementation == of_k.implementation:
            return of_q
        both = f"{of_q.implementation} for q, {of_k.implementation} for k"
        return Choice("rotate", both, f"of q: {of_q.why}; of k: {of_k.why}")

    def _explain_turn(
        self, x: Tensor, positions: Positions, *, name: str, length: Length, role: Role = "query"
    ) -> Choice:
        self._check(x, name)
        cos, *_ = self._rows(positions, x, role=role, length=length)
        if self._is_fused(x, cos):
            return op.explain(x, self._nothing(x), cos, implementation=self.implementation)
        return Choice("rotate", "eager", "there is no kernel for this layout of tokens, blocks and heads")

    def _explain_in_place(self, q: Tensor, k: Tensor, positions: Positions = None, *, length: Length = None) -> Choice:
        cos, sin, offset, ids = self._rows_in_place(q, k, positions, length)
        where = (ids, offset, self.rotary_start, self._token_axis or 2)
        return op.explain_(q, k, cos, sin, *where, implementation=self.implementation)

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
        together = self._rows_for_both(q, k, positions, k_positions, length)
        if together is not None:
            return self._fused(op.rotate, q, k, *together)
        if k_positions is None and not isinstance(positions, Tensor):
            self._check_lengths(q, k)
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
        """:meth:`on_queries_keys` in place: q and k are overwritten, and returned. No memory is taken."""
        return self._fused(op.rotate_, q, k, *self._rows_in_place(q, k, positions, length))

    def _rows_for_both(
        self, q: Tensor, k: Tensor, positions: Positions, k_positions: Positions, length: Length
    ) -> tuple[Tensor, Tensor, int, Tensor | None] | None:
        """The rows of the tables if one fused call can turn q and k, or None."""
        if k_positions is not None or not self._go_together(q, k):
            return None
        self._check(q, "q")
        self._check(k, "k")
        rows = self._rows(positions, q, length=length)
        return rows if self._is_fused(q, rows[0]) else None

    def _rows_in_place(
        self, q: Tensor, k: Tensor, positions: Positions, length: Length
    ) -> tuple[Tensor, Tensor, int, Tensor | None]:
        """The rows of the tables for a call in place, or the reason why there is none."""
        self._check(q, "q")
        self._check(k, "k")
        rows = self._rows(positions, q, length=length)
        if self.roles_differ or not self._is_fused(q, rows[0]):
            raise ValueError(
                f"{type(self).__name__}: got {self!r} and q of shape {tuple(q.shape)}, expected a layout that can be "
                "turned in place; use on_queries_keys."
            )
        return rows

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
        return self._turn(x, *self._rows(positions, x, role=role, length=length))

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
        return self._turn(x, cos, sin, 0, None)

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor, offset: int, ids: Tensor | None) -> Tensor:
        if self._is_fused(x, cos):
            return self._fused(op.rotate, x, self._nothing(x), cos, sin, offset, ids)[0]
        index = self._seq_index(x)
        return self._turn_plainly(x, *(_align(table, x.ndim, index) for table in (cos, sin)))

    def _fused(
        self,
        rotate: Callable[..., tuple[Tensor, Tensor]],
        q: Tensor,
        k: Tensor,
        cos: Tensor,
        sin: Tensor,
        offset: int,
        ids: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        return rotate(
            q,
            k,
            cos,
            sin,
            positions=ids,
            offset=offset,
            start=self.rotary_start,
            token_dim=self._token_axis,
            pairing=self.pairing,
            implementation=self.implementation,
        )

    def _nothing(self, x: Tensor) -> Tensor:
        """No heads of x, for the second tensor of a call that turns one."""
        return x[:, :0] if self._token_axis == 2 else x[:, :, :0]

    def _is_fused(self, x: Tensor, cos: Tensor) -> bool:
        """Whether the fused operation can turn x: one slice, and the same tables for all heads."""
        return x.ndim == 4 and cos.ndim < 4 and self.blocks == 1 and self._token_axis is not None

    def _go_together(self, q: Tensor, k: Tensor) -> bool:
        """Whether one call can rotate both."""
        axis = self._token_axis
        return (
            axis is not None
            and not self.roles_differ
            and q.ndim == k.ndim == 4
            and q.dtype is k.dtype
            and q.shape[axis] == k.shape[axis]
            and q.shape[0] == k.shape[0]
        )

    def _rows(
        self, positions: Positions, x: Tensor, *, role: Role = "query", length: Length = None
    ) -> tuple[Tensor, Tensor, int, Tensor | None]:
        """cos, sin, and which of their rows the tokens of ``x`` have: the row of the first, or one for each."""
        if self._shared is not None and self._token_axis is not None and x.ndim == 4 and may_keep():
            tokens, ids = x.shape[self._token_axis], None
            rows = tokens
            if type(positions) is int:
                rows = tokens + positions if positions >= 0 else -1
            elif isinstance(positions, Tensor):
                rows, ids = _rows_needed(positions, x), positions
            elif positions is not None:
                rows = -1
            if rows >= 0 and (made := self._shared.get(rows, x.device, compute_dtype(x.dtype))) is not None:
                return *made, rows - tokens if ids is None else 0, ids
        return *self._cos_sin(positions, x, role=role, length=length), 0, None

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
        if resolved.device.type == "cpu" and not torch.compiler.is_compiling():
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


def _rows_needed(positions: Tensor, x: Tensor) -> int:
    """How long a table must be to hold these positions; -1 if they are no rows of a table, or none to look at here."""
    if type(positions) is not Tensor or not (positions.is_cpu and x.is_cpu):
        return -1
    if positions.dtype is not torch.int64 and positions.dtype is not torch.int32:
        return -1
    return int(positions.max()) + 1 if positions.numel() else -1  # all else about them is checked by the operation


def _align(table: Tensor, ndim: int, seq_index: int) -> Tensor:
    """``([rows, [heads,]] seq, pairs)`` as a view that broadcasts with x of ``ndim`` dimensions."""
    if table.ndim == 2:  # the same for all rows and heads
        return table.view(table.shape[0], *[1] * (ndim - 2 - seq_index), table.shape[1])
    if table.ndim == 3:
        table = table[:, None]
    if ndim == 2:
        return table[0, 0]
    if ndim == 3 and seq_index == 0:  # (seq, heads, head_dim)
        return table[0].transpose(0, 1)
    if ndim == 3:  # (batch, seq, head_dim), or (heads, seq, head_dim)
        return table[:, 0] if table.shape[1] == 1 else table[0]
    return {0: table.permute(2, 0, 1, 3), 1: table.transpose(1, 2)}.get(seq_index, table)


def check_fixed(cls: str, frequencies: Frequencies) -> None:
    """Refuse rules that an encoding with fixed rates cannot follow."""
    if frequencies.depends_on_length or isinstance(frequencies, LearnedRates):
        raise ValueError(
            f"{cls}: got frequencies {frequencies}, expected a rule with fixed rates; only RoPE takes rates that are "
            "learned or depend on the length."
        )


def rates_for(
    frequencies: Frequencies, rotary_dim: int, length: Tensor
) -> tuple[Float[Tensor, "*length pairs"], Float[Tensor, "*length 1"]]:
    """The rates of a rule that depends on the length, and its factor, for each of many lengths."""
    lengths = length.cpu()
    if torch.compiler.is_compiling():  # which traces NumPy, but no unique
        rates = torch.from_numpy(frequencies.inv_freq(rotary_dim, length=lengths.numpy()))
        factors = torch.from_numpy(frequencies.attention_factor_at(lengths.numpy()))
    else:
        distinct, where = torch.unique(lengths, return_inverse=True)
        rates = torch.from_numpy(frequencies.inv_freq(rotary_dim, length=distinct.numpy()))[where]
        factors = torch.from_numpy(frequencies.attention_factor_at(distinct.numpy()))[where]
    return rates.to(length.device), factors[..., None].to(length.device)


def check_choice(cls: str, name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuse a name that is not one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{cls}: got {name} {value!r}, expected one of {allowed}.")

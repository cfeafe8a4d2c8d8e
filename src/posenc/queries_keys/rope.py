"""Rotary position embedding."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from posenc.encoding import QueryKeyEncoding
from posenc.frequencies import Frequencies, Geometric
from posenc.kernels.choice import Choice, Implementation, explained_by
from posenc.kernels.precision import LastResult, angles, compute_dtype, may_keep
from posenc.kernels.rotate import op
from posenc.kernels.rotate.eager import Pairing, rotate
from posenc.kernels.rotate.tables import Tables
from posenc.positions import Positions, resolve

Numerics = Literal["exact", "transformers"]


class RoPE(QueryKeyEncoding):
    r"""Rotary position embedding: each pair of channels of a query or key turns by an angle that its position sets.

    Place: queries_keys. Learned: nothing. Relative: yes. Keys may be cached: yes.

    .. math::
        (a, b) \leftarrow (a \cos p\,\omega_c - b \sin p\,\omega_c,\; a \sin p\,\omega_c + b \cos p\,\omega_c)

    Here :math:`p` is the position in tokens, :math:`\omega_c` is ``frequencies.inv_freq(rotary_dim)[c]`` in radians per
    token, and :math:`(a, b)` are the channels :math:`(c, c + r/2)` for ``pairing="half"`` or :math:`(2c, 2c + 1)` for
    ``"interleaved"``, with :math:`r` = ``rotary_dim``. Written as a block-diagonal matrix :math:`R(p)` it keeps
    norms, and :math:`R(i)^T R(j) = R(j - i)`: a score depends on the distance alone.

    Args:
        head_dim: channels of each head.
        frequencies: the rule that sets the rates; ``Geometric(base=10_000)``.
        pairing: "half" (GPT-NeoX, Hugging Face's Llama) or "interleaved" (RoFormer, GPT-J, Meta's Llama).
        rotary_dim: rotate only the first so many channels of each head; all of them by default.
        numerics: "exact", or "transformers" to round as Hugging Face's Llama does, bit for bit.
        implementation: "auto" for the fastest there is, "eager" (plain torch), "cpu" (compiled C++) or "triton"; all
            give the same bits on CPU. :func:`posenc.explain` says which a call takes.

    Shape:
        q ``(batch, heads, q_len, head_dim)``, k ``(batch, kv_heads, k_len, head_dim)``; the same on the way out.

    Precision: angles in float64; cos and sin rounded once to float32 (within 6e-8 at any position up to 2**24); the
    rotation in float32, rounded once to the dtype of q and k; float64 throughout for float64.

    Raises:
        ValueError: an odd or too large ``rotary_dim``; q or k of another ``head_dim``; bad positions.

    Example:
        >>> import torch
        >>> rope = RoPE(head_dim=4)
        >>> rope.rotate(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), positions=2)  # one token, at position 2: cos 2, sin 2
        tensor([[-0.4161,  0.0000,  0.9093,  0.0000]])

    Differs from the paper: the default pairing is the one that most checkpoints are stored in, not the paper's
    "interleaved"; the two are the same rotation after a permutation of channels.

    References:
        Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. 2021. arXiv:2104.09864, equations
        14-16, 34.
    """

    relative = True

    def __init__(
        self,
        head_dim: int,
        *,
        frequencies: Frequencies | None = None,
        pairing: Pairing = "half",
        rotary_dim: int | None = None,
        numerics: Numerics = "exact",
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.frequencies = Geometric() if frequencies is None else frequencies
        self.pairing = pairing
        self.rotary_dim = head_dim if rotary_dim is None else rotary_dim
        self.numerics = numerics
        self.implementation = implementation
        if self.rotary_dim % 2 or not 2 <= self.rotary_dim <= head_dim:
            raise ValueError(
                f"RoPE: got rotary_dim {self.rotary_dim} for head_dim {head_dim}, expected an even number from 2 to "
                f"{head_dim}, because channels turn in pairs; "
                + (f"use rotary_dim={head_dim - head_dim % 2}." if head_dim > 1 else "use a head_dim of at least 2.")
            )
        for name, value, allowed in (
            ("pairing", pairing, Pairing),
            ("numerics", numerics, Numerics),
            ("implementation", implementation, Implementation),
        ):
            if value not in get_args(allowed):
                raise ValueError(f"RoPE: got {name} {value!r}, expected one of {get_args(allowed)}.")
        if numerics == "transformers" and not isinstance(self.frequencies, Geometric):
            raise ValueError(
                f'RoPE: numerics="transformers" reproduces the rounding of the plain rule, and got frequencies '
                f'{self.frequencies}; use Geometric frequencies or numerics="exact".'
            )
        self._inv_freq: tuple[float, ...] = tuple(self.frequencies.inv_freq(self.rotary_dim).tolist())
        self._last = LastResult()
        self._tables = Tables.shared(self._inv_freq, self.frequencies.attention_factor)

    def _explain(self, q: Tensor, k: Tensor, positions: Positions = None, *, k_positions: Positions = None) -> Choice:
        cos, *_ = self._rows(positions, q)
        return op.explain(q, k, cos, implementation=self.implementation)

    @explained_by(_explain)
    def on_queries_keys(
        self,
        q: Float[Tensor, "batch heads q_len head_dim"],
        k: Float[Tensor, "batch kv_heads k_len head_dim"],
        positions: Positions = None,
        *,
        k_positions: Positions = None,
    ) -> tuple[Tensor, Tensor]:
        if k_positions is not None or not _go_together(q, k):
            k = self.rotate(k, positions if k_positions is None else k_positions, name="k")
            return self.rotate(q, positions, name="q"), k
        self._check(q, "q")
        self._check(k, "k")
        return self._turn(op.rotate, q, k, positions)

    @explained_by(_explain)
    def on_queries_keys_(
        self,
        q: Float[Tensor, "batch heads seq head_dim"],
        k: Float[Tensor, "batch kv_heads seq head_dim"],
        positions: Positions = None,
    ) -> tuple[Tensor, Tensor]:
        """:meth:`on_queries_keys` in place: q and k are overwritten, and returned. No memory is taken."""
        self._check(q, "q")
        self._check(k, "k")
        return self._turn(op.rotate_, q, k, positions)

    def rotate(
        self, x: Float[Tensor, "*heads seq head_dim"], positions: Positions = None, *, name: str = "x"
    ) -> Tensor:
        """R(p) x for each token of ``x``, whose shape is ``(seq, head_dim)`` or has batch and heads in front.

        ``name`` is what an error calls ``x``.
        """
        self._check(x, name)
        if x.ndim == 4:
            return self._turn(op.rotate, x, x[:, :0], positions)[0]
        cos, sin = self._cos_sin(positions, x)
        return rotate(x, cos, sin, pairing=self.pairing)

    def matrix(self, positions: Tensor) -> Float[Tensor, "*positions head_dim head_dim"]:
        """R(p) for each position, as float64 matrices: for reading and testing, :meth:`rotate` does not build them."""
        angle = angles(positions, self._inv_freq)[..., None, :]
        factor = self.frequencies.attention_factor
        columns = torch.eye(self.head_dim, dtype=torch.float64).expand(*positions.shape, -1, -1)
        return rotate(columns, angle.cos() * factor, angle.sin() * factor, pairing=self.pairing).mT

    def _check(self, x: Tensor, name: str) -> None:
        if x.shape[-1] != self.head_dim:
            raise ValueError(
                f"RoPE: {name} has head_dim {x.shape[-1]} but this encoding was built for head_dim {self.head_dim}; "
                f"build it with head_dim={x.shape[-1]}"
                + (
                    f", or rotary_dim={self.head_dim} to rotate part of each head."
                    if x.shape[-1] > self.head_dim
                    else "."
                )
            )

    def _turn(
        self, rotate: Callable[..., tuple[Tensor, Tensor]], q: Tensor, k: Tensor, positions: Positions
    ) -> tuple[Tensor, Tensor]:
        cos, sin, offset, ids = self._rows(positions, q)
        pairing, implementation = self.pairing, self.implementation
        return rotate(q, k, cos, sin, positions=ids, offset=offset, pairing=pairing, implementation=implementation)

    def _rows(self, positions: Positions, x: Tensor) -> tuple[Tensor, Tensor, int, Tensor | None]:
        """cos, sin, and which of their rows the tokens of ``x`` have: the row of the first, or one for each."""
        length = x.shape[-2]
        if self.numerics == "exact" and may_keep():
            rows, ids = length, None
            if type(positions) is int:
                rows = length + positions if positions >= 0 else -1
            elif isinstance(positions, Tensor):
                rows, ids = _rows_needed(positions, x), positions
            elif positions is not None:
                rows = -1
            if rows >= 0 and (made := self._tables.get(rows, x.device, compute_dtype(x.dtype))) is not None:
                return *made, rows - length if ids is None else 0, ids
        return *self._cos_sin(positions, x), 0, None

    def _cos_sin(self, positions: Positions, x: Tensor) -> tuple[Tensor, Tensor]:
        length, batch = x.shape[-2], x.shape[0] if x.ndim == 4 else None

        def make() -> tuple[Tensor, Tensor]:
            resolved = resolve(positions, length, device=x.device, batch=batch)
            if self.numerics == "exact":
                angle, rounded = angles(resolved, self._inv_freq), compute_dtype(x.dtype)
            else:
                angle, rounded = resolved[..., None].float() * self._inv_freq_in_float32(x.device), x.dtype
            factor = self.frequencies.attention_factor
            cos, sin = angle.cos() * factor, angle.sin() * factor
            return cos.to(rounded).to(x.device), sin.to(rounded).to(x.device)

        return self._last.get(positions, (length, batch, x.dtype, x.device), make)

    def _inv_freq_in_float32(self, device: torch.device) -> Tensor:
        """The rates by the steps, each rounded to float32, that Hugging Face's Llama takes."""
        base = self.frequencies.base  # type: ignore[attr-defined]  # Geometric: checked in __init__
        exponent = torch.arange(0, self.rotary_dim, 2, dtype=torch.float32, device=device) / self.rotary_dim
        rates: Tensor = 1.0 / (base**exponent)
        return rates


def _go_together(q: Tensor, k: Tensor) -> bool:
    """Whether one call can rotate both: 4 dimensions, one dtype, the same batch and number of tokens."""
    return q.ndim == k.ndim == 4 and q.dtype is k.dtype and q.shape[-2] == k.shape[-2] and q.shape[0] == k.shape[0]


def _rows_needed(positions: Tensor, x: Tensor) -> int:
    """How long a table must be to hold these positions; -1 if they are no rows of a table, or none to look at here."""
    if type(positions) is not Tensor or not (positions.is_cpu and x.is_cpu):
        return -1
    if positions.dtype is not torch.int64 and positions.dtype is not torch.int32:
        return -1
    return int(positions.max()) + 1 if positions.numel() else -1  # all else about them is checked by the operation

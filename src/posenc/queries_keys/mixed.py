"""RoPE-Mixed: directions in the image are learned."""

import math

import torch
from torch import Tensor, nn

from posenc.kernels.precision import as_float64
from posenc.kernels.rotate.eager import Pairing
from posenc.queries_keys._rotation import Length, Role, Rotation


class MixedRoPE(Rotation):
    r"""RoPE-Mixed: each pair of each head turns along a direction in the image that is learned.

    Place: queries_keys. Learned: 2 x num_kv_heads x rotary_dim / 2 rates. Relative: yes. Keys may be cached: yes.

    .. math::
        \mathrm{angle}_{hc} = x\,\theta^x_{hc} + y\,\theta^y_{hc}

    Here :math:`x, y` are the coordinates of the token, :math:`\theta` is ``rates``, in radians per unit of them,
    :math:`h` is the head and :math:`c` the pair. Axial RoPE has one of the two at 0 and so knows no diagonal. At the
    start the rates of a head are those of an axial RoPE of base ``base``, all turned by one random angle.

    Args:
        head_dim: channels of each head.
        num_heads: heads of q.
        num_kv_heads: heads of k, each with rates of its own, which the query heads of its group share; num_heads by
            default.
        base: of the lengths of the directions at the start: base^(-4t / rotary_dim) for t = 0, ..., rotary_dim / 4 - 1.
        pairing: "interleaved" as in the authors' code, or "half".
        rotary_dim: rotate only so many channels, a multiple of 4; by default all from ``rotary_start`` on.
        rotary_start: the first of those.
        seq_dim: where the tokens lie, as for :class:`posenc.RoPE`.

    Shape:
        q ``(batch, heads, q_len, head_dim)``, k ``(batch, num_kv_heads, k_len, head_dim)``; the same on the way out.
        positions ``(batch, seq, 2)`` or ``(1, seq, 2)``, as ``posenc.positions.grid`` gives them; ``(seq,)`` or
        ``(batch, seq)`` are taken for both coordinates.

    Precision: angles in float64 from the rates as they are stored; keep those in float32 (bfloat16 rates are off by a
        radian 250 patches away); the rotation in float32, rounded once to the dtype of q and k.

    Raises:
        ValueError: channels that are no multiple of 4; heads that do not fit; bad positions.

    Example:
        >>> rope = MixedRoPE(head_dim=8, num_heads=2)
        >>> rope.rates.shape  # coordinates, heads, pairs
        torch.Size([2, 2, 4])

    Differs from the paper: with grouped heads, of which the paper has none, a group shares its rates; queries and keys
    could not meet otherwise.

    References:
        Heo et al. Rotary Position Embedding for Vision Transformer. 2024. arXiv:2403.13298, section 3.3;
        naver-ai/rope-vit, models/vit_rope.py, init_random_2d_freqs.
    """

    relative = True

    def __init__(
        self,
        head_dim: int,
        *,
        num_heads: int,
        num_kv_heads: int | None = None,
        base: float = 10.0,
        pairing: Pairing = "interleaved",
        rotary_dim: int | None = None,
        rotary_start: int = 0,
        seq_dim: int = -2,
    ) -> None:
        super().__init__(head_dim, pairing=pairing, rotary_dim=rotary_dim, rotary_start=rotary_start, seq_dim=seq_dim)
        if self.rotary_dim % 4:
            raise ValueError(
                f"MixedRoPE: got {self.rotary_dim} rotated channels, expected a multiple of 4: pairs come with "
                f"another at right angles; use rotary_dim={self.rotary_dim // 4 * 4}."
            )
        self.num_heads = num_heads
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads < 1 or self.num_kv_heads < 1 or num_heads % self.num_kv_heads:
            raise ValueError(
                f"MixedRoPE: got num_heads {num_heads} and num_kv_heads {self.num_kv_heads}, expected a multiple of it."
            )
        if not base > 1:
            raise ValueError(f"MixedRoPE: got base {base}, expected more than 1, such as 10.")
        self.base = base
        self.coordinates = 2
        self.rates = nn.Parameter(torch.empty(2, self.num_kv_heads, self.rotary_dim // 2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a direction for each head anew."""
        pairs = self.rotary_dim // 4
        lengths = self.base ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
        turn = 2 * math.pi * torch.rand(self.num_kv_heads, 1, dtype=torch.float64)
        across = turn + math.pi / 2
        x = torch.cat((lengths * turn.cos(), lengths * across.cos()), dim=-1)
        y = torch.cat((lengths * turn.sin(), lengths * across.sin()), dim=-1)
        with torch.no_grad():
            self.rates.copy_(torch.stack((x, y)))

    def phases(self, positions: Tensor, *, role: Role = "query", length: Length = None) -> tuple[Tensor, Tensor]:
        exact = as_float64(positions)
        if exact.ndim == 2:
            exact = exact[None]
        angle = torch.einsum("rsa,ahp->rhsp", exact, self.rates.to(exact))
        return angle, torch.ones((), dtype=torch.float64, device=angle.device)

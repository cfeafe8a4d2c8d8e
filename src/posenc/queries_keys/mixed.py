"""RoPE-Mixed: directions in the image are learned."""

import math
from typing import final

import torch
from torch import Tensor, nn

from posenc.kernels.precision import as_float64, exact_positions
from posenc.kernels.rotate.eager import Pairing
from posenc.queries_keys._checks import checked_kv_heads
from posenc.queries_keys._rotation import Length, Role, Rotation


@final
class MixedRoPE(Rotation):
    r"""RoPE-Mixed: each pair of each head rotates along a learned direction in the image.

    Place: queries_keys. Learned: axes x num_kv_heads x rotary_dim / 2 rates. Relative: yes. Keys may be cached: yes.

    .. math::
        \mathrm{angle}_{hc} = \sum_a x_a\,\theta^a_{hc}

    Here :math:`x_0, x_1, \dots` are the coordinates of the token, :math:`\theta` is ``rates``, in radians per unit of
    them, :math:`h` is the head and :math:`c` the pair. In axial RoPE all rates of a pair but one are 0, so no pair
    turns along a diagonal. At the start the rates of a head are those of an axial RoPE of base ``base``, all turned by
    one random rotation of the coordinates.

    Args:
        head_dim: channels of each head.
        num_heads: heads of q.
        num_kv_heads: heads of k. Each has its own rates, which the query heads of its group share; num_heads by
            default.
        axes: coordinates of a token: 2 for images, 3 for videos (Mochi).
        base: sets the initial lengths of the directions: base^(-t / n) for t = 0, ..., n - 1 along each axis, where n
            is the number of the axis's pairs; pairs that cannot be shared equally go to the first axis.
        pairing: "interleaved" as in the authors' code, or "half".
        rotary_dim: rotate only this many channels, a multiple of 4 for two axes; by default all from
            ``rotary_start`` on.
        rotary_start: the first rotated channel.
        seq_dim: the dimension of the tokens, as for :class:`posenc.RoPE`.

    Shape:
        q ``(batch, heads, q_len, head_dim)``, k ``(batch, num_kv_heads, k_len, head_dim)`` -> the same shapes.
        positions ``(batch, seq, axes)`` or ``(1, seq, axes)``, as ``posenc.positions.grid`` gives them; ``(seq,)`` or
        ``(batch, seq)`` are taken for all coordinates.

    Precision: angles in float64 from the stored rates; keep the rates in float32 (bfloat16 rates make errors of up to
    one radian at 250 patches); the rotation in float32, rounded once to the dtype of q and k.

    Raises:
        ValueError: for two axes, channels that are no multiple of 4; fewer than 2 for each axis; heads that do not fit;
            bad positions.

    Example:
        >>> rope = MixedRoPE(head_dim=8, num_heads=2)
        >>> rope.rates.shape  # coordinates, heads, pairs
        torch.Size([2, 2, 4])

    Differs from the paper: the paper has no grouped heads. Here a group shares its rates, because the query and the key
    of a score need the same rates. Three coordinates are Mochi's, whose rates start at 0.

    References:
        Heo et al. Rotary Position Embedding for Vision Transformer. 2024. arXiv:2403.13298, section 3.3;
        naver-ai/rope-vit, models/vit_rope.py, init_random_2d_freqs. Genmo, mochi, rope_mixed.py.
    """

    relative = True
    signed = True
    heads_differ = True

    def __init__(
        self,
        head_dim: int,
        *,
        num_heads: int,
        num_kv_heads: int | None = None,
        axes: int = 2,
        base: float = 10.0,
        pairing: Pairing = "interleaved",
        rotary_dim: int | None = None,
        rotary_start: int = 0,
        seq_dim: int = -2,
    ) -> None:
        super().__init__(head_dim, pairing=pairing, rotary_dim=rotary_dim, rotary_start=rotary_start, seq_dim=seq_dim)
        if axes < 1 or self.rotary_dim < 2 * axes:
            raise ValueError(
                f"MixedRoPE: got {self.rotary_dim} rotated channels for {axes} axes, expected 1 axis or more, each "
                "with at least 2 channels."
            )
        if axes == 2 and self.rotary_dim % 4:
            raise ValueError(
                f"MixedRoPE: got {self.rotary_dim} rotated channels, expected a multiple of 4, because each pair has "
                "a second pair whose direction is at right angles to its own; use "
                f"rotary_dim={self.rotary_dim // 4 * 4}."
            )
        self.num_heads = num_heads
        self.num_kv_heads = checked_kv_heads("MixedRoPE", num_heads, num_kv_heads)
        if not base > 1:
            raise ValueError(f"MixedRoPE: got base {base}, expected more than 1, such as 10.")
        self.base = base
        self.axes = self.coordinates = axes
        self.rates = nn.Parameter(torch.empty(axes, self.num_kv_heads, self.rotary_dim // 2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new random directions for each head."""
        least, over = divmod(self.rotary_dim // 2, self.axes)
        counts = [least + (over if axis == 0 else 0) for axis in range(self.axes)]
        lengths = [self.base ** (-torch.arange(n, dtype=torch.float64) / n) for n in counts]
        directions = _rotations(self.num_kv_heads, self.axes)
        rates = torch.cat([directions[:, :, a, None] * lengths[a] for a in range(self.axes)], dim=-1)
        with torch.no_grad():
            self.rates.copy_(rates.transpose(0, 1))

    def phases(self, positions: Tensor, *, role: Role = "query", length: Length = None) -> tuple[Tensor, Tensor]:
        exact = exact_positions(positions)
        if exact.ndim == 2:
            exact = exact[None]
        angle = torch.einsum("rsa,ahp->rhsp", exact, as_float64(self.rates).to(exact.device))
        return angle, torch.ones((), dtype=torch.float64, device=angle.device)


def _rotations(count: int, axes: int) -> Tensor:
    """Random rotations ``(count, axes, axes)`` of the coordinates, whose columns are directions at right angles."""
    if axes == 2:
        turn = 2 * math.pi * torch.rand(count, dtype=torch.float64)
        across = turn + math.pi / 2
        first, second = torch.stack((turn.cos(), turn.sin()), -1), torch.stack((across.cos(), across.sin()), -1)
        return torch.stack((first, second), dim=-1)
    q, r = torch.linalg.qr(torch.randn(count, axes, axes, dtype=torch.float64))
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # evenly over all orthogonal matrices
    return torch.cat((q[..., :1] * torch.linalg.det(q)[:, None, None], q[..., 1:]), dim=-1)

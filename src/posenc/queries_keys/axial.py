"""RoPE for grids: each coordinate turns pairs of its own."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from posenc.frequencies import Frequencies, Geometric
from posenc.frequencies.base import check_choice
from posenc.kernels.precision import as_float64
from posenc.kernels.rotate.eager import Pairing
from posenc.queries_keys._checks import check_fixed
from posenc.queries_keys._rotation import Length, Role, Rotation

Layout = Literal[
    "half",
    "half_alternating",
    "half_per_axis",
    "interleaved",
    "interleaved_alternating",
    "dealt_half",
    "dealt_half_alternating",
]


class _Plan(NamedTuple):
    """How a layout gives pairs their coordinates, rates and channels."""

    rates: Literal["shared", "dealt"]
    order: Literal["blocks", "alternating"]
    pairing: Pairing
    paired_per_axis: bool = False


_PLANS: dict[str, _Plan] = {
    "half": _Plan("shared", "blocks", "half"),
    "half_alternating": _Plan("shared", "alternating", "half"),
    "half_per_axis": _Plan("shared", "blocks", "half", paired_per_axis=True),
    "interleaved": _Plan("shared", "blocks", "interleaved"),
    "interleaved_alternating": _Plan("shared", "alternating", "interleaved"),
    "dealt_half": _Plan("dealt", "blocks", "half"),
    "dealt_half_alternating": _Plan("dealt", "alternating", "half"),
}


class AxialRoPE(Rotation):
    r"""RoPE for images, videos and volumes: each coordinate of a token turns its own share of the pairs.

    Place: queries_keys. Learned: nothing. Relative: yes. Keys may be cached: yes.

    .. math::
        \mathrm{angle}_c = x_{a(c)}\,\omega_c

    Here :math:`x_0, x_1, \dots` are the coordinates of the token, in patches or whatever they are given in,
    :math:`a(c)` is the coordinate that belongs to pair c, and :math:`\omega_c` is in radians per unit of it. With
    :math:`A` = ``axes``, :math:`n` pairs in all and :math:`m = n / A` for each coordinate, ``layout`` says which is
    which:

    ========================= ============= ============================ ======================== ===================
    layout                    a(c)          rate                         channels of pair c       seen in
    ========================= ============= ============================ ======================== ===================
    "half"                    c div m       inv_freq(2m)[c mod m]        c, c + n                 Qwen2-VL, 22 others
    "half_per_axis"           c div m       inv_freq(2m)[c mod m]        half within each axis    Gemma 4
    "interleaved"             c div m       inv_freq(2m)[c mod m]        2c, 2c + 1               SAM 2, Llama 4
    "half_alternating"        c mod A       inv_freq(2m)[c div A]        c, c + n                 Kimi K2.5
    "interleaved_alternating" c mod A       inv_freq(2m)[c div A]        2c, 2c + 1               RoPE-ViT's paper
    "dealt_half"              c div m       inv_freq(2n)[A(c mod m) + a] c, c + n                 Pixtral
    "dealt_half_alternating"  c mod A       inv_freq(2n)[c]              c, c + n                 NeoMME
    ========================= ============= ============================ ======================== ===================

    "Shared" layouts give every coordinate the same ladder of rates; "dealt" ones deal out one ladder in turn.

    Args:
        head_dim: channels of each head.
        axes: :math:`A`: 2 for images, 3 for videos and volumes.
        frequencies: the rule of the rates; ``Geometric(base=10_000)``. RoPE-ViT and Gemma 4 have
            ``Geometric(base=100)``.
        layout: one of the table's.
        order: which coordinate comes first, second, ...; (1, 0) is "w before h" for positions (h, w).
        rotary_dim: rotate only so many channels, a multiple of 2 axes; by default all from ``rotary_start`` on.
        rotary_start: the first of those.
        seq_dim: where the tokens lie, as for :class:`posenc.RoPE`.

    Shape:
        q ``(batch, heads, q_len, head_dim)``, k ``(batch, kv_heads, k_len, head_dim)``; the same on the way out.
        positions ``(batch, seq, axes)`` or ``(1, seq, axes)``, integer or float, negative too, as
        ``posenc.positions.grid`` gives them; ``(seq,)`` or ``(batch, seq)`` are taken for all coordinates alike.

    Precision: angles in float64; cos and sin rounded once to float32; the rotation in float32, rounded once to the
        dtype of q and k; float64 throughout for float64.

    Raises:
        ValueError: channels that do not share out evenly; an unknown layout; an order that is none; frequencies that
            depend on the length; q or k of another ``head_dim``; bad positions.

    Example:
        >>> import torch
        >>> rope = AxialRoPE(head_dim=4, layout="half")
        >>> one_token = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
        >>> rope.rotate(one_token, torch.tensor([[[0, 2]]]))  # row 0, column 2: the second pair turns
        tensor([[[ 1.0000, -0.4161,  0.0000,  0.9093]]])

    Differs from the paper: RoPE-ViT writes "interleaved_alternating", and its code is "interleaved"; the other layouts
    are those of later models.

    References:
        Heo et al. Rotary Position Embedding for Vision Transformer. 2024. arXiv:2403.13298, section 3.2.
    """

    relative = True

    def __init__(
        self,
        head_dim: int,
        *,
        axes: int = 2,
        frequencies: Frequencies | None = None,
        layout: Layout = "half",
        order: Sequence[int] | None = None,
        rotary_dim: int | None = None,
        rotary_start: int = 0,
        seq_dim: int = -2,
    ) -> None:
        check_choice("AxialRoPE", "layout", layout, get_args(Layout))
        plan = _PLANS[layout]
        super().__init__(
            head_dim, pairing=plan.pairing, rotary_dim=rotary_dim, rotary_start=rotary_start, seq_dim=seq_dim
        )
        self.axes = self.coordinates = axes
        self.frequencies = Geometric() if frequencies is None else frequencies
        self.layout = layout
        self.order = tuple(range(axes)) if order is None else tuple(order)
        if axes < 1 or self.rotary_dim % (2 * axes):
            raise ValueError(
                f"AxialRoPE: got {self.rotary_dim} rotated channels for {axes} axes, expected a multiple of "
                f"{2 * axes}, so that each axis has pairs of its own; use "
                f"rotary_dim={self.rotary_dim // (2 * max(axes, 1)) * 2 * axes} to leave the last channels as they are."
            )
        if sorted(self.order) != list(range(axes)):
            raise ValueError(f"AxialRoPE: got order {self.order}, expected each of 0 to {axes - 1} once.")
        check_fixed("AxialRoPE", self.frequencies)
        pairs = self.rotary_dim // 2
        of_axis = pairs // axes
        self.blocks = axes if plan.paired_per_axis else 1
        axis = [c // of_axis if plan.order == "blocks" else c % axes for c in range(pairs)]
        rung = [c % of_axis if plan.order == "blocks" else c // axes for c in range(pairs)]
        if plan.rates == "shared":
            rates = self.frequencies.inv_freq(2 * of_axis)[rung]
        else:
            rates = self.frequencies.inv_freq(self.rotary_dim)[[axes * r + a for r, a in zip(rung, axis, strict=True)]]
        self._axis_of_pair = [self.order[a] for a in axis]
        self._inv_freq: tuple[float, ...] = tuple(rates.tolist())

    def phases(self, positions: Tensor, *, role: Role = "query", length: Length = None) -> tuple[Tensor, Tensor]:
        return angles_by_axis(positions, self._axis_of_pair, self._inv_freq, self.frequencies.attention_factor)

    @property
    def axis_of_pair(self) -> tuple[int, ...]:
        """Which coordinate turns each pair."""
        return tuple(self._axis_of_pair)


def angles_by_axis(
    positions: Tensor, axis_of_pair: Sequence[int], inv_freq: Sequence[float], factor: float
) -> tuple[Tensor, Tensor]:
    """Angles ``(..., seq, pairs)`` from coordinates ``(..., seq, axes)``, and the factor of the rule, in float64."""
    exact = as_float64(positions)
    chosen = exact[..., torch.tensor(axis_of_pair, device=exact.device)]
    rates = torch.tensor(inv_freq, dtype=torch.float64, device=exact.device)
    return chosen * rates, torch.tensor(factor, dtype=torch.float64, device=exact.device)

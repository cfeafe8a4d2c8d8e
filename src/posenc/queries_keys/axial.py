"""RoPE for grids: each coordinate turns pairs of its own."""

import numbers
from collections.abc import Sequence
from typing import Literal, NamedTuple, final, get_args

import torch
from torch import Tensor

from posenc.frequencies import Frequencies, Geometric
from posenc.frequencies.arguments import check_number
from posenc.frequencies.base import check_choice
from posenc.kernels.precision import exact_positions
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
    "half_across_heads",
]


class _Plan(NamedTuple):
    """How a layout gives pairs their coordinates, rates and channels."""

    rates: Literal["shared", "dealt"]
    order: Literal["blocks", "alternating"]
    pairing: Pairing
    paired_per_axis: bool = False
    across_heads: bool = False


_PLANS: dict[str, _Plan] = {
    "half": _Plan("shared", "blocks", "half"),
    "half_alternating": _Plan("shared", "alternating", "half"),
    "half_per_axis": _Plan("shared", "blocks", "half", paired_per_axis=True),
    "interleaved": _Plan("shared", "blocks", "interleaved"),
    "interleaved_alternating": _Plan("shared", "alternating", "interleaved"),
    "dealt_half": _Plan("dealt", "blocks", "half"),
    "dealt_half_alternating": _Plan("dealt", "alternating", "half"),
    "half_across_heads": _Plan("shared", "alternating", "half", across_heads=True),
}


@final
class AxialRoPE(Rotation):
    r"""RoPE for images, videos and volumes: each coordinate of a token rotates some of the pairs.

    Place: queries_keys. Learned: nothing. Relative: yes. Keys may be cached: yes.

    .. math::
        \mathrm{angle}_c = x_{a(c)}\,\omega_c

    Here :math:`x_0, x_1, \dots` are the coordinates of the token, in patches or another unit, :math:`a(c)` is the
    coordinate that belongs to pair c, and :math:`\omega_c` is in radians per unit of it. Coordinate a has :math:`r_a`
    channels, its width, and so :math:`m_a = r_a / 2` pairs; :math:`n` is the number of pairs, :math:`A` the number of
    coordinates. ``layout`` sets the order of the pairs. Pair c is the t-th pair of its coordinate:

    ========================= ================== ===================== ===================== =======================
    layout                    order of the pairs rate                  channels of pair c    seen in
    ========================= ================== ===================== ===================== =======================
    "half"                    axis after axis    inv_freq_a(r_a)[t]    c, c + n              Qwen2-VL, Cosmos
    "half_per_axis"           axis after axis    inv_freq_a(r_a)[t]    half within each axis Gemma 4, Allegro
    "interleaved"             axis after axis    inv_freq_a(r_a)[t]    2c, 2c + 1            SAM 2, Flux, Wan
    "half_alternating"        a = c mod A        inv_freq_a(r_a)[t]    c, c + n              Kimi K2.5
    "interleaved_alternating" a = c mod A        inv_freq_a(r_a)[t]    2c, 2c + 1            RoPE-ViT's paper, LTX
    "dealt_half"              axis after axis    inv_freq(2n)[A t + a] c, c + n              Pixtral
    "dealt_half_alternating"  a = c mod A        inv_freq(2n)[c]       c, c + n              NeoMME
    "half_across_heads"       a = c mod A        inv_freq_a(r_a)[t]    half within each head LTX-2
    ========================= ================== ===================== ===================== =======================

    In the "dealt" layouts all coordinates take their rates in turn from one sequence; in the others each coordinate has
    its own sequence. With "half_across_heads" a sequence runs over the pairs of all heads, so heads differ: the first
    head has the first rates. If the axes cannot share these pairs equally, the first pairs are not rotated.

    Args:
        head_dim: channels of each head.
        axes: the number of coordinates, which share the channels equally (2 for images, 3 for videos and volumes), or
            the number of channels of each: ``(16, 56, 56)`` is 16 for the first, 56 for the second and the third
            (Flux), and ``(44, 42, 42)`` is Wan's. Widths are even and sum to ``rotary_dim``.
        frequencies: the rule of the rates; ``Geometric(base=10_000)`` by default. RoPE-ViT and Gemma 4 have
            ``Geometric(base=100)``. Or a rule for each coordinate: ``(Geometric(), NTK(2), NTK(2))`` stretches height
            and width, and does not change the time.
        layout: a name from the table. Only "half", "half_per_axis" and "interleaved" take different widths.
        order: which coordinate comes first, second, ...; (1, 0) is "w before h" for positions (h, w). Widths and rules
            stay with their coordinates.
        rotary_dim: rotate only this many channels; by default all from ``rotary_start`` on.
        rotary_start: the first rotated channel.
        seq_dim: the dimension of the tokens, as for :class:`posenc.RoPE`.
        num_kv_heads: the number of key heads, for "half_across_heads" only, which needs it.

    Attributes:
        widths: the channels of each coordinate.
        rules: the rule of each coordinate.

    Shape:
        q ``(batch, heads, q_len, head_dim)``, k ``(batch, kv_heads, k_len, head_dim)`` -> the same shapes.
        positions ``(batch, seq, A)`` or ``(1, seq, A)``, as ``posenc.positions.grid`` returns them; ``(seq,)`` or
        ``(batch, seq)`` set all coordinates to one number. So (3, 3) is never three coordinates of three tokens: pass
        those as ``positions[None]``. All may be integer or float, and negative.

    Precision: angles in float64; cos and sin rounded once to float32; the rotation in float32, rounded once to the
    dtype of q and k; float64 throughout for float64.

    Raises:
        ValueError: widths that are odd or do not sum to the rotated channels; different widths in a "dealt" layout or
            one with a = c mod A; several rules in a "dealt" layout; different score factors; an unknown layout; an
            order that is no permutation; frequencies that are learned or depend on the length; ``num_kv_heads`` missing
            or not used; q or k of another ``head_dim``; bad positions.

    Example:
        >>> import torch
        >>> rope = AxialRoPE(head_dim=4, layout="half")
        >>> one_token = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
        >>> rope.rotate(one_token, torch.tensor([[[0, 2]]]))  # row 0, column 2: the second pair turns
        tensor([[[ 1.0000, -0.4161,  0.0000,  0.9093]]])
        >>> flux = AxialRoPE(128, axes=(16, 56, 56), layout="interleaved")
        >>> [flux.axis_of_pair.count(axis) for axis in range(3)]
        [8, 28, 28]

    Differs from the paper: RoPE-ViT writes "interleaved_alternating", and its code is "interleaved"; the other layouts
    and the widths that differ are those of later models.

    References:
        Heo et al. Rotary Position Embedding for Vision Transformer. 2024. arXiv:2403.13298, section 3.2. Widths:
        Black Forest Labs, flux, modules/layers.py, EmbedND; Wan-AI, Wan2.1, modules/model.py, rope_apply.
    """

    relative = True
    signed = True
    takes_several_rules = True

    def __init__(
        self,
        head_dim: int,
        *,
        axes: int | Sequence[int] = 2,
        frequencies: Frequencies | Sequence[Frequencies] | None = None,
        layout: Layout = "half",
        order: Sequence[int] | None = None,
        rotary_dim: int | None = None,
        rotary_start: int = 0,
        seq_dim: int = -2,
        num_kv_heads: int | None = None,
    ) -> None:
        check_choice("AxialRoPE", "layout", layout, get_args(Layout))
        plan = _PLANS[layout]
        super().__init__(
            head_dim, pairing=plan.pairing, rotary_dim=rotary_dim, rotary_start=rotary_start, seq_dim=seq_dim
        )
        if isinstance(axes, bool) or not isinstance(axes, (numbers.Integral, list, tuple)):
            raise TypeError(
                f"AxialRoPE: got axes {axes!r}, expected the number of coordinates, or the width of each in channels, "
                "such as (16, 56, 56)."
            )
        self.axes = tuple(axes) if isinstance(axes, (list, tuple)) else int(axes)
        self.num_kv_heads = num_kv_heads
        self.heads_differ = plan.across_heads
        if plan.across_heads:
            self.widths = _widths_across_heads(self.axes, self.rotary_dim, num_kv_heads)
        elif num_kv_heads is not None:
            raise ValueError(
                f'AxialRoPE: got num_kv_heads {num_kv_heads} with layout "{layout}", in which all heads rotate in the '
                'same way; leave num_kv_heads out, or give layout="half_across_heads".'
            )
        else:
            self.widths = _widths(self.axes, self.rotary_dim, head_dim)
        self.coordinates = len(self.widths)
        self.layout = layout
        self.order = tuple(range(self.coordinates)) if order is None else tuple(order)
        if sorted(self.order) != list(range(self.coordinates)):
            raise ValueError(f"AxialRoPE: got order {self.order}, expected each of 0 to {self.coordinates - 1} once.")
        self.frequencies, self.rules = _rules(frequencies, self.coordinates)
        self.scales_scores = self.rules[0].score_factor != 1
        if (plan.order == "alternating" or plan.rates == "dealt") and len(set(self.widths)) > 1:
            raise ValueError(
                f'AxialRoPE: got widths {self.widths} with layout "{layout}", which gives one pair to each axis in '
                'turn, expected the same width for all axes; use "interleaved", "half" or "half_per_axis".'
            )
        if plan.rates == "dealt" and len(set(self.rules)) > 1:
            raise ValueError(
                f'AxialRoPE: got {len(self.rules)} rules with layout "{layout}", which shares the rates of one rule '
                "among the axes, expected one rule."
            )
        in_order = [self.widths[axis] // 2 for axis in self.order]
        if plan.paired_per_axis:
            self.blocks = tuple(in_order)
        if plan.order == "blocks":
            of_pair = [(block, t) for block, pairs in enumerate(in_order) for t in range(pairs)]
        else:
            of_pair = [(block, t) for t in range(in_order[0]) for block in range(self.coordinates)]
        self._axis_of_pair = tuple(self.order[block] for block, _ in of_pair)
        if plan.rates == "dealt":
            rates = self.rules[0].inv_freq(self.rotary_dim)
            self._inv_freq: tuple[float, ...] = tuple(
                float(rates[self.coordinates * t + block]) for block, t in of_pair
            )
        else:
            ladders = [rule.inv_freq(width) for rule, width in zip(self.rules, self.widths, strict=True)]
            self._inv_freq = tuple(float(ladders[self.order[block]][t]) for block, t in of_pair)
        if plan.across_heads:  # those that are over stand still, and come first
            over = self.rotary_dim // 2 * (num_kv_heads or 1) - len(of_pair)
            self._axis_of_pair = (0,) * over + self._axis_of_pair
            self._inv_freq = (0.0,) * over + self._inv_freq
        factors = tuple(self.rules[axis].attention_factor for axis in self._axis_of_pair)
        self._factor = factors[0] if len(set(factors)) == 1 else factors

    def temperature(self, q_positions: Tensor) -> float:
        return self.rules[0].score_factor

    def phases(self, positions: Tensor, *, role: Role = "query", length: Length = None) -> tuple[Tensor, Tensor]:
        return angles_by_axis(positions, self._axis_of_pair, self._inv_freq, self._factor, heads=self.num_kv_heads)

    @property
    def axis_of_pair(self) -> tuple[int, ...]:
        """The coordinate that rotates each pair; if heads differ, of all key heads in order."""
        return self._axis_of_pair


def _widths(axes: int | tuple[int, ...], rotated: int, head_dim: int) -> tuple[int, ...]:
    """The channels of each coordinate, checked."""
    if isinstance(axes, int):
        if axes < 1 or rotated < 2 * axes:
            raise ValueError(
                f"AxialRoPE: got {rotated} rotated channels for {axes} axes, expected 1 axis or more, each with at "
                "least 2 channels."
            )
        if rotated % (2 * axes):
            raise ValueError(
                f"AxialRoPE: got {rotated} rotated channels for {axes} axes, which cannot share them equally in pairs; "
                f"give the width of each in channels, such as axes={_shares(rotated, axes)}."
            )
        return _shares(rotated, axes)
    for width in axes:
        check_number("AxialRoPE", "a width in axes", width, whole=True)
    if not axes or min(axes) < 2 or any(width % 2 for width in axes):
        raise ValueError(
            f"AxialRoPE: got axes {axes}, expected the width of each axis in channels, an even number of at least 2, "
            f"because channels are rotated in pairs; such as axes={_shares(rotated, max(len(axes), 2))}."
        )
    if sum(axes) != rotated:
        raise ValueError(
            f"AxialRoPE: got axes {axes}, widths that sum to {sum(axes)} channels, for {rotated} rotated channels of "
            f"head_dim {head_dim}; give widths that sum to {rotated}"
            + (f", or rotary_dim={sum(axes)} to leave the other channels as they are." if sum(axes) < rotated else ".")
        )
    return tuple(int(width) for width in axes)


def _widths_across_heads(axes: int | tuple[int, ...], rotated: int, heads: int | None) -> tuple[int, ...]:
    """The channels of each coordinate in all heads together, as many as they can share equally."""
    if not isinstance(axes, int) or axes < 1:
        raise ValueError(
            f'AxialRoPE: got axes {axes} with layout "half_across_heads", expected the number of axes, a whole number.'
        )
    if heads is None or heads < 1 or rotated * heads < 2 * axes:
        raise ValueError(
            f'AxialRoPE: got num_kv_heads {heads} with layout "half_across_heads", expected the number of key heads, '
            "among which the rates are shared."
        )
    return (rotated * heads // (2 * axes) * 2,) * axes


def _shares(channels: int, axes: int) -> tuple[int, ...]:
    """Even widths that are as equal as they can be, what is over with the first, as Wan has them."""
    each = channels // (2 * axes) * 2
    return (channels - (axes - 1) * each, *(axes - 1) * (each,))


def _rules(
    given: Frequencies | Sequence[Frequencies] | None, axes: int
) -> tuple[Frequencies | tuple[Frequencies, ...], tuple[Frequencies, ...]]:
    """The rules as they were given, and one for each coordinate, checked."""
    kept: Frequencies | tuple[Frequencies, ...]
    if given is None or isinstance(given, Frequencies):
        kept = Geometric() if given is None else given
        rules: tuple[Frequencies, ...] = (kept,) * axes
    else:
        kept = rules = tuple(given)
    if len(rules) != axes:
        raise ValueError(
            f"AxialRoPE: got {len(rules)} rules of frequencies for {axes} axes, expected one for all of them, or one "
            "for each."
        )
    for rule in rules:
        check_fixed("AxialRoPE", rule)
    if len(factors := {rule.score_factor for rule in rules}) > 1:
        raise ValueError(
            f"AxialRoPE: got rules with the score factors {sorted(factors)}, expected one for all axes, because the "
            "whole score is multiplied by one factor."
        )
    return kept, rules


def angles_by_axis(
    positions: Tensor,
    axis_of_pair: Sequence[int],
    inv_freq: Sequence[float],
    factor: float | Sequence[float],
    *,
    heads: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Angles from coordinates ``(..., seq, axes)``, and the factor of the rule, in float64.

    Angles are ``(..., seq, pairs)``, or ``(rows, heads, seq, pairs)`` if there are pairs for each of several heads.
    """
    exact = exact_positions(positions)
    chosen = exact[..., torch.tensor(axis_of_pair, device=exact.device)]
    rates = torch.tensor(inv_freq, dtype=torch.float64, device=exact.device)
    angle, magnitude = chosen * rates, torch.tensor(factor, dtype=torch.float64, device=exact.device)
    if heads is None:
        return angle, magnitude
    angle = angle.unflatten(-1, (heads, -1)).transpose(-3, -2)
    return (angle if angle.ndim == 4 else angle[None]), magnitude

"""Multimodal RoPE: the rates of one RoPE, divided among time, height and width."""

from collections.abc import Sequence
from typing import Literal, final, get_args

from torch import Tensor

from posenc.frequencies import Frequencies, Geometric
from posenc.frequencies.base import check_choice
from posenc.kernels.rotate.eager import Pairing
from posenc.queries_keys._checks import check_fixed
from posenc.queries_keys._rotation import Length, Role, Rotation
from posenc.queries_keys.axial import angles_by_axis

Layout = Literal["chunked", "interleaved", "time_last", "heads"]


@final
class MRoPE(Rotation):
    r"""Multimodal RoPE: the time, the height or the width of a token rotates each pair of one RoPE.

    Place: queries_keys. Learned: nothing. Relative: yes. Keys may be cached: yes.

    .. math::
        \mathrm{angle}_c = x_{a(c)}\,\omega_c, \qquad x = (t, h, w)

    Here :math:`t, h, w` are the coordinates of the token (:func:`posenc.positions.multimodal` computes them; a text has
    t = h = w, and then this is :class:`posenc.RoPE`), :math:`\omega_c` is ``frequencies.inv_freq(rotary_dim)[c]`` in
    radians per step, and :math:`a(c)` is the coordinate that belongs to pair c. With ``sections`` = (T, H, W):

    - "chunked" (Qwen2-VL): t rotates the first T pairs, h the next H, w the last W.
    - "interleaved" (Qwen3-VL): t h w t h w ...; h takes pairs 1, 4, 7, ... below 3H, w takes 2, 5, 8, ... below 3W, and
      t all others, so that each coordinate has fast and slow rates.
    - "time_last" (VideoRoPE, Ernie 4.5 VL): h w h w ... on the H + W fastest pairs, t on the slowest.
    - "heads" (MHRoPE): t rotates all pairs of the first T key heads, h those of the next H heads, w those of the next
      W, each with the query heads of its group. Key heads beyond these are not rotated.

    Args:
        head_dim: channels of each head.
        sections: the number of pairs of each coordinate, with the sum rotary_dim / 2; with layout "heads" the number of
            key heads of each coordinate.
        layout: "chunked", "interleaved", "time_last" or "heads", or the coordinate of each pair as a sequence.
        frequencies: the rule of the rates; ``Geometric(base=10_000)`` by default.
        pairing: "half" (Qwen, Hugging Face), or "interleaved" (GLM-4V, Ernie 4.5 VL).
        rotary_dim: rotate only this many channels of each head; by default all from ``rotary_start`` on.
        rotary_start: the first rotated channel.
        seq_dim: the dimension of the tokens, as for :class:`posenc.RoPE`.
        num_kv_heads: key heads, for layout "heads" only; the sum of the sections by default.

    Shape:
        q ``(batch, heads, q_len, head_dim)``, k ``(batch, kv_heads, k_len, head_dim)`` -> the same shapes.
        positions ``(batch, seq, 3)``, or ``(seq,)`` or ``(batch, seq)`` for a text.

    Precision: angles in float64; cos and sin rounded once to float32; the rotation in float32, rounded once to the
    dtype of q and k; float64 throughout for float64.

    Raises:
        ValueError: sections that do not sum to the number of pairs, or that the layout cannot place; more key heads in
            the sections than there are; an unknown layout; frequencies that depend on the length; q or k of another
            ``head_dim``; bad positions.

    Example:
        >>> import torch
        >>> from posenc import RoPE
        >>> rope = MRoPE(head_dim=12, sections=(2, 2, 2), layout="interleaved")
        >>> rope.axis_of_pair
        (0, 1, 2, 0, 1, 2)
        >>> x = torch.randn(1, 2, 5, 12)
        >>> torch.equal(rope.rotate(x), RoPE(head_dim=12).rotate(x))  # a text
        True

    Differs from the paper: nothing. Qwen3-VL's code uses only the sections of h and w, and gives t the rest.

    References:
        Wang et al. Qwen2-VL. 2024. arXiv:2409.12191, section 2.1 ("chunked"). Huang et al. Revisiting Multimodal
        Positional Encoding in Vision-Language Models. 2025. arXiv:2510.23095 ("interleaved"). Wei et al. VideoRoPE.
        2025. arXiv:2502.05173, section 4 ("time_last"). "heads" is MHRoPE of arXiv:2510.23095;
        JJJYmmm/Multimodal-RoPEs, freq_allocation/mhrope.py.
    """

    relative = True

    def __init__(
        self,
        head_dim: int,
        *,
        sections: Sequence[int],
        layout: Layout | Sequence[int] = "chunked",
        frequencies: Frequencies | None = None,
        pairing: Pairing = "half",
        rotary_dim: int | None = None,
        rotary_start: int = 0,
        seq_dim: int = -2,
        num_kv_heads: int | None = None,
    ) -> None:
        super().__init__(head_dim, pairing=pairing, rotary_dim=rotary_dim, rotary_start=rotary_start, seq_dim=seq_dim)
        self.sections = tuple(sections)
        self.layout = layout if isinstance(layout, str) else tuple(layout)
        self.frequencies = Geometric() if frequencies is None else frequencies
        self.coordinates = len(self.sections)
        self.heads_differ = self.layout == "heads"
        if num_kv_heads is not None and not self.heads_differ:
            raise ValueError(
                f"MRoPE: got num_kv_heads {num_kv_heads} with layout {self.layout!r}, in which all heads rotate "
                'in the same way; leave num_kv_heads out, or give layout="heads".'
            )
        self.num_kv_heads = sum(self.sections) if self.heads_differ and num_kv_heads is None else num_kv_heads
        check_fixed("MRoPE", self.frequencies)
        self.scales_scores = self.frequencies.score_factor != 1
        self._axis_of_pair = self._read_sections()
        rates = tuple(self.frequencies.inv_freq(self.rotary_dim).tolist())
        if self.heads_differ:  # those that are spare have rates of 0
            rates *= sum(self.sections)
            rates += (0.0,) * (len(self._axis_of_pair) - len(rates))
        self._inv_freq: tuple[float, ...] = rates

    def _read_sections(self) -> tuple[int, ...]:
        """The coordinate of each pair, those of head after head where heads differ."""
        pairs = self.rotary_dim // 2
        if self.layout == "heads":
            if not self.sections or min(self.sections) < 0 or sum(self.sections) < 1:
                raise ValueError(
                    f"MRoPE: got sections {self.sections}, expected the number of key heads for each coordinate."
                )
            if (spare := (self.num_kv_heads or 0) - sum(self.sections)) < 0:
                raise ValueError(
                    f"MRoPE: got sections {self.sections}, which sum to {sum(self.sections)} key heads, for "
                    f"num_kv_heads {self.num_kv_heads}, expected a sum of at most that."
                )
            heads = (*enumerate(self.sections), (0, spare))
            return tuple(axis for axis, count in heads for _ in range(count * pairs))
        if sum(self.sections) != pairs or not self.sections or min(self.sections) < 0:
            raise ValueError(
                f"MRoPE: got sections {self.sections}, which sum to {sum(self.sections)}, for {self.rotary_dim} "
                f"rotated channels, expected a sum of {pairs}, because each pair is rotated by one coordinate."
            )
        of_pair = _axes(self.sections, self.layout)
        counts = tuple(of_pair.count(axis) for axis in range(len(self.sections)))
        if counts != self.sections:
            raise ValueError(
                f"MRoPE: got sections {self.sections} with layout {self.layout!r}, which gives its coordinates "
                f"{counts} pairs; expected sections equal to these numbers; give sections={counts}."
            )
        return of_pair

    def temperature(self, q_positions: Tensor) -> float:
        return self.frequencies.score_factor

    def phases(self, positions: Tensor, *, role: Role = "query", length: Length = None) -> tuple[Tensor, Tensor]:
        factor = self.frequencies.attention_factor
        return angles_by_axis(positions, self._axis_of_pair, self._inv_freq, factor, heads=self.num_kv_heads)

    @property
    def axis_of_pair(self) -> tuple[int, ...]:
        """The coordinate that rotates each pair; with layout "heads" for one key head after the other."""
        return self._axis_of_pair


def _axes(sections: tuple[int, ...], layout: str | tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(layout, tuple):
        return layout
    check_choice("MRoPE", "layout", layout, get_args(Layout))
    if layout == "chunked":
        return tuple(axis for axis, width in enumerate(sections) for _ in range(width))
    if layout == "interleaved":
        axes = len(sections)
        return tuple(pair % axes if pair < axes * sections[pair % axes] else 0 for pair in range(sum(sections)))
    space = len(sections) - 1
    spatial = sum(sections[1:])
    return tuple(1 + pair % space if pair < spatial else 0 for pair in range(sum(sections)))

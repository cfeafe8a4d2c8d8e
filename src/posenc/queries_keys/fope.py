"""FoPE: Fourier position embedding."""

import math
from typing import Literal, final, get_args

import torch
from torch import Tensor, nn

from posenc.frequencies import Frequencies, Geometric
from posenc.frequencies.base import check_choice
from posenc.kernels.precision import angles, as_float64
from posenc.kernels.rotate.eager import Pairing
from posenc.queries_keys._checks import check_fixed, checked_kv_heads
from posenc.queries_keys._rotation import Length, Role, Rotation

Dropped = Literal["turned", "still"]


@final
class FoPE(Rotation):
    r"""FoPE: the cos and sin of a pair are sums over many frequencies, and the slowest frequencies are dropped.

    Place: queries_keys. Learned: ``cos_coef`` and ``sin_coef`` if ``learned``; otherwise they are drawn once and
    stored. Relative: no. Keys may be cached: yes.

    .. math::
        C_c(p) = \sum_{r<n} A_{rc} \cos p\,\omega_r, \qquad S_c(p) = \sum_{r<n} B_{rc} \sin p\,\omega_r, \qquad
        \begin{pmatrix} x'_a \\ x'_b \end{pmatrix} =
        \begin{pmatrix} C_c & -S_c \\ S_c & C_c \end{pmatrix} \begin{pmatrix} x_a \\ x_b \end{pmatrix}

    Here :math:`p` is the position in tokens, :math:`(a, b)` are the channels of pair :math:`c`, :math:`\omega_r` is
    ``frequencies.inv_freq(rotary_dim)[r]`` in radians per token, and :math:`A, B` are ``cos_coef`` and ``sin_coef`` of
    the head. Only the :math:`n` rates that make a whole turn within ``trained_length`` tokens are kept; a model sees
    too little of the others. With :math:`A = B = 1` (the identity) it is RoPE of these rates. Otherwise a pair turns by
    the angle of :math:`(C, S)` and is multiplied by its length, so norms change, and a score depends on both positions
    and not on their distance alone.

    Args:
        head_dim: channels of each head.
        num_heads: heads of q.
        trained_length: L, in tokens: rates below 2 pi / L are dropped.
        num_kv_heads: heads of k, each with its own coefficients, which the query heads of its group share; num_heads by
            default.
        frequencies: the rule that sets the rates; ``Geometric(base=10_000)`` by default. Its ``attention_factor``
            multiplies q and k.
        kept: keep this number of rates, the fastest, instead of those that ``trained_length`` sets.
        dropped: how the pairs whose rate was dropped rotate. "turned": C = S = 1 at every position, which turns
            them by 45 degrees and makes them longer by a factor of sqrt(2), as the authors' code and SGLang do.
            "still": C = 1 and S = 0, as in vLLM with its pull request 55243.
        per_head: False for one set of coefficients for all heads.
        gain: the gain of the Xavier normal distribution whose numbers are added to the identity.
        learned: whether the coefficients are trained.
        pairing: "half" or "interleaved".
        rotary_dim: rotate only this many channels; all from ``rotary_start`` on by default.
        rotary_start: the first rotated channel.
        seq_dim: the dimension of the tokens, as for :class:`posenc.RoPE`.

    Shape:
        q ``(batch, heads, q_len, head_dim)``, k ``(batch, num_kv_heads, k_len, head_dim)`` -> the same shapes.
        ``cos_coef``, ``sin_coef``: ``(num_kv_heads, rates, pairs)``, or 1 in front.

    Precision: angles and sums in float64 from the stored coefficients, rounded once to float32; the rotation in
    float32, rounded once to the dtype of q and k; float64 throughout for float64. :meth:`inverse` and
    :func:`posenc.rerotate` divide by the length of (C, S), which can be small.

    Raises:
        ValueError: a length in which no rate makes a turn; heads, channels or numbers that do not fit; frequencies
            without fixed rates; bad positions.

    Example:
        >>> fope = FoPE(head_dim=16, num_heads=2, trained_length=64)
        >>> fope.cos_coef.shape  # heads, rates, pairs: of eight rates, three make a turn within 64 tokens
        torch.Size([2, 3, 3])

    Differs from the authors' code: there at most head_dim / 4 pairs have a series; here, as in SGLang and vLLM, every
    pair with a kept rate has one.

    References:
        Hua et al. Fourier Position Embedding: Enhancing Attention's Periodic Extension for Length Generalization. 2024.
        arXiv:2412.17739, section 4; TsinghuaC3I/Fourier-Position-Embedding, olmo/model.py, FourierEmbedding, and its
        issue 6 on "turned".
    """

    def __init__(
        self,
        head_dim: int,
        *,
        num_heads: int,
        trained_length: int,
        num_kv_heads: int | None = None,
        frequencies: Frequencies | None = None,
        kept: int | None = None,
        dropped: Dropped = "turned",
        per_head: bool = True,
        gain: float = 0.3,
        learned: bool = False,
        pairing: Pairing = "half",
        rotary_dim: int | None = None,
        rotary_start: int = 0,
        seq_dim: int = -2,
    ) -> None:
        super().__init__(head_dim, pairing=pairing, rotary_dim=rotary_dim, rotary_start=rotary_start, seq_dim=seq_dim)
        self.num_heads = num_heads
        self.num_kv_heads = checked_kv_heads("FoPE", num_heads, num_kv_heads)
        self.trained_length = trained_length
        self.frequencies = Geometric() if frequencies is None else frequencies
        self.kept = kept
        self.dropped = dropped
        self.per_head = per_head
        self.gain = gain
        self.learned = learned
        self.heads_differ = per_head
        check_choice("FoPE", "dropped", dropped, get_args(Dropped))
        check_fixed("FoPE", self.frequencies)
        if not gain >= 0:
            raise ValueError(f"FoPE: got gain {gain}, expected 0 or more; the authors take 0.3 to 0.6.")
        self._inv_freq = self._kept_rates()
        shape = (self.num_kv_heads if per_head else 1, len(self._inv_freq), len(self._inv_freq))
        self.cos_coef = nn.Parameter(torch.empty(shape), requires_grad=learned)
        self.sin_coef = nn.Parameter(torch.empty(shape), requires_grad=learned)
        self.reset_parameters()

    def _kept_rates(self) -> tuple[float, ...]:
        rates = self.frequencies.inv_freq(self.rotary_dim).tolist()
        if self.kept is not None:
            if not 1 <= self.kept <= len(rates):
                raise ValueError(f"FoPE: got kept {self.kept}, expected 1 to {len(rates)}, the number of pairs.")
            return tuple(rates[: self.kept])
        if self.trained_length < 1:
            raise ValueError(f"FoPE: got trained_length {self.trained_length}, expected at least 1 token.")
        found = tuple(rate for rate in rates if rate >= 2 * math.pi / self.trained_length)
        if not found:
            raise ValueError(
                f"FoPE: got trained_length {self.trained_length}, in which no rate of {self.frequencies} makes a whole "
                f"turn, expected at least {math.ceil(2 * math.pi / max(rates))} tokens."
            )
        return found

    def reset_parameters(self) -> None:
        """Set the coefficients to the identity plus Xavier normal numbers, as the authors do."""
        for coefficients in (self.cos_coef, self.sin_coef):
            nn.init.xavier_normal_(coefficients if self.per_head else coefficients[0], gain=self.gain)
            with torch.no_grad():
                coefficients.add_(torch.eye(len(self._inv_freq)))

    def phases(self, positions: Tensor, *, role: Role = "query", length: Length = None) -> tuple[Tensor, Tensor]:
        cos, sin = self.waves(positions)
        return torch.atan2(sin, cos), torch.hypot(cos, sin)

    def waves(self, positions: Tensor, *, role: Role = "query", length: Length = None) -> tuple[Tensor, Tensor]:
        angle = angles(positions, self._inv_freq)
        if self.per_head:
            angle = (angle if angle.ndim == 3 else angle[None])[:, None]
        cos, sin = (
            torch.matmul(wave, as_float64(coefficients if self.per_head else coefficients[0]).to(angle.device))
            for wave, coefficients in ((angle.cos(), self.cos_coef), (angle.sin(), self.sin_coef))
        )
        left = (0, self.rotary_dim // 2 - len(self._inv_freq))
        cos = nn.functional.pad(cos, left, value=1.0)
        sin = nn.functional.pad(sin, left, value=1.0 if self.dropped == "turned" else 0.0)
        return cos * self.frequencies.attention_factor, sin * self.frequencies.attention_factor

"""Rotary position embedding."""

from typing import final, get_args

import torch
from torch import Tensor, nn

from posenc.frequencies import Frequencies, Geometric, LearnedRates
from posenc.frequencies.base import check_choice
from posenc.kernels.choice import Implementation
from posenc.kernels.precision import angles, as_float64, exact_positions, float64_device
from posenc.kernels.rotate.eager import Pairing
from posenc.kernels.rotate.tables import Tables
from posenc.positions import sequence_lengths
from posenc.queries_keys._rates import RatesByLength
from posenc.queries_keys._rotation import Length, Numerics, Role, Rotation


@final
class RoPE(Rotation):
    r"""Rotary position embedding: each pair of channels of a query or key turns by the angle position times rate.

    Place: queries_keys. Learned: nothing, unless the frequencies are. Relative: yes. Keys may be cached: yes. Both are
    no for frequencies that depend on the length of the sequence.

    .. math::
        (a, b) \leftarrow (a \cos p\,\omega_c - b \sin p\,\omega_c,\; a \sin p\,\omega_c + b \cos p\,\omega_c)

    Here :math:`p` is the position in tokens, :math:`\omega_c` is ``frequencies.inv_freq(rotary_dim)[c]`` in radians per
    token, and :math:`(a, b)` are the channels :math:`(c, c + r/2)` for ``pairing="half"`` or :math:`(2c, 2c + 1)` for
    ``"interleaved"``, with :math:`r` = ``rotary_dim``, counted from ``rotary_start``. Written as a block-diagonal
    matrix :math:`R(p)` it keeps norms, and :math:`R(i)^T R(j) = R(j - i)`: a score depends only on the distance.

    Args:
        head_dim: channels of each head.
        frequencies: the rule that sets the rates; ``Geometric(base=10_000)`` by default. Its ``attention_factor``
            multiplies cos and sin; :func:`posenc.attention` multiplies scores by its ``score_factor``.
        pairing: "half" (GPT-NeoX, Hugging Face's Llama) or "interleaved" (RoFormer, GPT-J, Meta's Llama).
        rotary_dim: rotate only this many channels of each head; by default all from ``rotary_start`` on.
        rotary_start: the first rotated channel: 0 for a leading slice, head_dim - rotary_dim for a trailing one
            (DeepSeek-V4), or in between.
        seq_dim: the dimension of the tokens: -2 for ``(batch, heads, seq, head_dim)``, -3 for ``(batch, seq, heads,
            head_dim)`` and, packed, ``(tokens, heads, head_dim)``, -4 for ``(seq, batch, heads, head_dim)``. A wrong
            value makes heads count as tokens. This is refused if the number of positions or the lengths of q and k
            show it; without positions, or with an offset, posenc cannot know.
        numerics: "exact", or "transformers" to round as Hugging Face's Llama does, bit for bit.
        implementation: "auto" for the fastest available, "eager" (plain torch), "cpu" (compiled C++) or "triton"; all
            give the same bits on CPU. :func:`posenc.explain` says which a call takes.

    Shape:
        q ``(batch, heads, q_len, head_dim)``, k ``(batch, kv_heads, k_len, head_dim)`` -> the same shapes.

    Precision: angles in float64; cos and sin rounded once to float32 (within 6e-8 at any position up to 2**24); the
    rotation in float32, rounded once to the dtype of q and k; float64 throughout for float64.

    Raises:
        ValueError: an odd or too large ``rotary_dim``; a slice that leaves the head; frequencies that do not fit it; q
            or k of another ``head_dim``; bad positions.

    Example:
        >>> import torch
        >>> rope = RoPE(head_dim=4)
        >>> rope.rotate(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), positions=2)  # one token, at position 2: cos 2, sin 2
        tensor([[-0.4161,  0.0000,  0.9093,  0.0000]])

    Differs from the paper: the default pairing is the one that most checkpoints are stored in, not the paper's
    "interleaved"; the two are the same rotation after a permutation of channels. Slices, factors and learned rates are
    later additions.

    References:
        Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. 2021. arXiv:2104.09864, equations
        14-16, 34.
    """

    rates: nn.Parameter
    log_scale: nn.Parameter

    def __init__(
        self,
        head_dim: int,
        *,
        frequencies: Frequencies | None = None,
        pairing: Pairing = "half",
        rotary_dim: int | None = None,
        rotary_start: int = 0,
        seq_dim: int = -2,
        numerics: Numerics = "exact",
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__(head_dim, pairing=pairing, rotary_dim=rotary_dim, rotary_start=rotary_start, seq_dim=seq_dim)
        self.frequencies = Geometric() if frequencies is None else frequencies
        self.numerics = numerics
        self.implementation = implementation
        check_choice("RoPE", "numerics", numerics, get_args(Numerics))
        check_choice("RoPE", "implementation", implementation, get_args(Implementation))
        if numerics == "transformers" and not isinstance(self.frequencies, Geometric):
            raise ValueError(
                'RoPE: numerics="transformers" reproduces the rounding of transformers only for Geometric '
                f'frequencies, got {self.frequencies}; use Geometric frequencies or numerics="exact".'
            )
        if self.frequencies.needs_whole_head and self.rotary_dim != head_dim:
            raise ValueError(
                f"RoPE: got rotary_dim {self.rotary_dim} for head_dim {head_dim} with {self.frequencies}, a rule that "
                "itself says which channels are not rotated; leave rotary_dim and rotary_start out, or use Geometric "
                "frequencies for plain partial rotation."
            )
        self.relative = self.keys_cacheable = not self.frequencies.depends_on_length
        self.scales_scores = self.frequencies.score_factor != 1
        self._inv_freq: tuple[float, ...] = tuple(self.frequencies.inv_freq(self.rotary_dim).tolist())
        self._by_length = (
            RatesByLength.of(self.frequencies, self.rotary_dim) if self.frequencies.depends_on_length else None
        )
        if isinstance(self.frequencies, LearnedRates):
            setattr(self, self.frequencies.parameter, nn.Parameter(torch.empty(self.rotary_dim // 2)))
            self.reset_parameters()
        elif numerics == "exact" and not self.frequencies.depends_on_length:
            self._shared = Tables.shared(self._inv_freq, self.frequencies.attention_factor)

    def reset_parameters(self) -> None:
        """Set learned rates to the initial rates of their rule."""
        if isinstance(self.frequencies, LearnedRates):
            with torch.no_grad():
                if self.frequencies.parameter == "rates":
                    self.rates.copy_(torch.tensor(self._inv_freq, dtype=torch.float64))
                else:
                    self.log_scale.zero_()

    def temperature(self, q_positions: Tensor) -> float:
        return self.frequencies.score_factor

    def phases(self, positions: Tensor, *, role: Role = "query", length: Length = None) -> tuple[Tensor, Tensor]:
        factor = torch.tensor(
            self.frequencies.attention_factor, dtype=torch.float64, device=float64_device(positions.device)
        )
        if self.numerics == "transformers":
            return positions[..., None].float() * self._inv_freq_in_float32(positions.device), factor.float()
        if self._by_length is not None:
            if length is None:
                length = sequence_lengths(positions)
            elif not isinstance(length, Tensor):
                length = torch.tensor(length, device=positions.device)
            elif length.ndim == 1:  # one for each row
                length = length[:, None]
            rates, factors = self._by_length.at(length)
            return exact_positions(positions)[..., None] * rates, factors
        if not isinstance(self.frequencies, LearnedRates):
            return angles(positions, self._inv_freq), factor
        exact = exact_positions(positions)[..., None]
        if self.frequencies.parameter == "rates":
            return exact * as_float64(self.rates).to(exact.device), factor
        start = torch.tensor(self._inv_freq, dtype=torch.float64, device=exact.device)
        return exact * (start * as_float64(self.log_scale).to(exact.device).exp()), factor

    def _inv_freq_in_float32(self, device: torch.device) -> Tensor:
        """The rates by the steps, each rounded to float32, that Hugging Face's Llama takes."""
        base = self.frequencies.base  # type: ignore[attr-defined]  # Geometric: checked in __init__
        exponent = torch.arange(0, self.rotary_dim, 2, dtype=torch.float32, device=device) / self.rotary_dim
        rates: Tensor = 1.0 / (base**exponent)
        return rates

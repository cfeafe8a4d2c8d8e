"""The rule of Llama 3.1."""

import math
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.base import Frequencies, Length, check_base, check_factor, check_trained_length
from posenc.frequencies.geometric import Geometric


@dataclass(frozen=True)
class Llama3(Frequencies):
    r"""Llama 3.1: pairs that turn often in the trained window are kept, those that hardly turn are divided.

    .. math::
        r_i = L\,\omega_i / 2\pi, \qquad g_i = \mathrm{clip}\Big(\frac{r_i - l}{h - l}, 0, 1\Big), \qquad
        \omega'_i = g_i\,\omega_i + (1 - g_i)\,\omega_i / s

    Here :math:`\omega_i = b^{-2i/d}` is in radians per token, :math:`L` is ``trained_length`` in tokens, :math:`r_i` is
    the number of turns of pair i in it, :math:`l, h` are ``low_freq_factor`` and ``high_freq_factor`` in turns,
    :math:`s` is ``factor``, :math:`b` is ``base`` and :math:`d` is ``rotary_dim``. cos and sin are not scaled.

    Args:
        factor: :math:`s`, 1 or more: 8 in Llama 3.1, 32 in Llama 3.2. 1 is :class:`Geometric`.
        trained_length: :math:`L`: 8192 in Llama 3. Required.
        low_freq_factor: :math:`l`: fewer turns than this, and the rate is divided.
        high_freq_factor: :math:`h`: more turns than this, and the rate is kept. If equal to ``low_freq_factor`` (Llama
            4 Scout has 1 and 1), the ramp is a step.
        base: :math:`b`, above 1; that of Llama 3 by default.

    Raises:
        TypeError: no trained_length.
        ValueError: a factor below 1; a trained_length of 1 or below; ``high_freq_factor`` below ``low_freq_factor``;
            base of 1 or below; an odd ``rotary_dim``.

    Example:
        >>> rule, plain = Llama3(8, trained_length=8192), Geometric(500_000)
        >>> ratio = plain.inv_freq(128) / rule.inv_freq(128)
        >>> int((ratio == 1).sum()), int((ratio == 8).sum())  # kept and divided; the other six are blended
        (29, 29)

    Differs from the paper: nothing; the paper gives base and lengths, and Meta's code the rule.

    References:
        Grattafiori et al. The Llama 3 Herd of Models. 2024. arXiv:2407.21783, section 3.4.2;
        meta-llama/llama-models, models/llama3/model.py, apply_scaling.
    """

    factor: float
    _: KW_ONLY
    trained_length: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    base: float = 500_000.0

    def __post_init__(self) -> None:
        check_factor("Llama3", self.factor)
        check_trained_length("Llama3", self.trained_length)
        check_base(self.base)
        if not 0 < self.low_freq_factor <= self.high_freq_factor:
            raise ValueError(
                f"Llama3: got low_freq_factor {self.low_freq_factor} and high_freq_factor {self.high_freq_factor}, "
                "expected 0 < low_freq_factor <= high_freq_factor; Llama 3.1 has 1 and 4."
            )

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        rates = Geometric(self.base).inv_freq(rotary_dim)
        turns = self.trained_length * rates / (2 * math.pi)
        if self.low_freq_factor == self.high_freq_factor:
            return np.where(turns >= self.high_freq_factor, rates, rates / self.factor)
        kept = np.clip((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor), 0, 1)
        # Both ends exact: kept is 1 or 0 there, so one of the terms vanishes.
        return kept * rates + (1 - kept) * (rates / self.factor)

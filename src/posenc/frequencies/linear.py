"""Position interpolation: every rate divided by one factor."""

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.base import Frequencies, Length, check_base, check_factor
from posenc.frequencies.geometric import Geometric


@dataclass(frozen=True)
class Linear(Frequencies):
    r"""Position interpolation: all rates are divided by s, so a longer text stays within the trained positions.

    .. math::  \omega'_i = \omega_i / s, \qquad \omega_i = b^{-2i/d}

    Here :math:`s` is ``factor``, a pure number; :math:`b` is ``base``, :math:`d` is ``rotary_dim`` and the rates are in
    radians per token. The same as dividing every position by s.

    Args:
        factor: :math:`s`, 1 or more. 1 is :class:`Geometric`.
        base: :math:`b`, above 1.

    Raises:
        ValueError: a factor below 1; base of 1 or below; an odd ``rotary_dim``.

    Example:
        >>> Linear(4, base=100).inv_freq(4)
        array([0.25 , 0.025])

    Differs from the paper: nothing. Neighbouring tokens come closer too, which :class:`NTK` and :class:`YaRN` avoid.

    References:
        Chen et al. Extending Context Window of Large Language Models via Position Interpolation. 2023.
        arXiv:2306.15595, section 2.3. Found at the same time by kaiokendev.
    """

    factor: float
    _: KW_ONLY
    base: float = 10_000.0

    def __post_init__(self) -> None:
        check_factor("Linear", self.factor)
        check_base(self.base)

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        return Geometric(self.base).inv_freq(rotary_dim) / self.factor

"""The rates of another rule in turns instead of radians."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.arguments import check_instance
from posenc.frequencies.base import Frequencies, Length
from posenc.frequencies.learned import LearnedRates


@dataclass(frozen=True)
class Turns(Frequencies):
    r"""The rates of another rule in turns per unit instead of radians: each is multiplied by 2 pi.

    .. math::  \omega'_i = 2\pi\,\omega_i

    Here :math:`\omega_i` is what ``rates`` gives, and :math:`\omega'_i` is in radians per unit of the coordinate. For
    models whose coordinates run from -1 to 1: DINOv3 has ``Turns(Geometric(base=100))``, so that its fastest pair makes
    two turns from edge to edge, and with its ``min_period`` p and ``max_period`` P ``Turns(Logspaced(1 / p, 1 / P))``.

    Args:
        rates: the rule, whose factors are kept.

    Raises:
        TypeError: no rule.
        ValueError: a rule that depends on the length, or whose rates are learned.

    Example:
        >>> from posenc import Geometric
        >>> Turns(Geometric(base=100)).inv_freq(4) / (2 * math.pi)
        array([1. , 0.1])

    References:
        Simeoni et al. DINOv3. 2025. arXiv:2508.10104; facebookresearch/dinov3, dinov3/layers/rope_position_encoding.py.
    """

    rates: Frequencies

    def __post_init__(self) -> None:
        check_instance("Turns", "rates", self.rates, Frequencies, "Turns(Geometric(base=100))")
        if self.rates.depends_on_length or isinstance(self.rates, LearnedRates):
            raise ValueError(f"Turns: got {self.rates}, expected a rule with fixed rates, such as Geometric(base=100).")
        for name in ("attention_factor", "score_factor", "needs_whole_head"):
            object.__setattr__(self, name, getattr(self.rates, name))

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        return 2 * math.pi * self.rates.inv_freq(rotary_dim)

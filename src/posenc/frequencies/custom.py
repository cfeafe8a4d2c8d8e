"""Rates that you give."""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.base import Frequencies, Length, check_attention_factor, check_rotary_dim


@dataclass(frozen=True)
class Custom(Frequencies):
    r"""Rates that you give: for rules without a formula, and for experiments.

    .. math::  \omega_i = \mathtt{rates}_i

    Here :math:`\omega_i` is in radians per token, one for each of the rotary_dim / 2 pairs.

    Args:
        rates: a sequence or an array of finite numbers; kept as a tuple.
        attention_factor: the factor of cos and sin.

    Raises:
        ValueError: no rates, or NaN or infinite ones; an attention_factor of 0 or below; a ``rotary_dim`` other than
            twice their number.

    Example:
        >>> Custom([1.0, 0.1]).inv_freq(4)
        array([1. , 0.1])
    """

    rates: Sequence[float]
    _: KW_ONLY
    attention_factor: float = 1.0

    def __post_init__(self) -> None:
        rates = tuple(float(rate) for rate in self.rates)
        if not rates or not all(math.isfinite(rate) for rate in rates):
            raise ValueError(
                f"Custom: got rates {rates}, expected one finite number of radians per token for each pair."
            )
        object.__setattr__(self, "rates", rates)
        check_attention_factor("Custom", self.attention_factor)

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        check_rotary_dim(rotary_dim)
        if rotary_dim != 2 * len(self.rates):
            raise ValueError(
                f"Custom: got {len(self.rates)} rates for {rotary_dim} channels, expected {rotary_dim // 2}, one for "
                f"each pair; use rotary_dim={2 * len(self.rates)}."
            )
        return np.array(self.rates, dtype=np.float64)

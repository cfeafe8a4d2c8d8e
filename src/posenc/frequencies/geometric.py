"""The geometric rule of the Transformer and of RoPE."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.base import Frequencies, Length, check_base, check_rotary_dim


@dataclass(frozen=True)
class Geometric(Frequencies):
    r"""Wavelengths from 2 pi tokens upwards, each a fixed ratio longer than the one before.

    .. math::  \omega_i = b^{-2i/d}, \qquad i = 0, \dots, d/2 - 1

    Here :math:`b` is ``base`` (``rope_theta`` in Hugging Face configs), :math:`d` is ``rotary_dim`` and
    :math:`\omega_i` is in radians per token. The longest wavelength is 2 pi b^((d-2)/d) tokens, a little below 2 pi b.

    Args:
        base: :math:`b`, above 1.

    Raises:
        ValueError: base of 1 or below; an odd ``rotary_dim``.

    Example:
        >>> Geometric(base=100).inv_freq(4)
        array([1. , 0.1])

    References:
        Vaswani et al. Attention Is All You Need. 2017. arXiv:1706.03762, section 3.5.
        Su et al. RoFormer. 2021. arXiv:2104.09864, section 3.3.
    """

    base: float = 10_000.0

    def __post_init__(self) -> None:
        check_base(self.base)

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        check_rotary_dim(rotary_dim)
        return np.power(float(self.base), -np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)

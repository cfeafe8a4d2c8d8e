"""Rates between two ends that are both reached, evenly spaced as they are or in their logarithm."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.base import Frequencies, Length, check_rotary_dim


@dataclass(frozen=True)
class Linspaced(Frequencies):
    r"""Evenly spaced rates from the first to the last.

    .. math::  \omega_i = f + (l - f)\,\frac{i}{n - 1}, \qquad i = 0, \dots, n - 1

    Here :math:`f, l` are ``first`` and ``last`` in radians per unit of the coordinate, and :math:`n` is
    ``rotary_dim`` / 2. One pair alone has the rate ``first``.

    Args:
        first: the rate of the first pair; the lowest in models of images, whose coordinates run from -1 to 1.
        last: the rate of the last pair.

    Raises:
        ValueError: an odd ``rotary_dim``.

    Example:
        >>> Linspaced(1, 5).inv_freq(6)
        array([1., 3., 5.])

    References:
        timm, layers/pos_embed_sincos.py, pixel_freq_bands, linear_bands; lucidrains, rotary-embedding-torch,
        freqs_for="pixel".
    """

    first: float
    last: float

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        check_rotary_dim(rotary_dim)
        return np.linspace(self.first, self.last, rotary_dim // 2, dtype=np.float64)


@dataclass(frozen=True)
class Logspaced(Frequencies):
    r"""Rates from the first to the last, each a fixed ratio from the one before.

    .. math::  \omega_i = f\,(l / f)^{i / (n - 1)}, \qquad i = 0, \dots, n - 1

    Here :math:`f, l` are ``first`` and ``last`` in radians per unit of the coordinate, and :math:`n` is
    ``rotary_dim`` / 2. One pair alone has the rate ``first``. ``Tensor2Tensor(b)`` is ``Logspaced(1, 1 / b)``.

    Args:
        first: the rate of the first pair, above 0. LTX has pi / 2, timm's bands of pixels have pi.
        last: the rate of the last pair, above 0, below or above the first. LTX has 10 000 pi / 2.

    Raises:
        ValueError: a rate of 0 or below; an odd ``rotary_dim``.

    Example:
        >>> Logspaced(1, 100).inv_freq(6)
        array([  1.,  10., 100.])

    References:
        diffusers, transformer_ltx.py, LTXVideoRotaryPosEmbed; timm, layers/pos_embed_sincos.py, pixel_freq_bands.
    """

    first: float
    last: float

    def __post_init__(self) -> None:
        if not (self.first > 0 and self.last > 0):
            raise ValueError(
                f"Logspaced: got first {self.first} and last {self.last}, expected rates above 0, in radians per unit "
                "of the coordinate; Linspaced takes 0."
            )

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        check_rotary_dim(rotary_dim)
        return np.geomspace(self.first, self.last, rotary_dim // 2, dtype=np.float64)

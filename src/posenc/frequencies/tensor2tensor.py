"""The geometric rule as tensor2tensor wrote it, with both ends on the grid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.base import Frequencies, Length, check_base, check_rotary_dim


@dataclass(frozen=True)
class Tensor2Tensor(Frequencies):
    r"""The rates of the Transformer's first code, which run from 1 to exactly 1/base.

    .. math::  \omega_i = b^{-i/(d/2 - 1)}, \qquad i = 0, \dots, d/2 - 1

    Here :math:`b` is ``base``, :math:`d` is ``rotary_dim`` and :math:`\omega_i` is in radians per token.

    Args:
        base: :math:`b`, above 1.

    Raises:
        ValueError: base of 1 or below; an odd ``rotary_dim``.

    Example:
        >>> Tensor2Tensor(base=100).inv_freq(6)
        array([1.  , 0.1 , 0.01])

    Differs from the paper: the paper's exponent is 2i/d (:class:`Geometric`), which never reaches 1/base. Fairseq,
    Marian, Whisper and M2M have the exponent of the code.

    References:
        tensor2tensor, layers/common_attention.py, get_timing_signal_1d.
    """

    base: float = 10_000.0

    def __post_init__(self) -> None:
        check_base(self.base)

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        check_rotary_dim(rotary_dim)
        pairs = rotary_dim // 2
        return np.power(float(self.base), -np.arange(pairs, dtype=np.float64) / max(pairs - 1, 1))

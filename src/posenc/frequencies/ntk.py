"""NTK-aware scaling: a larger base, so that slow pairs are stretched and fast ones kept."""

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.base import Frequencies, Length, check_base, check_factor
from posenc.frequencies.geometric import Geometric


@dataclass(frozen=True)
class NTK(Frequencies):
    r"""NTK-aware scaling: the fastest pair is left alone and the slowest divided by the factor.

    .. math::  b' = b\, s^{d/(d-2)}, \qquad \omega'_i = b'^{-2i/d} = \omega_i\, s^{-2i/(d-2)}

    Here :math:`s` is ``factor``, :math:`b` is ``base``, :math:`d` is ``rotary_dim`` and the rates are in radians per
    token: :math:`\omega'_0 = \omega_0 = 1` and :math:`\omega'_{d/2-1} = \omega_{d/2-1} / s`.

    Args:
        factor: :math:`s`, 1 or more. 1 is :class:`Geometric`.
        base: :math:`b`, above 1.

    Raises:
        ValueError: a factor below 1; base of 1 or below; an odd ``rotary_dim``, or one below 4.

    Example:
        >>> NTK(8, base=100).inv_freq(4)
        array([1.    , 0.0125])

    Differs from the paper: there is none; the rule was published as a post. Of the rules called "NTK", this is the
    fixed one. :class:`DynamicNTK` takes its factor from the length, :class:`NTKAlpha` calls it alpha.

    References:
        bloc97. NTK-Aware Scaled RoPE. 2023, reddit.com/r/LocalLLaMA. Peng et al. YaRN. 2023. arXiv:2309.00071, section
        3.1.
    """

    factor: float
    _: KW_ONLY
    base: float = 10_000.0

    def __post_init__(self) -> None:
        check_factor("NTK", self.factor)
        check_base(self.base)

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        return stretched("NTK", self.base, np.asarray(self.factor), rotary_dim)


@dataclass(frozen=True)
class NTKAlpha(Frequencies):
    r"""The NTK-aware rule with its factor named alpha, as Hunyuan's checkpoints store it.

    .. math::  b' = b\, \alpha^{d/(d-2)}, \qquad \omega_i = b'^{-2i/d}

    Here :math:`\alpha` is ``alpha``, a pure number, :math:`b` is ``base`` and :math:`d` is ``rotary_dim``. The numbers
    are those of ``NTK(factor=alpha)``. The name is its own because such configs also carry a ``factor``, which belongs
    to another rule and is not used by this one.

    Args:
        alpha: :math:`\alpha`, 1 or more. 1 is :class:`Geometric`.
        base: :math:`b`, above 1.

    Raises:
        ValueError: alpha below 1; base of 1 or below; an odd ``rotary_dim``, or one below 4.

    Example:
        >>> bool((NTKAlpha(1000).inv_freq(128) == NTK(1000).inv_freq(128)).all())
        True

    References:
        Tencent. Hunyuan-A13B, model code; transformers, models/hunyuan_v1_dense.
    """

    alpha: float
    _: KW_ONLY
    base: float = 10_000.0

    def __post_init__(self) -> None:
        check_factor("NTKAlpha", self.alpha, name="alpha")
        check_base(self.base)

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        return stretched("NTKAlpha", self.base, np.asarray(self.alpha), rotary_dim)


def stretched(rule: str, base: float, factor: NDArray[np.float64], rotary_dim: int) -> NDArray[np.float64]:
    """omega_i factor^(-2i/(d-2)): exact at both ends, which base^(...) to the power -2i/d is not."""
    if rotary_dim == 2:
        raise ValueError(
            f"{rule}: got 2 channels, expected at least 4: with one pair the fastest rate, which is kept, is also the "
            "slowest, which is divided; use Geometric or Linear."
        )
    rates = Geometric(base).inv_freq(rotary_dim)
    exponent = -np.arange(0, rotary_dim, 2, dtype=np.float64) / (rotary_dim - 2)
    return rates * np.power(factor[..., None], exponent)

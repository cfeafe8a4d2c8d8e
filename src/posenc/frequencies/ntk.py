"""NTK-aware scaling: a larger base, so that slow pairs are stretched and fast ones kept."""

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.base import Frequencies, Length, check_base, check_factor
from posenc.frequencies.geometric import Geometric


@dataclass(frozen=True)
class NTK(Frequencies):
    r"""NTK-aware scaling: a larger base, which keeps the fastest rate and divides the slowest by the factor.

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

    Differs from the paper: there is none; the rule was published as a post. Of the rules called "NTK", this one keeps
    the fastest pair. :class:`DynamicNTK` takes its factor from the length, :class:`NTKAlpha` calls it alpha, and
    :class:`NTKMixed`, vLLM's "ntk", slows the fastest pair too.

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

    Here :math:`\alpha` is ``alpha``, a pure number, :math:`b` is ``base`` and :math:`d` is ``rotary_dim``. The rates
    equal those of ``NTK(factor=alpha)``. This class has its own name because such configs also have a ``factor``, which
    belongs to another rule and has no effect here.

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


@dataclass(frozen=True)
class NTKMixed(Frequencies):
    r"""Su's NTK rules, "fixed" and "mixed": every pair is slowed, the slowest by the whole factor.

    .. math::  \omega'_i = \omega_i\, s^{-(2(i+1)/d)^{\beta}}

    Here :math:`s` is ``factor``, :math:`\beta` is ``exponent``, a pure number, :math:`\omega_i = b^{-2i/d}` are the
    plain rates in radians per token, :math:`b` is ``base`` and :math:`d` is ``rotary_dim``. An exponent of 1 is
    "NTK-RoPE-fixed": a base of :math:`b s` and all rates divided by :math:`s^{2/d}`, vLLM's rule "ntk". An exponent
    below 1 is "NTK-RoPE-mixed", vLLM's "ntk" with ``mixed_b``: fast pairs are slowed by more. Near 0 all pairs are
    divided by :math:`s`, as by :class:`Linear`.

    Args:
        factor: :math:`s`, 1 or more. 1 is :class:`Geometric`.
        exponent: :math:`\beta`, above 0; Su's post found 0.625 best, his released code has 0.75.
        base: :math:`b`, above 1.

    Raises:
        ValueError: a factor below 1; an exponent of 0 or below; base of 1 or below; an odd ``rotary_dim``.

    Example:
        >>> NTKMixed(4, base=100).inv_freq(4)
        array([0.5  , 0.025])

    Differs from the paper: there is none; both rules were published as a post, which counts pairs from 1. In
    :class:`NTK` the exponent is 2i/(d - 2), so that the fastest pair is kept.

    References:
        Su. Transformer upgrade road 11: carrying base beta through to the end. 2023. kexue.fm/archives/9706.
        bojone/rerope, ntk_patch.py; vLLM, rotary_embedding/ntk_scaling_rope.py.
    """

    factor: float
    exponent: float = 1.0
    _: KW_ONLY
    base: float = 10_000.0

    def __post_init__(self) -> None:
        check_factor("NTKMixed", self.factor)
        check_base(self.base)
        if not self.exponent > 0:
            raise ValueError(
                f'NTKMixed: got exponent {self.exponent}, expected above 0: 1 for "fixed", 0.625 or 0.75 for "mixed".'
            )

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        rates = Geometric(self.base).inv_freq(rotary_dim)
        counted = np.arange(2, rotary_dim + 1, 2, dtype=np.float64) / rotary_dim
        return rates * np.power(float(self.factor), -np.power(counted, self.exponent))


def stretched(rule: str, base: float, factor: NDArray[np.float64], rotary_dim: int) -> NDArray[np.float64]:
    """omega_i factor^(-2i/(d-2)): exact at both ends, which base^(...) to the power -2i/d is not."""
    if rotary_dim == 2:
        raise ValueError(
            f"{rule}: got 2 channels, expected at least 4: the rule keeps the fastest rate and divides the slowest, "
            "and with one pair they are the same; use Geometric or Linear."
        )
    rates = Geometric(base).inv_freq(rotary_dim)
    exponent = -np.arange(0, rotary_dim, 2, dtype=np.float64) / (rotary_dim - 2)
    return rates * np.power(factor[..., None], exponent)

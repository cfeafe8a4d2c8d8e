"""p-RoPE: only the fastest pairs turn."""

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.arguments import EXPECTED
from posenc.frequencies.base import Frequencies, Length, check_base, check_factor, check_rotary_dim
from posenc.frequencies.geometric import Geometric


@dataclass(frozen=True)
class Proportional(Frequencies):
    r"""p-RoPE: the fastest share p of the pairs rotates as in RoPE, and the slower pairs do not rotate.

    .. math::
        \omega_i = b^{-2i/d} / s \;\text{ for }\; i < \lfloor p\,d/2 \rfloor, \qquad \omega_i = 0 \;\text{ from there}

    Here :math:`p` is ``share``, :math:`d` is the width of the whole head, :math:`b` is ``base``, :math:`s` is
    ``factor`` and rates are in radians per token. A rate of 0 leaves its pair as it was. The paper finds that
    models use the slowest pairs for the meaning of tokens, not for their positions.

    This is not partial rotation (``rotary_dim`` of :class:`posenc.RoPE`), though configs call both
    ``partial_rotary_factor``: there d is the number of rotated channels, and channels pair up within them. Here d is
    the whole head and pairs span it: with ``pairing="half"`` channel c is still paired with c + d/2.

    Args:
        share: :math:`p`, from 0 (no rotation) to 1 (:class:`Geometric`).
        base: :math:`b`, above 1.
        factor: :math:`s`, 1 or more: the rates that are not 0 are divided by it.

    Raises:
        ValueError: a share outside [0, 1]; a factor below 1; base of 1 or below; an odd ``rotary_dim``.

    Example:
        >>> Proportional(0.5, base=16).inv_freq(8)
        array([1. , 0.5, 0. , 0. ])

    Differs from the paper: ``factor`` is not in it; it comes from Hugging Face, where Gemma 4 has 1.

    References:
        Barbero et al. Round and Round We Go! What Makes Rotary Positional Encodings Useful? 2025. arXiv:2410.06205,
        section 6. transformers, modeling_rope_utils.py, _compute_proportional_rope_parameters.
    """

    share: float
    _: KW_ONLY
    base: float = 10_000.0
    factor: float = 1.0

    needs_whole_head = True

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"Proportional: got share {self.share}, expected {EXPECTED['share']}.")
        check_factor("Proportional", self.factor)
        check_base(self.base)

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        check_rotary_dim(rotary_dim)
        rates = Geometric(self.base).inv_freq(rotary_dim) / self.factor
        rates[int(self.share * rotary_dim // 2) :] = 0.0
        return rates

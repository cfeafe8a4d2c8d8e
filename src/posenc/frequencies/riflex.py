"""RIFLEx: one pair slowed down, so that a longer video does not repeat itself."""

import math
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.base import Frequencies, Length, check_base
from posenc.frequencies.geometric import Geometric


@dataclass(frozen=True)
class RIFLEx(Frequencies):
    r"""RIFLEx: the pair whose period makes longer videos repeat is slowed to at most one turn in the whole video.

    .. math::
        \omega'_k = \min(\omega_k,\; 2\pi\,a / L), \qquad \omega'_j = \omega_j = b^{-2(j-1)/d} \text{ for } j \ne k

    Here :math:`k` is the number of the pair, counted from 1, :math:`L` is ``length`` in frames as the model counts them
    (latent frames), :math:`a` is ``share``, :math:`b` is ``base``, :math:`d` is ``rotary_dim`` and the rates are in
    radians per frame. It is for the time axis only: ``AxialRoPE(128, axes=(16, 56, 56), frequencies=(RIFLEx(4, 66,
    base=256), Geometric(256), Geometric(256)))``.

    Args:
        k: which pair, from 1 on: the one whose period is nearest to the frame at which the model's longer videos
            repeat, which :meth:`nearest` finds. 4 for HunyuanVideo, 2 for CogVideoX.
        length: :math:`L`, frames of the video that is to be made.
        share: :math:`a`, the part of one turn that the pair makes in the video, above 0 and at most 1: 1 is the
            paper's formula, 0.9 the authors' code.
        base: :math:`b`, above 1.

    Raises:
        ValueError: k below 1 or above the number of pairs; a length of 1 or below; a share outside of (0, 1]; base of 1
            or below; an odd ``rotary_dim``.

    Example:
        >>> RIFLEx.nearest(48, rotary_dim=16, base=256)  # HunyuanVideo repeats after 48 frames
        4
        >>> rule = RIFLEx(4, 66, base=256)
        >>> (2 * math.pi / rule.inv_freq(16)).round(1)  # frames per turn: that of pair 4 was 50.3
        array([  6.3,  12.6,  25.1,  73.3, 100.5, 201.1, 402.1, 804.2])

    Differs from the paper: ``share`` is 0.9, as in the authors' code, because some videos repeat in their last frames
    at 1. If the video is so short that the formula would make the pair faster, the pair keeps its rate.

    References:
        Zhao et al. RIFLEx: A Free Lunch for Length Extrapolation in Video Diffusion Transformers. 2025.
        arXiv:2502.15894, equations 7 and 8; thu-ml/RIFLEx, riflex_utils.py.
    """

    k: int
    length: float
    _: KW_ONLY
    share: float = 0.9
    base: float = 10_000.0

    def __post_init__(self) -> None:
        check_base(self.base)
        if self.k < 1 or self.k != int(self.k):
            raise ValueError(f"RIFLEx: got k {self.k!r}, expected the number of a pair, counted from 1.")
        if not self.length > 1:
            raise ValueError(f"RIFLEx: got length {self.length!r}, expected the number of frames, at least 2.")
        if not 0 < self.share <= 1:
            raise ValueError(
                f"RIFLEx: got share {self.share!r}, expected a fraction of a full turn, above 0 and at most 1."
            )

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        rates = Geometric(self.base).inv_freq(rotary_dim)
        if self.k > len(rates):
            raise ValueError(
                f"RIFLEx: got k {self.k} for {rotary_dim} channels, expected 1 to {len(rates)}, the number of one of "
                "their pairs; use the rule only for the time axis, and find k with RIFLEx.nearest."
            )
        pair = int(self.k) - 1
        rates[pair] = min(rates[pair], 2 * math.pi * self.share / self.length)
        return rates

    @staticmethod
    def nearest(frames: float, *, rotary_dim: int, base: float = 10_000.0) -> int:
        """The pair, counted from 1, whose period is nearest to ``frames``.

        Args:
            frames: the frame at which the model's videos first repeat.
            rotary_dim: channels of the axis of time.
            base: as for the rule.
        """
        periods = 2 * math.pi / Geometric(base).inv_freq(rotary_dim)
        return int(np.abs(periods.round() - frames).argmin()) + 1

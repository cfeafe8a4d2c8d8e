"""YaRN: each pair scaled by how often it turns in the trained window, and a temperature."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.base import (
    Frequencies,
    Length,
    check_attention_factor,
    check_base,
    check_choice,
    check_factor,
    check_trained_length,
)
from posenc.frequencies.geometric import Geometric

Ramp = Literal["code", "paper"]
Ends = Literal["rounded", "exact"]
Clamp = Literal["channels", "pairs"]


@dataclass(frozen=True)
class YaRN(Frequencies):
    r"""YaRN: fast pairs keep their rate, the rates of slow pairs are divided, and a ramp mixes both for other pairs.

    .. math::
        \omega'_i = (1 - \gamma_i)\,\omega_i / s + \gamma_i\,\omega_i, \qquad
        a = \frac{g(\mathtt{mscale})}{g(\mathtt{mscale\_all\_dim})}, \qquad g(m) = 0.1\,m \ln s + 1

    Here :math:`s` is ``factor``, :math:`\omega_i = b^{-2i/d}` is in radians per token with :math:`b` = ``base`` and
    :math:`d` = ``rotary_dim``; :math:`a` is ``attention_factor``, which multiplies cos and sin and so a score by its
    square. :math:`\gamma` falls from 1 to 0 between the pairs that turn ``beta_fast`` and ``beta_slow`` times in
    ``trained_length`` tokens :math:`L`:

    - ``ramp="code"``, linear in the pair's index: pair :math:`c(n) = d \ln(L / 2\pi n) / (2 \ln b)` turns n times;
      :math:`\gamma_i = 1 - \mathrm{clip}((i - c(\beta_{fast})) / (c(\beta_{slow}) - c(\beta_{fast})), 0, 1)`. All
      released checkpoints were trained with this one.
    - ``ramp="paper"``, linear in the number of turns:
      :math:`\gamma_i = \mathrm{clip}((L\omega_i/2\pi - \beta_{slow}) / (\beta_{fast} - \beta_{slow}), 0, 1)`.

    Some rates of the two differ by a factor of 3 for :math:`s` = 16 and :math:`L` = 4096, and by more for a larger s.

    Args:
        factor: :math:`s`, 1 or more. 1 is :class:`Geometric`.
        trained_length: :math:`L`, in tokens. Required.
        base: :math:`b`, above 1.
        beta_fast: turns from which a rate is kept.
        beta_slow: turns up to which a rate is divided. If equal to ``beta_fast`` (Kimi-K2: 1), the ramp is a step.
        ramp: "code" or "paper".
        ends: whether the code's ramp starts and ends at whole pairs ("rounded": floor and ceiling) or between them
            ("exact": gpt-oss; ``truncate: false`` in Hugging Face configs).
        clamp: the highest index at which the code's ramp may end: d - 1 ("channels": the authors, Hugging Face, vLLM)
            or that of the last pair, d/2 - 1 ("pairs": Keras, some ports).
        mscale: DeepSeek's weight of the temperature in cos and sin.
        mscale_all_dim: DeepSeek's weight of the temperature that goes to the softmax scale instead:
            ``score_factor`` is :math:`g(\mathtt{mscale\_all\_dim})^2`. :class:`posenc.RoPE` passes it to
            :func:`posenc.attention`.
        attention_factor: overrides the formula for :math:`a`. The attribute is always a number.

    Raises:
        TypeError: no trained_length.
        ValueError: a factor below 1; ``beta_fast`` below ``beta_slow``; unknown names; ``ends`` or ``clamp`` with the
            paper's ramp, which does not use them; a trained_length in which the fastest pair makes at most
            ``beta_slow`` turns.

    Example:
        >>> rule = YaRN(16, trained_length=4096)
        >>> round(rule.attention_factor, 4)
        1.2773
        >>> ratio = Geometric().inv_freq(128) / rule.inv_freq(128)
        >>> int((ratio == 1).sum()), int((ratio == 16).sum())  # kept, and divided by 16
        (21, 18)

    Differs from the paper: the default ramp (see above). ``mscale`` and ``mscale_all_dim`` are DeepSeek's.

    References:
        Peng et al. YaRN: Efficient Context Window Extension of Large Language Models. 2023. arXiv:2309.00071, sections
        3.2-3.4; code: jquesnelle/yarn, scaled_rope/LlamaYaRNScaledRotaryEmbedding.py (and its issues 60, 65).
        DeepSeek-AI. DeepSeek-V2. 2024. arXiv:2405.04434, section 3.1.4 and modeling_deepseek.py.
    """

    factor: float
    _: KW_ONLY
    trained_length: int
    base: float = 10_000.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    ramp: Ramp = "code"
    ends: Ends = "rounded"
    clamp: Clamp = "channels"
    mscale: float = 1.0
    mscale_all_dim: float = 0.0
    attention_factor: float = None  # type: ignore[assignment]  # a number as soon as the object is built

    def __post_init__(self) -> None:
        check_factor("YaRN", self.factor)
        check_trained_length("YaRN", self.trained_length)
        check_base(self.base)
        for name, allowed in (("ramp", Ramp), ("ends", Ends), ("clamp", Clamp)):
            check_choice("YaRN", name, getattr(self, name), get_args(allowed))
        if self.ramp == "paper" and (self.ends, self.clamp) != ("rounded", "channels"):
            raise ValueError(
                f'YaRN: got ends {self.ends!r} and clamp {self.clamp!r} with ramp="paper", whose ramp is a function '
                'of the number of turns and does not use ends and clamp; leave both out, or use ramp="code".'
            )
        if not 0 < self.beta_slow <= self.beta_fast:
            raise ValueError(
                f"YaRN: got beta_fast {self.beta_fast} and beta_slow {self.beta_slow}, expected "
                "0 < beta_slow <= beta_fast; the paper has 32 and 1."
            )
        if self.trained_length <= 2 * math.pi * self.beta_slow:
            raise ValueError(
                f"YaRN: got trained_length {self.trained_length} and beta_slow {self.beta_slow}, expected a trained "
                "length within which the fastest pair makes more than beta_slow turns: more than "
                f"{2 * math.pi * self.beta_slow:.0f} tokens."
            )
        if self.attention_factor is None:
            for name in ("mscale", "mscale_all_dim"):
                check_attention_factor("YaRN", self._g(getattr(self, name)), name=f"0.1 {name} ln(factor) + 1 =")
            object.__setattr__(self, "attention_factor", self._g(self.mscale) / self._g(self.mscale_all_dim))
        check_attention_factor("YaRN", self.attention_factor)

    @property
    def score_factor(self) -> float:  # type: ignore[override]
        """A further factor of the softmax scale: 1 unless ``mscale_all_dim`` is set."""
        return self._g(self.mscale_all_dim) ** 2

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        rates = Geometric(self.base).inv_freq(rotary_dim)
        kept = self._kept_in_code(rotary_dim) if self.ramp == "code" else self._kept_in_paper(rates)
        return kept * rates + (1 - kept) * (rates / self.factor)

    def ramp_ends(self, rotary_dim: int) -> tuple[float, float]:
        """The pairs, as indices, at which the code's ramp starts and ends."""

        def pair_that_turns(times: float) -> float:
            return rotary_dim * math.log(self.trained_length / (2 * math.pi * times)) / (2 * math.log(self.base))

        low, high = pair_that_turns(self.beta_fast), pair_that_turns(self.beta_slow)
        if self.ends == "rounded":
            low, high = math.floor(low), math.ceil(high)
        return max(low, 0), min(high, rotary_dim - 1 if self.clamp == "channels" else rotary_dim // 2 - 1)

    def _kept_in_code(self, rotary_dim: int) -> NDArray[np.float64]:
        low, high = self.ramp_ends(rotary_dim)
        # A step where there is no room for a ramp. The authors' code does so for low == high. For low > high, where
        # every pair turns more than beta_fast times, its slope would change sign and stretch what is to be kept.
        width = high - low if high > low else 0.001
        pairs = np.arange(rotary_dim // 2, dtype=np.float64)
        return 1.0 - np.clip((pairs - low) / width, 0, 1)

    def _kept_in_paper(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        turns = self.trained_length * rates / (2 * math.pi)
        if self.beta_fast == self.beta_slow:
            return (turns >= self.beta_fast).astype(np.float64)
        return np.clip((turns - self.beta_slow) / (self.beta_fast - self.beta_slow), 0, 1)

    def _g(self, weight: float) -> float:
        return 0.1 * weight * math.log(self.factor) + 1.0

"""LongRoPE: a searched factor for each pair."""

import math
from collections.abc import Sequence
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

Switch = Literal["sequence", "short", "long"]


@dataclass(frozen=True)
class LongRoPE(Frequencies):
    r"""LongRoPE: each rate is divided by its own factor from one of two lists, which a search found.

    .. math::
        \omega_i = \frac{b^{-2i/d}}{\lambda_i}, \qquad
        \lambda = \begin{cases}\mathtt{short} & l \le L\\ \mathtt{long} & l > L\end{cases}, \qquad
        a = \sqrt{1 + \ln s / \ln L}

    Here :math:`\lambda` is ``short_factors`` or ``long_factors``, one number for each pair; :math:`l` is the length of
    the sequence and :math:`L` is ``trained_length``, in tokens; :math:`s` is ``factor``, :math:`b` is ``base``,
    :math:`d` is ``rotary_dim`` and :math:`a` multiplies cos and sin. Rates are in radians per token.

    Each sequence of a batch has its own length and so its own list. When a sequence grows past :math:`L`, its list
    changes for all positions: keys must be cached before rotation, unless ``switch`` fixes the list.

    Args:
        short_factors: the list within the trained length.
        long_factors: the list beyond it.
        trained_length: :math:`L`. Required.
        factor: :math:`s`, 1 or more: the longest context over the trained one. Needed if ``attention_factor`` is not
            given.
        base: :math:`b`, above 1.
        switch: "sequence" as above; "long" or "short" use one list at every length, which keeps cached keys right (vLLM
            chooses the list once, from the longest context that it was started for).
        attention_factor: overrides the formula for :math:`a`.
        long_attention_factor: :math:`a` with the long factors, if it differs there (Phi-3.5-MoE).

    Raises:
        TypeError: no trained_length.
        ValueError: lists of different lengths, or not of rotary_dim / 2 positive numbers; neither factor nor
            attention_factor; a factor below 1; a trained_length of 1 or below; an unknown switch.

    Example:
        >>> rule = LongRoPE([1.0, 1.0], [2.0, 4.0], trained_length=4096, factor=32)
        >>> rule.inv_freq(4, length=4096), rule.inv_freq(4, length=4097)
        (array([1.  , 0.01]), array([0.5   , 0.0025]))
        >>> round(rule.attention_factor, 5)
        1.19024

    Differs from the paper: the paper leaves the first n tokens of a sequence unscaled (n = 0 in the released models)
    and has one list; two lists and :math:`a` are those of the Phi-3 checkpoints. Hugging Face picks one list for the
    whole batch.

    References:
        Ding et al. LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens. 2024. arXiv:2402.13753, section 3;
        transformers, modeling_rope_utils.py, _compute_longrope_parameters.
    """

    short_factors: Sequence[float]
    long_factors: Sequence[float]
    _: KW_ONLY
    trained_length: int
    factor: float | None = None
    base: float = 10_000.0
    switch: Switch = "sequence"
    attention_factor: float = None  # type: ignore[assignment]  # a number as soon as the object is built
    long_attention_factor: float | None = None

    def __post_init__(self) -> None:
        check_trained_length("LongRoPE", self.trained_length)
        check_base(self.base)
        check_choice("LongRoPE", "switch", self.switch, get_args(Switch))
        for name in ("short_factors", "long_factors"):
            factors = tuple(float(factor) for factor in getattr(self, name))
            if not factors or not all(factor > 0 and math.isfinite(factor) for factor in factors):
                raise ValueError(f"LongRoPE: got {name} {factors}, expected a number above 0 for each pair.")
            object.__setattr__(self, name, factors)
        if len(self.short_factors) != len(self.long_factors):
            raise ValueError(
                f"LongRoPE: got {len(self.short_factors)} short_factors and {len(self.long_factors)} long_factors, "
                "expected lists of the same length, with one factor for each pair."
            )
        if self.factor is not None:
            check_factor("LongRoPE", self.factor)
        if self.long_attention_factor is not None and self.switch != "sequence":
            raise ValueError(
                f"LongRoPE: got long_attention_factor with switch={self.switch!r}, which uses one list of factors at "
                "all lengths; give attention_factor instead."
            )
        if self.attention_factor is None:
            if self.factor is None:
                raise ValueError(
                    "LongRoPE: got neither factor nor attention_factor, expected one of them; factor is "
                    "max_position_embeddings / original_max_position_embeddings of a Hugging Face config."
                )
            squared = 1 + math.log(self.factor) / math.log(self.trained_length)
            object.__setattr__(self, "attention_factor", math.sqrt(squared))
        for name in ("attention_factor", "long_attention_factor"):
            if (value := getattr(self, name)) is not None:
                check_attention_factor("LongRoPE", value, name=name)

    @property
    def depends_on_length(self) -> bool:  # type: ignore[override]
        return self.switch == "sequence"

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        rates = Geometric(self.base).inv_freq(rotary_dim)
        if len(rates) != len(self.short_factors):
            raise ValueError(
                f"LongRoPE: got {len(self.short_factors)} factors for {rotary_dim} channels, expected {len(rates)}, "
                f"one for each pair; use rotary_dim={2 * len(self.short_factors)}."
            )
        short, long = np.array(self.short_factors), np.array(self.long_factors)
        return rates / np.where(self._is_long(length)[..., None], long, short)

    def attention_factor_at(self, length: Length) -> NDArray[np.float64]:
        long = self.attention_factor if self.long_attention_factor is None else self.long_attention_factor
        return np.where(self._is_long(length), long, self.attention_factor)

    def _is_long(self, length: Length) -> NDArray[np.bool_]:
        present = np.asarray(0 if length is None else length)
        if self.switch == "sequence":
            return present > self.trained_length
        return np.full(present.shape, self.switch == "long")

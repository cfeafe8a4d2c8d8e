"""Rates that are trained."""

from dataclasses import KW_ONLY, dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from posenc.frequencies.arguments import check_instance
from posenc.frequencies.base import Frequencies, Length, check_choice
from posenc.frequencies.geometric import Geometric

Parameter = Literal["rates", "log_scale"]


@dataclass(frozen=True)
class LearnedRates(Frequencies):
    r"""Rates that are trained with the model and start from those of another rule.

    .. math::
        \omega_i = \theta_i \;(\mathtt{parameter = "rates"}) \qquad \text{or} \qquad
        \omega_i = \omega^{start}_i e^{\theta_i} \;(\mathtt{"log\_scale"})

    Here :math:`\theta` are the parameters, one for each pair, and :math:`\omega^{start}` is what ``start`` gives, in
    radians per token. The rule itself has no parameters: :class:`posenc.RoPE` has :math:`\theta` and its gradient.

    Args:
        start: the rule to start from.
        parameter: "rates" trains the rates themselves; "log_scale" trains the logarithm of a factor of
            each rate, so that rates stay positive and fast and slow pairs learn at the same relative speed.

    Raises:
        ValueError: a start that depends on the length or is itself learned; an unknown ``parameter``.

    Example:
        >>> LearnedRates(Geometric(base=100)).inv_freq(4)
        array([1. , 0.1])

    References:
        "rates": lucidrains, rotary-embedding-torch, learned_freq. "log_scale": transformers, models/mistral_large4.
    """

    start: Frequencies = field(default_factory=Geometric)
    _: KW_ONLY
    parameter: Parameter = "log_scale"

    def __post_init__(self) -> None:
        check_choice("LearnedRates", "parameter", self.parameter, get_args(Parameter))
        check_instance("LearnedRates", "start", self.start, Frequencies, "Geometric()")
        if self.start.depends_on_length or isinstance(self.start, LearnedRates):
            raise ValueError(
                f"LearnedRates: got start {self.start}, expected a rule with fixed rates, such as Geometric."
            )
        object.__setattr__(self, "attention_factor", self.start.attention_factor)
        object.__setattr__(self, "score_factor", self.start.score_factor)
        object.__setattr__(self, "needs_whole_head", self.start.needs_whole_head)

    def inv_freq(self, rotary_dim: int, *, length: Length = None) -> NDArray[np.float64]:
        return self.start.inv_freq(rotary_dim)

"""Rates that depend on the length of a sequence, for each of many lengths."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from posenc.frequencies import DynamicNTK, Frequencies, LongRoPE
from posenc.kernels.precision import float64_device, may_look


@dataclass(frozen=True)
class RatesByLength:
    """A rule whose rates depend on the length, with the numbers that a tracer needs, since it sees no NumPy.

    Attributes:
        rule: the rule.
        rotary_dim: how many channels are rotated.
        within: the rates within the trained length, and the factor there.
        beyond: the same beyond it, for a rule with two lists.
    """

    rule: Frequencies
    rotary_dim: int
    within: tuple[tuple[float, ...], float]
    beyond: tuple[tuple[float, ...], float] | None

    @classmethod
    def of(cls, rule: Frequencies, rotary_dim: int) -> "RatesByLength":
        def at(length: int) -> tuple[tuple[float, ...], float]:
            rates = rule.inv_freq(rotary_dim, length=length)
            return tuple(rates.tolist()), float(rule.attention_factor_at(length))

        beyond = at(int(rule.trained_length) + 1) if isinstance(rule, LongRoPE) else None
        return cls(rule, rotary_dim, at(1), beyond)

    def at(self, length: Tensor) -> tuple[Float[Tensor, "*length pairs"], Float[Tensor, "*length 1"]]:
        """The rates and the factor for each of many lengths, float64.

        Raises:
            ValueError: a rule of a user's own, which is written in NumPy, for lengths whose values cannot be read.
        """
        if may_look(length):
            return self._by_numpy(length)
        length = length.to(float64_device(length.device))
        rates = torch.tensor(self.within[0], dtype=torch.float64, device=length.device)
        if isinstance(self.rule, DynamicNTK):
            present = length.to(torch.float64).clamp(min=self.rule.trained_length)
            exponents = torch.tensor(
                [-pair / (self.rotary_dim - 2) for pair in range(0, self.rotary_dim, 2)],
                dtype=torch.float64,
                device=length.device,
            )
            factors = torch.full_like(present, self.within[1])
            return rates * self.rule.stretch(present)[..., None] ** exponents, factors[..., None]
        if isinstance(self.rule, LongRoPE) and self.beyond is not None:
            is_long = (length > self.rule.trained_length)[..., None]
            long_rates = torch.tensor(self.beyond[0], dtype=torch.float64, device=length.device)
            factors = torch.where(is_long, self.beyond[1], self.within[1])
            return torch.where(is_long, long_rates, rates), factors.to(torch.float64)
        lengths = length.cpu()
        if not may_look(lengths):
            raise ValueError(
                f"{type(self.rule).__name__}: got lengths whose values cannot be read under a compiler or a "
                "transform, expected plain tensors, because the rates of this rule are computed in NumPy; call the "
                "encoding outside of the compiled or transformed function."
            )
        rates, factors = self._by_numpy(lengths)
        return rates.to(length.device), factors.to(length.device)

    def _by_numpy(self, length: Tensor) -> tuple[Tensor, Tensor]:
        distinct, where = torch.unique(length, return_inverse=True)
        rates = torch.from_numpy(self.rule.inv_freq(self.rotary_dim, length=distinct.numpy()))
        factors = torch.from_numpy(self.rule.attention_factor_at(distinct.numpy()))
        return rates[where], factors[where][..., None]

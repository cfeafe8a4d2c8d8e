"""The scores of attention from scaled dot products, a bias and two temperatures: the one place where they meet."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posenc.kernels.biased_attention.content import Content, ScoreMod
from posenc.kernels.biased_attention.score_mod import score_mod
from posenc.kernels.precision import compute_dtype


@dataclass(frozen=True)  # torch.compile of PyTorch 2.10 sees no property of a named tuple
class Temperatures:
    """What multiplies the scaled dot products of each query, and what multiplies its scores, the bias included.

    Each is a number, or a tensor ``(*batch, heads or 1, q_len, 1)``.
    """

    products: Tensor | float = 1.0
    scores: Tensor | float = 1.0

    @property
    def of_products(self) -> Tensor | float:
        """What the dot products are multiplied by in all."""
        return self.products * self.scores

    @property
    def leaves_the_bias(self) -> bool:
        """Whether the bias is added as it is."""
        return not isinstance(self.scores, Tensor) and self.scores == 1


def combined(products: Tensor, bias: Tensor | None, temperatures: Temperatures) -> Tensor:
    """tau_s (tau_p products + bias). Products of minus infinity, which a mask has taken away, stay so."""
    factor = temperatures.of_products
    if isinstance(factor, Tensor):  # minus infinity times a temperature of 0 would be NaN
        scores = torch.where(products.isneginf(), products, products * factor.to(products.dtype))
    else:
        scores = scaled(products, factor)
    return scores if bias is None else scores + scaled(bias.to(products.dtype), temperatures.scores)


def scaled(x: Tensor, temperature: Tensor | float) -> Tensor:
    """Queries, products or a bias times the temperature of their queries, rounded once."""
    if isinstance(temperature, Tensor):
        return (x * temperature.to(compute_dtype(x.dtype))).to(x.dtype)
    return x if temperature == 1 else x * temperature


@dataclass(frozen=True)
class WithTemperature:
    """Place 3 of an encoding, temperature and bias as one bias: what a kernel is given where the two do not separate.

    A bias of positions is multiplied by the temperature of the scores; the dot products are the caller's to multiply.
    A contextual encoding reads dot products without a temperature, so there all of it is added at once.

    Attributes:
        encoding: whose temperatures they are.
        part: the part of it that acts on the scores.
    """

    encoding: Any
    part: Any

    relative = False  # a temperature depends on the position of the query

    @property
    def num_heads(self) -> int:
        return int(self.part.num_heads)

    def relative_below(self) -> float:
        return 0.0

    @property
    def factors_are_exact(self) -> bool:
        return bool(getattr(self.part, "factors_are_exact", False))

    @property
    def factors_are_causal(self) -> bool:
        return bool(getattr(self.part, "factors_are_causal", False))

    def parameters(self) -> Iterator[Tensor]:
        """All that may be learned at place 3."""
        parameters: Iterator[Tensor] = self.encoding.parameters()
        return parameters

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return scaled(self.part.bias(q_positions, k_positions), self.encoding.temperatures(q_positions).scores)

    def factors(self, q_positions: Tensor, k_positions: Tensor) -> tuple[Tensor, Tensor] | None:
        factors = self.part.factors(q_positions, k_positions)
        if factors is None:
            return None
        return scaled(factors[0], self.encoding.temperatures(q_positions).scores), factors[1]

    def score_mod(self, q_positions: Tensor, k_positions: Tensor) -> ScoreMod:
        return score_mod(self.bias, q_positions, k_positions, heads=self.num_heads, relative=False)

    def contextual_bias(self, content: Content) -> Tensor:
        """What makes tau_s (tau_p products + bias) of the products."""
        products = content.scores.masked_fill(content.scores.isneginf(), 0.0)
        bias = self.part.contextual_bias(content)
        return combined(products, bias, self.encoding.temperatures(content.q_positions)) - products

    def on_values(self, weights: Tensor, q_positions: Tensor, k_positions: Tensor) -> Tensor | None:
        added: Tensor | None = self.part.on_values(weights, q_positions, k_positions)
        return added

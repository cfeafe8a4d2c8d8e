"""Sandwich: sinusoids on both sides of the scores."""

from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from posenc.encoding import ScoreEncoding
from posenc.kernels.precision import exact_positions
from posenc.scores._distance import distance
from posenc.scores._heads import given_for_heads


@final
class Sandwich(ScoreEncoding):
    r"""Sandwich: the bias is the dot product of two sinusoidal codes, with a smaller factor in each next head.

    Place: scores. Learned: nothing. Relative: yes. Keys may be cached: yes.

    .. math::  s_{hij} \leftarrow s_{hij} + m_h \Big( \sum_{c=1}^{D/2}
        \cos\big((i - j)\,\theta_c\big) - \frac{D}{2} \Big), \qquad \theta_c = 10\,000^{-2c/D}, \quad
        m_h = \frac{H}{8h}, \quad h = 1, \dots, H

    Here :math:`i, j` are the positions of query and key in tokens, :math:`H` is ``num_heads``, :math:`D` is
    ``code_dim``, :math:`m_h` is the strength of a head and :math:`\theta_c` is in radians per token. The sum is
    :math:`\langle p(i), p(j) \rangle` of sinusoidal codes and falls about as the logarithm of the distance.

    Args:
        num_heads: :math:`H`.
        code_dim: :math:`D`, even; 128 in the paper.
        rule: "nemo": :math:`m_h = H / (8h)`. Or the strengths themselves, one number for each head, 0 or above: for
            some heads of a larger model (tensor parallelism; see the example), or with 0 for a head without a bias.

    Shape:
        bias: ``q_positions (q_len,)``, ``k_positions (k_len,)`` -> ``(heads, q_len, k_len)``

    Precision: computed in float64 and rounded once to float32.

    Raises:
        ValueError: ``num_heads`` below 1, ``code_dim`` odd or below 2, an unknown rule, strengths that are not one
            number of 0 or above for each head.

    Example:
        >>> Sandwich(num_heads=2).bias(torch.tensor([1]), torch.arange(2))[0].round(decimals=3)
        tensor([[-0.3620, 0.0000]])

        Heads 4 to 7 of a model of 8 heads, for the second of two processes that share the heads:

        >>> Sandwich(num_heads=4, rule=Sandwich(num_heads=8).strengths[4:]).strengths
        (0.2, 0.16666666666666666, 0.14285714285714285, 0.125)

    Differs from the paper: the paper's compression of the heads is a range of ratios; the factor 8h/H is that of
    NVIDIA NeMo. Frequencies start at c = 1, not 0, there and here.

    References:
        Chi, Fan, Rudnicky, Ramadge. Dissecting Transformer Length Extrapolation via the Lens of Receptive Field
        Analysis. 2022. arXiv:2212.10356, section 5; NVIDIA/NeMo, sandwich_relative_position_embedding.py.
    """

    relative = True
    bias_is_pure = True

    def __init__(
        self, num_heads: int, *, code_dim: int = 128, rule: Literal["nemo"] | Sequence[float] = "nemo"
    ) -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"Sandwich: got num_heads {num_heads}, expected at least 1.")
        if code_dim < 2 or code_dim % 2:
            raise ValueError(f"Sandwich: got code_dim {code_dim}, expected an even number of at least 2.")
        self.num_heads = num_heads
        self.code_dim = code_dim
        if isinstance(rule, str) and rule != "nemo":
            raise ValueError(
                f'Sandwich: got rule {rule!r}, expected "nemo", or one strength for each head, such as '
                "rule=(0.5, 0.25)."
            )
        self.rule = rule if isinstance(rule, str) else given_for_heads("Sandwich", "strength", rule, num_heads)

    @property
    def inv_freq(self) -> tuple[float, ...]:
        """theta_c for c = 1 .. D/2, in radians per token."""
        return tuple(10_000 ** (-2 * c / self.code_dim) for c in range(1, self.code_dim // 2 + 1))

    @property
    def strengths(self) -> tuple[float, ...]:
        """m_h for each head."""
        if not isinstance(self.rule, str):
            return self.rule
        return tuple(self.num_heads / (8 * h) for h in range(1, self.num_heads + 1))

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"]:
        far = distance(q_positions, k_positions)
        total = torch.full_like(far, -self.code_dim / 2)
        for theta in self.inv_freq:  # one wave at a time: all at once would take code_dim / 2 times the memory
            total += (far * theta).cos()
        strengths = torch.tensor(self.strengths, dtype=far.dtype, device=far.device)
        return (strengths[:, None, None] * total[..., None, :, :]).float().to(q_positions.device)

    def factors(self, q_positions: Tensor, k_positions: Tensor) -> tuple[Tensor, Tensor]:
        """``code_dim`` channels: cos(a - b) = cos a cos b + sin a sin b. The constant does not change the softmax."""
        theta = torch.tensor(self.inv_freq, dtype=torch.float64, device="cpu")
        strengths = torch.tensor(self.strengths, dtype=torch.float64, device="cpu")[:, None, None]

        def code(positions: Tensor) -> Tensor:
            angle = exact_positions(positions)[..., None].cpu() * theta
            return torch.cat((angle.cos(), angle.sin()), dim=-1)[..., None, :, :]

        left, right = (
            strengths * code(q_positions),
            code(k_positions).expand(*[-1] * (k_positions.ndim - 1), self.num_heads, -1, -1),
        )
        return left.float().to(q_positions.device), right.float().to(k_positions.device)

"""Attention with linear biases."""

import math
from collections.abc import Sequence
from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from posenc.encoding import ScoreEncoding
from posenc.kernels.precision import exact_positions
from posenc.scores._heads import given_for_heads

Rule = Literal["authors", "mpt", "geometric"]


@final
class ALiBi(ScoreEncoding):
    r"""Attention with linear biases: the score falls in proportion to the distance, at a different rate in each head.

    Place: scores. Learned: nothing. Relative: yes. Keys may be cached: yes.

    .. math::  s_{hij} \leftarrow s_{hij} - m_h\,|i - j|, \qquad m_h = c\,2^{-Bh/H}, \quad h = 1, \dots, H

    Here :math:`i, j` are the positions of query and key in tokens, :math:`H` is ``num_heads``, :math:`B` is
    ``max_bias`` (8 in the paper), :math:`c` is ``strength`` (1 in the paper) and :math:`m_h` is in 1/token. If
    :math:`H` is no power of two the paper leaves the slopes open, and ``rule`` decides.

    Args:
        num_heads: :math:`H`, at least 1.
        rule: "authors": the slopes of the next lower power of two, then every second slope of the next higher one
            (the authors' code; BLOOM, Falcon). "mpt": the slopes of the next higher power of two, first the second,
            fourth, ... and then the first, third, ... (MPT). "geometric": :math:`2^{-Bh/H}` in this case too. Or the
            slopes themselves, one number for each head, 0 or above, in 1/token, which :math:`c` multiplies: for some
            heads of a larger model (tensor parallelism; see the example), or with 0 for a head without a bias.
        max_bias: :math:`B`, above 0: the slope of the last head is :math:`2^{-B}`. MPT's ``alibi_bias_max``,
            llama.cpp's ``max_alibi_bias``; MPT-7B-StoryWriter has 16.
        strength: :math:`c`, above 0. Falcon divides dot products and biases together by sqrt(head_dim), so its models
            have 1 / sqrt(head_dim).

    Shape:
        bias: ``q_positions (q_len,)``, ``k_positions (k_len,)`` -> ``(heads, q_len, k_len)``

    Precision: distances are formed in float64 and rounded once to float32 (exact for whole positions up to 2**24
    apart), slope and product are each rounded once. The bias is not multiplied by the softmax scale (the paper's
    footnote).

    Raises:
        ValueError: ``num_heads`` below 1, an unknown rule, slopes that are not one number of 0 or above for each head,
            a ``max_bias`` together with slopes, or a ``max_bias`` or ``strength`` that is not above 0.

    Example:
        >>> ALiBi(num_heads=2).bias(torch.arange(3), torch.arange(3))[0, 2]
        tensor([-0.1250, -0.0625, -0.0000])

        Heads 4 to 7 of a model of 8 heads, for the second of two processes that share the heads:

        >>> ALiBi(num_heads=4, rule=ALiBi(num_heads=8).slopes[4:]).slopes
        (0.03125, 0.015625, 0.0078125, 0.00390625)

    Differs from the paper: the paper's ALiBi is causal; this one uses the absolute distance, so that an encoder can use
    it too.

    References:
        Press, Smith, Lewis. Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation.
        2022. arXiv:2108.12409, section 3; slopes: ofirpress/attention_with_linear_biases,
        fairseq/models/transformer.py.
    """

    relative = True
    factors_are_causal = True
    bias_is_pure = True

    def __init__(
        self,
        num_heads: int,
        *,
        rule: Rule | Sequence[float] = "authors",
        max_bias: float = 8.0,
        strength: float = 1.0,
    ) -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"ALiBi: got num_heads {num_heads}, expected at least 1.")
        for name, value in (("max_bias", max_bias), ("strength", strength)):
            if not 0 < value < math.inf:
                raise ValueError(f"ALiBi: got {name} {value}, expected a finite number above 0.")
        self.num_heads = num_heads
        self.rule = rule if isinstance(rule, str) else given_for_heads("ALiBi", "slope", rule, num_heads)
        if not isinstance(rule, str) and max_bias != 8.0:
            raise ValueError(
                f"ALiBi: got max_bias {max_bias} together with slopes, expected one of the two, because max_bias is "
                "used only to compute slopes; leave max_bias out."
            )
        if isinstance(rule, str) and rule not in get_args(Rule):
            raise ValueError(
                f"ALiBi: got rule {rule!r}, expected one of {get_args(Rule)}, or one slope for each head, such as "
                "rule=(0.5, 0.25)."
            )
        self.max_bias = max_bias
        self.strength = strength

    @property
    def slopes(self) -> tuple[float, ...]:
        """m_h for each head, in 1/token."""
        if not isinstance(self.rule, str):
            return tuple(self.strength * slope for slope in self.rule)
        heads = self.num_heads
        lower = 2 ** int(math.log2(heads))
        if self.rule == "geometric" or lower == heads:
            return self._ladder(heads)
        finer = self._ladder(2 * lower)
        ordered = self._ladder(lower) + finer[::2] if self.rule == "authors" else finer[1::2] + finer[::2]
        return ordered[:heads]

    def _ladder(self, heads: int) -> tuple[float, ...]:
        return tuple(self.strength * 2 ** (-self.max_bias * h / heads) for h in range(1, heads + 1))

    def factors(self, q_positions: Tensor, k_positions: Tensor) -> tuple[Tensor, Tensor]:
        """One channel: 1 for the query, m_h j for the key. Right for keys at or before the query."""
        slopes = torch.tensor(self.slopes, dtype=torch.float64, device="cpu")[:, None, None]
        # Softmax does not see -m_h i, which is the same for all keys; j from the middle keeps the products small.
        j = exact_positions(k_positions)
        centred = (j - j.mean(dim=-1, keepdim=True))[..., None, :, None].cpu()
        right = (slopes * centred).to(torch.float32).to(k_positions.device)
        return right.new_ones(1, q_positions.shape[-1], 1).expand(self.num_heads, -1, -1), right

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"]:
        distance = (exact_positions(q_positions)[..., :, None] - exact_positions(k_positions)[..., None, :]).abs()
        slopes = torch.tensor(self.slopes, dtype=torch.float32, device=q_positions.device)
        return -slopes[:, None, None] * distance.to(torch.float32).to(q_positions.device)[..., None, :, :]

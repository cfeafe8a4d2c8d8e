"""Attention with linear biases."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from posenc.encoding import ScoreEncoding
from posenc.kernels.precision import as_float64


class ALiBi(ScoreEncoding):
    r"""Attention with linear biases: each head fades with distance at its own rate.

    Place: scores. Learned: nothing. Relative: yes. Keys may be cached: yes.

    .. math::  s_{hij} \leftarrow s_{hij} - m_h\,|i - j|, \qquad m_h = 2^{-8h/H}, \quad h = 1, \dots, H

    Here :math:`i, j` are the positions of query and key in tokens, :math:`H` is ``num_heads`` and :math:`m_h` is in
    1/token. If :math:`H` is not a power of two, the slopes of the next lower power come first, then every second
    slope of the next higher one (the authors' code; the paper leaves it open).

    Args:
        num_heads: :math:`H`, at least 1.

    Shape:
        bias: ``q_positions (q_len,)``, ``k_positions (k_len,)`` -> ``(heads, q_len, k_len)``

    Precision: distances are formed in float64 and rounded once to float32 (exact for whole positions up to 2**24
    apart), slope and product are each rounded once. The bias is not multiplied by the softmax scale (the paper's
    footnote).

    Raises:
        ValueError: ``num_heads`` below 1.

    Example:
        >>> ALiBi(num_heads=2).bias(torch.arange(3), torch.arange(3))[0, 2]
        tensor([-0.1250, -0.0625, -0.0000])

    Differs from the paper: the paper is causal; the distance is taken without sign here, so that an encoder can use
    it too.

    References:
        Press, Smith, Lewis. Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation.
        2022. arXiv:2108.12409, section 3; slopes: ofirpress/attention_with_linear_biases,
        fairseq/models/transformer.py.
    """

    relative = True

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"ALiBi: got num_heads {num_heads}, expected at least 1.")
        self.num_heads = num_heads

    @property
    def slopes(self) -> tuple[float, ...]:
        """m_h for each head, in 1/token."""
        lower = 2 ** int(math.log2(self.num_heads))
        ladder = [2 ** (-8 * (h + 1) / lower) for h in range(lower)]
        finer = [2 ** (-8 * (h + 1) / (2 * lower)) for h in range(0, 2 * lower, 2)]
        return tuple((ladder + finer)[: self.num_heads])

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"]:
        distance = (as_float64(q_positions)[..., :, None] - as_float64(k_positions)[..., None, :]).abs()
        slopes = torch.tensor(self.slopes, dtype=torch.float32, device=q_positions.device)
        return -slopes[:, None, None] * distance.to(torch.float32).to(q_positions.device)[..., None, :, :]

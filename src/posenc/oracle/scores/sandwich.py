"""Sandwich: the dot product of two sinusoidal codes, added to the scores as a bias."""

import numpy as np
import numpy.typing as npt


def bias(
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    num_heads: int,
    code_dim: int,
    rule: str | tuple[float, ...] = "nemo",
    base: float = 10_000.0,
) -> npt.NDArray[np.float64]:
    """What each head adds to the score of each query and key; it is never above 0.

        b(h, i, j) = (sum over c of cos((i - j) base^(-2 c / D)) - D / 2) m(h)              c = 1 .. D / 2

    D is `code_dim`, n is `num_heads`, h = 1 .. n, and m(h) is n / (8 h) with the rule "nemo", or number h of the rule.
    The sum is <p(i), p(j)> of sinusoidal codes. D / 2 is its value at i = j, its largest: there the bias is 0.

    Reference: Chi et al., arXiv 2212.10356, section 5; the constant 8 h / n as in NVIDIA NeMo's
    SandwichRelativePositionEmbedding.
    """
    i = np.asarray(q_positions, dtype=np.float64)[..., :, None]
    j = np.asarray(k_positions, dtype=np.float64)[..., None, :]
    total = np.zeros(np.broadcast_shapes(i.shape, j.shape))
    for c in range(1, code_dim // 2 + 1):
        total = total + np.cos((i - j) * base ** (-2 * c / code_dim))
    b = np.empty((*total.shape[:-2], num_heads, *total.shape[-2:]))
    for h in range(1, num_heads + 1):
        b[..., h - 1, :, :] = (total - code_dim / 2) * (num_heads / (8 * h) if rule == "nemo" else float(rule[h - 1]))
    return b

"""T5's relative position bias."""

from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posenc.encoding import ScoreEncoding
from posenc.scores._distance import distance, looked_up, working

Direction = Literal["causal", "both"]
Scale = Literal["sqrt", "none"]


@final
class T5Bias(ScoreEncoding):
    r"""A learned number for each bucket of distances: near distances have a bucket each, far ones share buckets.

    Place: scores. Learned: ``table``. Relative: yes. Keys may be cached: yes.

    .. math::  s_{hij} \leftarrow s_{hij} + w_{\beta(i-j),\,h}, \qquad
        \beta(n) = \begin{cases} n & n < m \\
        \min\big(m + \big\lfloor (B-m) \frac{\ln(n/m)}{\ln(D/m)} \big\rfloor,\, B-1\big) & n \ge m \end{cases}

    Here :math:`i, j` are the positions of query and key in tokens, :math:`B` is ``num_buckets``, :math:`D` is
    ``max_distance`` in tokens, :math:`m = B/2` and :math:`w` is ``table``. With ``direction="causal"`` keys after the
    query count as distance 0; with "both", half of the buckets serve keys at or before the query, by :math:`|i-j|`,
    and the other half those after it. A fractional distance is rounded down.

    T5 shares one table among all layers of a stack: make one object and pass it to each of them.

    Args:
        num_heads: number of heads.
        num_buckets: :math:`B`.
        max_distance: :math:`D`; all distances from there on share a bucket.
        direction: "causal" (a decoder; :func:`posenc.attention` refuses it if a query sees keys after itself) or "both"
            (an encoder).
        scale: the factor of the dot products. "sqrt": 1 / sqrt(head_dim), as everywhere else. "none": 1, as
            in T5, which has the factor in its initial weights instead: choose it for T5's own checkpoints.

    Shape:
        bias: ``q_positions (q_len,)``, ``k_positions (k_len,)`` -> ``(heads, q_len, k_len)``

    Precision: bucket edges are found in exact integers, so a distance falls into the same bucket on every device. The
    bias is a row of the table, unrounded.

    Raises:
        ValueError: a ``num_buckets`` that is no multiple of 4 (of 2 for "causal"); a ``max_distance`` of :math:`m` or
            less; an unknown direction or scale.

    Example:
        >>> T5Bias(num_heads=2).bias(torch.arange(3), torch.arange(3)).shape
        torch.Size([2, 3, 3])

    Differs from the paper: nothing; the paper gives B = 32 and D = 128 and leaves the formula to its code.

    References:
        Raffel et al. Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer. 2019.
        arXiv:1910.10683, section 2.1; mesh_tensorflow/transformer/transformer_layers.py.
    """

    relative = True
    bias_is_pure = True

    def __init__(
        self,
        num_heads: int,
        *,
        num_buckets: int = 32,
        max_distance: int = 128,
        direction: Direction = "causal",
        scale: Scale = "sqrt",
    ) -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"T5Bias: got num_heads {num_heads}, expected at least 1.")
        if direction not in get_args(Direction) or scale not in get_args(Scale):
            raise ValueError(
                f"T5Bias: got direction {direction!r} and scale {scale!r}, expected one of {get_args(Direction)} and "
                f"one of {get_args(Scale)}."
            )
        one_way = num_buckets // 2 if direction == "both" else num_buckets
        if num_buckets % 2 or one_way < 2 or one_way % 2 or max_distance <= one_way // 2:
            raise ValueError(
                f"T5Bias: got num_buckets {num_buckets} and max_distance {max_distance}, expected num_buckets to be a "
                f'multiple of {4 if direction == "both" else 2} for direction="{direction}", and max_distance above '
                f"{max(one_way // 2, 1)}, the number of distances that have their own bucket."
            )
        self.num_heads = num_heads
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.direction = direction
        self.causal_only = direction == "causal"
        self.scale = scale
        self.edges = _edges(one_way, max_distance)
        self.table = nn.Parameter(torch.empty(num_buckets, num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from a normal distribution of standard deviation 0.02."""
        nn.init.normal_(self.table, std=0.02)

    def softmax_scale(self, head_dim: int) -> float:
        return 1.0 if self.scale == "none" else head_dim**-0.5

    def buckets(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        """The row of the table for each query and key, int64."""
        n = distance(q_positions, k_positions)
        edges = torch.tensor(self.edges, dtype=n.dtype, device=n.device)
        far = n.abs() if self.direction == "both" else n.clamp(min=0)
        found = torch.bucketize(far.contiguous(), edges, right=True)  # of a row for all it would warn, and copy it too
        if self.direction == "both":
            found = found + (n < 0) * (self.num_buckets // 2)
        return found.to(q_positions.device)

    def of_positions(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        """The buckets: the part of the bias that depends on positions and not on parameters."""
        return self.buckets(q_positions, k_positions)

    def bias_from(self, of_positions: Tensor) -> Tensor:
        """The bias from the result of :meth:`of_positions`."""
        return looked_up(working(self.table).T, of_positions)

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"]:
        return self.bias_from(self.of_positions(q_positions, k_positions))


def _edges(buckets: int, max_distance: int) -> tuple[int, ...]:
    """The first distance of each bucket but the first, in tokens."""
    exact = buckets // 2
    wide = buckets - exact
    edges = list(range(1, exact + 1))
    for e in range(1, wide):
        # The least n with wide ln(n / exact) / ln(D / exact) >= e: guessed in floating point, settled in integers.
        n = max(exact, int(exact * (max_distance / exact) ** (e / wide)) - 2)
        while n**wide < exact ** (wide - e) * max_distance**e:
            n += 1
        edges.append(n)
    return tuple(edges)

"""Shaw's relative position representations."""

from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posenc.encoding import ContextualEncoding
from posenc.kernels.biased_attention.content import Content
from posenc.scores._distance import distance

Values = Literal["learned", "none"]
Beyond = Literal["last", "nothing"]


@final
class Shaw(ContextualEncoding):
    r"""A learned vector for each clipped distance is added to the key, and another one to the value.

    Place: scores. Learned: ``keys``, ``values_table``. Relative: yes. Keys may be cached: yes.

    .. math::  s_{hij} = s\; q_{hi} \cdot \big(k_{hj} + a^K_{r}\big), \qquad
        y_{hi} = \sum_j \alpha_{hij} \big(v_{hj} + a^V_{r}\big), \qquad r = \mathrm{clip}(j - i, -R, R)

    Here :math:`i, j` are the positions of query and key in tokens, :math:`R` is ``reach`` in tokens, :math:`s` the
    scale, :math:`\alpha` the attention weights, :math:`a^K` is ``keys`` and :math:`a^V` is ``values_table``, one row
    for each of 2R + 1 distances, shared by the heads: row :math:`R + r`. The product of a query with
    the 2R + 1 rows is computed once, not for each pair.

    Args:
        num_heads: number of heads.
        head_dim: channels of a head.
        reach: :math:`R`.
        values: "learned" adds to the values too; "none" does not.
        beyond: the vector for keys further than ``reach``. "last": the last row (the paper). "nothing": zeros (VITS).

    Shape:
        contextual_bias: ``(batch, heads, q_len, k_len)``; on_values: ``(batch, heads, q_len, head_dim)``

    Precision: in float32, or float64 for float64. Fractional distances are rounded.

    Raises:
        ValueError: sizes below 1, an unknown option, queries of another head_dim, or with "learned" values of another.

    Example:
        >>> import posenc
        >>> q = torch.randn(1, 2, 5, 8)
        >>> posenc.attention(q, q, q, Shaw(num_heads=2, head_dim=8, reach=4)).shape
        torch.Size([1, 2, 5, 8])

    Differs from the paper: nothing, with the defaults. The paper clips at 16 for its base model.

    References:
        Shaw, Uszkoreit, Vaswani. Self-Attention with Relative Position Representations. 2018. arXiv:1803.02155,
        equations 3 and 4.
    """

    relative = True

    def __init__(
        self, num_heads: int, head_dim: int, *, reach: int = 16, values: Values = "learned", beyond: Beyond = "last"
    ) -> None:
        super().__init__()
        if num_heads < 1 or head_dim < 1 or reach < 1:
            raise ValueError(
                f"Shaw: got num_heads {num_heads}, head_dim {head_dim} and reach {reach}, expected at least 1 each."
            )
        if values not in get_args(Values) or beyond not in get_args(Beyond):
            raise ValueError(
                f"Shaw: got values {values!r} and beyond {beyond!r}, expected one of {get_args(Values)} and one of "
                f"{get_args(Beyond)}."
            )
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.reach = reach
        self.values = values
        self.value_dim = head_dim if values == "learned" else None
        self.beyond = beyond
        self.keys = nn.Parameter(torch.empty(2 * reach + 1, head_dim))
        self.values_table = nn.Parameter(torch.empty(2 * reach + 1, head_dim)) if values == "learned" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from a normal distribution of variance 1 / head_dim."""
        for table in self.parameters():
            nn.init.normal_(table, std=self.head_dim**-0.5)

    def contextual_bias(self, content: Content) -> Float[Tensor, "batch heads q_len k_len"]:
        q = content.q
        if q.shape[-1] != self.head_dim:
            raise ValueError(
                f"Shaw: q has head_dim {q.shape[-1]} but this encoding was built for head_dim {self.head_dim}; build "
                f"it with head_dim={q.shape[-1]}."
            )
        by_row = content.scale * q @ self.keys.to(q.dtype).T
        rows, near = self._rows(content.q_positions, content.k_positions)
        bias = by_row.gather(-1, rows.expand(*q.shape[:3], -1))
        return bias if near is None else bias * near

    def on_values(
        self, weights: Float[Tensor, "batch heads q_len k_len"], q_positions: Tensor, k_positions: Tensor
    ) -> Tensor | None:
        if self.values_table is None:
            return None
        rows, near = self._rows(q_positions, k_positions)
        weights = weights if near is None else weights * near
        by_row = weights.new_zeros(*weights.shape[:-1], 2 * self.reach + 1)
        by_row = by_row.scatter_add(-1, rows.expand(weights.shape), weights)
        return by_row @ self.values_table.to(weights.dtype)

    def _rows(self, q_positions: Tensor, k_positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """The row of each pair, ``([batch,] 1, q_len, k_len)``, and where there is one."""
        ahead = -distance(q_positions, k_positions).round().long().to(q_positions.device)
        ahead = ahead.unsqueeze(-3)
        rows = ahead.clamp(-self.reach, self.reach) + self.reach
        return rows, ahead.abs() <= self.reach if self.beyond == "nothing" else None

"""CoPE: contextual positions."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from posenc.encoding import ContextualEncoding
from posenc.kernels.biased_attention import counting
from posenc.kernels.biased_attention.content import Content


@final
class CoPE(ContextualEncoding):
    r"""CoPE: a query counts the tokens that matter to it, from the key to itself; this count is the key's position.

    Place: scores. Learned: ``table``. Relative: yes, no position is read. Keys may be cached: yes.

    .. math::  s_{hij} \leftarrow s_{hij} + s\, q_{hi} \cdot e[p_{hij}], \qquad
        p_{hij} = \min\Big( \sum_{k=j}^{i} g_{hik},\, P - 1 \Big), \qquad g_{hik} = \sigma(s_{hik})

    Here :math:`i, j, k` count tokens, :math:`s_{hij}` are the scores and :math:`s` their scale, :math:`e` is ``table``
    and :math:`P` is ``length``, in counted tokens. Between two whole counts the product is interpolated. Masked keys
    are not counted, and neither are keys after the query, even where the attention is not causal. Decoding step by step
    needs no state besides the keys.

    Args:
        num_heads: number of heads.
        head_dim: channels of a head.
        length: :math:`P`, how far a query can count; the authors take the block size plus one, or 64.

    Shape:
        by_count: ``(batch, heads, q_len, head_dim)`` -> ``(batch, heads, q_len, length)``
        contextual_bias: ``(batch, heads, q_len, k_len)``

    Precision: counts are summed in the dtype of the arithmetic, float32 for all narrower inputs.

    Raises:
        ValueError: sizes below 1, or queries of another head_dim.

    Example:
        >>> import posenc
        >>> q = torch.randn(1, 2, 5, 8)
        >>> posenc.attention(q, q, q, CoPE(num_heads=2, head_dim=8, length=64), causal=True).shape
        torch.Size([1, 2, 5, 8])

    Differs from the paper: the scores that open the gates, and what is added, are divided by sqrt(head_dim), as the
    authors' code does and the paper's equations do not show.

    References:
        Golovneva, Wang, Weston, Sukhbaatar. Contextual Position Encoding: Learning to Count What's Important. 2024.
        arXiv:2405.18719, equations 3 to 6; facebookresearch/RAM, projects/cope/src/cope/context_position.py.
    """

    relative = True
    reads_positions = False

    def __init__(self, num_heads: int, head_dim: int, *, length: int = 64) -> None:
        super().__init__()
        if num_heads < 1 or head_dim < 1 or length < 1:
            raise ValueError(
                f"CoPE: got num_heads {num_heads}, head_dim {head_dim} and length {length}, expected at least 1 each."
            )
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.length = length
        self.table = nn.Parameter(torch.empty(length, head_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the table to zeros, as the authors do."""
        nn.init.zeros_(self.table)

    @property
    def count_table(self) -> Tensor:
        """The matrix by which :meth:`by_count` multiplies the scaled queries."""
        return self.table

    def by_count(
        self, q: Float[Tensor, "batch heads q_len head_dim"], scale: float
    ) -> Float[Tensor, "batch heads q_len length"]:
        """The bias at each whole count: the scaled products of queries and table."""
        if q.shape[-1] != self.head_dim:
            raise ValueError(
                f"CoPE: q has head_dim {q.shape[-1]} but this encoding was built for head_dim {self.head_dim}; build "
                f"it with head_dim={q.shape[-1]}."
            )
        return F.linear(scale * q, self.table.to(q.dtype))

    def contextual_bias(self, content: Content) -> Float[Tensor, "batch heads q_len k_len"]:
        gates = content.scores.sigmoid()  # 0 where a key is masked
        if not content.causal:  # and after the query
            queries, keys = (torch.arange(n, device=gates.device) for n in gates.shape[-2:])
            gates = gates.masked_fill(keys > (queries + content.offset)[:, None], 0.0)
        return counting.bias(self.by_count(content.q, content.scale), gates)

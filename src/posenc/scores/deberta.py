"""DeBERTa's disentangled attention."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from posenc.encoding import ContextualEncoding
from posenc.kernels.biased_attention.content import Content
from posenc.kernels.precision import without_autocast
from posenc.scores._distance import distance
from posenc.scores._linear import ExactLinear


@final
class DeBERTa(ContextualEncoding):
    r"""DeBERTa: a score also contains the query times a learned vector of the distance, and the key times another.

    Place: scores. Learned: ``table``, ``q_proj``, ``k_proj``. Relative: yes. Keys may be cached: yes.

    .. math::  s_{hij} = \frac{1}{\sqrt{3d}} \big( q_{hi} \cdot k_{hj} + q_{hi} \cdot K^r_{h,\delta(i-j)} +
        k_{hj} \cdot Q^r_{h,\delta(i-j)} \big), \qquad \delta(n) = \mathrm{clip}\big(g(n) + S,\, 0,\, 2S - 1\big)

    Here :math:`i, j` are the positions of query and key in tokens, :math:`d` is ``dim / num_heads``, :math:`S` is
    ``span``, and :math:`Q^r, K^r` are ``q_proj`` and ``k_proj`` of ``table``. Version 1 has :math:`g(n) = n`; version
    2, with a ``max_distance`` :math:`D`, keeps :math:`|n| \le m = S/2` and spaces the others logarithmically:
    :math:`g(n) = \pm\big(m + \lceil (m-1) \ln(|n|/m) / \ln((D-1)/m) \rceil\big)`.

    :meth:`softmax_scale` passes the factor 1 / sqrt(3d) to attention.

    Args:
        dim: channels of the model.
        num_heads: number of heads, a divisor of ``dim``.
        span: :math:`S`: 512 in version 1, 256 (``position_buckets``) in version 2.
        max_distance: :math:`D` in tokens (``max_relative_positions``, 512) for version 2's buckets; None for version 1.

    Shape:
        contextual_bias: ``(batch, heads, q_len, k_len)``

    Precision: in float32, or float64 for float64; bucket edges are computed in exact integers. Fractional distances are
    rounded.

    Raises:
        ValueError: sizes below 1, heads that do not divide ``dim``, a ``max_distance`` within the exact buckets;
            queries of another head_dim.

    Example:
        >>> import posenc
        >>> q = torch.randn(1, 2, 5, 8)
        >>> posenc.attention(q, q, q, DeBERTa(dim=16, num_heads=2, span=8)).shape
        torch.Size([1, 2, 5, 8])

    Differs from the paper: nothing. In version 2 checkpoints with ``share_att_key`` the projections are those of the
    tokens: copy them. A layer norm is applied to their table first (``norm_rel_ebd``): copy the result.

    References:
        He, Liu, Gao, Chen. DeBERTa: Decoding-enhanced BERT with Disentangled Attention. 2020. arXiv:2006.03654,
        equations 3 and 4; microsoft/DeBERTa, deberta/disentangled_attention.py.
    """

    relative = True

    def __init__(self, dim: int, num_heads: int, *, span: int = 512, max_distance: int | None = None) -> None:
        super().__init__()
        if dim < 1 or num_heads < 1 or dim % num_heads or span < 1:
            raise ValueError(
                f"DeBERTa: got dim {dim}, num_heads {num_heads} and span {span}, expected at least 1 each and a dim "
                "that the heads divide."
            )
        if max_distance is not None and (span < 4 or max_distance - 1 <= span // 2):
            raise ValueError(
                f"DeBERTa: got max_distance {max_distance} for a span of {span}, expected a span of at least 4 and a "
                f"max_distance above {span // 2 + 1}, because each shorter distance has its own row."
            )
        self.dim = dim
        self.num_heads = num_heads
        self.span = span
        self.max_distance = max_distance
        self.edges = () if max_distance is None else _edges(span, max_distance)
        self.table = nn.Parameter(torch.empty(2 * span, dim))
        self.q_proj = ExactLinear(dim, dim)
        self.k_proj = ExactLinear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as BERT: normal distributions of standard deviation 0.02, biases of zero."""
        nn.init.normal_(self.table, std=0.02)
        for projection in (self.q_proj, self.k_proj):
            nn.init.normal_(projection.weight, std=0.02)
            nn.init.zeros_(projection.bias)

    def softmax_scale(self, head_dim: int) -> float:
        return float((3 * head_dim) ** -0.5)

    def contextual_bias(self, content: Content) -> Float[Tensor, "batch heads q_len k_len"]:
        q, k = content.q, content.k
        if q.shape[-1] != self.dim // self.num_heads:
            raise ValueError(
                f"DeBERTa: q has head_dim {q.shape[-1]} but this encoding was built for {self.dim // self.num_heads} = "
                f"dim / num_heads; build it with dim={self.num_heads * q.shape[-1]}."
            )
        k = k if k.shape[1] == self.num_heads else k.repeat_interleave(self.num_heads // k.shape[1], dim=1)
        rows = self.rows(content.q_positions, content.k_positions)
        rows = rows.unsqueeze(-3).expand(*q.shape[:3], -1)
        by_query = (q @ self._rows_of(self.k_proj, q.dtype)).gather(-1, rows)
        by_key = (k @ self._rows_of(self.q_proj, q.dtype)).gather(-1, rows.transpose(-1, -2)).transpose(-1, -2)
        return content.scale * (by_query + by_key)

    def rows(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        """The row of the table for each query and key, int64."""
        n = distance(q_positions, k_positions).round()
        if self.max_distance is not None:
            edges = torch.tensor(self.edges, dtype=n.dtype, device=n.device)
            # Past the exact ones, a bucket ends with its edge: the count of edges below |n| says how many are passed.
            far = self.span // 2 + torch.bucketize(n.abs().contiguous(), edges)
            n = torch.where(n.abs() <= self.span // 2, n, n.sign() * far)
        return (n + self.span).clamp(0, 2 * self.span - 1).long().to(q_positions.device)

    def _rows_of(self, projection: nn.Linear, dtype: torch.dtype) -> Tensor:
        """``(heads, head_dim, 2 span)``."""
        with without_autocast(self.table.device.type):
            flat = F.linear(self.table.to(dtype), projection.weight.to(dtype), projection.bias.to(dtype))
        rows: Tensor = flat.unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0)
        return rows


def _edges(span: int, max_distance: int) -> tuple[int, ...]:
    """The last distance of the bucket m + c for c = 0, 1, ...: the largest n with (m-1) ln(n/m) / ln((D-1)/m) <= c."""
    m, last = span // 2, max_distance - 1
    edges = []
    for c in range(2 * span - m + 1):
        n = int(m * (last / m) ** (c / (m - 1))) + 2
        while n ** (m - 1) * m**c > m ** (m - 1) * last**c:
            n -= 1
        edges.append(n)
    return tuple(edges)

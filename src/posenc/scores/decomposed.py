"""The decomposed bias of MViTv2, ViTDet and SAM."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posenc.encoding import ContextualEncoding
from posenc.kernels.biased_attention.content import Content
from posenc.scores._window import check, check_prefix, offsets


@final
class DecomposedBias(ContextualEncoding):
    r"""The bias is the query times a learned vector of the distance in rows, plus another of the distance in columns.

    Place: scores. Learned: ``rows``, ``columns``. Relative: in rows and columns, not in the patch indices.
    Keys may be cached: yes.

    .. math::  s_{hij} \leftarrow s_{hij} + q_{hi} \cdot \big( R_{y_i - y_j} + C_{x_i - x_j} \big)

    Here :math:`i, j` are the patch indices of query and key, row by row, after the ``prefix``: :math:`y` and :math:`x`
    are their row and column in ``window`` :math:`= (M, N)`. :math:`q` is the query before it is scaled, :math:`R` is
    ``rows`` (2M - 1 vectors, ``rel_pos_h`` in checkpoints) and :math:`C` is ``columns`` (2N - 1 vectors,
    ``rel_pos_w``), shared by the heads. Two short tables replace one of (2M - 1)(2N - 1) vectors; the product of a
    query with each row is computed once.

    A key that was pooled from r x r patches, as in MViTv2, has the index of the last of these: the key of row Y and
    column X has index (rY + r - 1) N + rX + r - 1.

    Args:
        num_heads: number of heads.
        head_dim: channels of a head.
        window: rows and columns of patches; SAM and ViTDet have (14, 14) within windows.
        prefix: tokens before the patches, such as a class token; their scores get no bias.

    Shape:
        contextual_bias: ``(batch, heads, q_len, k_len)``, all positions below prefix + rows times columns

    Precision: in float32, or float64 for float64.

    Raises:
        ValueError: sizes below 1, a prefix below 0; queries of another head_dim; positions past the window or between
            places.

    Example:
        >>> import posenc
        >>> q = torch.randn(1, 2, 49, 8)
        >>> posenc.attention(q, q, q, DecomposedBias(num_heads=2, head_dim=8, window=(7, 7))).shape
        torch.Size([1, 2, 49, 8])

    Differs from the paper: the paper divides the bias by the square root of head_dim as it does the dot products; the
    authors' code, ViTDet and SAM do not, and neither does this class.

    References:
        Li et al. MViTv2: Improved Multiscale Vision Transformers for Classification and Detection. 2021.
        arXiv:2112.01526, section 4.1; facebookresearch/mvit, mvit/models/attention.py.
        Li et al. Exploring Plain Vision Transformer Backbones for Object Detection. 2022. arXiv:2203.16527.
        Kirillov et al. Segment Anything. 2023. arXiv:2304.02643.
    """

    def __init__(self, num_heads: int, head_dim: int, *, window: Sequence[int] = (14, 14), prefix: int = 0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = check("DecomposedBias", num_heads, window)
        if head_dim < 1:
            raise ValueError(f"DecomposedBias: got head_dim {head_dim}, expected at least 1.")
        self.head_dim = head_dim
        self.prefix = check_prefix("DecomposedBias", prefix)
        self.max_positions = prefix + self.window[0] * self.window[1]
        self.rows = nn.Parameter(torch.empty(2 * self.window[0] - 1, head_dim))
        self.columns = nn.Parameter(torch.empty(2 * self.window[1] - 1, head_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from a normal distribution of standard deviation 0.02, as in MViTv2 and ViTDet."""
        for table in (self.rows, self.columns):
            nn.init.trunc_normal_(table, std=0.02)

    def resized(self, rows: int, columns: int) -> "DecomposedBias":
        """A new encoding for another window; each table is interpolated linearly, as in ViTDet and SAM."""
        other = DecomposedBias(self.num_heads, self.head_dim, window=(rows, columns), prefix=self.prefix).to(self.rows)
        with torch.no_grad():
            for new, old in ((other.rows, self.rows), (other.columns, self.columns)):
                if new.shape == old.shape:
                    new.copy_(old)
                else:
                    stretched = nn.functional.interpolate(old.T[None].float(), size=len(new), mode="linear")
                    new.copy_(stretched[0].T)
        return other

    def contextual_bias(self, content: Content) -> Float[Tensor, "batch heads q_len k_len"]:
        q = content.q
        if q.shape[-1] != self.head_dim:
            raise ValueError(
                f"DecomposedBias: q has head_dim {q.shape[-1]} but this encoding was built for head_dim "
                f"{self.head_dim}; build it with head_dim={q.shape[-1]}."
            )
        i, j = content.q_positions, content.k_positions
        dy, dx = offsets("DecomposedBias", i, j, self.window, prefix=self.prefix)
        bias = self._met(q, self.rows, dy) + self._met(q, self.columns, dx)
        if self.prefix:
            inside = (i >= self.prefix)[..., :, None] & (j >= self.prefix)[..., None, :]
            bias = bias * inside.unsqueeze(-3).to(q.device)
        return bias

    def _met(self, q: Tensor, table: Tensor, distance: Tensor) -> Tensor:
        """The products of the queries with the vector of each distance, ``(batch, heads, q_len, k_len)``."""
        by_row = q @ table.to(q.dtype).T
        rows = distance.to(q.device).unsqueeze(-3) + len(table) // 2
        return by_row.gather(-1, rows.clamp(0, len(table) - 1).expand(*q.shape[:3], -1))

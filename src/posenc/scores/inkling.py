"""Inkling's relative logits."""

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
class InklingBias(ContextualEncoding):
    r"""Each query adds up a few learned profiles over the distance, with weights that it computes from its input.

    Place: scores. Learned: ``mix``, ``profiles``, with ``clip`` also ``scale``. Relative: yes. Keys may be cached: yes,
    with the state.

    .. math::  s_{hij} \leftarrow s_{hij} + \sum_{n=1}^{R} r_{hin}\, P_{n,\,i-j} \quad (0 \le i - j < E), \qquad
        r_{hi} = W_h x_i

    Here :math:`i, j` are the positions of query and key in tokens, :math:`x_i` is the input of the attention layer,
    :math:`W` the weight of ``mix`` and :math:`P` is ``profiles``, ``(R, E)``, which all heads share. Other keys get no
    bias. With ``clip`` :math:`c` and ``scale`` :math:`g`:

    .. math::  r_{hi} = u \min\!\big(1, \tfrac{c}{\|u\| + 10^{-6}}\big), \qquad u = g_h \odot W_h x_i

    r is computed from the layer's input: call :meth:`carry` with it, give the state to :func:`posenc.attention`, and
    keep the state with the KV cache:

        state = encoding.carry(x, state)
        y = posenc.attention(q, k, v, encoding, causal=True, state=state)

    Args:
        dim: channels of the layer's input.
        num_heads: number of heads.
        rank: :math:`R`, the number of profiles.
        extent: :math:`E`, the number of distances, in tokens, from 0 on.
        clip: :math:`c`, the largest norm of r. None: r is not changed (Inkling). A number: Inkling 2.

    Shape:
        carry: ``(batch, seq, dim)`` -> ``(batch, heads, rank, all tokens so far)``
        contextual_bias: ``(batch, heads, q_len, k_len)``

    Precision: r in float32, or in float64 for input in float64; the bias in the dtype of the arithmetic. Distances
    between whole ones are rounded.

    Raises:
        ValueError: sizes below 1, a clip that is not above 0, input of another width, a state of another batch, or
            attention without a state.

    Example:
        >>> import posenc
        >>> x, q = torch.randn(1, 5, 16), torch.randn(1, 2, 5, 8)
        >>> encoding = InklingBias(dim=16, num_heads=2, rank=4, extent=8)
        >>> posenc.attention(q, q, q, encoding, causal=True, state=encoding.carry(x)).shape
        torch.Size([1, 2, 5, 8])

    Differs from the models: their scale of the products, 1 / head_dim in Inkling, is given to attention as ``scale=``;
    the factor by position of their global layers is ``Temperature("inkling", ...)``, joined by ``Compose``.

    References:
        transformers 5.24, models/inkling (InklingRelativeLogits) and models/inkling2 (Inkling2RelativePositionBias).
    """

    relative = True

    def __init__(
        self, dim: int, num_heads: int, *, rank: int = 16, extent: int = 1024, clip: float | None = None
    ) -> None:
        super().__init__()
        if min(dim, num_heads, rank, extent) < 1:
            raise ValueError(
                f"InklingBias: got dim {dim}, num_heads {num_heads}, rank {rank} and extent {extent}, expected at "
                "least 1 each."
            )
        if clip is not None and not clip > 0:
            raise ValueError(f"InklingBias: got clip {clip}, expected a number above 0, or None for no clipping.")
        self.dim = dim
        self.num_heads = num_heads
        self.rank = rank
        self.extent = extent
        self.clip = clip
        self.mix = ExactLinear(dim, num_heads * rank, bias=False)
        self.profiles = nn.Parameter(torch.empty(rank, extent))
        self.scale = None if clip is None else nn.Parameter(torch.empty(num_heads, rank))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """PyTorch's start for the linear layer; profiles from a normal distribution of deviation 0.02; scale 1."""
        self.mix.reset_parameters()
        nn.init.normal_(self.profiles, std=0.02)
        if self.scale is not None:
            nn.init.ones_(self.scale)

    def carry(self, x: Float[Tensor, "batch seq dim"], state: Tensor | None = None) -> Tensor:
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(
                f"InklingBias: got x of shape {tuple(x.shape)}, expected (batch, seq, {self.dim}): the input of the "
                "attention layer."
            )
        if state is not None and tuple(state.shape[:3]) != (x.shape[0], self.num_heads, self.rank):
            raise ValueError(
                f"InklingBias: got a state of shape {tuple(state.shape)}, expected ({x.shape[0]}, {self.num_heads}, "
                f"{self.rank}, the number of tokens before x)."
            )
        with without_autocast(x.device.type):
            dtype = torch.promote_types(torch.float32, x.dtype)
            r = F.linear(x.to(dtype), self.mix.weight.to(dtype)).unflatten(-1, (self.num_heads, self.rank))
            if self.clip is not None and self.scale is not None:
                r = r * self.scale.to(dtype)
                r = r * (self.clip / (torch.linalg.vector_norm(r, dim=-1, keepdim=True) + 1e-6)).clamp(max=1)
        r = r.movedim(1, -1)
        return r if state is None else torch.cat((state, r), dim=-1)

    def contextual_bias(self, content: Content) -> Float[Tensor, "batch heads q_len k_len"]:
        if content.q_state is None:
            raise ValueError(
                "InklingBias: attention got no state, expected the state that carry computes from the layer's input; "
                "pass state=encoding.carry(x, state)."
            )
        dtype, scores = content.scores.dtype, content.scores
        by_distance = content.q_state.to(dtype).transpose(-1, -2) @ self.profiles.to(dtype)
        behind = distance(content.q_positions, content.k_positions).round().long().to(scores.device).unsqueeze(-3)
        near = (behind >= 0) & (behind < self.extent)
        bias = by_distance.gather(-1, behind.clamp(0, self.extent - 1).expand(scores.shape))
        return torch.where(near, bias, 0.0)

"""Transformer-XL's relative positions."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posenc.encoding import ContextualEncoding
from posenc.kernels.biased_attention.content import Content
from posenc.kernels.precision import angles


@final
class TransformerXL(ContextualEncoding):
    r"""A projected sinusoidal code of the distance acts as a second key; two learned vectors are added to all queries.

    Place: scores. Learned: ``weight``, ``u``, ``v``. Relative: yes. Keys may be cached: yes.

    .. math::  s_{hij} = s\,\big( q_{hi} \cdot k_{hj} + (q_{hi} + v_h) \cdot W_h R(i - j) + u_h \cdot k_{hj} \big),
        \qquad R(n) = \big(\sin n\theta_0, \sin n\theta_1, \dots, \cos n\theta_0, \cos n\theta_1, \dots\big)

    Here :math:`i, j` are the positions of query and key in tokens, :math:`s` the scale, :math:`\theta_c = b^{-2c/D}` in
    radians per token with :math:`b` the ``base`` and :math:`D` the ``dim``, :math:`W` is ``weight``.

    The code of a difference follows from the codes of i and j by a rotation, so :math:`q \cdot W R(i-j)` is a product
    of a part that depends on i and one that depends on j: neither a code for each pair nor a shifted matrix is needed.

    Args:
        dim: :math:`D`, channels of the model, even.
        num_heads: number of heads, a divisor of ``dim``.
        base: :math:`b`.

    Shape:
        contextual_bias: ``(batch, heads, q_len, k_len)``

    Precision: angles in float64; sine and cosine are rounded once to float32 (float64 for float64).

    Raises:
        ValueError: a ``dim`` that is odd or that the heads do not divide; queries of another head_dim.

    Example:
        >>> import posenc
        >>> q = torch.randn(1, 2, 5, 8)
        >>> posenc.attention(q, q, q, TransformerXL(dim=16, num_heads=2), causal=True).shape
        torch.Size([1, 2, 5, 8])

    Differs from the paper: nothing. For the recurrence over segments, the caller caches keys with their positions.

    References:
        Dai et al. Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context. 2019. arXiv:1901.02860,
        section 3.3; kimiyoung/transformer-xl, pytorch/mem_transformer.py.
    """

    relative = True

    def __init__(self, dim: int, num_heads: int, *, base: float = 10_000.0) -> None:
        super().__init__()
        if num_heads < 1 or dim < 2 or dim % 2 or dim % num_heads:
            raise ValueError(
                f"TransformerXL: got dim {dim} and num_heads {num_heads}, expected an even dim that the heads divide."
            )
        self.dim = dim
        self.num_heads = num_heads
        self.base = base
        self.weight = nn.Parameter(torch.empty(dim, dim))
        self.u = nn.Parameter(torch.empty(num_heads, dim // num_heads))
        self.v = nn.Parameter(torch.empty(num_heads, dim // num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from normal distributions of standard deviation 0.02, as the authors do."""
        for parameter in (self.weight, self.u, self.v):
            nn.init.normal_(parameter, std=0.02)

    def contextual_bias(self, content: Content) -> Float[Tensor, "batch heads q_len k_len"]:
        q, k = content.q, content.k
        heads, head_dim = self.u.shape
        if q.shape[-1] != head_dim:
            raise ValueError(
                f"TransformerXL: q has head_dim {q.shape[-1]} but this encoding was built for {head_dim} = dim / "
                f"num_heads; build it with dim={heads * q.shape[-1]}."
            )
        weight = self.weight.to(q.dtype).unflatten(0, (heads, head_dim))
        against_sin, against_cos = ((q + self.v.to(q.dtype)[:, None]) @ weight).chunk(2, dim=-1)
        sin_i, cos_i = self._waves(content.q_positions, q.dtype)
        sin_j, cos_j = self._waves(content.k_positions, q.dtype)
        turned = torch.cat(
            (against_sin * sin_i + against_cos * cos_i, against_cos * sin_i - against_sin * cos_i), dim=-1
        )
        by_distance = turned @ torch.cat((cos_j, sin_j), dim=-1).transpose(-1, -2)
        shared = k.shape[1]
        u = self.u.to(q.dtype).view(shared, heads // shared, head_dim)
        by_key = (u @ k.transpose(-1, -2)).reshape(k.shape[0], heads, 1, k.shape[-2])
        return content.scale * (by_distance + by_key)

    def _waves(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """sin and cos, ``([batch,] 1, seq, dim / 2)``."""
        angle = angles(positions, [self.base ** (-2 * c / self.dim) for c in range(self.dim // 2)])
        angle = angle.unsqueeze(-3)
        return angle.sin().to(dtype).to(positions.device), angle.cos().to(dtype).to(positions.device)

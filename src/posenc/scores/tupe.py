"""TUPE: untied positions."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from posenc.encoding import ScoreEncoding
from posenc.kernels.precision import check_positions, may_look, without_autocast
from posenc.scores._distance import working
from posenc.scores._linear import ExactLinear


@final
class TUPE(ScoreEncoding):
    r"""TUPE: the bias is the product of the codes of both positions after their own query and key projections.

    Place: scores. Learned: ``table``, ``norm``, ``q_proj``, ``k_proj``. Relative: no. Keys may be cached: yes.

    .. math::  s_{hij} = \frac{q_{hi} \cdot k_{hj}}{\sqrt{2d}} +
        \frac{(U^Q_h p_i) \cdot (U^K_h p_j)}{\sqrt{2d}}, \qquad p = \mathrm{layernorm}(\text{table})

    Here :math:`i, j` are the positions of query and key, :math:`d` is ``dim / num_heads``, and :math:`U^Q, U^K` are
    ``q_proj`` and ``k_proj``. Both terms are divided by :math:`\sqrt{2d}` so that their sum has the variance of
    one: :meth:`softmax_scale` passes this factor to attention. All layers share the bias: make one object for them.

    Args:
        dim: channels of the model.
        num_heads: number of heads, a divisor of ``dim``.
        length: rows of the table, one for each position.

    Shape:
        bias: ``q_positions (q_len,)``, ``k_positions (k_len,)`` -> ``(heads, q_len, k_len)``

    Precision: in float32; in float64 if the parameters are float64.

    Raises:
        ValueError: sizes below 1, heads that do not divide ``dim``; positions past the table or between its rows.

    Example:
        >>> TUPE(dim=16, num_heads=2, length=10).bias(torch.arange(3), torch.arange(3)).shape
        torch.Size([2, 3, 3])

    Differs from the paper: the paper also unties the [CLS] token, by two learned numbers in its row and column, and
    TUPE-R adds T5's bias; neither is part of this class. Layer norm and the projections' biases are the authors' code.

    References:
        Ke, He, Liu. Rethinking Positional Encoding in Language Pre-training. 2020. arXiv:2006.15595, equation 7;
        guolinke/TUPE, fairseq/modules/transformer_sentence_encoder.py.
    """

    factors_are_exact = True

    def __init__(self, dim: int, num_heads: int, *, length: int) -> None:
        super().__init__()
        if dim < 1 or num_heads < 1 or dim % num_heads or length < 1:
            raise ValueError(
                f"TUPE: got dim {dim}, num_heads {num_heads} and length {length}, expected at least 1 each and a dim "
                "that the heads divide."
            )
        self.dim = dim
        self.num_heads = num_heads
        self.length = length
        self.max_positions = length
        self.table = nn.Parameter(torch.empty(length, dim))
        self.norm = nn.LayerNorm(dim)
        self.q_proj = ExactLinear(dim, dim)
        self.k_proj = ExactLinear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as BERT: normal distributions of standard deviation 0.02, biases of zero."""
        nn.init.normal_(self.table, std=0.02)
        self.norm.reset_parameters()
        for projection in (self.q_proj, self.k_proj):
            nn.init.normal_(projection.weight, std=0.02)
            nn.init.zeros_(projection.bias)

    def softmax_scale(self, head_dim: int) -> float:
        return float((2 * head_dim) ** -0.5)

    def factors(self, q_positions: Tensor, k_positions: Tensor) -> tuple[Tensor, Tensor]:
        """The projected positions, with head_dim channels: their product is the bias, up to rounding."""
        head_dim = self.dim // self.num_heads
        q, k = self._code(q_positions, self.q_proj), self._code(k_positions, self.k_proj)
        return q * (2 * head_dim) ** -0.5, k

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"]:
        q, k = self.factors(q_positions, k_positions)
        with without_autocast(q.device.type):
            return q @ k.transpose(-1, -2)

    def _code(self, positions: Tensor, projection: nn.Linear) -> Tensor:
        _check(positions, self.length)
        rows = working(self.table)[positions.long()]
        with without_autocast(rows.device.type):
            normed = F.layer_norm(rows, (self.dim,), working(self.norm.weight), working(self.norm.bias), self.norm.eps)
            flat = F.linear(normed, working(projection.weight), working(projection.bias))
        code: Tensor = flat.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)
        return code


def _check(positions: Tensor, length: int) -> None:
    check_positions(positions)
    if not may_look(positions) or not positions.numel():
        return
    if (last := positions.max().item()) >= length:
        raise ValueError(
            f"TUPE: got position {last}, expected less than {length}, the length of the table; build the encoding "
            "with a larger length."
        )
    if positions.is_floating_point() and bool((positions != positions.floor()).any()):
        raise ValueError("TUPE: got a fractional position, expected whole numbers, the rows of the table.")

"""FIRE: functional interpolation of relative positions."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from posenc.encoding import ScoreEncoding
from posenc.kernels.precision import may_look, without_autocast
from posenc.scores._distance import distance, heads_first, working
from posenc.scores._linear import ExactLinear


@final
class FIRE(ScoreEncoding):
    r"""FIRE: a small network computes the bias from distance / longest distance, in [0, 1] at every length.

    Place: scores. Learned: ``c``, ``threshold_multiplier``, ``hidden``, ``out``. Relative: for queries below
    L; from there on the bias depends on the query's position. Keys may be cached: yes.

    .. math::  s_{hij} \leftarrow s_{hij} + f_h\!\Big( \frac{\psi(i - j)}{\psi(\max(i, L)) + \epsilon} \Big), \qquad
        \psi(x) = \ln(1 + |c\,x|), \quad f(x) = W_2\,\mathrm{relu}(W_1 x + b_1) + b_2

    Here :math:`i, j` are the positions of query and key in tokens, :math:`c` is ``c`` in 1/token, :math:`L` is
    ``threshold`` times the learned ``threshold_multiplier``, in tokens, and :math:`\epsilon = 10^{-6}`. The argument of
    f lies in [0, 1] for every key at or before the query.

    Args:
        num_heads: number of heads.
        width: hidden units of f.
        threshold: the initial :math:`L`, in tokens.

    Shape:
        bias: ``q_positions (q_len,)``, ``k_positions (k_len,)`` -> ``(heads, q_len, k_len)``

    Precision: distances are formed in float64 and rounded once to float32, in which the network runs; in float64 if
    the parameters are float64.

    Raises:
        ValueError: ``num_heads`` or ``width`` below 1, or a threshold that is not above 0.

    Example:
        >>> FIRE(num_heads=2).bias(torch.arange(3), torch.arange(3)).shape
        torch.Size([2, 3, 3])

    Differs from the paper: distances have no sign, so that an encoder can use it; the multiplier of the threshold and
    epsilon are those of the code in use (mcleish7/arithmetic).

    References:
        Li et al. Functional Interpolation for Relative Positions Improves Long Context Transformers. 2023.
        arXiv:2310.04418, equations 8 and 9; mcleish7/arithmetic, cramming/architectures/embeddings.py.
    """

    bias_is_pure = True

    def __init__(self, num_heads: int, *, width: int = 32, threshold: float = 512.0) -> None:
        super().__init__()
        if num_heads < 1 or width < 1 or not threshold > 0:
            raise ValueError(
                f"FIRE: got num_heads {num_heads}, width {width} and threshold {threshold}, expected at least 1, at "
                "least 1, and a threshold above 0 tokens."
            )
        self.num_heads = num_heads
        self.width = width
        self.threshold = threshold
        # One element each: FSDP2 shards no parameter without a dimension.
        self.c = nn.Parameter(torch.empty(1))
        self.threshold_multiplier = nn.Parameter(torch.empty(1))
        self.hidden = ExactLinear(1, width)
        self.out = ExactLinear(width, num_heads)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set c to 0.1 and the multiplier to 1, and initialise the network as PyTorch does by default."""
        nn.init.constant_(self.c, 0.1)
        nn.init.constant_(self.threshold_multiplier, 1.0)
        self.hidden.reset_parameters()
        self.out.reset_parameters()

    def relative_below(self) -> float:
        """L: up to there the denominator is the same for all queries."""
        multiplier = self.threshold_multiplier.detach()
        return abs(self.threshold * float(multiplier)) if may_look(multiplier) else 0.0

    @property
    def num_units(self) -> int:
        return self.width + 1

    def stretched(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch q_len k_len"]:
        r""":math:`\psi(i - j)`."""
        c = working(self.c)
        return (c * distance(q_positions, k_positions).to(c.dtype).to(c.device)).abs().log1p()

    def longest(self, q_positions: Tensor) -> Float[Tensor, "*batch q_len"]:
        r""":math:`\psi(\max(i, L)) + \epsilon`, the denominator."""
        c = working(self.c)
        longest = torch.maximum(q_positions.to(c.dtype), (self.threshold * working(self.threshold_multiplier)).abs())
        return (c * longest).abs().log1p() + 1e-6

    def units(self) -> Float[Tensor, "heads num_units 3"]:
        """f as rows (into, at, out): f(x) is the sum of out * relu(into * x + at); the last row is the bias of f."""
        into, at, out = working(self.hidden.weight)[:, 0], working(self.hidden.bias), working(self.out.weight)
        hidden = torch.stack((into.expand_as(out), at.expand_as(out), out), dim=-1)
        last = working(self.out.bias)[:, None]
        return torch.cat((hidden, torch.stack((0 * last, torch.ones_like(last), last), dim=-1)), dim=-2)

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"]:
        share = self.stretched(q_positions, k_positions) / self.longest(q_positions)[..., None]
        with without_autocast(share.device.type):  # it would take the network to half precision
            inner = F.linear(share[..., None], working(self.hidden.weight), working(self.hidden.bias)).relu()
            return heads_first(F.linear(inner, working(self.out.weight), working(self.out.bias)))

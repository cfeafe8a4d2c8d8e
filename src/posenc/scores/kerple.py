"""KERPLE: kernelized relative positions."""

from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posenc.encoding import ScoreEncoding
from posenc.scores._distance import distance, working

Kernel = Literal["log", "power"]
_LEAST = 1e-2


@final
class KERPLE(ScoreEncoding):
    r"""KERPLE: a kernel of the distance, a logarithm or a power, whose shape each head learns.

    Place: scores. Learned: ``r1``, ``r2``. Relative: yes. Keys may be cached: yes.

    .. math::  s_{hij} \leftarrow s_{hij} - r_{1,h} \ln\big(1 + r_{2,h}\,|i - j|\big) \quad\text{or}\quad
        s_{hij} - r_{1,h}\,|i - j|^{r_{2,h}}

    Here :math:`i, j` are the positions of query and key in tokens. For "log", :math:`r_2` is in 1/token and both are
    above 0; for "power", :math:`0 < r_2 \le 2`. With :math:`r_2 = 1` the power is ALiBi with learned slopes.

    Args:
        num_heads: number of heads.
        kernel: "log", which has the best perplexity past the trained length in the paper, or "power".

    Shape:
        bias: ``q_positions (q_len,)``, ``k_positions (k_len,)`` -> ``(heads, q_len, k_len)``

    Precision: distances are formed in float64 and rounded once to float32, in which the kernel is computed; in float64
    if the parameters are float64.

    Raises:
        ValueError: ``num_heads`` below 1, or an unknown kernel.

    Example:
        >>> KERPLE(num_heads=2).bias(torch.arange(3), torch.arange(3)).shape
        torch.Size([2, 3, 3])

    Differs from the paper: as in the authors' code, parameters below 0.01 (and powers above 2) count as the limit. The
    authors write the limit back into the parameter. Here the limit applies only in the forward pass: the parameter
    keeps its value and gets the gradient at the limit, so that training can move it back.

    References:
        Chi, Fan, Ramadge, Rudnicky. KERPLE: Kernelized Relative Positional Embedding for Length Extrapolation. 2022.
        arXiv:2205.09921, equations 4 and 5; chijames/KERPLE, megatron/mpu/layers.py.
    """

    relative = True
    bias_is_pure = True

    def __init__(self, num_heads: int, *, kernel: Kernel = "log") -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"KERPLE: got num_heads {num_heads}, expected at least 1.")
        if kernel not in get_args(Kernel):
            raise ValueError(f"KERPLE: got kernel {kernel!r}, expected one of {get_args(Kernel)}.")
        self.num_heads = num_heads
        self.kernel = kernel
        self.r1 = nn.Parameter(torch.empty(num_heads))
        self.r2 = nn.Parameter(torch.empty(num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from the authors' intervals: for "log" r1 from (0, 2) and r2 from (0, 1), for "power" the reverse."""
        wide, narrow = (self.r1, self.r2) if self.kernel == "log" else (self.r2, self.r1)
        nn.init.uniform_(wide, _LEAST, 2)
        nn.init.uniform_(narrow, _LEAST, 1)

    def of_positions(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        """The absolute distances: the part of the bias that depends on positions and not on parameters."""
        return distance(q_positions, k_positions).abs()[..., None, :, :]

    def bias_from(self, of_positions: Tensor) -> Tensor:
        """The bias from the result of :meth:`of_positions`."""
        r1 = _limited(self.r1).view(-1, 1, 1)
        r2 = _limited(self.r2, most=2.0 if self.kernel == "power" else None).view(-1, 1, 1)
        far = of_positions.to(r1.device, r1.dtype)
        if self.kernel == "log":
            return -r1 * (r2 * far).log1p()
        return -r1 * far.pow(r2)

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"]:
        return self.bias_from(self.of_positions(q_positions, k_positions))


def _limited(parameter: Tensor, most: float | None = None) -> Tensor:
    value = working(parameter)
    plain = value.detach()
    return value + (plain.clamp(min=_LEAST, max=most) - plain)

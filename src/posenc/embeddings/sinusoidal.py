"""The sinusoidal code of the first Transformer."""

from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from posenc.encoding import EmbeddingEncoding
from posenc.frequencies import Frequencies, Geometric
from posenc.kernels.precision import angles

Order = Literal["interleaved", "concatenated"]


@final
class Sinusoidal(EmbeddingEncoding):
    r"""The sinusoidal code of the Transformer: a sine and a cosine of the position for each of dim / 2 rates.

    Place: embeddings. Learned: nothing. Relative: no. Keys may be cached: yes.

    .. math::
        \mathrm{code}(p)_{2c} = \sin p\,\omega_c, \qquad \mathrm{code}(p)_{2c+1} = \cos p\,\omega_c

    Here :math:`p` is the position in tokens and :math:`\omega_c` is ``frequencies.inv_freq(dim)[c]`` in radians per
    token. A step of k tokens turns each pair by :math:`k\,\omega_c`, wherever it starts: the code at p + k is a fixed
    linear map of the code at p.

    Args:
        dim: channels of the embedding, even.
        frequencies: the rule that sets the rates; ``Geometric(base=10_000)`` as in the paper. The paper's code, Marian
            and Whisper use ``Tensor2Tensor()``.
        order: "interleaved" (sin, cos, sin, cos, ... as in the paper) or "concatenated" (all sines, then all cosines,
            as in tensor2tensor). Both have the same numbers in different channels: use the order of your checkpoint.

    Shape:
        x ``(batch, seq, dim)`` -> the same.

    Precision: angles in float64, the sum with x in float32, rounded once to the dtype of x.

    Raises:
        ValueError: an odd ``dim``; an unknown ``order``; x of another width; bad positions.

    Example:
        >>> import torch
        >>> Sinusoidal(dim=2).codes(torch.arange(2))
        tensor([[0.0000, 1.0000],
                [0.8415, 0.5403]], dtype=torch.float64)

    Differs from the paper: nothing. (The paper multiplies embeddings by sqrt(dim) before the sum; that is the model's
    part.)

    References:
        Vaswani et al. Attention Is All You Need. 2017. arXiv:1706.03762, section 3.5.
    """

    settled = True

    def __init__(self, dim: int, *, frequencies: Frequencies | None = None, order: Order = "interleaved") -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ValueError(
                f"Sinusoidal: got dim {dim}, expected an even number of at least 2, because each rate takes a sine and "
                f"a cosine; use dim={max(2, dim + dim % 2)}."
            )
        if order not in get_args(Order):
            raise ValueError(f"Sinusoidal: got order {order!r}, expected one of {get_args(Order)}.")
        self.dim = dim
        self.frequencies = Geometric() if frequencies is None else frequencies
        self.order = order
        self._inv_freq: tuple[float, ...] = tuple(self.frequencies.inv_freq(dim).tolist())

    def codes(self, positions: Tensor) -> Float[Tensor, "*positions dim"]:
        angle = angles(positions, self._inv_freq)
        pair = (angle.sin(), angle.cos())
        return torch.cat(pair, dim=-1) if self.order == "concatenated" else torch.stack(pair, dim=-1).flatten(-2)

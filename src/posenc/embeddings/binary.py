"""The position in binary digits."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from posenc.encoding import EmbeddingEncoding
from posenc.kernels.precision import exact_positions


@final
class Binary(EmbeddingEncoding):
    r"""The position in binary, one digit per channel, the fastest digit first.

    Place: embeddings. Learned: nothing. Relative: no. Keys may be cached: yes.

    .. math::  \mathrm{code}(p)_j = \lfloor p / 2^j \rfloor \bmod 2, \qquad j = 0, \dots, d - 1

    Here :math:`p` is the position in tokens and :math:`d` is ``dim``. Channel j has a wavelength of 2**(j+1) tokens.
    Codes are bounded and unique, but they jump: neighbours may differ in one digit or in all of them. The codes of
    :class:`posenc.Sinusoidal` do not jump.

    Args:
        dim: channels of the embedding. Positions from 2**dim on repeat.

    Shape:
        x ``(batch, seq, dim)`` -> the same.

    Precision: exact below 2**53. For a fractional position the integer part is encoded.

    Raises:
        ValueError: ``dim`` below 1; x of another width; bad positions.

    Example:
        >>> import torch
        >>> Binary(dim=3).codes(torch.tensor([6])).tolist()
        [[0.0, 1.0, 1.0]]

    References:
        Fleetwood. You could have designed state of the art positional encoding. 2024. Section "Binary Position
        Encoding".
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"Binary: got dim {dim}, expected at least 1.")
        self.dim = dim

    def codes(self, positions: Tensor) -> Float[Tensor, "*positions dim"]:
        exact = exact_positions(positions).floor()
        period = 2.0 ** torch.arange(self.dim, dtype=torch.float64, device=exact.device)
        return torch.floor(exact[..., None] / period) % 2

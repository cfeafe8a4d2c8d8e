"""The position as a share of a length."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from posenc.encoding import EmbeddingEncoding
from posenc.kernels.precision import exact_positions


@final
class Normalized(EmbeddingEncoding):
    r"""The position as a share of a fixed length, added to every channel.

    Place: embeddings. Learned: nothing. Relative: no. Keys may be cached: yes.

    .. math::  x_p \leftarrow x_p + \frac{p}{N} \cdot \mathbf 1

    Here :math:`p` is the position and :math:`N` is ``length``, both in tokens. The code stays small, but neighbours
    differ by 1/N only. Dividing by the length of each text instead would give the same position a different code in
    every text.

    Args:
        dim: channels of the embedding.
        length: :math:`N`, at least 1. Positions past it get codes above 1.

    Shape:
        x ``(batch, seq, dim)`` -> the same.

    Precision: the quotient in float64, rounded once.

    Raises:
        ValueError: ``dim`` or ``length`` below 1; x of another width; bad positions.

    Example:
        >>> import torch
        >>> Normalized(dim=2, length=4).codes(torch.arange(3)).tolist()
        [[0.0, 0.0], [0.25, 0.25], [0.5, 0.5]]

    References:
        Fleetwood. You could have designed state of the art positional encoding. 2024. Section "Integer Position
        Encoding".
    """

    def __init__(self, dim: int, *, length: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"Normalized: got dim {dim}, expected at least 1.")
        if length < 1:
            raise ValueError(f"Normalized: got length {length}, expected at least 1.")
        self.dim = dim
        self.length = length

    def codes(self, positions: Tensor) -> Float[Tensor, "*positions dim"]:
        return (exact_positions(positions) / self.length)[..., None].expand(*positions.shape, self.dim)

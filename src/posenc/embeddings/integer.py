"""The simplest code: the position itself."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from posenc.encoding import EmbeddingEncoding
from posenc.kernels.precision import exact_positions


@final
class Integer(EmbeddingEncoding):
    r"""The position itself, added to every channel.

    Place: embeddings. Learned: nothing. Relative: no. Keys may be cached: yes.

    .. math::  x_p \leftarrow x_p + p \cdot \mathbf 1

    Here :math:`p` is the position in tokens. The code soon becomes much larger than the embedding;
    :class:`posenc.Normalized` keeps it small.

    Args:
        dim: channels of the embedding.

    Shape:
        x ``(batch, seq, dim)`` -> the same.

    Precision: exact up to 2**24 in float32, 2**53 in float64; half precision rounds the sum (bfloat16 counts to 256).

    Raises:
        ValueError: ``dim`` below 1; x of another width; bad positions.

    Example:
        >>> import torch
        >>> Integer(dim=2).codes(torch.arange(3)).tolist()
        [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]

    References:
        Fleetwood. You could have designed state of the art positional encoding. 2024. Section "Integer Position
        Encoding".
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"Integer: got dim {dim}, expected at least 1.")
        self.dim = dim

    def codes(self, positions: Tensor) -> Float[Tensor, "*positions dim"]:
        return exact_positions(positions)[..., None].expand(*positions.shape, self.dim)

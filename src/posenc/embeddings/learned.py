"""A learned table of positions."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posenc.encoding import EmbeddingEncoding
from posenc.kernels.precision import check_positions, may_look


@final
class Learned(EmbeddingEncoding):
    r"""A table with one learned row for each position.

    Place: embeddings. Learned: length x dim numbers. Relative: no. Keys may be cached: yes.

    .. math::  x_p \leftarrow x_p + W_p

    Here :math:`p` is the position, a whole number of tokens below ``length``, and :math:`W` is ``table``.

    Args:
        dim: channels of the embedding.
        length: rows of the table. Positions past it have no code.
        std: standard deviation of the rows at the start, 0.01 as in GPT-2's own code (Hugging Face's GPT-2 has 0.02).

    Shape:
        x ``(batch, seq, dim)`` -> the same.

    Precision: the sum in float32, rounded once to the dtype of x.

    Raises:
        ValueError: a position past the table, or between two rows; x of another width; bad positions.

    Example:
        >>> import torch
        >>> Learned(dim=8, length=16).on_embeddings(torch.zeros(1, 16, 8)).shape
        torch.Size([1, 16, 8])

    Differs from the paper: nothing.

    References:
        Gehring et al. Convolutional Sequence to Sequence Learning. 2017. arXiv:1705.03122, section 3.1.
        Radford et al. Language Models are Unsupervised Multitask Learners (GPT-2). 2019; code: openai/gpt-2,
        src/model.py.
    """

    def __init__(self, dim: int, *, length: int, std: float = 0.01) -> None:
        super().__init__()
        if length < 1:
            raise ValueError(f"Learned: got length {length}, expected at least 1 row.")
        if dim < 1:
            raise ValueError(f"Learned: got dim {dim}, expected at least 1.")
        if not 0 <= std <= 1e30:
            raise ValueError(
                f"Learned: got std {std}, expected 0 or above, and small enough for float32; GPT-2 has 0.01."
            )
        self.dim = dim
        self.length = length
        self.std = std
        self.max_positions = length
        self.table = nn.Parameter(torch.empty(length, dim))
        self.reset_parameters()

    @classmethod
    def from_table(cls, table: Tensor) -> "Learned":
        """The encoding whose table is a copy of a checkpoint's, such as the weight of an ``nn.Embedding``.

        Args:
            table: ``(rows, dim)`` or ``(1, rows, dim)``. Remove rows that no position uses, such as OPT's first two.

        Raises:
            ValueError: another shape, or no floats.
        """
        rows = table[0] if table.ndim == 3 and table.shape[0] == 1 else table
        if rows.ndim != 2 or not rows.is_floating_point():
            raise ValueError(
                f"Learned: got a table of {table.dtype} and shape {tuple(table.shape)}, expected floats of shape "
                "(rows, dim) or (1, rows, dim)."
            )
        made = cls(rows.shape[1], length=rows.shape[0]).to(rows)
        with torch.no_grad():
            made.table.copy_(rows)
        return made

    def reset_parameters(self) -> None:
        """Draw new random values for the table."""
        nn.init.normal_(self.table, std=self.std)

    def codes(self, positions: Tensor) -> Float[Tensor, "*positions dim"]:
        check_positions(positions)
        if may_look(positions) and positions.numel():
            self._check(positions)
        return nn.functional.embedding(positions.long().to(self.table.device), self.table)

    def resized(self, length: int) -> "Learned":
        """A new encoding whose table is this one, interpolated to ``length`` rows; first and last row do not change.

        Row r of the new table is interpolated linearly at row r (old - 1) / (new - 1) of the old table: the
        one-dimensional form of what ViTs do for larger images.
        """
        other = Learned(self.dim, length=length, std=self.std).to(self.table)
        stretched = nn.functional.interpolate(
            self.table.detach().T[None], size=length, mode="linear", align_corners=True
        )
        with torch.no_grad():
            other.table.copy_(stretched[0].T)
        return other

    def _check(self, positions: Tensor) -> None:
        if (last := positions.max().item()) >= self.length:
            raise ValueError(
                f"Learned: got position {last}, expected below {self.length}, the rows of this table; build it with "
                f"length={int(last) + 1} or more, or stretch a trained one with resized({int(last) + 1})."
            )
        if positions.is_floating_point() and bool((positions != positions.floor()).any()):
            raise ValueError(
                "Learned: got fractional positions, expected whole numbers, the rows of the table; round them, or use "
                "an encoding that is defined there, such as Sinusoidal."
            )

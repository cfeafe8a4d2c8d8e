"""Positions of the tokens of an image, for an encoding that replaces a model's own."""

import math
from typing import Any

import torch
from torch import Tensor

from posenc.encoding import EmbeddingEncoding, Encoding
from posenc.positions import grid as grid_positions


def coordinates_of(encoding: Encoding) -> int | None:
    """The number of coordinates of a token that the encoding reads; None if it reads one number."""
    parts = encoding.parts
    found = {number for part in parts if (number := getattr(part, "coordinates", None) or 1) > 1}
    if len(found) > 1:
        raise ValueError(
            f"replace: got an encoding whose parts read {sorted(found)} coordinates of a token, expected the same "
            "number in all parts."
        )
    return found.pop() if found else None


class Places:
    """Coordinates of an image's tokens: rows and columns of its patches; 0 for the tokens before the patches.

    An encoding that reads one number gets the index in the sequence.
    """

    def __init__(self, encoding: Encoding, grid: tuple[int, ...] | None, positions: Tensor | None = None) -> None:
        self.grid, self.positions = grid, positions
        self.coordinates = number = coordinates_of(encoding)
        self._made: dict[tuple[int, str], Tensor] = {}
        if number is not None and positions is None and (grid is None or number != len(grid)):
            raise ValueError(
                f"replace: {type(encoding).__name__} reads {number} coordinates of a token, and "
                + ("the model has no grid of patches" if grid is None else f"a patch of the model has {len(grid)}")
                + "; give positions=, of shape (1, tokens, coordinates)."
            )
        if positions is not None and (positions.ndim != 3 or positions.shape[-1] != (number or 1)):
            raise ValueError(
                f"replace: got positions of shape {tuple(positions.shape)}, expected (1, tokens, {number or 1})."
            )

    def of(self, tokens: int, device: Any) -> Tensor:
        """``(tokens,)``, or ``(1, tokens, coordinates)``.

        Raises:
            ValueError: another number of tokens than the grid, or the given positions, are for.
        """
        key = tokens, str(device)
        if key not in self._made:
            self._made[key] = self._make(tokens).to(device)
        return self._made[key]

    def _make(self, tokens: int) -> Tensor:
        if self.positions is not None:
            if self.positions.shape[1] != tokens:
                raise ValueError(f"replace: got {tokens} tokens, expected {self.positions.shape[1]} as in positions.")
            return self.positions if self.positions.shape[-1] > 1 else self.positions[0, :, 0]
        if self.coordinates is None:
            return torch.arange(tokens)
        grid = self.grid or ()
        if (prefix := tokens - math.prod(grid)) < 0:
            raise ValueError(
                f"replace: got {tokens} tokens, expected at least the {' x '.join(map(str, grid))} patches of an "
                "image at the model's size; for another size call extend first, or give positions=."
            )
        return grid_positions(*grid, prefix=prefix)  # type: ignore[no-any-return]


def codes_for(encoding: EmbeddingEncoding, grid: tuple[int, ...], prefix: int, dim: int) -> Tensor:
    """What an encoding of the embeddings adds to each row of a table ``(prefix + patches, dim)``.

    Raises:
        ValueError: another width, or fewer places.
    """
    name, patches = type(encoding).__name__, math.prod(grid)
    if encoding.dim != dim:
        raise ValueError(f"replace: {name} has dim {encoding.dim}, expected {dim}, as in the model's table.")
    most = encoding.max_positions
    if most is not None and most < prefix + patches:
        raise ValueError(f"replace: {name} has {most} different positions, expected {prefix + patches}.")
    with torch.no_grad():
        if coordinates_of(encoding) is None:
            return encoding.codes(torch.arange(prefix + patches)).float()
        codes = encoding.codes(grid_positions(*grid)[0]).float()
        return torch.cat((codes.new_zeros(prefix, dim), codes))

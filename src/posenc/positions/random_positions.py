"""Positions drawn at random in training, so that a model sees more of them than its texts are long."""

from typing import Any

import torch

from posenc.positions._arrays import Array, check_at_least
from posenc.positions._arrays import like as as_given


def randomized(
    length: int,
    *,
    max_length: int,
    rows: int | None = None,
    generator: torch.Generator | None = None,
    like: Array | None = None,
) -> Any:
    """Ordered numbers drawn without repetition from 0 to max_length - 1.

    ::

        0 1 2 3 4   ->   3 17 18 40 95      with max_length=100

    Args:
        length: how many tokens there are.
        max_length: the number of positions to draw from: the length of the longest text that the model will read.
        rows: the number of rows, drawn independently; by default one row without a batch dimension.
        generator: of the random numbers.
        like: a tensor or an array; the result is of its kind. A tensor on the CPU by default.

    Returns:
        ``(length,)`` or ``(rows, length)``, int64.

    Raises:
        ValueError: more tokens than positions; ``rows`` below 1.

    Example:
        >>> import torch
        >>> drawn = randomized(5, max_length=100, generator=torch.Generator().manual_seed(0))
        >>> bool((drawn.diff() > 0).all()), drawn.shape
        (True, torch.Size([5]))

    References:
        Ruoss et al. Randomized Positional Encodings Boost Length Generalization of Transformers. 2023.
        arXiv:2305.16843, section 3.1.
    """
    count = 1 if rows is None else rows
    check_at_least("randomized", length=(length, 0), max_length=(max_length, length), rows=(count, 1))
    drawn = [torch.randperm(max_length, generator=generator)[:length].sort().values for _ in range(count)]
    return as_given(drawn[0] if rows is None else torch.stack(drawn), like)

"""Positions of one sequence."""

from typing import Any

import torch

from posenc.positions._arrays import Array, check_at_least
from posenc.positions._arrays import like as as_given


def sequential(length: int, *, offset: int = 0, like: Array | None = None) -> Any:
    """Consecutive positions: offset, offset + 1, ...

    Args:
        length: how many tokens there are.
        offset: the first position: when decoding, the number of tokens in the cache.
        like: a tensor or an array; the result is of its kind, on its device. A tensor on the CPU by default.

    Returns:
        ``(length,)``, int64.

    Raises:
        ValueError: a negative length or offset.

    Example:
        >>> sequential(5)
        tensor([0, 1, 2, 3, 4])
        >>> sequential(1, offset=5)
        tensor([5])
    """
    check_at_least("sequential", length=(length, 0), offset=(offset, 0))
    return as_given(torch.arange(offset, offset + length), like)

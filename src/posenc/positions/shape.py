"""SHAPE: a random offset for each text."""

import torch
from torch import Tensor

from posenc.positions._arrays import A, check_at_least, like, tensor


def shifted(positions: A, *, max_shift: int, generator: torch.Generator | None = None) -> A:
    """All positions of a row shifted by one random number, so that an absolute encoding learns to use differences.

    ::

        0 1 2 3 4   ->   31 32 33 34 35      with max_shift=100

    Args:
        positions: ``(seq,)`` or ``(batch, seq)``.
        max_shift: the shift of each row is drawn from 0 to this; 0 changes nothing.
        generator: of the random numbers. Use the function only in training.

    Returns:
        The same shape and kind.

    Raises:
        ValueError: another number of dimensions; a negative ``max_shift``.

    Example:
        >>> import torch
        >>> moved = shifted(torch.arange(5), max_shift=100, generator=torch.Generator().manual_seed(0))
        >>> (moved - moved[0]).tolist()
        [0, 1, 2, 3, 4]

    References:
        Kiyono et al. SHAPE: Shifted Absolute Position Embedding for Transformers. 2021. arXiv:2109.05644, section 3.
    """
    given: Tensor = tensor("shifted", positions, ndim=(1, 2))
    check_at_least("shifted", max_shift=(max_shift, 0))
    shift = torch.randint(0, max_shift + 1, (*given.shape[:-1], 1), generator=generator)
    return like(given + shift.to(given.device), positions)

"""PoSE: a short text in the positions of a long one."""

import itertools
from typing import Any, Literal, get_args

import torch

from posenc.positions._arrays import Array, check_at_least
from posenc.positions._arrays import like as as_given

Cuts = Literal["anywhere", "authors"]


def skipwise(
    length: int,
    *,
    target_length: int,
    chunks: int = 2,
    cuts: Cuts = "anywhere",
    generator: torch.Generator | None = None,
    like: Array | None = None,
) -> Any:
    """Positions for skip-wise training: consecutive in each chunk, with random jumps up to the target length.

    ::

        0 1 2 3 | 4 5 6 7   ->   0 1 2 3 | 21 22 23 24      with target_length=32

    Args:
        length: the number of tokens of the training window.
        target_length: the length of text that the model is prepared for.
        chunks: the number of chunks, with random cuts.
        cuts: where two chunks are separated. "anywhere": each token is equally likely. "authors": after 1 to (length +
            1) // 2 tokens, so that the first chunk is the shorter, as their code has it; for two chunks.
        generator: of the random numbers.
        like: a tensor or an array; the result is of its kind. A tensor on the CPU by default.

    Returns:
        ``(length,)``, int64, from 0, ascending, below target_length.

    Raises:
        ValueError: a target below the length; more chunks than tokens; an unknown name, or "authors" for another number
            than two.

    Example:
        >>> import torch
        >>> drawn = skipwise(8, target_length=32, generator=torch.Generator().manual_seed(1))
        >>> int((drawn.diff() > 1).sum()) <= 1, int(drawn.max()) < 32
        (True, True)

    References:
        Zhu et al. PoSE: Efficient Context Window Extension of LLMs via Positional Skip-wise Training. 2023.
        arXiv:2309.10400, section 3.2, equations 3 to 5; dwzhu-pku/PoSE, src/train_pose.py.
    """
    check_at_least("skipwise", length=(length, 1), target_length=(target_length, length), chunks=(chunks, 1))
    if chunks > length:
        raise ValueError(
            f"skipwise: got {chunks} chunks for {length} tokens, expected at most one chunk for each token."
        )
    if cuts not in get_args(Cuts) or (cuts == "authors" and chunks != 2):
        raise ValueError(f'skipwise: got cuts {cuts!r} for {chunks} chunks, expected "anywhere", or "authors" for 2.')
    if cuts == "authors":
        inner = torch.randint(1, (length + 1) // 2 + 1, (1,), generator=generator)
    else:
        inner = torch.randperm(length - 1, generator=generator)[: chunks - 1].sort().values + 1
    ends = [0, *inner.tolist(), length]
    leap, parts = 0, []
    for index, (start, end) in enumerate(itertools.pairwise(ends)):
        if index:  # u_i ~ U{u_(i-1), ..., target - length}
            leap = int(torch.randint(leap, target_length - length + 1, (), generator=generator))
        parts.append(torch.arange(start, end) + leap)
    return as_given(torch.cat(parts), like)

"""Dual chunk attention: distances that never leave the trained window."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from posenc.positions._arrays import A, Array, check_at_least, like, tensor

Clamp = Literal["paper", "code"]


class DualChunk(NamedTuple):
    """Positions of the keys, and of the queries towards keys of the same, the previous and all earlier chunks."""

    keys: Array
    within: Array
    successive: Array
    between: Array


def dual_chunk(positions: A, *, chunk: int, trained_length: int, clamp: Clamp = "paper") -> DualChunk:
    """Positions for dual chunk attention: keys count from 0 in each chunk, and queries have three sets of positions.

    ::

        chunk=6, trained_length=10, 12 tokens
        keys         0 1 2 3 4 5 | 0 1 2 3 4 5
        within       0 1 2 3 4 5 | 0 1 2 3 4 5      to keys of its own chunk
        successive   6 7 8 9 9 9 | 6 7 8 9 9 9      to keys of the chunk before
        between      9 9 9 9 9 9 | 9 9 9 9 9 9      to keys of all chunks before that

    Args:
        positions: ``(seq,)`` or ``(batch, seq)``, from 0 for each document.
        chunk: :math:`s`, tokens of a chunk, below the trained length.
        trained_length: :math:`c`, the window that the model was trained with; ``chunk_size`` in ChunkLlama and vLLM,
            whose ``chunk`` is chunk_size minus local_size.
        clamp: "paper": the largest position is c - 1. "code": it is c, and queries to earlier chunks have the last
            successive position, min(2s - 1, c), as in ChunkLlama (the authors) and vLLM: distances are up to c, one
            more than in the window.

    Returns:
        Four arrays of the same shape and kind: p mod s; p mod s; min(p mod s + s, c - 1); c - 1. "code" changes them as
        above. :func:`distances` combines them.

    Raises:
        ValueError: a chunk that is not below the trained length; an unknown clamp.

    Example:
        >>> import torch
        >>> dual_chunk(torch.arange(8), chunk=4, trained_length=6).successive
        tensor([4, 5, 5, 5, 4, 5, 5, 5])

    References:
        An et al. Training-Free Long-Context Scaling of Large Language Models. 2024. arXiv:2402.17463, section 3;
        HKUNLP/ChunkLlama, chunkllama_attn_replace.py; vLLM, rotary_embedding/dual_chunk_rope.py.
    """
    given = tensor("dual_chunk", positions, ndim=(1, 2))
    check_at_least("dual_chunk", chunk=(chunk, 1), trained_length=(trained_length, chunk + 1))
    if clamp not in get_args(Clamp):
        raise ValueError(f"dual_chunk: got clamp {clamp!r}, expected one of {get_args(Clamp)}.")
    last = trained_length if clamp == "code" else trained_length - 1
    furthest = min(2 * chunk - 1, last) if clamp == "code" else last
    keys = given % chunk
    return DualChunk(
        keys=like(keys, positions),
        within=like(keys.clone(), positions),
        successive=like((keys + chunk).clamp(max=last), positions),
        between=like(torch.full_like(keys, furthest), positions),
    )


def distances(positions: A, *, chunk: int, trained_length: int, clamp: Clamp = "paper") -> A:
    """The distance between each query and each key: ``(seq, seq)``, valid where the key is not after the query.

    Example:
        >>> import torch
        >>> distances(torch.arange(6), chunk=2, trained_length=5)[5]
        tensor([4, 3, 3, 2, 1, 0])
    """
    given = tensor("dual_chunk", positions, ndim=(1,))
    keys, within, successive, between = (
        tensor("dual_chunk", part, ndim=(1,))
        for part in dual_chunk(given, chunk=chunk, trained_length=trained_length, clamp=clamp)
    )
    apart: Tensor = (given // chunk)[:, None] - (given // chunk)[None, :]
    q = torch.where(apart == 0, within[:, None], torch.where(apart == 1, successive[:, None], between[:, None]))
    return like(q - keys[None, :], positions)

"""The tokens of each rank when several ranks share a sequence."""

from typing import Literal, get_args

import torch

from posenc.positions._arrays import A, check_at_least, check_dim, like, tensor

Scheme = Literal["contiguous", "zigzag"]


def shard(array: A, *, rank: int, ranks: int, scheme: Scheme = "contiguous", dim: int | None = None) -> A:
    """The part of positions, tokens, queries, ... that belongs to one rank of a context-parallel group.

    Cut the positions in the same way as the tokens; encodings need nothing else:

    ==========  ==========================  ============================================================
    scheme      rank r of R has              drawing, for 8 tokens and 2 ranks
    ==========  ==========================  ============================================================
    contiguous  the r-th of R equal parts    ``0 1 2 3 | 4 5 6 7``
    zigzag      parts r and 2R - 1 - r of    ``0 1 6 7 | 2 3 4 5``: under a causal mask the ranks then have
                2R                           equally much to do
    ==========  ==========================  ============================================================

    Args:
        array: any tensor or array; positions ``(seq,)``, ``(batch, seq)``, or ``(batch, seq, axes)`` with ``dim=1``.
        rank: 0 to ranks - 1.
        ranks: how many there are.
        scheme: "contiguous" or "zigzag" (Megatron, TransformerEngine).
        dim: the dimension of the tokens; by default the last, if there are one or two.

    Returns:
        The part, of the same kind.

    Raises:
        ValueError: a dimension that the array does not have, or none for an array of three or more; tokens that cannot
            be divided evenly; a rank out of range; an unknown scheme.

    Example:
        >>> import torch
        >>> [shard(torch.arange(8), rank=r, ranks=2, scheme="zigzag").tolist() for r in range(2)]
        [[0, 1, 6, 7], [2, 3, 4, 5]]
    """
    whole = tensor("shard", array, ndim=tuple(range(1, 9)))
    dim = _dim("shard", whole, dim)
    kept = shard_indices(whole.shape[dim], rank=rank, ranks=ranks, scheme=scheme)
    return like(whole.index_select(dim, kept.to(whole.device)), array)


def _dim(function: str, whole: torch.Tensor, dim: int | None) -> int:
    """Where the tokens lie; not guessed where the last dimension is mostly that of coordinates or channels."""
    if dim is None:
        if whole.ndim > 2:
            raise ValueError(
                f"{function}: got an array of shape {tuple(whole.shape)} and no dim, expected dim=, the dimension of "
                "the tokens: 1 for positions (batch, seq, axes) and embeddings, 2 for queries and keys."
            )
        return -1
    check_dim(function, whole, dim)
    return dim


def unshard(parts: list[A], *, scheme: Scheme = "contiguous", dim: int | None = None) -> A:
    """The inverse of :func:`shard`: the whole sequence, from the parts of all ranks in order.

    Raises:
        ValueError: no parts, parts of different shapes, or an unknown scheme.

    Example:
        >>> import torch
        >>> unshard([torch.tensor([0, 1, 6, 7]), torch.tensor([2, 3, 4, 5])], scheme="zigzag")
        tensor([0, 1, 2, 3, 4, 5, 6, 7])
    """
    if not parts:
        raise ValueError("unshard: got no parts, expected the parts of all ranks.")
    tensors = [tensor("unshard", part, ndim=tuple(range(1, 9))) for part in parts]
    dim = _dim("unshard", tensors[0], dim)
    for part in tensors:
        if part.shape != tensors[0].shape:
            raise ValueError(
                f"unshard: got parts of shapes {tuple(tensors[0].shape)} and {tuple(part.shape)}, expected one shape "
                "for all parts."
            )
    joined = torch.cat(tensors, dim=dim)
    ranks, length = len(parts), joined.shape[dim]
    came_from = torch.cat([shard_indices(length, rank=r, ranks=ranks, scheme=scheme) for r in range(ranks)])
    return like(joined.index_select(dim, came_from.argsort().to(joined.device)), parts[0])


def shard_indices(length: int, *, rank: int, ranks: int, scheme: Scheme = "contiguous") -> torch.Tensor:
    """The indices of a rank's tokens in the whole sequence."""
    check_at_least("shard", ranks=(ranks, 1), rank=(rank, 0))
    if scheme not in get_args(Scheme):
        raise ValueError(f"shard: got scheme {scheme!r}, expected one of {get_args(Scheme)}.")
    parts = ranks if scheme == "contiguous" else 2 * ranks
    if rank >= ranks:
        raise ValueError(f"shard: got rank {rank} of {ranks} ranks, expected 0 to {ranks - 1}.")
    if length % parts:
        raise ValueError(
            f"shard: got {length} tokens for {ranks} ranks, expected a multiple of {parts} for {scheme!r}; pad to "
            f"{-(-length // parts) * parts}."
        )
    chunks = torch.arange(length).view(parts, -1)
    return chunks[rank] if scheme == "contiguous" else torch.cat((chunks[rank], chunks[2 * ranks - 1 - rank]))

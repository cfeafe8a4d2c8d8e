"""Positions of several documents in one row."""

import torch

from posenc.positions._arrays import A, like, tensor


def from_lengths(cumulative_lengths: A) -> A:
    """Positions from 0 in each document of a pack, from the ends of the documents.

    Args:
        cumulative_lengths: ``(documents + 1,)``: 0, the end of the first, of the second, ...; as ``cu_seqlens`` of
            FlashAttention.

    Returns:
        ``(tokens,)``, int64.

    Raises:
        ValueError: another number of dimensions; ends that do not start with 0 or that decrease.

    Example:
        >>> import torch
        >>> from_lengths(torch.tensor([0, 3, 5, 9]))
        tensor([0, 1, 2, 0, 1, 0, 1, 2, 3])
    """
    ends = tensor("from_lengths", cumulative_lengths, ndim=(1,)).long()
    if len(ends) == 0 or int(ends[0]) != 0 or bool((ends.diff() < 0).any()):
        raise ValueError(
            f"from_lengths: got {ends.tolist()}, expected 0 and then the end of each document, in ascending order; if "
            "you have the lengths of the documents, pass their cumulative sum with 0 before it."
        )
    lengths = ends.diff()
    starts = torch.repeat_interleave(ends[:-1], lengths)
    return like(torch.arange(int(ends[-1]), device=ends.device) - starts, cumulative_lengths)


def from_documents(document_ids: A) -> A:
    """Positions from 0 in each document of a pack, from the document of each token.

    Args:
        document_ids: ``(seq,)`` or ``(batch, seq)``: any numbers; a new document starts where the number changes.

    Returns:
        The same shape, int64.

    Raises:
        ValueError: another number of dimensions.

    Example:
        >>> import torch
        >>> from_documents(torch.tensor([7, 7, 7, 1, 1, 7, 7]))
        tensor([0, 1, 2, 0, 1, 0, 1])
    """
    ids = tensor("from_documents", document_ids, ndim=(1, 2))
    count = torch.arange(ids.shape[-1], device=ids.device).expand(ids.shape)
    starts = torch.zeros_like(count)
    starts[..., 1:] = torch.where(ids[..., 1:] != ids[..., :-1], count[..., 1:], 0)
    return like(count - starts.cummax(-1).values, document_ids)

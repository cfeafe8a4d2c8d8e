"""Positions from an attention mask."""

from posenc.kernels.precision import may_look
from posenc.positions._arrays import A, like, tensor


def from_mask(mask: A) -> A:
    """Count only the real tokens, wherever the padding is.

    Args:
        mask: ``(batch, seq)`` or ``(seq,)``: True or 1 for a token, False or 0 for padding.

    Returns:
        ``(batch, seq)`` or ``(seq,)``, int64: 0, 1, 2, ... over the tokens of a row. Padding gets the position of the
        previous token, or 0 if there is none; this value has no effect if attention masks the padding.

    Raises:
        ValueError: another number of dimensions; values other than 0 and 1, which is not checked off the CPU, nor while
            something traces.

    Example:
        >>> import torch
        >>> from_mask(torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]]))  # left, and right
        tensor([[0, 0, 0, 1, 2],
                [0, 1, 2, 2, 2]])
    """
    real = tensor("from_mask", mask, ndim=(1, 2))
    if may_look(real) and not bool(((real == 0) | (real == 1)).all()):
        raise ValueError(
            "from_mask: got values other than 0 and 1, expected an attention mask; a float mask of 0 and "
            "-inf is `mask == 0`."
        )
    return like((real.long().cumsum(-1) - 1).clamp(min=0), mask)

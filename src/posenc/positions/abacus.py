"""Abacus: the place of each digit in its number."""

import torch

from posenc.positions._arrays import A, check_at_least, like, tensor


def digits(is_digit: A, *, offset: int = 0) -> A:
    """Count the digits of each number from 1, and give 0 to everything else.

    ::

        text        3  2  1  +  5  4  =  5  7  1      (numbers are written with the lowest digit first)
        positions   1  2  3  0  1  2  0  1  2  3

    Digits with the same place value then have the same position, in the summands and in the sum.

    Args:
        is_digit: ``(seq,)`` or ``(batch, seq)``: True or 1 where the token is a digit.
        offset: added to the positions of digits. The authors draw one from 0 to 99 for each batch in training, so that
            longer numbers have trained positions.

    Returns:
        The same shape, int64.

    Raises:
        ValueError: another number of dimensions; a negative offset.

    Example:
        >>> import torch
        >>> text = "321+54=571"
        >>> digits(torch.tensor([c.isdigit() for c in text]))
        tensor([1, 2, 3, 0, 1, 2, 0, 1, 2, 3])

    References:
        McLeish et al. Transformers Can Do Arithmetic with the Right Embeddings. 2024. arXiv:2405.17399, section 3.1;
        mcleish7/arithmetic, abacus.py.
    """
    marked = tensor("digits", is_digit, ndim=(1, 2)).bool()
    check_at_least("digits", offset=(offset, 0))
    count = torch.arange(1, marked.shape[-1] + 1, device=marked.device).expand(marked.shape)
    before = torch.where(marked, 0, count).cummax(-1).values  # the last token so far that is no digit
    return like(torch.where(marked, count - before + offset, 0), is_digit)

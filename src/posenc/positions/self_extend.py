"""Self-Extend: exact distances nearby, grouped ones far away."""

from posenc.positions._arrays import A, check_at_least, like, tensor


def grouped(positions: A, *, group: int, window: int) -> tuple[A, A]:
    """Positions of queries and of keys for the far part of Self-Extend.

    Distances below ``window`` are those of ``positions``. For larger distances keys are counted in groups, and queries
    are shifted so that the two ranges join:

    ::

        distance   0 1 2 3 4 5 6 7 8 9        with window=4, group=2, for the last of 10 tokens
        is used    0 1 2 3 4 4 5 5 6 6

    Args:
        positions: ``(seq,)`` or ``(batch, seq)``.
        group: :math:`G`, how many neighbouring positions become one.
        window: :math:`w`, the smallest distance that is counted in groups.

    Returns:
        ``(q_positions, k_positions)``: floor(p / G) + w - floor(w / G) and floor(p / G), the same shape and kind.
        Compute the scores twice: with these positions where the distance is at least w, and with ``positions`` where it
        is smaller; then apply one softmax.

    Raises:
        ValueError: another number of dimensions; a group or a window below 1.

    Example:
        >>> import torch
        >>> p = torch.arange(10)
        >>> q, k = grouped(p, group=2, window=4)
        >>> far, near = q[9] - k, 9 - p
        >>> torch.where(near >= 4, far, near).flip(0)
        tensor([0, 1, 2, 3, 4, 4, 5, 5, 6, 6])

    Differs from the paper: nothing. The authors' code divides w by G without rounding when it reads a prompt, and with
    rounding when it generates; this is the latter.

    References:
        Jin et al. LLM Maybe LongLM: Self-Extend LLM Context Window Without Tuning. 2024. arXiv:2401.01325, section 3
        and algorithm 1.
    """
    given = tensor("grouped", positions, ndim=(1, 2))
    check_at_least("grouped", group=(group, 1), window=(window, 1))
    keys = given // group
    return like(keys + window - window // group, positions), like(keys, positions)

"""Reads the matrix of one position: the order of the channels, and which channels form pairs."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def at_position_0(zero: FloatArray, one: FloatArray) -> tuple[str | None, FloatArray, str | None]:
    """The effect of position 0: the order of the channels, the matrix that undoes it, and the fault if there is one.

    The order is None if the matrix is not a reordering. ``one`` is the matrix of position 1.
    """
    unit, step = np.eye(len(zero)), one @ zero.T
    if np.abs(zero @ zero + unit).max() < 1e-3 and np.abs(np.abs(zero) - np.round(np.abs(zero))).max() < 1e-3:
        return (
            "kept",
            zero,
            "cos and sin are swapped: at position 0 it turns each pair by 90 degrees, (a, b) -> (-b, a)",
        )
    for off in (1, -1):
        # The inverse of a rotation is its transpose.
        if np.abs(zero - unit).max() > 1e-3 and np.abs(zero - (step if off == 1 else step.T)).max() < 1e-3:
            told = f"its positions are off by one: it turns position 0 as position {off} must be turned"
            return "kept", zero, told
    return *permutation(zero), None


def permutation(matrix: FloatArray) -> tuple[str | None, FloatArray]:
    """At position 0 a rotation only reorders channels: the name and matrix of the order; None for anything else."""
    moved = np.round(np.abs(matrix)).astype(np.float64)
    if np.abs(matrix - moved).max() > 1e-3 or not (moved.sum(0) == 1).all() or not (moved.sum(1) == 1).all():
        return None, moved
    goes_to = moved.argmax(axis=0)
    changed = np.flatnonzero(goes_to != np.arange(len(goes_to)))
    if changed.size == 0:
        return "kept", moved
    start, stop = int(changed[0]) - 1, len(goes_to)  # the first channel of a pair stays where it is
    for end in range(stop, int(changed[-1]), -1):
        n = end - start
        halves = start + np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)]) if n % 2 == 0 else None
        if halves is not None and (goes_to[halves] == np.arange(start, end)).all():
            return "interleaved to half", moved
        if halves is not None and (halves == goes_to[start:end]).all():
            return "half to interleaved", moved
    return "another permutation", moved


def pairs_of(matrix: FloatArray) -> tuple[list[tuple[int, int]], list[int]]:
    """The pairs of channels, the lower channel first; and all channels that belong to a pair."""
    off = np.abs(matrix - np.diag(np.diag(matrix)))
    channels = [int(c) for c in np.flatnonzero(off.max(axis=0) > 1e-7)]
    partner = {c: int(off[:, c].argmax()) for c in channels}
    return sorted({(min(c, p), max(c, p)) for c, p in partner.items()}), channels


def name_pairing(pairs: list[tuple[int, int]], channels: list[int]) -> tuple[str, tuple[int, int]]:
    if not channels:
        return "other", (0, 0)
    start, stop = channels[0], channels[-1] + 1
    gaps = {b - a for a, b in pairs}
    covered = sorted(c for pair in pairs for c in pair)
    if covered != channels or len(gaps) != 1:
        return "other", (start, stop)
    gap = gaps.pop()
    if gap == 1:
        return "interleaved", (start, stop)
    if gap * 2 == stop - start:
        return "half", (start, stop)
    if (stop - start) % (2 * gap) == 0 and len(channels) == stop - start:
        return f"half, in blocks of {2 * gap}", (start, stop)
    # Pairs with rate 0 (partial rotation) leave gaps in both halves.
    return "half", (start, stop)


def not_pairs(matrix: FloatArray) -> str:
    """The reason why the matrix of position 1 does not consist of pairs."""
    shifted = np.abs(matrix) > 1e-7
    np.fill_diagonal(shifted, False)
    from_channel = shifted.argmax(axis=1)
    steps = {int(s) for s in (np.arange(len(matrix)) - from_channel)[shifted.any(axis=1)] % len(matrix)}
    if shifted.sum(axis=1).max() == 1 and len(steps) == 1 and 2 * (step := steps.pop()) % len(matrix):
        away = step if step <= len(matrix) // 2 else step - len(matrix)
        return (
            f"each channel c is mixed with channel c {'-' if away > 0 else '+'} {abs(away)}, all around the head "
            f"(x.roll({away})): rolling is no rotation. A rotation acts on pairs of channels (a, b) -> (a cos - b "
            "sin, a sin + b cos)"
        )
    return "its channels are not in pairs, or the pairs follow no known order"

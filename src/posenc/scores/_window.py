"""Places in a window of an image."""

from collections.abc import Sequence

from torch import Tensor

from posenc.kernels.precision import may_look


def check(name: str, num_heads: int, window: Sequence[int]) -> tuple[int, int]:
    """The window as a pair, if it is one of two sides of at least 1."""
    pair = tuple(window)
    if num_heads < 1 or len(pair) != 2 or min(pair) < 1:
        raise ValueError(
            f"{name}: got num_heads {num_heads} and window {window!r}, expected at least 1 head and (rows, columns) of "
            "at least 1 each."
        )
    return (int(pair[0]), int(pair[1]))


def offsets(name: str, q_positions: Tensor, k_positions: Tensor, window: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(rows, columns) between query and key, int64, of positions that count along the rows.

    Raises:
        ValueError: a position past the window, or one that is not whole. Looked at on the CPU only.
    """
    places = window[0] * window[1]
    for positions in (q_positions, k_positions):
        if not may_look(positions) or not positions.numel():
            continue
        if (last := positions.max().item()) >= places:
            raise ValueError(
                f"{name}: got position {last}, expected below {places}: a window of {window[0]} x {window[1]} places."
            )
        if positions.is_floating_point() and bool((positions != positions.floor()).any()):
            raise ValueError(f"{name}: got a fractional position, expected whole ones: a place in the window.")
    i, j = q_positions.long()[..., :, None], k_positions.long()[..., None, :]
    columns = window[1]
    return i // columns - j // columns, i % columns - j % columns

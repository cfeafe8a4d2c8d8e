"""Patches in a window of an image."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from posenc.kernels.precision import check_positions, may_look


def check(name: str, num_heads: int, window: Sequence[int]) -> tuple[int, int]:
    """The window as a pair, if it is one of two sides of at least 1."""
    if not isinstance(window, Iterable) or isinstance(window, str):
        raise TypeError(f"{name}: got window {window!r}, expected (rows, columns), such as (7, 7).")
    pair = tuple(window)
    if num_heads < 1 or len(pair) != 2 or min(pair) < 1:
        raise ValueError(
            f"{name}: got num_heads {num_heads} and window {window!r}, expected at least 1 head and (rows, columns) of "
            "at least 1 each."
        )
    return (int(pair[0]), int(pair[1]))


def check_prefix(name: str, prefix: int, most: int | None = None) -> int:
    """How many tokens stand before the window."""
    if prefix < 0 or (most is not None and prefix > most):
        expected = "0 or above" if most is None else f"0 to {most}"
        raise ValueError(f"{name}: got prefix {prefix}, expected {expected}: the number of tokens before the patches.")
    return prefix


def offsets(
    name: str, q_positions: Tensor, k_positions: Tensor, window: tuple[int, int], *, prefix: int = 0
) -> tuple[Tensor, Tensor]:
    """(rows, columns) between query and key, int64, of positions that count along the rows, after the ``prefix``.

    They have no meaning if one of the two belongs to the prefix.

    Raises:
        ValueError: a position past the window, or one that is not whole. Looked at on the CPU only.
    """
    places = prefix + window[0] * window[1]
    for positions in (q_positions, k_positions):
        check_positions(positions)
        if not may_look(positions) or not positions.numel():
            continue
        if (last := positions.max().item()) >= places:
            before = f" after {prefix}" if prefix else ""
            raise ValueError(
                f"{name}: got position {last}, expected below {places}: a window of {window[0]} x {window[1]} patches"
                f"{before}; for another window use resized(rows, columns)."
            )
        if positions.is_floating_point() and bool((positions != positions.floor()).any()):
            raise ValueError(f"{name}: got a fractional position, expected whole numbers, the indices of patches.")
    i, j = ((positions.long() - prefix).clamp(min=0) for positions in (q_positions, k_positions))
    i, j = i[..., :, None], j[..., None, :]
    columns = window[1]
    return i // columns - j // columns, i % columns - j % columns

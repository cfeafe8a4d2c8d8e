"""Interpolate tables of patches for another grid; shared by the integrations of image models."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from posenc.embeddings import LearnedGrid
from posenc.embeddings.learned_grid import CONVENTIONS

#: Ways of reading beside the conventions of :meth:`posenc.embeddings.LearnedGrid.resized`.
READINGS = ("bicubic", "bilinear", *CONVENTIONS)


def check_size(function: str, size: Any) -> tuple[int, int]:
    """(height, width) in pixels.

    Raises:
        ValueError: something else.
    """
    pair = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else (size, size)
    if len(pair) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in pair):
        raise ValueError(f"{function}: got size {size!r}, expected (height, width) in pixels, such as (448, 336).")
    return pair[0], pair[1]


def reading(by: str, own: str) -> dict[str, Any]:
    """The arguments of ``resized`` for a method; "bicubic" is the method of the model's own library.

    Raises:
        ValueError: an unknown method.
    """
    if by not in READINGS:
        fit = ', or "fit"' if own == "timm" else ""
        raise ValueError(f"extend: got by={by!r}, expected one of {READINGS}, a frequency rule{fit}.")
    if by == "bicubic":
        return {"convention": own}
    return {"mode": "bilinear", "antialias": True} if by == "bilinear" else {"convention": by}


def resized_rows(
    table: Tensor,
    *,
    grid: tuple[int, int],
    size: tuple[int, int],
    how: dict[str, Any],
    prefix: int = 0,
    suffix: int = 0,
) -> Tensor:
    """Rows ``(prefix + patches + suffix, channels)`` for another grid; those before and after the patches are kept."""
    rows = table.detach()
    last = rows[rows.shape[0] - suffix :]
    found = LearnedGrid.from_table(rows[: rows.shape[0] - suffix], grid=grid, prefix=prefix).resized(*size, **how)
    return torch.cat((found.table.detach(), last))


def resized_table(
    table: Tensor, *, grid: tuple[int, int], size: tuple[int, int], how: dict[str, Any], prefix: int = 0
) -> Tensor:
    """A table of places of shape (rows, channels), (1, rows, channels), (1, M, N, channels) or (1, channels, M, N)."""
    match tuple(table.shape):
        case (_, _) | (1, _, _):
            rows = resized_rows(table.flatten(0, -2), grid=grid, size=size, how=how, prefix=prefix)
            return rows.view(*table.shape[:-2], *rows.shape)
        case (1, rows, columns, channels) if (rows, columns) == grid:
            found = resized_rows(table.reshape(-1, channels), grid=grid, size=size, how=how)
            return found.view(1, *size, channels)
        case (1, channels, rows, columns) if (rows, columns) == grid:
            found = resized_rows(table[0].flatten(1).T, grid=grid, size=size, how=how)
            return found.T.reshape(1, channels, *size).contiguous()
    raise ValueError(
        f"extend: got a table of shape {tuple(table.shape)}, expected one of {grid[0]} x {grid[1]} patches."
    )


def resized_offsets(
    table: Tensor, *, window: tuple[int, int], size: tuple[int, int], how: dict[str, Any], suffix: int = 0
) -> Tensor:
    """Biases ``(offsets + suffix, heads)`` of the offsets in a window, read for another window."""
    sides = (2 * window[0] - 1, 2 * window[1] - 1)
    new = (2 * size[0] - 1, 2 * size[1] - 1)
    return resized_rows(table, grid=sides, size=new, how=how, suffix=suffix)

"""The learned tables of timm's models, as posenc says them."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch

from posenc import Learned
from posenc.embeddings import LearnedGrid
from posenc.encoding import Encoding


class Row(NamedTuple):
    """One encoding that a module has.

    Attributes:
        label: its attribute or kind.
        encoding: without weights; None if posenc has no such encoding.
        notes: what a reader should know besides, or why there is none.
        positions: where its tokens stand, as an expression of :mod:`posenc.positions`.
    """

    label: str
    encoding: Encoding | None
    notes: tuple[str, ...] = ()
    positions: str = ""


#: (module, model) -> rows
Reader: TypeAlias = Callable[[Any, Any], list[Row]]
#: Where a table of four dimensions has its channels: before the rows and columns, or behind them.
Channels: TypeAlias = Literal["first", "last"]


def grid_of(model: Any) -> tuple[int, int] | None:
    """Rows and columns of patches in an image of the model's size, if it has one."""
    embed = getattr(model, "patch_embed", None)
    return _pair(getattr(embed, "grid_size", None))


def _pair(grid: Any) -> tuple[int, int] | None:
    """Rows and columns, where they are given; one side is a square's."""
    grid = (grid, grid) if isinstance(grid, int) else grid
    if isinstance(grid, (tuple, list)) and len(grid) == 2 and all(isinstance(side, int) for side in grid):
        return grid[0], grid[1]
    return None


def refused(label: str, why: str) -> Row:
    """What posenc has no encoding for."""
    return Row(label, None, (why,))


def _learned_grid(label: str, dim: int, grid: Sequence[int], prefix: int) -> Row:
    with torch.device("meta"):
        return Row(label, LearnedGrid(dim, grid=tuple(grid), prefix=prefix))


def table(
    label: str,
    tensor: torch.Tensor,
    grid: tuple[int, int] | None = None,
    *,
    prefix: int = 0,
    channels: Channels = "last",
) -> Row:
    """A learned table of places in one of the shapes that timm gives it.

    Args:
        label: its name.
        tensor: ``(rows, dim)``, ``(1, rows, dim)``, ``(1, rows, columns, dim)`` or ``(1, dim, rows, columns)``.
        grid: rows and columns of patches; without one they are taken for a square.
        prefix: how many tokens of the model come before the patches; a table may have rows for them or not.
        channels: where they are in four dimensions, which its shape does not tell.
    """
    match tuple(tensor.shape):
        case (1, rows, dim) | (rows, dim):
            if grid is None:  # nothing says the sides
                side = next((math.isqrt(rows - n) for n in (0, 1) if math.isqrt(rows - n) ** 2 == rows - n), 0)
                grid = (side, side)
            before = rows - math.prod(grid)
            if math.prod(grid) and before in (0, 1, prefix):
                return _learned_grid(label, dim, grid, before)
        case (1, *sides) if len(sides) == 3:
            dim = sides.pop(0 if channels == "first" else 2)
            return _learned_grid(label, dim, sides, 0)
    return refused(label, f"a table of shape {tuple(tensor.shape)}, whose rows are not known")


def _prefix(*modules: Any) -> int:
    """How many tokens come before the patches."""
    return max(int(getattr(module, "num_prefix_tokens", 0) or 0) for module in modules)


def tables(*names: str, note: str = "", channels: Channels = "last", sides: str = "") -> Reader:
    """A reader of tables by their names; ``sides`` names what has their rows and columns besides a patch embedding."""

    def read(module: Any, model: Any) -> list[Row]:
        grid = _pair(getattr(module, sides, None)) if sides else grid_of(module) or grid_of(model)
        rows = []
        for name in names:
            tensor = getattr(module, name, None)
            if isinstance(tensor, torch.Tensor):
                row = table(name, tensor, grid, prefix=_prefix(module, model), channels=channels)
                rows.append(row._replace(notes=(*row.notes, note)) if note else row)
        return rows

    return read


def two_tables(*names: str, sides: str = "") -> Reader:
    """A small table that is read at the grid, and one of a window that repeats; alone, the first is a table."""

    def read(module: Any, model: Any) -> list[Row]:
        if isinstance(getattr(module, names[1], None), torch.Tensor):
            why = f"{names[0]}, read bicubic at the grid, plus {names[1]}, which repeats over it"
            return [refused(names[0], why)]
        return tables(names[0], sides=sides)(module, model)

    return read


def crossvit(module: Any, model: Any) -> list[Row]:
    """A table for each branch, whose images and patches have sizes of their own."""
    rows = []
    for branch in range(module.num_branches):
        name, embed = f"pos_embed_{branch}", module.patch_embed[branch]
        grid = tuple(side // patch for side, patch in zip(embed.img_size, embed.patch_size, strict=True))
        rows.append(table(name, getattr(module, name), _pair(grid), prefix=1))  # its rectangles have rows too many
    return rows


def nest(module: Any, model: Any) -> list[Row]:
    """Rows block by block."""
    if module.pos_embed is None:
        return []
    _, blocks, places, dim = module.pos_embed.shape
    with torch.device("meta"):
        encoding = Learned(dim, length=blocks * places)
    return [Row("pos_embed", encoding, (f"counted block by block: {blocks} blocks of {places} patches",))]


def tnt(module: Any, model: Any) -> list[Row]:
    """A table of patches, and one of the pixels in each."""
    note = "of the pixels within a patch, the same for all patches"
    inner = table("pixel_pos", module.pixel_pos, channels="first")
    outer = table("patch_pos", module.patch_pos, _pair(getattr(module.pixel_embed, "grid_size", None)), prefix=1)
    return [outer, inner._replace(notes=(*inner.notes, note))]


def naflex(module: Any, model: Any) -> list[Row]:
    """A table that is read at the grid of each image, or two that are added."""
    rows = []
    if isinstance(getattr(module, "pos_embed", None), torch.Tensor):
        row = table("pos_embed", module.pos_embed)
        how = f"{module.pos_embed_interp_mode}{' with antialias' if module.pos_embed_antialias else ''}"
        rows.append(row._replace(notes=(f"read at the grid of each image, {how}",)))
    if isinstance(getattr(module, "pos_embed_y", None), torch.Tensor):
        rows.append(refused("pos_embed_y, pos_embed_x", "two tables, of rows and of columns, which are added"))
    return rows

"""Small pictures in rows, such as the samples of a model, as one figure."""

import itertools
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

from posenc.lab.drawing import plots

GAP = 0.08  # between two pictures, in widths of one
SHADES = LinearSegmentedColormap.from_list("shades", [(0.1, 0.47, 0.78, 0.08), (0.1, 0.47, 0.78, 1)])
"""From the page's background to blue."""


def tiles(
    name: str, title: str, rows: Mapping[str, Tensor], *, columns: Sequence[str] = (), caption: str = ""
) -> plots.Picture:
    """Rows of pictures of one width on the page.

    Args:
        name: of the figure, unique in a page.
        title: above it.
        rows: for each label ``(count, height, width)`` numbers, of which 0 is light and 1 is dark.
        columns: labels above the pictures of the first row.
        caption: below it.
    """
    width = max(len(pictures) for pictures in rows.values()) * (1 + GAP)
    heights = [pictures.shape[1] / pictures.shape[2] for pictures in rows.values()]
    tops = list(itertools.accumulate((height + GAP for height in heights), initial=0.0))

    def draw(axes: Axes) -> None:
        for pictures, top, height in zip(rows.values(), tops[:-1], heights, strict=True):
            for column, picture in enumerate(pictures.numpy()):
                left = column * (1 + GAP)
                axes.imshow(
                    picture, cmap=SHADES, vmin=0, vmax=1, interpolation="nearest", aspect="equal",
                    extent=(left, left + 1, top + height, top),
                )  # fmt: skip
        axes.set(xlim=(0, width), ylim=(tops[-1], 0))
        axes.set_yticks([top + height / 2 for top, height in zip(tops[:-1], heights, strict=True)], list(rows))
        axes.set_xticks([column * (1 + GAP) + 0.5 for column in range(len(columns))], list(columns))
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return plots.Picture(name, title, caption, draw, height=0.35 + (plots.WIDTH - 1.0) * tops[-1] / width)

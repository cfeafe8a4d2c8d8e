"""The pictures of an encoding of a grid: maps with one cell for each patch of an image."""

import math
from collections.abc import Callable

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

import posenc
from posenc.lab.drawing.plots import INK, Picture, heatmap
from posenc.positions import grid

FloatArray = NDArray[np.float64]
SIDE = 16
"""Rows and columns of the image for encodings of any size."""


def grid_pictures(encoding: posenc.Encoding, *, dim: int, num_heads: int) -> list[Picture] | None:
    """The pictures of an encoding of a grid; None for all others."""
    with torch.no_grad():
        if (codes := _codes(encoding)) is not None:
            return [_likeness(codes), _channels(codes)]
        if encoding.places == ("scores",) and (shape := getattr(encoding, "window", None)) is not None:
            return _biases(_bias_from_the_middle(encoding, shape, dim=dim, num_heads=num_heads))
    return None


def _codes(encoding: posenc.Encoding) -> FloatArray | None:
    """The code of each patch, ``(rows, columns, dim)``, of an encoding on the embeddings."""
    if isinstance(encoding, posenc.embeddings.LearnedGrid):
        shape, places = encoding.grid, torch.arange(encoding.prefix, encoding.table.shape[0])
    elif isinstance(encoding, posenc.EmbeddingEncoding) and encoding.coordinates > 1:
        shape = (SIDE, SIDE)
        # Directions are in turns per unit, of an image that is two units wide; rates are per patch.
        centred = isinstance(encoding, posenc.embeddings.FourierFeatures)
        patches = grid(*shape, unit="centred" if centred else "patches")[0].double()
        still = torch.zeros(len(patches), encoding.coordinates - 2, dtype=torch.float64)  # the first frame of a video
        places = torch.cat((still, patches), dim=-1)
    else:
        return None
    codes: FloatArray = encoding.codes(places).detach().double().numpy()
    return codes.reshape(*shape, -1)


def _bias_from_the_middle(encoding: posenc.Encoding, shape: tuple[int, int], *, dim: int, num_heads: int) -> FloatArray:
    """The bias between the patch in the middle and all patches, ``(heads, rows, columns)``."""
    prefix = getattr(encoding, "prefix", 0)
    places = torch.arange(shape[0] * shape[1]) + prefix
    middle = places[shape[0] // 2 * shape[1] + shape[1] // 2]
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, num_heads, 1, dim // num_heads, dtype=torch.float64, generator=generator)
    k = torch.zeros(1, num_heads, len(places), dim // num_heads, dtype=torch.float64)
    scores = torch.zeros(1, num_heads, 1, len(places), dtype=torch.float64)
    added: FloatArray = encoding.on_scores(scores, middle[None], places, q=q, k=k)[0, :, 0].detach().numpy()
    return added.reshape(num_heads, *shape)


def _likeness(codes: FloatArray) -> Picture:
    rows, columns, _ = codes.shape
    unit = codes / np.maximum(np.linalg.norm(codes, axis=-1, keepdims=True), 1e-12)
    y, x = rows // 2, columns // 2
    alike = unit @ unit[y, x]

    def draw(axes: Axes) -> None:
        heatmap(axes, alike, square=True)
        axes.plot([x], [y], "o", color=INK, markersize=3)
        axes.set(xlabel="column", ylabel="row")

    others = np.delete(alike.ravel(), y * columns + x)
    reach = min(y, x, 4)
    straight = np.mean([alike[y - reach, x], alike[y, x - reach]])
    slanted = alike[y - max(1, round(reach / 2**0.5)), x - max(1, round(reach / 2**0.5))]
    if np.abs(others).max(initial=0.0) < 0.6:
        title = "One patch and all others: no other is similar"
    elif straight - slanted > 0.05:
        title = "One patch and all others: most similar in the same row and column"
    else:
        title = "One patch and all others: more similar the nearer, in every direction"
    return Picture("likeness", title, "Cosine of the codes of the marked patch and of every other.", draw)


def _channels(codes: FloatArray) -> Picture:
    # Slow channels hardly change within an image, so there is nothing to see.
    spread = codes.std(axis=(0, 1))
    moving = np.flatnonzero(spread > 0.2 * spread.max())
    shown = moving[np.linspace(0, len(moving) - 1, min(12, len(moving))).round().astype(int)]
    maps = [codes[..., channel] for channel in shown]
    along_one = all(min(np.ptp(each, axis=0).max(), np.ptp(each, axis=1).max()) < 1e-9 for each in maps)
    smooth = np.mean([np.abs(np.diff(each, axis=1)).mean() / (np.std(each) + 1e-12) for each in maps]) < 0.9
    if along_one:
        title = "Channels: each follows the rows or the columns"
    else:
        title = "Channels: waves in many directions" if smooth else "Channels: each patch has its own value"
    caption = f"{len(shown)} of {codes.shape[-1]} channels as maps of the image: {', '.join(map(str, shown))}."
    return Picture("channels", title, caption, _tiles(maps))


def _biases(bias: FloatArray) -> list[Picture]:
    first = bias[0]
    mirrored = first[:, ::-1]

    def draw(axes: Axes) -> None:
        heatmap(axes, first, square=True)
        axes.plot([first.shape[1] // 2], [first.shape[0] // 2], "o", color=INK, markersize=3)
        axes.set(xlabel="column of the key", ylabel="row of the key")

    # An odd side has a middle, so that a bias of distances is symmetric about it.
    odd = first[:, 1:] if first.shape[1] % 2 == 0 else first
    even = np.allclose(odd, odd[:, ::-1]) and not np.allclose(mirrored, first[0, 0])
    title = "Head 0: the same to the left and to the right" if even else "Head 0: a number for each offset"
    apart = np.abs(first - first[:1] - first[:, :1] + first[0, 0]).max() < 1e-6 * max(np.abs(first).max(), 1e-12)
    title = "Head 0: a number for the row, plus one for the column" if apart else title
    found = [Picture("scores", title, "The bias between the query at the mark and each key.", draw)]
    if len(bias) > 1:
        caption = "The same for each head. Blue is above zero, orange below."
        found.append(Picture("heads", f"{min(len(bias), 12)} heads", caption, _tiles(list(bias[:12]))))
    return found


def _tiles(maps: list[FloatArray]) -> Callable[[Axes], None]:
    """A function that draws maps side by side."""
    across = math.ceil(len(maps) ** 0.5)
    rows, columns = maps[0].shape
    down = -(-len(maps) // across)
    sheet = np.full((down * (rows + 1) - 1, across * (columns + 1) - 1), np.nan)
    for at, each in enumerate(maps):
        y, x = at // across * (rows + 1), at % across * (columns + 1)
        sheet[y : y + rows, x : x + columns] = each

    def draw(axes: Axes) -> None:
        heatmap(axes, sheet, square=True)
        axes.set(xticks=[], yticks=[])

    return draw

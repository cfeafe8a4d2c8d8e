"""Images of UCI's digits in patches, and the positions of patches in images of any size."""

import functools
import gzip
from importlib import resources
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import posenc
from posenc.embeddings import LearnedGrid, SinusoidalGrid
from posenc.lab.compare.task import Sizes, Task
from posenc.lab.encodings.spec import parse

SIDE, CLASSES = 8, 10
SIZES = ((8, 8), (12, 12), (16, 16), (8, 16))
NUMBERS = ("raw", "fitted", "centred")
TABLES = ("bicubic", "in one dimension")


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """The images ``(1797, 8, 8)`` from -1 to 1, and their digits, in the order of the file."""
    data = resources.files("posenc.lab") / "data" / "digits.csv.gz"
    table = np.loadtxt(gzip.decompress(data.read_bytes()).decode().splitlines(), delimiter=",", dtype=np.int64)
    images = torch.from_numpy(table[:, :-1]).float().view(-1, SIDE, SIDE) / 8 - 1
    return images, torch.from_numpy(table[:, -1])


@functools.cache
def split() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training images and digits; every fifth image is for testing, so that both sets contain all writers."""
    images, labels = digits()
    tested = torch.arange(len(images)) % 5 == 4
    return (images[~tested], labels[~tested]), (images[tested], labels[tested])


def drawn(count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Training images and digits, drawn at random."""
    (images, labels), _ = split()
    chosen = torch.from_numpy(generator.integers(0, len(images), count))
    return images[chosen], labels[chosen]


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """``(count, rows, columns)`` resized to another size, bicubically."""
    if images.shape[1:] == (height, width):
        return images
    larger = F.interpolate(images[:, None], size=(height, width), mode="bicubic", align_corners=False)
    return larger[:, 0].clamp(-1, 1)


def patched(images: Tensor, patch: int) -> Tensor:
    """``(count, rows, columns)`` -> ``(count, patches, patch * patch)``, row by row."""
    return F.unfold(images[:, None], patch, stride=patch).transpose(1, 2)


def joined(patches: Tensor, height: int, width: int, patch: int) -> Tensor:
    """The images of ``height`` x ``width`` pixels from the patches of :func:`patched`."""
    return F.fold(patches.transpose(1, 2), (height, width), patch, stride=patch)[:, 0]


def numbers(height: int, width: int, side: int, rule: str) -> Tensor:
    """The coordinates of the patches of an image, for a model that was trained on ``side`` x ``side`` of them.

    ``raw`` counts the patches. ``fitted`` scales the numbers so that the first and last are those of training.
    ``centred`` gives each centre the number of this point of the image in training. All agree at the trained size.

    Returns:
        ``(1, height * width, 2)``.
    """
    if rule == "raw":
        grid: Tensor = posenc.positions.grid(height, width)
    else:
        grid = posenc.positions.grid(height, width, fit=(side, side), align="ends" if rule == "fitted" else "middles")
    return grid.double()


class Where(nn.Module):
    """An encoding of the patches of an image, and the rules that number the patches of a larger image.

    ``learned`` and ``sincos`` are a table and sinusoids of two dimensions. An encoding of two coordinates gets rows
    and columns; any other encoding gets the number of the patch, row by row.

    Args:
        spec: an encoding.
        dim: channels of the model.
        num_heads: of its attention.
        side: patches along each side of an image in training.
    """

    def __init__(self, spec: str, *, dim: int, num_heads: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.rules: tuple[str, ...] = ("",)
        self.encoding: posenc.Encoding | None = None  # for the layers
        self.code: posenc.Encoding | None = None  # for the patches
        if spec == "learned":
            self.code = LearnedGrid(dim, grid=(side, side), std=0.2)
        elif spec == "sincos":
            self.code = SinusoidalGrid(dim, frequencies=posenc.Geometric(base=100), layout="interleaved")
        elif spec == "axial":  # wavelengths that fit a grid; the usual base is for long texts
            self.encoding = posenc.AxialRoPE(head_dim=dim // num_heads, frequencies=posenc.Geometric(base=100))
        else:
            encoding = parse(spec).build(dim=dim, num_heads=num_heads, length=side * side, causal=False)
            if "embeddings" in encoding.places:
                self.code = encoding
            else:
                self.encoding = encoding
        if isinstance(self.code, LearnedGrid):
            if self.code.grid != (side, side):
                raise ValueError(
                    f"{spec}: got a table for {self.code.grid[0]} x {self.code.grid[1]} patches, expected {side} x "
                    f"{side}; give grid=({side},{side})."
                )
            self.rules = TABLES
        elif getattr(self.encoding or self.code, "coordinates", None) == 2:
            self.rules = NUMBERS

    def forward(self, x: Tensor, height: int, width: int, rule: str = "") -> tuple[Tensor, Tensor | None]:
        """The patches ``(batch, height * width, dim)``, with the code if it is added, and the positions for the layers.

        The default is the first rule; at the trained size all rules give the same positions.
        """
        rule = rule or self.rules[0]
        if isinstance(self.code, LearnedGrid):
            return x + self._rows(self.code, height, width, rule), None
        grid = numbers(height, width, self.side, rule) if self.rules == NUMBERS else None
        return (x, grid) if self.code is None else (self.code.on_embeddings(x, grid), None)

    def _rows(self, table: LearnedGrid, height: int, width: int, rule: str) -> Tensor:
        if (height, width) == (self.side, self.side):
            return table.table
        if rule == "in one dimension":  # read as a table of one dimension
            with torch.no_grad():
                text = posenc.Learned(dim=table.dim, length=len(table.table))
                text.table.copy_(table.table)
            return text.resized(height * width).table
        return table.resized(height, width).table


class OfDigits(Task):
    """A task on these images, at 8x8 pixels in training. A subclass defines the ``network``."""

    encodings = ("none", "learned", "sincos", "axial", "mixed")
    network: ClassVar[type[nn.Module]]

    def check(self, spec: str) -> str:
        return spec if spec in ("learned", "sincos") else super().check(spec)  # names that only Where knows

    def model(self, spec: str, sizes: Sizes) -> nn.Module:
        if sizes.length != SIDE:
            raise ValueError(f"--length: got {sizes.length}, expected {SIDE}: the images are 8x8.")
        return self.network(spec, sizes)

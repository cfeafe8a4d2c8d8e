"""Handwritten digits, trained at 8x8 pixels and shown larger: which number should a patch of a larger image have?"""

import functools
import gzip
from collections.abc import Iterator
from importlib import resources

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import posenc
from posenc.lab.compare.task import Measurement, Sizes, Task
from posenc.lab.encodings.spec import parse
from posenc.nn import Transformer

SIDE, CLASSES, TEST = 8, 10, 360
SHOWN = ((8, 8), (12, 12), (16, 16), (8, 16))
RULES = {
    "sincos": ("raw", "fitted"),
    "axial": ("raw", "fitted"),
    "axial-centred": ("centred",),
    "learned": ("bicubic", "in one dimension"),
}


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """The images ``(1797, 8, 8)`` from -1 to 1, and their digits, in the order of the file."""
    data = resources.files("posenc.lab") / "data" / "digits.csv.gz"
    table = np.loadtxt(gzip.decompress(data.read_bytes()).decode().splitlines(), delimiter=",", dtype=np.int64)
    images = torch.from_numpy(table[:, :-1]).float().view(-1, SIDE, SIDE) / 8 - 1
    return images, torch.from_numpy(table[:, -1])


class GridCode(nn.Module):
    """Sines of the row on half of the channels, and of the column on the others."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        frequencies = posenc.Geometric(base=100)
        self.sines = posenc.Sinusoidal(dim=dim // 2, frequencies=frequencies)

    def forward(self, grid: Tensor) -> Tensor:
        return torch.cat([self.sines.codes(grid[..., axis]) for axis in (0, 1)], dim=-1).float()


class ViT(nn.Module):
    """One pixel is a patch. The mean of the features is read by a linear layer."""

    def __init__(self, spec: str, sizes: Sizes) -> None:
        super().__init__()
        dim, heads = sizes.dim, sizes.num_heads
        self.spec = spec
        self.code: nn.Module | None = None
        encoding: posenc.Encoding | None = None
        if spec == "sincos":
            self.code = GridCode(dim)
        elif spec == "learned":
            self.code = posenc.Learned(dim=dim, length=SIDE * SIDE, std=0.2)
        elif spec.startswith("axial") and spec in RULES:
            encoding = posenc.AxialRoPE(head_dim=dim // heads, frequencies=posenc.Geometric(base=100))
        else:
            encoding = parse(spec).build(dim=dim, num_heads=heads, length=SIDE * SIDE)
        self.patches = nn.Linear(1, dim)
        self.encoder = Transformer(
            dim, heads, sizes.num_layers, encoding, activation="gelu", norm="layer", dropout=sizes.dropout
        )
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, images: Tensor, rule: str = "") -> Tensor:
        x = self.patches(images.flatten(1)[..., None])
        height, width = images.shape[1:]
        positions = None
        if self.spec in ("sincos", "axial", "axial-centred"):
            positions = places(height, width, rule or RULES[self.spec][0])
        if isinstance(self.code, posenc.Learned):
            x = x + stretched(self.code, height, width, rule)
        elif self.code is not None and positions is not None:
            x, positions = x + self.code(positions), None
        logits: Tensor = self.head(self.encoder(x, positions=positions).mean(dim=1))
        return logits


def places(height: int, width: int, rule: str) -> Tensor:
    """The coordinates of the patches, ``(1, height * width, 2)``."""
    if rule == "centred":
        return posenc.positions.grid(height, width, unit="centred") * SIDE / 2  # type: ignore[no-any-return]
    grid: Tensor = posenc.positions.grid(height, width).double()
    if rule == "fitted":
        grid = grid * torch.tensor([(SIDE - 1) / (height - 1), (SIDE - 1) / (width - 1)], dtype=torch.float64)
    return grid


def stretched(table: posenc.Learned, height: int, width: int, rule: str) -> Tensor:
    """The learned rows for an image of another size."""
    if (height, width) == (SIDE, SIDE):
        return table.table
    if rule == "in one dimension":
        return table.resized(height * width).table
    rows = table.table.T.view(1, -1, SIDE, SIDE)
    return F.interpolate(rows, size=(height, width), mode="bicubic", align_corners=False)[0].flatten(1).T


class Images(Task):
    title = "Handwritten digits, trained at 8x8 pixels"
    encodings = ("none", "learned", "sincos", "axial", "axial-centred")
    unit = "% right"
    sizes = Sizes(steps=600, batch=64, learning_rate=3e-3, length=SIDE)
    expected = (
        "The rule by which the patches of a larger image are numbered matters more than the encoding: numbers within "
        "the trained range (fitted, centred, a table stretched in two dimensions) carry over, and counted ones do not."
    )

    def check(self, spec: str) -> str:
        return spec if spec in RULES else super().check(spec)

    def model(self, spec: str, sizes: Sizes) -> nn.Module:
        if sizes.length != SIDE:
            raise ValueError(f"--length: got {sizes.length}, expected {SIDE}: the images are 8x8.")
        return ViT(spec, sizes)

    def loss(self, model: ViT, sizes: Sizes, generator: np.random.Generator) -> Tensor:
        images, labels = digits()
        chosen = torch.from_numpy(generator.integers(0, len(images) - TEST, sizes.batch))
        return F.cross_entropy(model(images[chosen]), labels[chosen])

    def measure(self, model: ViT, spec: str, sizes: Sizes) -> Iterator[Measurement]:
        images, labels = (t[-TEST:] for t in digits())
        for rule in RULES.get(spec, ("",)):
            for height, width in SHOWN:
                shown, trained = images, (height, width) == (SIDE, SIDE)
                if not trained:
                    shown = F.interpolate(images[:, None], size=(height, width), mode="bicubic", align_corners=False)
                    shown = shown[:, 0]
                size = f"{height}x{width}"
                try:
                    right = torch.cat([model(part, rule).argmax(-1) for part in shown.split(60)]) == labels
                except ValueError as error:  # past a table
                    yield Measurement(rule, size, None, note=str(error))
                    continue
                yield Measurement(rule, size, 100 * right.double().mean().item(), trained=trained)

"""Classification of handwritten digits, trained at 8x8 pixels and tested on larger images, by rule for positions."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.nn import functional as F

from posenc.lab.compare.task import Measurement, Sizes
from posenc.lab.compare.tasks.shared import patches
from posenc.lab.compare.tasks.shared.patches import CLASSES, NUMBERS, SIDE, SIZES, TABLES, OfDigits, Where
from posenc.lab.drawing.plots import Picture
from posenc.lab.drawing.tiles import SHADES
from posenc.nn import Transformer

PATCH = 2


class ViT(nn.Module):
    """A vision transformer; a linear layer reads the mean of its features."""

    def __init__(self, spec: str, sizes: Sizes) -> None:
        super().__init__()
        self.where = Where(spec, dim=sizes.dim, num_heads=sizes.num_heads, side=SIDE // PATCH)
        self.patches = nn.Linear(PATCH * PATCH, sizes.dim)
        self.encoder = Transformer(
            sizes.dim, sizes.num_heads, sizes.num_layers, self.where.encoding, activation="gelu", norm="layer",
            dropout=sizes.dropout,
        )  # fmt: skip
        self.head = nn.Linear(sizes.dim, CLASSES)

    def forward(self, images: Tensor, rule: str = "") -> Tensor:
        height, width = (side // PATCH for side in images.shape[1:])
        x, positions = self.where(self.patches(patches.patched(images, PATCH)), height, width, rule)
        logits: Tensor = self.head(self.encoder(x, positions=positions).mean(dim=1))
        return logits


class Images(OfDigits):
    title = "Handwritten digits, trained at 8x8 pixels"
    network = ViT
    unit = "% right"
    sizes = Sizes(steps=600, batch=64, learning_rate=3e-3, length=SIDE)
    expected = (
        "Rotations of two coordinates that are counted on lose less than a stretched table when the images of a "
        "trained ViT grow (Heo et al. 2024, arXiv:2403.13298, ImageNet at 14x14 patches). Here a grid has 4x4 "
        "patches, and what decides is the rule: numbers within the trained range (fitted, centred, a table "
        "stretched in two dimensions) carry over, and counted ones do not."
    )

    def loss(self, model: ViT, sizes: Sizes, generator: np.random.Generator) -> Tensor:
        images, labels = patches.drawn(sizes.batch, generator)
        return F.cross_entropy(model(images), labels)

    def measure(self, model: ViT, spec: str, sizes: Sizes) -> Iterator[Measurement]:
        _, (images, labels) = patches.split()
        for rule in model.where.rules:
            for height, width in SIZES:
                trained, size = (height, width) == (SIDE, SIDE), f"{height}x{width}"
                shown = patches.resized(images, height, width)
                try:
                    right = torch.cat([model(part, rule).argmax(-1) for part in shown.split(60)]) == labels
                except ValueError as error:  # past a table
                    yield Measurement(rule, size, None, note=str(error))
                    continue
                yield Measurement(rule, size, 100 * right.double().mean().item(), trained=trained)

    def show(self, model: ViT, spec: str, sizes: Sizes) -> Mapping[str, Tensor]:
        """For each rule, the mean accuracy over the larger sizes."""
        past: dict[str, list[float]] = {}
        for m in self.measure(model, spec, sizes):
            if not m.trained and m.value is not None:
                past.setdefault(m.row or "none", []).append(m.value)
        return {rule: torch.tensor(values).mean() for rule, values in past.items()}

    def pictures(self, shown: Mapping[str, Mapping[str, Tensor]]) -> Sequence[Picture]:
        rules = [rule for rule in ("none", *TABLES, *NUMBERS) if any(rule in values for values in shown.values())]

        def draw(axes: Axes) -> None:
            for row, values in enumerate(shown.values()):
                for rule, value in values.items():
                    column = rules.index(rule)
                    share = float(value) / 100
                    axes.add_patch(Rectangle((column - 0.47, row - 0.46), 0.94, 0.92, color=SHADES(share), linewidth=0))
                    axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center")
            axes.set(xlim=(-0.5, len(rules) - 0.5), ylim=(len(shown) - 0.5, -0.5))
            axes.set_xticks(range(len(rules)), [rule.replace("in one", "in one\n") for rule in rules])
            axes.set_yticks(range(len(shown)), list(shown))
            axes.tick_params(length=0)

        title = "Past the trained size: each encoding under each rule"
        caption = "% right, the mean of 12x12, 16x16 and 8x16; the first seed."
        return [Picture("rules", title, caption, draw)] if rules else []

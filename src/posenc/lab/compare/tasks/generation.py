"""Drawing of handwritten digits: flow matching with a small diffusion transformer, at 8x8 pixels and larger."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posenc.lab.compare.task import Measurement, Sizes
from posenc.lab.compare.tasks.shared import patches
from posenc.lab.compare.tasks.shared.diffusion import Block, Conditions
from posenc.lab.compare.tasks.shared.patches import CLASSES, NUMBERS, SIDE, TABLES, OfDigits, Where
from posenc.lab.drawing.plots import Picture
from posenc.lab.drawing.tiles import tiles
from posenc.lab.run.schedule import seeded

PATCH = 2
SHOWN = ((8, 8), (12, 12), (16, 16))
SAMPLES, DRAWN = 200, 20
DISTANCE = "Frechet distance"


class DiT(nn.Module):
    """Predicts the velocity from noise to an image, from a point between them, the time and the digit."""

    def __init__(self, spec: str, sizes: Sizes) -> None:
        super().__init__()
        dim = sizes.dim
        self.where = Where(spec, dim=dim, num_heads=sizes.num_heads, side=SIDE // PATCH)
        self.patches, self.out = nn.Linear(PATCH * PATCH, dim), nn.Linear(dim, PATCH * PATCH)
        self.conditions = Conditions(dim, CLASSES)
        self.blocks = nn.ModuleList(Block(sizes, self.where.encoding) for _ in range(sizes.num_layers))

    def forward(self, images: Tensor, t: Tensor, labels: Tensor, rule: str = "") -> Tensor:
        height, width = images.shape[1:]
        x = self.patches(patches.patched(images, PATCH))
        x, positions = self.where(x, height // PATCH, width // PATCH, rule)
        condition = self.conditions(t, labels)
        for block in self.blocks:
            x = block(x, condition, positions)
        return patches.joined(self.out(F.layer_norm(x, x.shape[-1:])), height, width, PATCH)

    @torch.no_grad()
    def sample(self, labels: Tensor, height: int, width: int, rule: str = "", *, steps: int = 20) -> Tensor:
        """Draw images of these digits with Euler's method, from noise of torch's global generator."""
        x = torch.randn(len(labels), height, width)
        for step in range(steps):
            x = x + self(x, torch.full((len(labels),), step / steps), labels, rule) / steps
        return x.clamp(-1, 1)


@functools.cache
def judge() -> tuple[nn.Module, nn.Module]:
    """A fixed classifier of real digits: a function to its features, and a function to the predicted digit."""
    (images, labels), _ = patches.split()
    with seeded(0):
        features = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 128), nn.GELU(), nn.Linear(128, 32), nn.GELU())
        model = nn.Sequential(features, nn.Linear(32, CLASSES))
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
        for _ in range(400):
            chosen = torch.randint(len(images), (128,))
            shown = images[chosen] + 0.2 * torch.randn(128, SIDE, SIDE)
            loss = F.cross_entropy(model(shown), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval().requires_grad_(False)
    return features, model


def frechet(one: Tensor, other: Tensor) -> float:
    """The Frechet distance of two normal distributions, with the means and covariances of ``(count, features)``."""
    one, other = one.double(), other.double()
    first, second = torch.cov(one.T), torch.cov(other.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return float((one.mean(0) - other.mean(0)).square().sum() + first.trace() + second.trace() - 2 * cross)


def drawn(model: DiT, labels: Tensor, height: int, width: int, rule: str) -> Tensor:
    """Samples for every rule; all rules and encodings start from the same noise."""
    with seeded(height, width):
        return model.sample(labels, height, width, rule)


class Generation(OfDigits):
    title = "Drawing handwritten digits, trained at 8x8 pixels"
    network = DiT
    unit = "% seen as the digit that was asked for"
    other_units: ClassVar = {DISTANCE: False}
    sizes = Sizes(num_layers=3, steps=600, batch=64, learning_rate=3e-3, warmup=50, length=SIDE)
    expected = (
        "Diffusion transformers add sines of two dimensions (Peebles and Xie 2022, arXiv:2212.09748) or rotate by "
        "them. No published ordering is known at this size; the question is whether the rule that numbers the "
        "patches decides here as it does in the task images."
    )

    def loss(self, model: DiT, sizes: Sizes, generator: np.random.Generator) -> Tensor:
        images, labels = patches.drawn(sizes.batch, generator)
        noise = torch.from_numpy(generator.standard_normal((sizes.batch, SIDE, SIDE), dtype=np.float32))
        t = torch.from_numpy(generator.random(sizes.batch, dtype=np.float32))
        between = (1 - t[:, None, None]) * noise + t[:, None, None] * images
        return F.mse_loss(model(between, t, labels), images - noise)

    def measure(self, model: DiT, spec: str, sizes: Sizes) -> Iterator[Measurement]:
        _, (real, _) = patches.split()
        features, classifier = judge()
        labels = torch.arange(CLASSES).repeat(SAMPLES // CLASSES)
        for height, width in SHOWN:
            trained, size = (height, width) == (SIDE, SIDE), f"{height}x{width}"
            for rule in model.where.rules:
                if not trained or rule == model.where.rules[0]:  # at the trained size all rules give the same positions
                    try:
                        samples = drawn(model, labels, height, width, rule)
                    except ValueError as error:  # past a table
                        yield Measurement(rule, size, None, note=str(error))
                        yield Measurement(rule, size, None, note=str(error), unit=DISTANCE)
                        continue
                    # One classifier for all sizes: larger drawings are resized to 8x8.
                    small = F.interpolate(samples[:, None], size=(SIDE, SIDE), mode="bilinear", antialias=True)[:, 0]
                    right = (classifier(small).argmax(-1) == labels).double().mean().item()
                    far = frechet(features(small), features(real))
                yield Measurement(rule, size, 100 * right, trained=trained)
                yield Measurement(rule, size, far, trained=trained, unit=DISTANCE)

    def show(self, model: DiT, spec: str, sizes: Sizes) -> Mapping[str, Tensor]:
        shown = {}
        for rule in model.where.rules:
            for height, width in SHOWN:
                trained = (height, width) == (SIDE, SIDE)
                if trained and rule != model.where.rules[0]:
                    continue  # all rules are the same there
                labels = torch.arange(CLASSES).repeat(DRAWN // CLASSES if trained else 1)
                name = f"{height}x{width}" if trained or not rule else f"{height}x{width}, {rule}"
                with contextlib.suppress(ValueError):  # past a table
                    shown[name] = (drawn(model, labels, height, width, rule) + 1) / 2
        return shown

    def pictures(self, shown: Mapping[str, Mapping[str, Tensor]]) -> Sequence[Picture]:
        digits = [str(digit) for digit in range(CLASSES)]
        found = []
        sizes = [f"{height}x{width}" for height, width in SHOWN]
        names = [*sizes, *(f"{size}, {rule}" for rule in (*TABLES, *NUMBERS) for size in sizes)]
        for label, samples in shown.items():
            rows = {
                name if part == 0 else " " * part: ten
                for name in names
                if name in samples
                for part, ten in enumerate(samples[name].split(CLASSES))
            }
            found.append(tiles(f"samples {label}", f"{label}: samples of each digit", rows, columns=digits))
        return found

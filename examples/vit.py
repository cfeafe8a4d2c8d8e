"""A vision transformer tells apart shapes of 10x10 patches, and is then shown larger images.

Axial RoPE turns each patch by its row and its column. Three ways to number the patches of a larger image: as they are
counted (numbers that training never saw), fitted into the trained range, or centred from -1 to 1.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import posenc
from posenc.nn import Transformer

DIM, HEADS, SIDE, CLASSES = 64, 4, 10, 5


def draw(count: int, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy images ``(count, side, side)`` of a disc, a ring, a square, a frame or a cross, and which one it is."""
    labels = torch.randint(CLASSES, (count,), generator=generator)
    radius = side * (0.2 + 0.1 * torch.rand(count, 1, 1, generator=generator))
    centre = (side - 1) / 2 + side * 0.3 * (torch.rand(count, 2, generator=generator) - 0.5)
    dy = torch.arange(side)[None, :, None] - centre[:, 0, None, None]
    dx = torch.arange(side)[None, None, :] - centre[:, 1, None, None]
    far, thin = torch.maximum(dy.abs(), dx.abs()), side / 14
    distance = (dy**2 + dx**2).sqrt()
    shapes = torch.stack(
        [
            distance < radius,
            (distance - radius).abs() < thin,
            far < 0.85 * radius,
            (far - 0.85 * radius).abs() < thin,
            (torch.minimum(dy.abs(), dx.abs()) < thin) & (far < radius),
        ]
    )
    images = shapes[labels, torch.arange(count)].float()
    return images + 0.1 * torch.randn(images.shape, generator=generator), labels


class ViT(nn.Module):
    """One pixel is a patch; the mean of all features is read by a linear layer."""

    def __init__(self, encoding: posenc.Encoding) -> None:
        super().__init__()
        self.patches = nn.Linear(1, DIM)
        self.encoder = Transformer(DIM, HEADS, 2, encoding, activation="gelu", norm="layer")
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, images: Tensor, positions: Tensor) -> Tensor:
        x = self.patches(images.flatten(1)[..., None])
        return self.head(self.encoder(x, positions=positions).mean(dim=1))


def places(side: int, rule: str) -> Tensor:
    """The coordinates of the patches, ``(1, side * side, 2)``."""
    if rule == "centred":
        return posenc.positions.grid(side, side, unit="centred") * SIDE / 2
    counted = posenc.positions.grid(side, side)
    return counted if rule == "counted" else counted * (SIDE - 1) / (side - 1)


def main(steps: int = 250) -> dict[tuple[str, int], float]:
    generator = torch.Generator().manual_seed(0)
    accuracy = {}
    for rule in ("counted", "fitted", "centred"):
        if rule != "fitted":  # the same as counted at the trained size, so the same model
            torch.manual_seed(0)
            frequencies = posenc.Geometric(base=100)  # wavelengths of a grid, not of a book
            model = ViT(posenc.AxialRoPE(head_dim=DIM // HEADS, frequencies=frequencies))
            optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
            for _ in range(steps):
                images, labels = draw(32, SIDE, generator)
                loss = F.cross_entropy(model(images, places(SIDE, rule)), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
        for side in (SIDE, 15, 20):
            images, labels = draw(100, side, torch.Generator().manual_seed(side))
            with torch.no_grad():
                right = model(images, places(side, rule)).argmax(-1) == labels
            accuracy[rule, side] = right.float().mean().item()
            print(f"{rule:8} at {side}x{side}: {accuracy[rule, side]:.0%} right", flush=True)
    return accuracy


if __name__ == "__main__":
    main()

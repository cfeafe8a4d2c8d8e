"""A small diffusion transformer: it learns to draw a ring, a square or a cross of 8x8 pixels from noise.

Flow matching: a point on the way from noise to an image, ``x_t = (1 - t) noise + t image``, and the model says which
way the image lies. Time and class set scale, shift and gate of every block (adaLN-Zero, as in DiT).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import posenc
from posenc.nn import Attention

DIM, HEADS, SIDE, CLASSES = 64, 4, 8, 3


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images ``(count, 64)`` from -1 to 1, and their classes."""
    labels = torch.randint(CLASSES, (count,), generator=generator)
    size = 2.2 + torch.rand(count, 1, 1, generator=generator)
    place = torch.arange(SIDE) - (SIDE - 1) / 2
    dy, dx = place[:, None].abs(), place[None, :].abs()
    far, near = torch.maximum(dy, dx), torch.minimum(dy, dx)
    distance = ((dy**2 + dx**2).sqrt() - size).abs() < 0.8
    shapes = torch.stack([distance, far < size - 0.4, (near < 1).expand_as(size * far) & (far < size + 0.6)])
    return shapes[labels, torch.arange(count)].flatten(1).float() * 2 - 1, labels


class Block(nn.Module):
    def __init__(self, encoding: posenc.Encoding) -> None:
        super().__init__()
        self.attention = Attention(DIM, HEADS, encoding, qk_norm="rms")
        self.mlp = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))
        self.modulation = nn.Linear(DIM, 6 * DIM)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor, positions: Tensor) -> Tensor:
        shift, scale, gate, shift_2, scale_2, gate_2 = self.modulation(F.silu(condition))[:, None].chunk(6, dim=-1)
        y = F.layer_norm(x, (DIM,)) * (1 + scale) + shift
        x = x + gate * self.attention(y, positions=positions)
        y = F.layer_norm(x, (DIM,)) * (1 + scale_2) + shift_2
        return x + gate_2 * self.mlp(y)


class DiT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        frequencies = posenc.Geometric(base=100)
        axial = posenc.AxialRoPE(head_dim=DIM // HEADS, frequencies=frequencies)
        self.pixels, self.out = nn.Linear(1, DIM), nn.Linear(DIM, 1)
        self.classes = nn.Embedding(CLASSES, DIM)
        self.time = nn.Sequential(nn.Linear(DIM, DIM), nn.SiLU(), nn.Linear(DIM, DIM))
        self.clock = posenc.Sinusoidal(dim=DIM)  # the same sines, of the time in thousandths
        self.blocks = nn.ModuleList(Block(axial) for _ in range(3))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        x = self.pixels(x[..., None])
        codes = self.clock.codes(1000 * t).to(x.dtype)
        condition = self.time(codes) + self.classes(labels)
        for block in self.blocks:
            x = block(x, condition, posenc.positions.grid(SIDE, SIDE))
        return self.out(F.layer_norm(x, (DIM,)))[..., 0]

    @torch.no_grad()
    def sample(self, labels: Tensor, generator: torch.Generator, steps: int = 20) -> Tensor:
        x = torch.randn(len(labels), SIDE * SIDE, generator=generator)
        for step in range(steps):
            t = torch.full((len(labels),), step / steps)
            x = x + self(x, t, labels) / steps
        return x


def main(steps: int = 400) -> float:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = DiT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        images, labels = draw(32, generator)
        noise, t = torch.randn(images.shape, generator=generator), torch.rand(len(images), generator=generator)
        x = (1 - t[:, None]) * noise + t[:, None] * images
        loss = F.mse_loss(model(x, t, labels), images - noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            print(f"step {step + 1}: {loss.item():.3f} mean squared error of the velocity")
    labels = torch.arange(CLASSES).repeat(20)
    samples = model.eval().sample(labels, generator).sign()
    # Which class each sample is nearest to: its nearest neighbour among fresh drawings.
    images, classes = draw(600, generator)
    right = (classes[torch.cdist(samples, images).argmin(-1)] == labels).float().mean().item()
    for row in range(SIDE):
        print("   ".join("".join(" #"[int(p > 0)] * 2 for p in s.view(SIDE, SIDE)[row]) for s in samples[:CLASSES]))
    print(f"{right:.0%} of the samples are nearest to a drawing of the class that was asked for")
    return right


if __name__ == "__main__":
    main()

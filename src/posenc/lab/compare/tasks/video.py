"""Video of a digit that moves around a ring: flow matching of 8 frames, tested on 16, by rule for the time axis."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import posenc
from posenc.frequencies import NTK, Frequencies, Geometric, Linear, RIFLEx
from posenc.lab.compare.task import Measurement, Sizes, Task
from posenc.lab.compare.tasks.shared import patches
from posenc.lab.compare.tasks.shared.diffusion import Block, Conditions
from posenc.lab.compare.tasks.shared.patches import SIDE
from posenc.lab.drawing.plots import Picture
from posenc.lab.drawing.tiles import tiles
from posenc.lab.encodings.spec import parse
from posenc.lab.run.schedule import seeded
from posenc.nn import Attention

WIDTH, PATCH = 16, 4  # of the ring in pixels: one turn in 16 frames
FACTOR, VIDEOS = 2, 48
BASE, STEP = 100.0, 2  # base of the time axis, and its units per frame: the second pair turns once in 10 frames
RULES = ("as trained", "RIFLEx", "NTK", "Linear")
REPEATS = "% of the new frames that repeat the one 8 before"
STILL = "% of the new frames that stand still"


def moving(images: Tensor, starts: Tensor, ways: Tensor, frames: int) -> Tensor:
    """Each image moves on a ring by one pixel per frame: ``(count, frames, 8, 16)``; way 0 is left, 1 is right."""
    ring = F.pad(images, (0, WIDTH - SIDE), value=-1.0)
    places = starts[:, None] + (2 * ways - 1)[:, None] * torch.arange(frames)
    columns = (torch.arange(WIDTH) - places[..., None]) % WIDTH
    return ring[:, None].expand(-1, frames, -1, -1).gather(3, columns[:, :, None].expand(-1, -1, SIDE, -1))


def place(videos: Tensor, images: Tensor) -> Tensor:
    """The column of the ring at which each frame of ``(count, frames, 8, 16)`` matches the image best."""
    still = torch.zeros(len(images), dtype=torch.int64)
    every = moving(images, still, still + 1, WIDTH)
    likeness = torch.einsum("nfhw,nphw->nfp", videos, every)
    return likeness.argmax(-1)


def near(one: Tensor, other: Tensor) -> Tensor:
    """Whether two columns are at most one pixel apart on the ring."""
    apart = (one - other) % WIDTH
    return torch.minimum(apart, WIDTH - apart) <= 1


def shares(at: Tensor, wanted: Tensor, new: int) -> tuple[float, float, float]:
    """Of the frames from ``new`` on, the shares in the right place, repeating the one ``new`` before, standing still.

    The digit repeats if it is near where it was, and stands still if it is in the column of the frame before.
    """
    found = near(at, wanted)[:, new:], near(at[:, new:], at[:, :-new]), at[:, new:] == at[:, new - 1 : -1]
    right, again, still = (share.double().mean().item() for share in found)
    return right, again, still


class VideoDiT(nn.Module):
    """Predicts the velocity from noise to a video with a given first frame; it reads a point between, time and way."""

    def __init__(self, spec: str, sizes: Sizes) -> None:
        super().__init__()
        dim, heads, tokens = sizes.dim, sizes.num_heads, sizes.length * SIDE * WIDTH // PATCH**2
        self.spec, self.head_dim, self.trained = spec, dim // heads, sizes.length
        encoding = (
            self.rotation("as trained")
            if spec == "axial"
            else parse(spec).build(dim=dim, num_heads=heads, length=tokens, causal=False)
        )
        if encoding.places == ("embeddings",):
            raise ValueError(f"--task video: got {spec}, expected an encoding of the layers, such as axial or rope.")
        self.patches, self.out = nn.Linear(PATCH * PATCH, dim), nn.Linear(dim, PATCH * PATCH)
        self.given = nn.Parameter(torch.zeros(dim))
        self.conditions = Conditions(dim, 2)
        self.blocks = nn.ModuleList(Block(sizes, encoding) for _ in range(sizes.num_layers))

    @property
    def rules(self) -> tuple[str, ...]:
        """The frequency rules of the time axis for a longer video."""
        return RULES if self.spec == "axial" else ("",)

    def rotation(self, rule: str) -> posenc.AxialRoPE:
        """An axial rotation with half of the channels for time; rows and columns are the same under every rule."""
        width, space = self.head_dim // 2, Geometric(base=BASE)
        pair = RIFLEx.nearest(STEP * self.trained, rotary_dim=width, base=BASE)
        rates: dict[str, Frequencies] = {
            "RIFLEx": RIFLEx(pair, STEP * FACTOR * self.trained, base=BASE),
            "NTK": NTK(FACTOR, base=BASE),
            "Linear": Linear(FACTOR, base=BASE),
        }
        axes = (width, self.head_dim // 4, self.head_dim // 4)
        return posenc.AxialRoPE(self.head_dim, axes=axes, frequencies=(rates.get(rule, space), space, space))

    def use(self, rule: str) -> None:
        """Choose the rule of the time axis."""
        if self.spec == "axial":
            for module in self.modules():
                if isinstance(module, Attention):
                    module.encoding = self.rotation(rule)

    def forward(self, videos: Tensor, t: Tensor, ways: Tensor) -> Tensor:
        """The velocity of all frames; that of the given first frame has no meaning."""
        count, frames = videos.shape[:2]
        x = self.patches(patches.patched(videos.flatten(0, 1), PATCH)).unflatten(0, (count, frames))
        x = torch.cat((x[:, :1] + self.given, x[:, 1:]), dim=1).flatten(1, 2)
        positions = None
        if self.spec == "axial":
            positions = posenc.positions.grid(frames, SIDE // PATCH, WIDTH // PATCH, step=(STEP, 1, 1))
        condition = self.conditions(t, ways)
        for block in self.blocks:
            x = block(x, condition, positions)
        flat = self.out(F.layer_norm(x, x.shape[-1:])).unflatten(1, (frames, -1)).flatten(0, 1)
        velocity: Tensor = patches.joined(flat, SIDE, WIDTH, PATCH).unflatten(0, (count, frames))
        return velocity

    @torch.no_grad()
    def sample(self, first: Tensor, ways: Tensor, frames: int, *, steps: int = 20) -> Tensor:
        """Draw videos from their first frames with Euler's method, from noise of torch's global generator."""
        x = torch.randn(len(first), frames, SIDE, WIDTH)
        for step in range(steps):
            x[:, 0] = first
            x = x + self(x, torch.full((len(first),), step / steps), ways) / steps
        x[:, 0] = first
        return x.clamp(-1, 1)


def tested(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Test digits, their start columns and their directions."""
    _, (images, _) = patches.split()
    numbers = torch.arange(count)
    return images[:count], 5 * numbers % WIDTH, numbers % 2


class Video(Task):
    title = "A digit that moves around a ring, trained on 8 frames"
    encodings = ("axial", "rope", "none")
    unit = "% of the new frames in place"
    other_units: ClassVar = {REPEATS: False, STILL: False}
    sizes = Sizes(num_layers=3, steps=600, batch=32, learning_rate=2e-3, warmup=50, length=8)
    expected = (
        "Longer videos than those of training repeat themselves with the rates as trained, go in slow motion with "
        "rates that are divided, and do neither with RIFLEx (Zhao et al. 2025, arXiv:2502.15894)."
    )

    def model(self, spec: str, sizes: Sizes) -> nn.Module:
        if not 2 <= sizes.length <= WIDTH // FACTOR:
            raise ValueError(f"--length: got {sizes.length}, expected 2 to {WIDTH // FACTOR} frames: the ring has 16.")
        return VideoDiT(spec, sizes)

    def loss(self, model: VideoDiT, sizes: Sizes, generator: np.random.Generator) -> Tensor:
        (images, _), _ = patches.split()
        chosen, starts, ways = (
            torch.from_numpy(generator.integers(0, high, sizes.batch)) for high in (len(images), WIDTH, 2)
        )
        videos = moving(images[chosen], starts, ways, sizes.length)
        noise = torch.from_numpy(generator.standard_normal(videos.shape, dtype=np.float32))
        t = torch.from_numpy(generator.random(sizes.batch, dtype=np.float32))
        between = (1 - t[:, None, None, None]) * noise + t[:, None, None, None] * videos
        between[:, 0] = videos[:, 0]
        return F.mse_loss(model(between, t, ways)[:, 1:], (videos - noise)[:, 1:])

    def measure(self, model: VideoDiT, spec: str, sizes: Sizes) -> Iterator[Measurement]:
        images, starts, ways = tested(VIDEOS)
        for rule in model.rules:
            for frames, new in ((sizes.length, 1), (FACTOR * sizes.length, sizes.length)):
                model.use(rule if new > 1 else "as trained")  # a rule is for longer videos
                truth = moving(images, starts, ways, frames)
                with seeded(frames):
                    at = place(model.sample(truth[:, 0], ways, frames), images)
                right, again, still = (100 * share for share in shares(at, place(truth, images), new))
                yield Measurement(rule, f"{frames} frames", right, trained=new == 1)
                if new > 1:
                    yield Measurement(rule, f"{frames} frames", again, unit=REPEATS)
                yield Measurement(rule, f"{frames} frames", still, trained=new == 1, unit=STILL)

    def show(self, model: VideoDiT, spec: str, sizes: Sizes) -> Mapping[str, Tensor]:
        images, starts, ways = tested(2)
        frames = FACTOR * sizes.length
        truth = moving(images, starts, ways, frames)
        shown = {"truth": truth[1]}
        for rule in model.rules:
            model.use(rule)
            with seeded(frames):
                shown[rule or spec] = model.sample(truth[:, 0], ways, frames)[1]
        return {name: (video + 1) / 2 for name, video in shown.items()}

    def pictures(self, shown: Mapping[str, Mapping[str, Tensor]]) -> Sequence[Picture]:
        found = []
        for label, videos in shown.items():
            rows = ["truth", *(rule for rule in RULES if rule in videos)]
            every_other = {name: videos[name][::2] for name in (*rows, *sorted(set(videos) - set(rows)))}
            caption = "Every other frame, from the first, which is given; training had 8."
            columns = [str(frame) for frame in range(1, len(videos["truth"]) + 1, 2)]
            found.append(tiles(f"video {label}", f"{label}: 16 frames", every_other, columns=columns, caption=caption))
        return found

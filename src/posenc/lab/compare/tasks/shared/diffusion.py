"""The shared parts of small diffusion transformers: conditioning and blocks."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import posenc
from posenc.lab.compare.task import Sizes
from posenc.nn import Attention


class Conditions(nn.Module):
    """Embeds the condition: the time from 0 (noise) to 1, as sinusoids of 1000 times its value, and the class."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.classes = nn.Embedding(classes, dim)
        self.time = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.clock = posenc.Sinusoidal(dim=dim)

    def forward(self, t: Tensor, labels: Tensor) -> Tensor:
        condition: Tensor = self.time(self.clock.codes(1000 * t).to(torch.float32)) + self.classes(labels)
        return condition


class Block(nn.Module):
    """Attention and a feed-forward network, with scale, shift and gate from time and class (adaLN-Zero)."""

    def __init__(self, sizes: Sizes, encoding: posenc.Encoding | None) -> None:
        super().__init__()
        dim = sizes.dim
        self.attention = Attention(dim, sizes.num_heads, encoding, qk_norm="rms", dropout=sizes.dropout)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.modulation = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor, positions: Tensor | None) -> Tensor:
        shift, scale, gate, shift_2, scale_2, gate_2 = self.modulation(F.silu(condition))[:, None].chunk(6, dim=-1)
        y = F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        x = x + gate * self.attention(y, positions=positions)
        y = F.layer_norm(x, x.shape[-1:]) * (1 + scale_2) + shift_2
        result: Tensor = x + gate_2 * self.mlp(y)
        return result

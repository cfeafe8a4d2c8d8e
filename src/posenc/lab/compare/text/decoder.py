"""The small decoder that all encodings share: it calls all three hooks, and each encoding acts at its own place."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

import posenc
from posenc.lab.compare.text.config import ModelConfig
from posenc.lab.encodings.spec import Spec
from posenc.lab.run.schedule import seed_of, seeded


class Decoder(nn.Module):
    """A pre-norm transformer decoder with tied embeddings."""

    def __init__(self, config: ModelConfig, *, vocabulary_size: int, encoding: posenc.Encoding, seed: int) -> None:
        super().__init__()
        # Embeddings are drawn with a standard deviation of 1 / sqrt(dim), which suits the output layer that shares
        # them. The first Transformer then multiplies them by sqrt(dim), to the size of its sines; GPT-2 does not, and
        # has a small table to learn. Either favours one of the two, so the scale is midway. Nats a byte at the trained
        # length with the quick preset (dim 64), for a scale of 1, 3 and 8: sinusoidal 1.704, 1.635, 1.712; learned
        # 1.652, 1.662, 1.753; rope 1.570, 1.554, 1.596; none 2.128, 2.145, 2.206.
        self.scale = config.dim**0.25
        self.embedding = nn.Embedding(vocabulary_size, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.dim)
        self._draw_weights(seed)
        self.encoding = encoding  # assigned last, so that the decoder does not initialise its weights

    def forward(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocabulary"]:
        x = self.encoding.on_embeddings(self.embedding(tokens) * self.scale)
        for block in self.blocks:
            x = block(x, self.encoding)
        return F.linear(self.norm(x), self.embedding.weight)

    def _draw_weights(self, seed: int) -> None:
        """Draw the same initial weights for every encoding, from a generator that nothing else uses."""
        generator = torch.Generator().manual_seed(seed_of(seed, *b"model"))
        for name, weight in self.named_parameters():
            if weight.ndim < 2:
                continue  # gains of norms start at 1
            std = weight.shape[1] ** -0.5
            if name.endswith(("attention_out.weight", "mlp_out.weight")):
                std /= math.sqrt(2 * len(self.blocks))  # so that the sum over blocks keeps its variance (GPT-2)
            nn.init.normal_(weight, std=std, generator=generator)


class Block(nn.Module):
    """Attention, then an MLP, each with a residual connection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.attention_norm = nn.RMSNorm(config.dim)
        self.queries_keys_values = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.attention_out = nn.Linear(config.dim, config.dim, bias=False)
        self.mlp_norm = nn.RMSNorm(config.dim)
        self.mlp_in = nn.Linear(config.dim, 4 * config.dim, bias=False)
        self.mlp_out = nn.Linear(4 * config.dim, config.dim, bias=False)

    def forward(self, x: Float[Tensor, "batch seq dim"], encoding: posenc.Encoding) -> Float[Tensor, "batch seq dim"]:
        x = x + self.attention_out(self._attend(self.attention_norm(x), encoding))
        y: Tensor = x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x))))
        return y

    def _attend(self, x: Tensor, encoding: posenc.Encoding) -> Tensor:
        heads = self.queries_keys_values(x).unflatten(-1, (3 * self.num_heads, -1)).transpose(1, 2)
        q, k, v = heads.chunk(3, dim=1)
        q, k = encoding.on_queries_keys(q, k)
        y = posenc.attention(q, k, v, encoding, causal=True, state=encoding.carry(x))
        return y.transpose(1, 2).flatten(-2)


def build(config: ModelConfig, spec: Spec, *, vocabulary_size: int, length: int, seed: int) -> Decoder:
    """Build the decoder of one encoding, to be trained at ``length`` tokens; the encoding has its own random stream."""
    with seeded(seed, *b"encoding"):  # random streams for different purposes are independent
        encoding = spec.build(dim=config.dim, num_heads=config.num_heads, length=length)
        return Decoder(config, vocabulary_size=vocabulary_size, encoding=encoding, seed=seed)

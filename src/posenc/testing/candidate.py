"""What is tested: an encoding, its oracle, and a layer of attention around them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from posenc.dot_product_attention import attention
from posenc.encoding import Encoding
from posenc.kernels.biased_attention.plan import Implementation
from posenc.positions import Positions
from posenc.testing.comparator import FloatArray

Cache: TypeAlias = tuple[Tensor, Tensor, Tensor | None]


class Oracle(Protocol):
    """The same hooks in NumPy and float64, written from the paper. Only hooks of the encoding's places are called."""

    def on_embeddings(self, x: FloatArray, positions: FloatArray) -> FloatArray: ...

    def on_queries_keys(self, q: FloatArray, k: FloatArray, positions: FloatArray) -> tuple[FloatArray, FloatArray]: ...

    def bias(self, q_positions: FloatArray, k_positions: FloatArray) -> FloatArray: ...

    def temperature(self, q_positions: FloatArray) -> FloatArray: ...

    def contextual_bias(
        self,
        *,
        x: FloatArray,
        q: FloatArray,
        k: FloatArray,
        scores: FloatArray,
        scale: float,
        q_positions: FloatArray,
        k_positions: FloatArray,
    ) -> FloatArray:
        """For encodings that read tokens: x is the layer's input, scores are scaled and minus infinity if masked."""


@dataclass
class Candidate:
    """An encoding, its oracle, and a layer of attention around it that calls all three hooks as a model would."""

    encoding: Encoding
    oracle: Oracle | None
    num_heads: int = field(init=False)
    kv_heads: int = field(init=False)
    head_dim: int = field(init=False)
    projections: dict[int, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for part in self.encoding.parts:
            sizes |= {size: getattr(part, size) for size in ("dim", "num_heads", "head_dim") if hasattr(part, size)}
        dim = sizes.get("dim", sizes.get("num_heads", 4) * sizes.get("head_dim", 16))
        self.num_heads = sizes.get("num_heads", dim // sizes["head_dim"] if "head_dim" in sizes else 2 - dim % 2)
        self.head_dim = dim // self.num_heads
        # The fewest heads of k that it takes: one, unless it has something of its own for each.
        self.kv_heads = max(getattr(part, "num_kv_heads", None) or 1 for part in self.encoding.parts)
        self.projections = {seed: self.random(dim, dim, seed=seed) / dim**0.5 for seed in (1, 2, 3)}

    @property
    def dim(self) -> int:
        return self.num_heads * self.head_dim

    def length(self, wanted: int) -> int:
        limit = self.encoding.max_positions
        return wanted if limit is None else min(wanted, limit)

    def random(self, *shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        numbers: Tensor = torch.randn(*shape, dtype=torch.float64, generator=generator)
        return numbers.to(dtype)

    def embeddings(self, length: int, *, batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
        return self.random(batch, length, self.dim, dtype=dtype)

    def layer(
        self,
        x: Tensor,
        positions: Positions = None,
        *,
        encoding: Encoding | None = None,
        kv_heads: int | None = None,
        cache: Cache | None = None,
        all_positions: Positions = None,
        mask: Tensor | None = None,
        implementation: Implementation = "auto",
    ) -> tuple[Tensor, Cache]:
        encoding = self.encoding if encoding is None else encoding
        kv_heads = self.num_heads if kv_heads is None else kv_heads
        x = encoding.on_embeddings(x, positions)

        def project(heads: int, seed: int) -> Tensor:
            weight = self.projections[seed][:, : heads * self.head_dim].to(x.dtype)
            flat: Tensor = x @ weight
            return flat.view(*flat.shape[:-1], heads, self.head_dim).transpose(1, 2)

        q, k, v = project(self.num_heads, 1), project(kv_heads, 2), project(kv_heads, 3)
        q, k = encoding.on_queries_keys(q, k, positions)
        state = encoding.carry(x, None if cache is None else cache[2])
        if cache is not None:
            k, v = torch.cat((cache[0], k), dim=2), torch.cat((cache[1], v), dim=2)
        every = positions if all_positions is None else all_positions
        y = attention(
            q, k, v, encoding, q_positions=positions, k_positions=every, causal=True, mask=mask, state=state,
            implementation=implementation,
        )  # fmt: skip
        return y, (k, v, state)

    def hooks(self, positions: Positions, length: int, *, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """What each of the encoding's own hooks makes of random input, in a list."""
        x = self.embeddings(length, dtype=dtype)
        q = self.random(2, self.num_heads, length, self.head_dim, dtype=dtype, seed=1)
        calls: dict[str, Callable[[], tuple[Tensor, ...]]] = {
            "embeddings": lambda: (self.encoding.on_embeddings(x, positions),),
            "queries_keys": lambda: self.encoding.on_queries_keys(q, q.flip(0), positions),
            "scores": lambda: (self.scored(positions, length, dtype=dtype),),
        }
        return [result for place in self.encoding.places for result in calls[place]()]

    def scored(self, positions: Positions, length: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Random scores after the third hook, with random content for those that read it."""
        scores = self.random(2, self.num_heads, length, length, dtype=dtype, seed=2)
        q = self.random(2, self.num_heads, length, self.head_dim, dtype=dtype, seed=1)
        state = self.encoding.carry(self.embeddings(length, dtype=dtype))
        return self.encoding.on_scores(scores, positions, positions, q=q, k=q.flip(0), state=state)

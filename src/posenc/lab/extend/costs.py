"""How long the work will take, from what it computes and one short measurement."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from posenc.lab.checkpoint.open import Checkpoint
from posenc.lab.extend.gaps import Gaps
from posenc.lab.extend.passes import full_pass

SHORT = 256
"""Tokens that are timed."""


@dataclass(frozen=True)
class Costs:
    """Floating-point operations of a model, and how many a second it does here.

    Attributes:
        token: operations of a token, whatever it sees.
        seen: operations of a token for each one that it sees.
        speed: operations a second.
    """

    token: float
    seen: float
    speed: float = 1.0

    def operations(self, tokens: float, *, before: float = 0.0) -> float:
        """Operations of a pass over some tokens, each of which sees the ``before`` earlier ones too."""
        return tokens * (self.token + self.seen * (before + tokens / 2))

    def share(self, length: int) -> Any:
        """Which share of the time of a pass a share of its tokens takes: later tokens see more."""
        total = self.operations(length)
        return lambda done: self.operations(done * length) / total

    def full(self, length: int) -> float:
        """Seconds of a pass."""
        return self.operations(length) / self.speed

    def probe(self, plan: Gaps) -> float:
        """Seconds of a rule's probe."""
        first = self.operations(plan.block)
        second = self.operations(plan.block, before=plan.block)
        return plan.places * (first + len(plan.gaps) * second) / self.speed

    def retrieval(self, length: int, *, depths: Sequence[float]) -> float:
        """Seconds of one task at one length: the text once, and from each depth on to its end."""
        branches = sum(self.operations((1 - depth) * length, before=depth * length) for depth in depths)
        return (self.operations(max(depths) * length) + branches) / self.speed


def operations_of(checkpoint: Checkpoint) -> Costs:
    """What a model computes, at a speed that is not known."""
    preview, tied = checkpoint.preview, checkpoint.model.config.tie_word_embeddings
    table = 0 if tied else preview.vocab_size * preview.hidden_size
    return Costs(2.0 * (preview.parameters - table), 4.0 * preview.layers * preview.heads * preview.head_dim)


def measure(checkpoint: Checkpoint, tokens: Tensor) -> Costs:
    """The same, with the speed of a short pass."""
    costs, short = operations_of(checkpoint), tokens[:SHORT]
    full_pass(checkpoint.model, short[:16])  # what is done once is not timed
    begun = time.perf_counter()
    full_pass(checkpoint.model, short)
    seconds = max(time.perf_counter() - begun, 1e-6)
    return dataclasses.replace(costs, speed=costs.operations(len(short)) / seconds)

"""Estimates the time of the work from its operations and one short measurement."""

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
"""Tokens of the timed pass."""


@dataclass(frozen=True)
class Costs:
    """Floating-point operations of a model, and its speed on this machine.

    Attributes:
        token: operations for a token, independent of the context.
        seen: operations for a token and each token that it attends to.
        speed: operations per second.
    """

    token: float
    seen: float
    speed: float = 1.0

    def operations(self, tokens: float, *, before: float = 0.0) -> float:
        """Operations of a pass over some tokens, with ``before`` earlier tokens in the cache."""
        return tokens * (self.token + self.seen * (before + tokens / 2))

    def share(self, length: int) -> Any:
        """The share of the time of a pass that a share of its tokens takes: later tokens attend to more tokens."""
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
        """Seconds of one task at one length: the text once, and again from each depth to the end."""
        branches = sum(self.operations((1 - depth) * length, before=depth * length) for depth in depths)
        return (self.operations(max(depths) * length) + branches) / self.speed


def operations_of(checkpoint: Checkpoint) -> Costs:
    """The operations of a model, with unknown speed."""
    preview, tied = checkpoint.preview, checkpoint.model.config.tie_word_embeddings
    table = 0 if tied else preview.vocab_size * preview.hidden_size
    return Costs(2.0 * (preview.parameters - table), 4.0 * preview.layers * preview.heads * preview.head_dim)


def measure(checkpoint: Checkpoint, tokens: Tensor) -> Costs:
    """The operations of a model, with the speed measured in a short pass."""
    costs, short = operations_of(checkpoint), tokens[:SHORT]
    full_pass(checkpoint.model, short[:16])  # work that is done only once is not timed
    begun = time.perf_counter()
    full_pass(checkpoint.model, short)
    seconds = max(time.perf_counter() - begun, 1e-6)
    return dataclasses.replace(costs, speed=costs.operations(len(short)) / seconds)

"""Which windows and which learning rate a step of training has: functions of the seed and the step alone."""

from typing import Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


def batch_at(
    tokens: Int[Tensor, " text"], *, seed: int, step: int, batch: int, length: int
) -> Int[Tensor, "batch length_and_one"]:
    """The windows of a step, each with the token after it: the same for every encoding."""
    starts = np.random.default_rng((seed, step)).integers(0, len(tokens) - length, size=batch)
    index = torch.from_numpy(starts)[:, None] + torch.arange(length + 1)
    return tokens[index.to(tokens.device)].long()


class Schedule(Protocol):
    """What the learning rate of a step depends on."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup(self) -> int: ...
    @property
    def steps(self) -> int: ...


def learning_rate_at(step: int, config: Schedule) -> float:
    """A linear warm-up, then a linear decay to a tenth."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    return config.learning_rate * warm * (1.0 - 0.9 * step / config.steps)

"""The common parts of all training steps: windows, learning rate, random numbers, and the optimizer's state.

All depend only on the seed and the number of the step, so that training can be interrupted and resumed.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn


def batch_at(
    tokens: Int[Tensor, " text"], *, seed: int, step: int, batch: int, length: int
) -> Int[Tensor, "batch length_and_one"]:
    """The windows of a step, each with the next token; they are the same for every encoding."""
    starts = np.random.default_rng((seed, step)).integers(0, len(tokens) - length, size=batch)
    index = torch.from_numpy(starts)[:, None] + torch.arange(length + 1)
    return tokens[index.to(tokens.device)].long()


class Schedule(Protocol):
    """The settings that determine the learning rate of a step."""

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


def seed_of(*numbers: int) -> int:
    """Compute one seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextlib.contextmanager
def seeded(*numbers: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generators (CPU and ``device``) from these numbers, and restore them afterwards."""
    with torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
        torch.manual_seed(numbers[0] if len(numbers) == 1 else seed_of(*numbers))
        yield


def moments(optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """AdamW's moments of these weights, by name."""
    return {
        f"optimizer.{kind}.{name}": value
        for name, weight in weights.items()
        for kind, value in optimizer.state[weight].items()
    }


def load_moments(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]
) -> None:
    """Restore the optimizer's state from :func:`moments`."""
    names = {id(weight): name for name, weight in weights.items()}
    order = [names[id(weight)] for group in optimizer.param_groups for weight in group["params"]]
    kinds = ("step", "exp_avg", "exp_avg_sq")
    found = {
        index: {kind: state[f"optimizer.{kind}.{name}"] for kind in kinds}
        for index, name in enumerate(order)
        if f"optimizer.step.{name}" in state  # a weight without a gradient so far has no moments
    }
    optimizer.load_state_dict({"state": found, "param_groups": optimizer.state_dict()["param_groups"]})

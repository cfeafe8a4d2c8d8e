"""The steps of a training.

A step depends only on the seed and the number of the step. So an interrupted training continues from its
last checkpoint to the numbers of an uninterrupted one, and several processes give the result of one, up to rounding.
"""

import inspect
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posenc.lab.extend.processes import Processes
from posenc.lab.extend.tuning_config import TuneConfig
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError
from posenc.lab.run.schedule import batch_at, learning_rate_at, load_moments, moments, seed_of, seeded
from posenc.positions import skipwise

MOST_SCORED = 4096
"""Number of tokens of a window whose loss counts; in longer windows, a random part at each step, to save memory."""


class Tuning:
    """A model, its optimizer, and their progress."""

    def __init__(
        self,
        model: Any,
        parameters: Mapping[str, nn.Parameter],
        tokens: Tensor,
        config: TuneConfig,
        processes: Processes,
        *,
        in_bfloat16: bool,
    ) -> None:
        self._in_bfloat16 = in_bfloat16
        self.model, self.parameters, self.tokens, self.config = model, parameters, tokens.cpu(), config
        self.processes = processes
        self.losses: list[float] = []
        self.seconds = 0.0
        self.optimizer = torch.optim.AdamW(
            parameters.values(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        self._device: torch.device = model.device
        self._can_choose = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def step(self) -> int:
        """The number of finished steps."""
        return len(self.losses)

    @property
    def is_finished(self) -> bool:
        return self.step >= self.config.steps

    def run(self, path: Path, checkpoint_every: int, on_progress: Callable[[int, float], None] | None) -> None:
        """Run from the checkpoint, if there is one, to the last step."""
        if self.processes.share(path.exists()):
            self.load(runs.load_tensors(path), path)
        while not self.is_finished:
            begun = time.perf_counter()
            self.advance()
            self.seconds += time.perf_counter() - begun
            if self.processes.is_first and (self.step % checkpoint_every == 0 or self.is_finished):
                runs.save_tensors(path, self.state())
            if self.processes.is_first and on_progress is not None:
                on_progress(self.step, self.losses[-1])

    def advance(self) -> None:
        """Do one step."""
        config, step = self.config, self.step
        windows = batch_at(self.tokens, seed=config.seed, step=step, batch=config.batch, length=config.window)
        positions = positions_at(config, step)
        scored = _scored_at(config, step) if self._can_choose else None
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        self.optimizer.zero_grad()
        # For dropout, where a model has it.
        with seeded(config.seed, step, 3, self.processes.rank, device=self._device):
            for index in range(self.processes.rank, config.batch, self.processes.size):
                loss = self._loss(windows[index : index + 1], positions[index : index + 1], scored) / config.batch
                loss.backward()
                total += loss.detach()
        self.processes.sum([total, *(p.grad for p in self.parameters.values() if p.grad is not None)])
        loss_value = total.item()
        if not math.isfinite(loss_value):
            raise RunError(
                f"tune: the loss is {loss_value} at step {step + 1}, expected a finite number; train in another dtype "
                "(float32), by LoRA, or with a smaller learning_rate (tune of posenc.lab.extend.tune takes one)."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, config)
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        self.losses.append(loss_value)

    def _loss(self, window: Tensor, positions: Tensor, scored: Tensor | None) -> Tensor:
        """Mean nats of the scored tokens of one window."""
        window, positions = window.to(self._device), positions.to(self._device)
        targets, options = window[:, 1:], {}
        if scored is not None:
            scored = scored.to(self._device)
            targets, options = targets[:, scored], {"logits_to_keep": scored}
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._in_bfloat16):
            logits = self.model(
                input_ids=window[:, :-1],
                position_ids=positions,
                # Without a mask, transformers treats a jump as the start of another text, and cuts attention there.
                attention_mask=torch.ones_like(positions),
                use_cache=False,
                **options,
            ).logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, as named tensors; after the last step, its result.

        Random numbers depend on the seed and the number of the step, so there is no generator state.
        """
        state: dict[str, Tensor] = {f"weights.{name}": parameter for name, parameter in self.parameters.items()}
        if not self.is_finished:
            state |= moments(self.optimizer, self.parameters)
        state["progress.losses"] = torch.tensor(self.losses, dtype=torch.float64)
        state["progress.seconds"] = torch.tensor([self.seconds], dtype=torch.float64)
        return state

    def load(self, state: Mapping[str, Tensor], path: Path) -> None:
        """Restore a state that :meth:`state` returned."""
        names = {f"weights.{name}" for name in self.parameters}
        found = {name for name in state if name.startswith("weights.")}
        if found != names or "progress.losses" not in state:
            raise RunError(f"{path}: expected the weights that are trained, got others; the file is damaged.")
        self.losses = state["progress.losses"].tolist()
        self.seconds = state["progress.seconds"].item()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"weights.{name}"])
        if not self.is_finished:
            load_moments(self.optimizer, self.parameters, state)


def positions_at(config: TuneConfig, step: int) -> Tensor:
    """(batch, window): the positions of each window of a step."""
    if config.positions == "whole":
        return torch.arange(config.window).expand(config.batch, -1)
    generator = torch.Generator().manual_seed(seed_of(config.seed, step, 1))
    return torch.stack(
        [
            skipwise(config.window, target_length=config.length, chunks=config.chunks, generator=generator)
            for _ in range(config.batch)
        ]
    )


def _scored_at(config: TuneConfig, step: int) -> Tensor | None:
    """The tokens of a long window whose loss counts; None for all."""
    if config.window <= MOST_SCORED:
        return None
    generator = torch.Generator().manual_seed(seed_of(config.seed, step, 2))
    return torch.randperm(config.window, generator=generator)[:MOST_SCORED].sort().values

"""Training at a task: what happens in a step depends on the seed and the number of the step alone."""

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

import posenc
from posenc.lab.compare.task import Sizes, Task
from posenc.lab.compare.train import load_state, state_of
from posenc.lab.run.schedule import learning_rate_at


class Training:
    """A model of a task, its optimizer, and how far they are."""

    rate, per_step = "steps_per_second", 1

    def __init__(self, task: Task, spec: str, sizes: Sizes, seed: int) -> None:
        self.task, self.config, self.seed = task, sizes, seed
        self.step, self.loss_sum = 0, 0.0
        with seeded(seed):
            self.model = task.model(spec, sizes)
        # Decay pulls weights to zero, which is no neutral place for a table: only the matrices of layers decay.
        of_encodings = {
            id(weight)
            for module in self.model.modules()
            if isinstance(module, posenc.Encoding)
            for weight in module.parameters()
        }
        layers = {id(module.weight) for module in self.model.modules() if isinstance(module, nn.Linear)} - of_encodings
        weights = list(self.model.parameters())
        groups = [
            {"params": [w for w in weights if id(w) in layers], "weight_decay": sizes.weight_decay},
            {"params": [w for w in weights if id(w) not in layers], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=sizes.learning_rate, betas=(0.9, 0.95), fused=True)

    def advance(self) -> None:
        """One step."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, self.config)
        with seeded(self.seed, self.step):  # dropout
            loss = self.task.loss(self.model, self.config, np.random.default_rng((self.seed, self.step)))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.loss_sum += loss.item()
        self.step += 1

    def take_mean_loss(self, steps: int) -> float:
        """The mean loss of the last ``steps`` steps."""
        mean, self.loss_sum = self.loss_sum / steps, 0.0
        return mean

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, as named tensors."""
        progress = {
            "progress.step": torch.tensor(self.step),
            "progress.loss_sum": torch.tensor(self.loss_sum, dtype=torch.float64),
        }
        return {**state_of(self.model, self.optimizer), **progress}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go back to where :meth:`state` was taken."""
        load_state(self.model, self.optimizer, state)
        self.step, self.loss_sum = int(state["progress.step"]), state["progress.loss_sum"].item()


@contextlib.contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Torch's own generator, seeded by these numbers, and as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(
            numbers[0] if len(numbers) == 1 else int(np.random.SeedSequence(numbers).generate_state(1)[0])
        )
        yield


def train(task: Task, spec: str, sizes: Sizes, seed: int) -> nn.Module:
    """A trained model, in eval mode and without gradients."""
    training = Training(task, spec, sizes, seed)
    while training.step < sizes.steps:
        training.advance()
    return training.model.eval().requires_grad_(False)

"""Training that can be resumed: a step depends only on the seed and the number of the step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

import posenc
from posenc.lab.compare.task import Sizes
from posenc.lab.compare.text.config import TrainConfig
from posenc.lab.run.schedule import learning_rate_at, load_moments, moments

Settings = TrainConfig | Sizes
"""The training settings: for text, or for a task."""
Model = TypeVar("Model", bound=nn.Module)
Config = TypeVar("Config", bound=Settings)


class Stepwise(ABC, Generic[Model, Config]):
    """A model, its optimizer, and the number of steps done. A subclass defines the loss of a step."""

    rate = "steps_per_second"
    """The name of the speed in the metrics."""

    def __init__(self, model: Model, config: Config, device: torch.device) -> None:
        self.model, self.config, self.step = model, config, 0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)  # since the last row of metrics
        # Weight decay pulls weights to zero, which is not a neutral value for a table: only layer matrices decay.
        encodings = [module for module in model.modules() if isinstance(module, posenc.Encoding)]
        of_encodings = {id(weight) for encoding in encodings for weight in encoding.parameters()}
        layers = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
        chosen, weights = layers - of_encodings, list(model.parameters())
        groups = [
            {"params": [w for w in weights if id(w) in chosen], "weight_decay": config.weight_decay},
            {"params": [w for w in weights if id(w) not in chosen], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)

    @abstractmethod
    def loss(self) -> Tensor:
        """The loss of this step."""

    @property
    def per_step(self) -> int:
        """Number of units, as counted by the speed, in one step."""
        return 1

    def advance(self) -> None:
        """Do one step."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, self.config)
        loss = self.loss()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.loss_sum += loss.detach()
        self.step += 1

    def take_mean_loss(self, steps: int) -> float:
        """The mean loss of the last ``steps`` steps."""
        mean = self.loss_sum.item() / steps
        self.loss_sum.zero_()
        return mean

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, as named tensors."""
        state = {f"model.{name}": value for name, value in self._values().items()}
        progress = {"progress.step": torch.tensor(self.step), "progress.loss_sum": self.loss_sum}
        return {**state, **moments(self.optimizer, dict(self.model.named_parameters())), **progress}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state that :meth:`state` returned."""
        with torch.no_grad():
            for name, value in self._values().items():
                value.copy_(state[f"model.{name}"])
        load_moments(self.optimizer, dict(self.model.named_parameters()), state)
        self.step = int(state["progress.step"])
        self.loss_sum.copy_(state["progress.loss_sum"])

    def _values(self) -> dict[str, Tensor]:
        """Weights and buffers; a tensor that several modules share appears once."""
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

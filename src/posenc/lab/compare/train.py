"""Training on a task: each step depends only on the seed and the number of the step."""

import numpy as np
import torch
from torch import Tensor, nn

from posenc.lab.compare.stepwise import Stepwise
from posenc.lab.compare.task import Sizes, Task
from posenc.lab.run.schedule import seeded


class Training(Stepwise[nn.Module, Sizes]):
    """A model that learns a task."""

    def __init__(self, task: Task, spec: str, sizes: Sizes, seed: int) -> None:
        self.task, self.seed = task, seed
        with seeded(seed):
            model = task.model(spec, sizes)
        super().__init__(model, sizes, torch.device("cpu"))

    def loss(self) -> Tensor:
        with seeded(self.seed, self.step):  # dropout
            return self.task.loss(self.model, self.config, np.random.default_rng((self.seed, self.step)))

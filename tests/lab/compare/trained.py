"""Small models of the tasks, trained here."""

from torch import nn

from posenc.lab.compare.task import Sizes, Task
from posenc.lab.compare.train import Training


def train(task: Task, spec: str, sizes: Sizes, seed: int) -> nn.Module:
    """A trained model, in eval mode and without gradients."""
    training = Training(task, spec, sizes, seed)
    while training.step < sizes.steps:
        training.advance()
    return training.model.eval().requires_grad_(False)

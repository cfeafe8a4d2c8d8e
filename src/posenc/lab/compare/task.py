"""What a task of ``posenc compare --task`` is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor, nn

from posenc.lab.encodings.spec import parse
from posenc.lab.run.config import check_numbers

if TYPE_CHECKING:
    from posenc.lab.drawing.plots import Picture


@dataclass(frozen=True)
class Sizes:
    """What decides a trial besides its encoding and its seed. ``length`` is the trained size, in the task's unit.

    AdamW, a linear warm-up of ``warmup`` steps and a linear decay to a tenth of ``learning_rate``.
    """

    dim: int = 64
    num_layers: int = 2
    num_heads: int = 4
    length: int = 1
    steps: int = 300
    batch: int = 64
    learning_rate: float = 2e-3
    warmup: int = 30
    weight_decay: float = 0.01
    dropout: float = 0.0

    @property
    def log_every(self) -> int:
        """Steps between two rows of metrics."""
        return max(1, self.steps // 50)

    @property
    def checkpoint_every(self) -> int:
        """Steps between two checkpoints."""
        return max(1, self.steps // 20)

    def __post_init__(self) -> None:
        check_numbers("task", self, may_be_zero=("warmup", "weight_decay", "dropout"))
        if self.dropout >= 1:
            raise ValueError(f"task: got dropout {self.dropout}, expected less than 1.")


@dataclass(frozen=True)
class Measurement:
    """One number about a trained model.

    Attributes:
        row: how the encoding was used, such as a rule for positions; empty if there is one way.
        size: the size that was measured, as the report writes it.
        value: in its unit; None if it could not be measured, and then ``note`` says why.
        trained: whether this is the trained size.
        unit: the task's by default, or one of its ``other_units``.
    """

    row: str
    size: str
    value: float | None
    trained: bool = False
    note: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Example:
    """What a trained model wrote; those of several encodings with the same ``given`` stand together in the report."""

    given: str
    written: str


class Task(ABC):
    """A job that encodings are compared at. A subclass is one file in ``lab/compare/tasks``, or a class of a user's.

    Attributes:
        title: what the model learns, for the heading of the report.
        encodings: specs of the default encodings, in order. Names that :meth:`model` alone understands are allowed.
        unit: of what is measured first of all.
        more_is_better: whether a larger value is.
        other_units: of what is measured besides, and whether a larger value is better.
        sizes: of the quick preset.
        expected: what published work found, for the report; empty if there is nothing to compare with.
    """

    title: ClassVar[str]
    encodings: ClassVar[tuple[str, ...]]
    unit: ClassVar[str]
    more_is_better: ClassVar[bool] = True
    other_units: ClassVar[Mapping[str, bool]] = {}
    sizes: ClassVar[Sizes] = Sizes()
    expected: ClassVar[str] = ""

    def check(self, spec: str) -> str:
        """The label of an encoding's spec; one that is not known is refused."""
        parsed = parse(spec)
        parsed.load()
        return parsed.label

    @abstractmethod
    def model(self, spec: str, sizes: Sizes) -> nn.Module:
        """A model with the encoding of ``spec``; random numbers come from torch's own generator, which is seeded."""

    @abstractmethod
    def loss(self, model: Any, sizes: Sizes, generator: np.random.Generator) -> Tensor:
        """The loss on the data of one step, drawn with a generator that depends on the seed and the step alone."""

    @abstractmethod
    def measure(self, model: Any, spec: str, sizes: Sizes) -> Iterator[Measurement]:
        """What the trained model does, the trained size first. The model is in eval mode and has no gradients."""

    def examples(self, model: Any, spec: str, sizes: Sizes) -> Sequence[Example]:
        """What the trained model writes, for the report."""
        return ()

    def show(self, model: Any, spec: str, sizes: Sizes) -> Mapping[str, Tensor]:
        """What :meth:`pictures` draws of a trained model; it is kept in the folder of its trial."""
        return {}

    def pictures(self, shown: Mapping[str, Mapping[str, Tensor]]) -> "Sequence[Picture]":
        """Figures for the report, from what :meth:`show` gave for each encoding (of the first seed), by its label."""
        return ()

"""The interface of a task of ``posenc compare --task``."""

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
    """All settings of a trial except its encoding and its seed. ``length`` is the trained size, in the task's unit.

    The optimizer is AdamW: a linear warm-up of ``warmup`` steps, then a linear decay to a tenth of ``learning_rate``.
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
        row: how the encoding was used, such as a rule for positions; empty if there is only one way.
        size: the size that was measured, as the report writes it.
        value: the number, in its unit; None if it could not be measured, with the reason in ``note``.
        trained: whether this is the trained size.
        unit: by default the task's unit, otherwise one of its ``other_units``.
    """

    row: str
    size: str
    value: float | None
    trained: bool = False
    note: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Example:
    """The output of a trained model. The report shows the outputs of all encodings for the same ``given`` together."""

    given: str
    written: str


class Task(ABC):
    """A task on which encodings are compared. A subclass is one file in ``lab/compare/tasks``, or a user's own class.

    Attributes:
        title: what the model learns, for the heading of the report.
        encodings: specs of the default encodings, in order. Names that :meth:`model` alone understands are allowed.
        unit: the unit of the main measurement.
        more_is_better: whether a larger value is better.
        other_units: the units of further measurements, each with whether a larger value is better.
        sizes: the settings of the quick preset.
        expected: results of published work, for the report; empty if there are none.
    """

    title: ClassVar[str]
    encodings: ClassVar[tuple[str, ...]]
    unit: ClassVar[str]
    more_is_better: ClassVar[bool] = True
    other_units: ClassVar[Mapping[str, bool]] = {}
    sizes: ClassVar[Sizes] = Sizes()
    expected: ClassVar[str] = ""

    def check(self, spec: str) -> str:
        """Return the label of a spec; raise an error for an unknown encoding."""
        parsed = parse(spec)
        parsed.load()
        return parsed.label

    @abstractmethod
    def model(self, spec: str, sizes: Sizes) -> nn.Module:
        """Build a model with the encoding of ``spec``. Random numbers come from torch's seeded global generator."""

    @abstractmethod
    def loss(self, model: Any, sizes: Sizes, generator: np.random.Generator) -> Tensor:
        """Return the loss of one step. ``generator``, which draws the data, depends only on seed and step."""

    @abstractmethod
    def measure(self, model: Any, spec: str, sizes: Sizes) -> Iterator[Measurement]:
        """Yield measurements of the trained model, the trained size first. It is in eval mode, without gradients."""

    def examples(self, model: Any, spec: str, sizes: Sizes) -> Sequence[Example]:
        """Return outputs of the trained model, for the report."""
        return ()

    def show(self, model: Any, spec: str, sizes: Sizes) -> Mapping[str, Tensor]:
        """Return the tensors that :meth:`pictures` draws. They are stored in the folder of the trial."""
        return {}

    def pictures(self, shown: Mapping[str, Mapping[str, Tensor]]) -> "Sequence[Picture]":
        """Return figures for the report, from the tensors of :meth:`show` by label of the encoding (first seed)."""
        return ()

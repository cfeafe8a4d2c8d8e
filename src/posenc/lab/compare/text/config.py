"""The configuration of a run: every setting on which its results depend, as frozen data for JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from posenc.lab.run import folder as runs
from posenc.lab.run.config import Backend, Device, check_numbers, read_config, to_dict

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the decoder."""

    dim: int
    num_layers: int
    num_heads: int

    def __post_init__(self) -> None:
        check_numbers("model", self)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training: AdamW, a linear warm-up and a linear decay to a tenth. ``length`` and ``batch`` are the
    tokens in a window and the windows in a step; ``log_every`` and ``checkpoint_every`` are in steps."""

    length: int
    batch: int
    steps: int
    learning_rate: float
    warmup: int = 50
    weight_decay: float = 0.1
    log_every: int = 10
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        check_numbers("train", self, may_be_zero=("warmup", "weight_decay"))


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluation: at each of ``factors`` times the trained length, about ``tokens`` tokens in whole windows, and
    about ``last_tokens`` tokens, ``last`` at the end of each window."""

    factors: tuple[int, ...] = (1, 2, 4, 8)
    tokens: int = 16_384
    last: int = 32
    last_tokens: int = 4_096

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", tuple(self.factors))
        check_numbers("evaluate", self)
        if not self.factors or any(factor < 1 for factor in self.factors):
            raise ValueError(f"evaluate: got factors {self.factors}, expected whole numbers of at least 1.")


@dataclass(frozen=True)
class Given:
    """One encoding of a run: its label, and the spec from which it is built."""

    label: str
    spec: str


@dataclass(frozen=True)
class RunConfig:
    """A whole run, as stored in RUN/config.json.

    ``threads`` is part of the configuration because the number of threads changes rounding; ``jobs`` and ``backend``
    change no result. ``command`` repeats the run. ``text`` and ``vocabulary`` describe
    RUN/tokens.safetensors, which the trials read.
    """

    preset: str
    encodings: tuple[Given, ...]
    seeds: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)]
    text: Mapping[str, Any]
    vocabulary: Mapping[str, Any]
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    threads: int
    jobs: int
    backend: Backend
    device: Device = "cpu"
    precision: Precision = "float32"
    command: str = ""

    def to_dict(self) -> dict[str, Any]:
        return to_dict("compare", self)


@dataclass(frozen=True)
class TrialConfig:
    """One encoding with one seed: everything that is needed to repeat the trial."""

    label: str
    spec: str
    encoding: Mapping[str, Any]
    file_sha256: str | None
    seed: int
    vocabulary: Mapping[str, Any]
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    threads: int
    device: Device
    precision: Precision


def load_config(run: Path) -> RunConfig:
    return read_config(run / runs.CONFIG, RunConfig, "compare")


def load_trial(folder: Path) -> TrialConfig:
    return read_config(folder / runs.CONFIG, TrialConfig, "trial")


def is_done(folder: Path) -> bool:
    """Whether a trial is finished."""
    last = runs.Metrics(folder / runs.METRICS).last()
    return last is not None and last["event"] == "done"

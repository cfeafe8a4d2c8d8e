"""What a run is told: every number that decides its results, as frozen data that JSON can hold."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from posenc.lab.run.errors import RunError

FORMAT = 1
Precision = Literal["float32", "bfloat16"]
Device = Literal["cpu", "cuda"]
Backend = Literal["loky", "ray", "dask"]


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the decoder."""

    dim: int
    num_layers: int
    num_heads: int

    def __post_init__(self) -> None:
        _check_positive(self, "dim", "num_layers", "num_heads")
        if self.dim % self.num_heads:
            raise ValueError(f"model: got dim {self.dim} for {self.num_heads} heads, expected a multiple of the heads.")


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained: AdamW, a linear warm-up and a linear decay to a tenth. ``length`` and ``batch`` say how many
    tokens make a window and how many windows make a step; ``log_every`` and ``checkpoint_every`` are in steps."""

    length: int
    batch: int
    steps: int
    learning_rate: float
    warmup: int = 50
    weight_decay: float = 0.1
    log_every: int = 10
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        _check_positive(self, "length", "batch", "steps", "learning_rate", "log_every", "checkpoint_every")


@dataclass(frozen=True)
class EvaluateConfig:
    """What is scored: at each of ``factors`` times the trained length, about ``tokens`` tokens in whole windows, and
    about ``last_tokens`` tokens, ``last`` at the end of each window."""

    factors: tuple[int, ...] = (1, 2, 4, 8)
    tokens: int = 16_384
    last: int = 32
    last_tokens: int = 4_096

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", tuple(self.factors))
        _check_positive(self, "tokens", "last", "last_tokens")
        if not self.factors or any(factor < 1 for factor in self.factors):
            raise ValueError(f"evaluate: got factors {self.factors}, expected whole numbers of at least 1.")


@dataclass(frozen=True)
class Entry:
    """One encoding of a run: the label that names it everywhere, and the spec that makes it."""

    label: str
    spec: str


@dataclass(frozen=True)
class RunConfig:
    """A whole run, as RUN/config.json holds it.

    ``threads`` is part of the configuration because sums over threads round differently; ``jobs`` and ``backend``
    change no number. ``text`` and ``vocabulary`` describe RUN/tokens.safetensors, which the trials read.
    """

    preset: str
    encodings: tuple[Entry, ...]
    seeds: tuple[int, ...]
    text: Mapping[str, Any]
    vocabulary: Mapping[str, Any]
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    threads: int
    jobs: int
    backend: Backend
    device: Device
    precision: Precision

    def to_dict(self) -> dict[str, Any]:
        return to_dict("compare", self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str) -> Self:
        fields = read_fields(cls, "compare", data, where=where)
        fields["encodings"] = tuple(Entry(**entry) for entry in fields["encodings"])
        fields["seeds"] = tuple(fields["seeds"])
        return cls(**_nested(fields))


@dataclass(frozen=True)
class TrialConfig:
    """One encoding with one seed: all that is needed to run it again."""

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

    @property
    def name(self) -> str:
        """The trial's folder below the run's."""
        return f"{self.label}-seed{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        return to_dict("trial", self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str) -> Self:
        return cls(**_nested(read_fields(cls, "trial", data, where=where)))


def check_choice(name: str, value: str, allowed: Any) -> None:
    """Refuse a value that a Literal does not have."""
    if value not in get_args(allowed):
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(get_args(allowed))}.")


def to_dict(kind: str, config: Any) -> dict[str, Any]:
    import posenc

    return {"format": FORMAT, "kind": kind, "posenc": posenc.__version__, **dataclasses.asdict(config)}


def read_fields(cls: type[Any], kind: str, data: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    if data.get("format") != FORMAT or data.get("kind") != kind:
        raise RunError(
            f"{where}: got format {data.get('format')!r} of kind {data.get('kind')!r}, expected format {FORMAT} of "
            f"kind {kind!r}; it was written by posenc {data.get('posenc', '(unknown)')}: use that version, or start a "
            "new run."
        )
    names = {field.name for field in dataclasses.fields(cls)}
    if missing := sorted(names - data.keys()):
        raise RunError(f"{where}: {', '.join(missing)} is missing; the file is damaged, start a new run.")
    return {name: data[name] for name in names}


def _nested(fields: dict[str, Any]) -> dict[str, Any]:
    sections = {"model": ModelConfig, "train": TrainConfig, "evaluate": EvaluateConfig}
    return {key: sections[key](**value) if key in sections else value for key, value in fields.items()}


def _check_positive(config: Any, *names: str) -> None:
    for name in names:
        if not (value := getattr(config, name)) > 0:
            section = type(config).__name__.removesuffix("Config").lower()
            raise ValueError(f"{section}: got {name} {value}, expected more than 0.")

"""The files in the folder of a task run: its config, and the config and result of each trial."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from posenc.lab.compare.task import Example, Measurement, Sizes
from posenc.lab.run import folder as runs
from posenc.lab.run.config import Backend, read_config

KIND = "task"
SHOWN = "shown.safetensors"
"""The file, in a trial's folder, with the tensors from which a task draws its pictures."""


@dataclass(frozen=True)
class TaskConfig:
    """A whole run, as stored in RUN/config.json. ``encodings`` has specs by label; ``lengths`` has the trained lengths,
    which replace the length in ``sizes``. ``file_sha256`` is the digest of the file of a user's task."""

    posenc: str
    command: str
    task: str
    file_sha256: str | None
    encodings: Mapping[str, str]
    seeds: tuple[int, ...]
    lengths: tuple[int, ...]
    sizes: Sizes
    jobs: int
    threads: int
    backend: Backend


@dataclass(frozen=True)
class TaskTrial:
    """One encoding with one seed and one trained length: everything that is needed to repeat the trial."""

    task: str
    file_sha256: str | None
    threads: int
    sizes: Sizes
    label: str
    spec: str
    seed: int
    encoding_sha256: str | None


class TrialResult(msgspec.Struct):
    """The measurements of a trial; ``losses`` has a pair (step, loss) for each row of its metrics."""

    label: str
    seed: int
    length: int
    losses: list[tuple[int, float]]
    measurements: list[Measurement]
    examples: list[Example]
    parameters: int
    seconds: float


def load_config(run: Path) -> TaskConfig:
    return read_config(run / runs.CONFIG, TaskConfig, KIND)


def trials(run: Path, config: TaskConfig) -> Iterator[tuple[str, int, int, Path]]:
    """Label, trained length, seed and folder of each trial."""
    for seed in config.seeds:
        for length in config.lengths:
            for label in config.encodings:
                among = f"-length{length}" if len(config.lengths) > 1 else ""
                yield label, length, seed, runs.of_trial(run, f"{label}{among}", seed)

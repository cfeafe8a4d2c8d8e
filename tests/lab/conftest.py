"""Small runs, shared by the tests of the lab."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from posenc.lab import compare, runs
from posenc.lab.trial import Outcome, run_trial

PROSE = "It was the best of times, it was the worst of times; it was the age of wisdom and of foolishness. "


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    """A text file of some thousand words."""
    path = tmp_path / "prose.txt"
    path.write_text(PROSE * 100)
    return path


@pytest.fixture
def prepare(tmp_path: Path, prose: Path) -> Callable[..., Path]:
    """Makes the folder of a tiny run, ready for its trials."""

    def make(*specs: str, name: str = "run", train: dict[str, Any] | None = None, **options: Any) -> Path:
        sizes = {"length": 8, "batch": 4, "steps": 40, "warmup": 5, "log_every": 5, "checkpoint_every": 10}
        request = compare.Request(
            specs=specs,
            texts=[prose],
            model={"dim": 16, "num_layers": 1, "num_heads": 2},
            train=sizes | (train or {}),
            threads=1,
            jobs=1,
            folder=tmp_path / name,
            **options,
        )
        return compare.prepare(request)

    return make


@pytest.fixture
def finish_trial() -> Callable[[Path], Outcome]:
    """Runs a trial here, in this process."""
    return lambda folder: run_trial(str(folder), device="cpu", parent=os.getpid())


@pytest.fixture
def numbers() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads the rows of a trial's metrics without what a clock measured."""

    def read(folder: Path) -> list[dict[str, Any]]:
        clock = ("seconds", "tokens_per_second")
        rows = runs.Metrics(folder / runs.METRICS).rows()
        return [{key: value for key, value in row.items() if key not in clock} for row in rows]

    return read


@pytest.fixture
def posenc_command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls the command as a user does, in an empty folder."""

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "posenc.lab", *map(str, arguments))
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    return call


@pytest.fixture
def tiny(prose: Path) -> tuple[str, ...]:
    """Options that make a run a matter of seconds."""
    sizes = ("--dim=16", "--layers=1", "--heads=2", "--length=8", "--batch=4", "--steps=40")
    return (*sizes, "--threads=1", f"--text={prose}")

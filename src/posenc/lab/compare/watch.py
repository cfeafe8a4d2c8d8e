"""Follows the trials of a run through their folders, and shows the progress of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from posenc.lab.compare.stepwise import Settings
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError
from posenc.lab.run.progress import Row, display, said_time


@dataclass
class Standing:
    """The progress of a trial."""

    step: int = 0
    loss: float | None = None
    steps_per_second: float | None = None
    tokens: int = 0
    phase: str = "waiting"
    evaluated: str = ""

    def update(self, row: dict[str, Any] | None, config: Settings) -> None:
        """Update from the last row of a trial's metrics; earlier rows may have been skipped."""
        if row is None:
            return
        if row["event"] == "train":
            self.step, self.loss, self.phase = row["step"], row["loss"], "training"
            self.tokens = config.batch * config.length if "tokens_per_second" in row else 0
            self.steps_per_second = row["tokens_per_second"] / self.tokens if self.tokens else row["steps_per_second"]
        else:
            self.step = config.steps
            phases = {"evaluate": "evaluating", "measure": "evaluating", "done": "done"}
            self.phase = phases.get(row["event"], self.phase)
            if row["event"] == "evaluate":
                self.evaluated = f", {row['factor']}x is done"

    def speed(self) -> str:
        if self.steps_per_second is None:
            return ""
        if self.tokens:
            return f"{self.steps_per_second * self.tokens / 1000:.1f}k tokens/s"
        return f"{self.steps_per_second:.1f} steps/s"

    def time_left(self, config: Settings) -> str:
        """The time left, or the current phase if the trial is not training."""
        if self.phase == "evaluating":
            return self.phase + self.evaluated
        if self.phase != "training" or not self.steps_per_second:
            return self.phase
        if self.step == config.steps:
            return "evaluating"
        return said_time((config.steps - self.step) / self.steps_per_second)


class Watch:
    """Follows trials through their folders; call :meth:`look` regularly."""

    def __init__(self, folders: Sequence[Path], config: Settings, console: Console) -> None:
        self.config, self.console = config, console
        self.standings = {folder: Standing() for folder in folders}
        for folder, standing in self.standings.items():  # a resumed run has made some progress already
            for row in runs.Metrics(folder / runs.METRICS).rows():
                standing.update(row, config)
        self._several_seeds = len({folder.name.rpartition("-seed")[2] for folder in folders}) > 1
        self._display = display(console)

    def __enter__(self) -> Self:
        # For a resumed run: the number of finished trials, and the step after which each of the others continues.
        done = sum(standing.phase == "done" for standing in self.standings.values())
        steps = {folder: step for folder in self.standings if (step := _step_of(folder / runs.CHECKPOINT)) is not None}
        if done or steps:
            said = [f"{done} of {len(self.standings)} trials are done"]
            said += [f"{self.title(folder)} continues after step {step}" for folder, step in steps.items()]
            self.console.print("; ".join(said), highlight=False, markup=False, soft_wrap=True)
        self._display.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.look()
        self._display.stop()

    def title(self, folder: Path) -> str:
        """The label of a trial, with its seed if there are several."""
        label, _, seed = folder.name.rpartition("-seed")
        return f"{label} seed {seed}" if self._several_seeds else label

    def look(self) -> None:
        """Read the progress of all trials, and show it."""
        for folder, standing in self.standings.items():
            if standing.phase != "done":
                standing.update(runs.Metrics(folder / runs.METRICS).last(), self.config)
        self._display.show({folder: self._row(folder, standing) for folder, standing in self.standings.items()})

    def _row(self, folder: Path, standing: Standing) -> Row:
        phases: dict[str, Any] = {"training": "working", "evaluating": "ending"}
        return Row(
            title=self.title(folder),
            unit="step",
            completed=standing.step,
            total=self.config.steps,
            loss=standing.loss,
            speed=standing.speed(),
            left=standing.time_left(self.config),
            phase=phases.get(standing.phase, standing.phase),
        )


def _step_of(checkpoint: Path) -> int | None:
    """The step of a checkpoint; None if there is none or it is damaged, which the trial reports."""
    try:
        return int(runs.load_tensors(checkpoint)["progress.step"])
    except (OSError, RunError, KeyError, ValueError, RuntimeError):
        return None

"""What a run shows while it works: a bar for each trial on a terminal, plain lines elsewhere.

All of it is read from the metrics files, so that it is the same for every backend, on this machine or on others.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from posenc.lab import runs
from posenc.lab.config import TrainConfig

SECONDS_BETWEEN_LINES = 15.0


@dataclass
class Standing:
    """How far a trial is."""

    step: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    phase: str = "waiting"

    def update(self, row: dict[str, Any] | None, config: TrainConfig) -> None:
        """Take in the last row of a trial's metrics; rows before it may have been missed."""
        if row is None:
            return
        if row["event"] == "train":
            self.step, self.loss, self.tokens_per_second = row["step"], row["loss"], row["tokens_per_second"]
            self.phase = "training"
        else:
            self.step = config.steps
            self.phase = {"evaluate": "evaluating", "done": "done"}.get(row["event"], self.phase)

    def speed(self) -> str:
        return "" if self.tokens_per_second is None else f"{self.tokens_per_second / 1000:.1f}k tokens/s"

    def time_left(self, config: TrainConfig) -> str:
        """Time left, or what is done instead of training."""
        if self.phase != "training" or not self.tokens_per_second:
            return self.phase
        if self.step == config.steps:
            return "evaluating"
        seconds = round((config.steps - self.step) * config.batch * config.length / self.tokens_per_second)
        return f"{seconds // 60}:{seconds % 60:02d} left"


class Watch:
    """Follows trials by their folders; call :meth:`look` now and then."""

    def __init__(self, folders: Sequence[Path], config: TrainConfig, console: Console) -> None:
        self.config, self.console = config, console
        self.standings = {folder: Standing() for folder in folders}
        for folder, standing in self.standings.items():  # a run that is resumed has got somewhere already
            for row in runs.Metrics(folder / runs.METRICS).rows():
                standing.update(row, config)
        self._several_seeds = len({folder.name.rpartition("-seed")[2] for folder in folders}) > 1
        self._bars: _Bars | _Lines = (_Bars if console.is_terminal else _Lines)(self)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.look()
        self._bars.stop()

    def title(self, folder: Path) -> str:
        """The label of a trial, with its seed if there are several."""
        label, _, seed = folder.name.rpartition("-seed")
        return f"{label} seed {seed}" if self._several_seeds else label

    def look(self) -> None:
        """Read where all trials are, and show it."""
        for folder, standing in self.standings.items():
            if standing.phase != "done":
                standing.update(runs.Metrics(folder / runs.METRICS).last(), self.config)
        self._bars.show()


class _Bars:
    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.progress = Progress(
            TextColumn("  [bold]{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.completed:>5.0f}[dim]/{task.total:.0f}"),
            TextColumn("[dim]loss[/] {task.fields[loss]:>5}"),
            TextColumn("[dim]{task.fields[speed]:>15}"),
            TextColumn("{task.fields[left]}"),
            console=watch.console,
        )
        self.tasks = {
            folder: self.progress.add_task(watch.title(folder), total=watch.config.steps, loss="", speed="", left="")
            for folder in watch.standings
        }

    def start(self) -> None:
        self.progress.start()

    def stop(self) -> None:
        self.progress.stop()

    def show(self) -> None:
        for folder, standing in self.watch.standings.items():
            self.progress.update(
                self.tasks[folder],
                completed=standing.step,
                loss="" if standing.loss is None else f"{standing.loss:.3f}",
                speed=standing.speed(),
                left=standing.time_left(self.watch.config),
            )


class _Lines:
    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.shown_at = time.monotonic()
        self.phases = dict.fromkeys(watch.standings, "waiting")

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def show(self) -> None:
        """A line for each trial that trains, every so often; one at once for each that is done."""
        due = time.monotonic() - self.shown_at >= SECONDS_BETWEEN_LINES
        if due:
            self.shown_at = time.monotonic()
        for folder, standing in self.watch.standings.items():
            changed = standing.phase != self.phases[folder]
            if (due and standing.phase == "training") or (changed and standing.phase in ("training", "done")):
                self._print(folder, standing)
            self.phases[folder] = standing.phase

    def _print(self, folder: Path, standing: Standing) -> None:
        config = self.watch.config
        loss = "" if standing.loss is None else f"loss {standing.loss:.3f}"
        columns = (
            f"{self.watch.title(folder):<20}",
            f"step {standing.step:>5}/{config.steps}",
            f"{loss:<11}",
            f"{standing.speed():>16}",
            standing.time_left(config),
        )
        self.watch.console.print("  ".join(columns), highlight=False, soft_wrap=True)

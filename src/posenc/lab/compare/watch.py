"""Follows the trials of a run through their folders, and shows the progress of each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from posenc.lab.compare.stepwise import Settings
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError
from posenc.lab.run.progress import Row, display, said_time


def after(row: Row, event: Mapping[str, Any], config: Settings) -> Row:
    """The display of a trial after a row of its metrics; earlier ones may have been skipped."""
    match event:
        case {"event": "train", "tokens_per_second": tokens}:
            return _training(
                row, event, config, tokens / (config.batch * config.length), f"{tokens / 1000:.1f}k tokens/s"
            )
        case {"event": "train", "steps_per_second": steps}:
            return _training(row, event, config, steps, f"{steps:.1f} steps/s")
        case {"event": "evaluate", "factor": factor}:
            return replace(row, completed=config.steps, phase="ending", left=f"evaluating, {factor}x is done")
        case {"event": "measure"}:
            return replace(row, completed=config.steps, phase="ending", left="evaluating")
        case {"event": "done"}:
            return replace(row, completed=config.steps, phase="done", left="done")
        case _:
            return row


def _training(row: Row, event: Mapping[str, Any], config: Settings, rate: float, speed: str) -> Row:
    """The display after a row of the training, at ``rate`` steps per second."""
    todo = config.steps - event["step"]
    left = "evaluating" if not todo else said_time(todo / rate) if rate else "training"
    return replace(row, completed=event["step"], loss=event["loss"], speed=speed, left=left, phase="working")


class Watch:
    """Follows trials through their folders; call :meth:`look` regularly."""

    def __init__(self, folders: Sequence[Path], config: Settings, console: Console) -> None:
        self.config, self.console = config, console
        several_seeds = len({folder.name.rpartition("-seed")[2] for folder in folders}) > 1
        self.rows: dict[Path, Row] = {}
        for folder in folders:
            label, _, seed = folder.name.rpartition("-seed")
            row = Row(f"{label} seed {seed}" if several_seeds else label, "step", 0, config.steps, left="waiting")
            for event in runs.Metrics(folder / runs.METRICS).rows():  # a resumed run has made some progress already
                row = after(row, event, config)
            self.rows[folder] = row
        self._display = display(console)

    def __enter__(self) -> Self:
        # For a resumed run: the number of finished trials, and the step after which each of the others continues.
        done = sum(row.phase == "done" for row in self.rows.values())
        steps = {row.title: _step_of(folder / runs.CHECKPOINT) for folder, row in self.rows.items()}
        said = [f"{title} continues after step {step}" for title, step in steps.items() if step is not None]
        if done or said:
            said = [f"{done} of {len(self.rows)} trials are done", *said]
            self.console.print("; ".join(said), markup=False, soft_wrap=True)
        self._display.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.look()
        self._display.stop()

    def look(self) -> None:
        """Read the progress of all trials, and show it."""
        for folder, row in self.rows.items():
            if row.phase != "done" and (last := runs.Metrics(folder / runs.METRICS).last()) is not None:
                self.rows[folder] = after(row, last, self.config)
        self._display.show(self.rows)


def _step_of(checkpoint: Path) -> int | None:
    """The step of a checkpoint; None if there is none or it is damaged, which the trial reports."""
    try:
        return int(runs.load_tensors(checkpoint)["progress.step"])
    except (OSError, RunError, KeyError, ValueError, RuntimeError):
        return None

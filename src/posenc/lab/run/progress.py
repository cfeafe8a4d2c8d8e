"""Progress of a run: a bar for each piece of work on a terminal, plain lines elsewhere.

:class:`Watch` reads the metrics files of trials, so that it is the same for every backend, on this machine or on
others. :class:`Stages` shows work of this process, one piece after the other.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from posenc.lab.run.printable import escape

SECONDS_BETWEEN_LINES = 15.0


@dataclass(frozen=True)
class Row:
    """The display of one piece of work: a bar, or a line from time to time."""

    title: str
    unit: str
    completed: float
    total: float
    loss: float | None = None
    speed: str = ""
    left: str = ""
    phase: Literal["waiting", "working", "ending", "done"] = "waiting"

    @property
    def said_loss(self) -> str:
        return "" if self.loss is None else f"loss {self.loss:.3f}"


def display(console: Console) -> "Bars | Lines":
    """Shows rows, each with its own key, as bars on a terminal and as lines elsewhere; new rows may be added at any
    time."""
    return Bars(console) if console.is_terminal else Lines(console)


class Bars:
    """A bar for each row."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("  [bold]{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.completed:>5.0f}[dim]/{task.total:.0f}"),
            TextColumn("{task.fields[loss]:>10}"),
            TextColumn("[dim]{task.fields[speed]:>15}"),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self.tasks: dict[Any, TaskID] = {}
        self.start, self.stop = self.progress.start, self.progress.stop

    def show(self, rows: Mapping[Any, Row]) -> None:
        for key, row in rows.items():
            if key not in self.tasks:
                self.tasks[key] = self.progress.add_task(escape(row.title), total=row.total, loss="", speed="", left="")
            self.progress.update(
                self.tasks[key], completed=row.completed, loss=row.said_loss, speed=row.speed, left=row.left
            )


class Lines:
    """A line for each working row at intervals, and at once when a row begins or is done."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.shown_at = time.monotonic()
        self.phases: dict[Any, str] = {}

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def show(self, rows: Mapping[Any, Row]) -> None:
        due = time.monotonic() - self.shown_at >= SECONDS_BETWEEN_LINES
        if due:
            self.shown_at = time.monotonic()
        for key, row in rows.items():
            changed = row.phase != self.phases.get(key, "waiting")
            if (due and row.phase == "working") or (changed and row.phase in ("working", "done")):
                done = f"{row.title:<20}  {row.unit} {row.completed:>5.0f}/{row.total:.0f}"
                line = f"{done}  {row.said_loss:<11}  {row.speed:>16}  {row.left}"
                self.console.print(line, soft_wrap=True, markup=False)
            self.phases[key] = row.phase


def said_time(seconds: float) -> str:
    """The time left, as text for a bar."""
    whole = round(seconds)
    hours = f"{whole // 3600}:{whole // 60 % 60:02d}" if whole >= 3600 else str(whole // 60)
    return f"{hours}:{whole % 60:02d} left"


class Stage:
    """A piece of work; the time left is computed from the finished part."""

    def __init__(self, stages: "Stages", title: str, total: int, unit: str, share: Callable[[float], float]) -> None:
        self._stages, self._share = stages, share
        self._began: tuple[float, float] | None = None
        self.row = Row(title, unit, 0, total)

    def at(self, done: int, *, loss: float | None = None) -> None:
        """Set the finished amount, from 0 to the total."""
        now = time.monotonic()
        if self._began is None:
            self._began = (now, self._share(done / self.row.total))
        start, before = self._began
        here = self._share(done / self.row.total)
        left = said_time((now - start) * (1 - here) / (here - before)) if here > before else ""
        self.row = dataclasses.replace(
            self.row, completed=done, loss=self.row.loss if loss is None else loss, left=left, phase="working"
        )
        self._stages.look()

    def of(self, done: int, total: int) -> None:
        """As :meth:`at`, with a total that was not known before."""
        self.row = dataclasses.replace(self.row, total=total)
        self.at(done)

    def after(self, before: int) -> Callable[[int], None]:
        """A version of :meth:`at` for a later part of the work that counts from 0."""
        return lambda done: self.at(before + done)

    def done(self, *, loss: float | None = None) -> None:
        """Mark all of the work as done."""
        loss = self.row.loss if loss is None else loss
        self.row = dataclasses.replace(self.row, completed=self.row.total, loss=loss, left="done", phase="done")
        self._stages.look()


class Stages:
    """Pieces of work that this process does one after the other."""

    def __init__(self, console: Console) -> None:
        self._display = display(console)
        self._stages: list[Stage] = []

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._display.stop()

    def begin(self, title: str, total: int, *, unit: str, share: Callable[[float], float] = lambda done: done) -> Stage:
        """Begin a new piece of work. ``share`` maps a share of the units to its share of the time."""
        stage = Stage(self, title, total, unit, share)
        self._stages.append(stage)
        self.look()
        return stage

    def look(self) -> None:
        """Show the progress of all pieces."""
        self._display.show(dict(enumerate(stage.row for stage in self._stages)))

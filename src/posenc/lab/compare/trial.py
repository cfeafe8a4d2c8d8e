"""The common part of all trials: lock the folder, train to the last step, continue an interrupted trial."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from posenc.lab.compare.stepwise import Stepwise
from posenc.lab.run import environment
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    trial: str
    status: Literal["done", "stopped", "failed"]
    message: str = ""


def run_alone(folder: str, parent: int, work: Callable[[Path, Callable[[], bool]], bool]) -> Outcome:
    """Do a trial's ``work`` in its locked folder. It can ask whether to stop, and returns whether it is done."""
    if os.getpid() != parent and threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # they reach all processes of a terminal; the parent handles them
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
    path = Path(folder)
    stop_file = path.parent / runs.STOP
    is_child = os.getppid() == parent

    def is_orphan() -> bool:
        return is_child and os.getppid() != parent

    def ordered_to_stop() -> bool:
        return stop_file.exists() or is_orphan()

    try:
        with runs.locked(path):
            runs.clear_partial_writes(path)
            finished = work(path, ordered_to_stop)
    except Exception as error:
        says_everything = isinstance(error, (RunError, ValueError, TypeError, OSError))
        return Outcome(path.name, "failed", str(error) if says_everything else f"{type(error).__name__}: {error}")
    if is_orphan():
        os._exit(1)  # no process is left to read the outcome, and an idle worker would stay for minutes
    return Outcome(path.name, "done" if finished else "stopped")


def train_and_measure(
    training: Stepwise[Any, Any],
    folder: Path,
    measure: Callable[[], Iterator[Mapping[str, Any]]],
    ordered_to_stop: Callable[[], bool],
    *,
    threads: int,
    device: str,
) -> bool:
    """Train to the last step, then append each row that ``measure`` yields, up to a row with the event "done".

    Return False if a stop was requested before the end. Interrupted training continues from its checkpoint; measuring
    begins again.
    """
    here = environment.describe(threads=threads, device=device)
    checkpoint = folder / runs.CHECKPOINT
    metrics, before = _begin_or_resume(training, folder, here, checkpoint)
    if not _train(training, metrics, checkpoint, before, ordered_to_stop):
        return False
    training.model.eval().requires_grad_(False)
    for row in measure():
        metrics.append(row)
        if row["event"] != "done" and ordered_to_stop():
            return False
    metrics.sync()
    checkpoint.unlink()
    return True


def _train(
    training: Stepwise[Any, Any],
    metrics: runs.Metrics,
    checkpoint: Path,
    before: float,
    ordered_to_stop: Callable[[], bool],
) -> bool:
    """Train to the last step; return False if a stop was requested before. Both cases end with a checkpoint."""
    config = training.config
    start = time.perf_counter() - before
    logged_step, logged_at = training.step, time.perf_counter()

    def save() -> None:
        metrics.sync()  # first the rows, then the checkpoint that refers to them
        runs.save_tensors(checkpoint, training.state())

    while training.step < config.steps:
        if ordered_to_stop():
            if training.step:
                save()
            return False
        training.advance()
        last = training.step == config.steps
        if training.step % config.log_every == 0 or last:
            loss = training.take_mean_loss((training.step - 1) % config.log_every + 1)
            now = time.perf_counter()
            if loss != loss or loss == float("inf"):
                advice = "start a new run with a smaller --learning-rate"
                raise RunError(f"the loss is {loss} at step {training.step}; {advice}.")
            speed = (training.step - logged_step) * training.per_step / (now - logged_at)
            row = {"event": "train", "step": training.step, "loss": loss}
            metrics.append({**row, "seconds": round(now - start, 3), training.rate: round(speed, 1)})
            logged_step, logged_at = training.step, now
        if training.step % config.checkpoint_every == 0 or last:
            save()
    return True


def _begin_or_resume(
    training: Stepwise[Any, Any], folder: Path, here: Mapping[str, Any], checkpoint: Path
) -> tuple[runs.Metrics, float]:
    """Return the metrics of a trial and its seconds so far; restore the checkpoint if there is one."""
    if checkpoint.exists():
        versions = {package: here[package] for package in ("torch", "posenc")}
        environment.check_versions("trial", runs.read_json(folder / runs.ENVIRONMENT), versions)
    runs.write_json(folder / runs.ENVIRONMENT, here)
    metrics = runs.Metrics(folder / runs.METRICS)
    if checkpoint.exists():
        training.load(runs.load_tensors(checkpoint))
    rows = [row for row in metrics.rows() if row["event"] == "train" and row["step"] <= training.step]
    metrics.keep(rows)  # rows after the checkpoint are written again, with the same numbers
    return metrics, rows[-1]["seconds"] if rows else 0.0

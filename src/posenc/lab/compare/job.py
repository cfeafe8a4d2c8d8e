"""A run of a task: the same small model trained with each encoding, measured at the trained size and past it."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from rich.console import Console

import posenc
from posenc.lab.compare import find_task as tasks
from posenc.lab.compare import report
from posenc.lab.compare.folder import SHOWN, TaskConfig, TaskTrial, TrialResult, load_config, trials
from posenc.lab.compare.jobs import finish as finish_run
from posenc.lab.compare.jobs import finish_trials
from posenc.lab.compare.request import Request
from posenc.lab.compare.task import Sizes, Task
from posenc.lab.compare.train import Training, train
from posenc.lab.compare.trial import Outcome, run_alone, train_and_measure
from posenc.lab.drawing.words import counted
from posenc.lab.encodings.spec import parse
from posenc.lab.run import folder as runs
from posenc.lab.run.config import Backend, check_choice, read
from posenc.lab.run.errors import RunError
from posenc.lab.run.options import command_of
from posenc.lab.run.schedule import seeded
from posenc.lab.run.signals import cores


def prepare(request: Request) -> Path:
    """A new run folder with all that its trials need; what cannot run is refused before there is one."""
    check_choice("--backend", request.backend, Backend)
    request.refuse("preset", "texts", "vocabulary", why="which only the task text takes; leave them out")
    task, changes, lengths = (
        tasks.find(request.task),
        request.model_sizes() | request.train_sizes(),
        request.several_lengths(),
    )
    if unknown := sorted(set(changes) - set(asdict(task.sizes))):
        raise ValueError(
            f"--task {request.task}: got {unknown[0]}, expected one of {', '.join(sorted(asdict(task.sizes)))}."
        )
    if lengths and "length" in changes:
        raise ValueError("--lengths: got --length too, expected one of the two.")
    if len(set(lengths)) < len(lengths):
        raise ValueError(f"--lengths: got {lengths}, expected each length once.")
    sizes = replace(task.sizes, **changes)
    lengths = lengths or [sizes.length]
    seeds = 1 if request.seeds is None else request.seeds
    if seeds < 1:
        raise ValueError(f"--seeds: got {seeds}, expected at least 1.")
    labels: dict[str, str] = {}
    for spec in request.specs or task.encodings:
        label = task.check(spec)
        if label in labels:
            raise ValueError(f"{label!r} names two encodings of this run; give each once, with different options.")
        labels[label] = spec
        for length in lengths:
            _try(task, label, spec, replace(sizes, length=length))
    jobs = request.jobs or min(cores(), len(labels) * seeds * len(lengths))
    threads = request.threads or max(1, cores() // jobs)
    config = TaskConfig(
        posenc=posenc.__version__,
        command=command_of("compare", replace(request, threads=threads, folder=None, jobs=None)),
        task=request.task,
        file_sha256=tasks.digest(request.task),
        encodings=labels,
        seeds=tuple(range(seeds)),
        lengths=tuple(lengths),
        sizes=sizes,
        jobs=jobs,
        threads=threads,
        backend=cast(Backend, request.backend),
    )
    with runs.created(request.folder, request.task.rpartition("/")[2].replace(".py:", "-")) as run:
        for label, length, seed, folder in trials(run, config):
            trial = TaskTrial(
                task=config.task,
                file_sha256=config.file_sha256,
                threads=threads,
                sizes=replace(sizes, length=length),
                label=label,
                spec=labels[label],
                seed=seed,
                encoding_sha256=_digest(labels[label]),
            )
            folder.mkdir(exist_ok=True)
            runs.write_json(folder / runs.CONFIG, trial.to_dict())
        runs.write_json(run / runs.CONFIG, config.to_dict())  # last: a folder that has it is whole
    return run


def finish(run: Path, console: Console, *, jobs: int | None = None, backend: Backend | None = None) -> None:
    """Do what a run still lacks: trials, then the report."""
    config = load_config(run)
    sizes = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in asdict(config.sizes).items())

    def work() -> None:
        finish_trials(
            [folder for *_, folder in trials(run, config)], lambda folder: (folder / runs.RESULTS).exists(),
            config.sizes, console, jobs=jobs or config.jobs, threads=config.threads,
            backend=backend or config.backend, device="cpu", run=run_trial,
        )  # fmt: skip

    introduction = (
        f"[bold]posenc {posenc.__version__}[/] compares {counted(len(config.encodings), 'encoding')} at the task "
        f"{config.task}: {tasks.find(config.task).title}.",
        f"[dim]sizes   [/] {sizes}",
    )
    finish_run(run, console, introduction=introduction, work=work, report=report)


def run_trial(folder: str, *, device: str, parent: int) -> Outcome:
    """Train and measure one encoding with one seed; a trial that was cut off goes on, with the same numbers."""

    def work(path: Path, ordered_to_stop: Callable[[], bool]) -> bool:
        return (path / runs.RESULTS).exists() or _run(path, ordered_to_stop)

    return run_alone(folder, parent, work)


def _run(path: Path, ordered_to_stop: Callable[[], bool]) -> bool:
    config = read(path / runs.CONFIG, TaskTrial)
    task, spec, sizes = tasks.find(config.task), config.spec, config.sizes
    for what, before, now in (
        (config.task, config.file_sha256, tasks.digest(config.task)),
        (spec, config.encoding_sha256, _digest(spec)),
    ):
        if before != now:
            raise RunError(f"{what} has changed since this run began; undo the change, or start a new run.")
    torch.set_num_threads(config.threads)
    training = Training(task, spec, sizes, config.seed)
    model = training.model

    def measure() -> Iterator[dict[str, Any]]:
        measurements = []
        with seeded(config.seed, sizes.steps):
            for measurement in task.measure(model, spec, sizes):
                measurements.append(measurement)
                yield {"event": "measure", **asdict(measurement)}
            examples = list(task.examples(model, spec, sizes))
            runs.save_tensors(path / SHOWN, task.show(model, spec, sizes))
        runs.save_tensors(path / runs.MODEL, dict(model.named_parameters()))
        trained = [row for row in runs.Metrics(path / runs.METRICS).rows() if row["event"] == "train"]
        result = TrialResult(
            config.label,
            config.seed,
            sizes.length,
            [(row["step"], row["loss"]) for row in trained],
            measurements,
            examples,
            sum(parameter.numel() for parameter in model.parameters()),
            trained[-1]["seconds"],
        )
        runs.write_json(path / runs.RESULTS, msgspec.to_builtins(result))
        yield {"event": "done"}

    return train_and_measure(training, path, measure, ordered_to_stop, threads=config.threads, device="cpu")


def _digest(spec: str) -> str | None:
    """SHA-256 of the file of a user's own encoding."""
    return parse(spec).file_digest() if ".py:" in spec else None


def _try(task: Task, label: str, spec: str, sizes: Sizes) -> None:
    """One step, so that a trial does not fail an hour later."""
    try:
        train(task, spec, replace(sizes, steps=1, batch=2), 0)
    except (ValueError, TypeError):
        raise
    except Exception as error:
        raise RunError(f"{label} fails on its first step: {type(error).__name__}: {error}") from error

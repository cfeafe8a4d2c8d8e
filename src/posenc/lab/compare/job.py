"""A task run: trains the same small model with each encoding, and measures it at the trained size and beyond."""

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
from posenc.lab.compare.folder import KIND, SHOWN, TaskConfig, TaskTrial, TrialResult, load_config, trials
from posenc.lab.compare.jobs import finish as finish_run
from posenc.lab.compare.jobs import finish_trials, write_configs
from posenc.lab.compare.request import MODEL, TRAIN, Request
from posenc.lab.compare.task import Sizes, Task
from posenc.lab.compare.train import Training
from posenc.lab.compare.trial import Outcome, run_alone, train_and_measure
from posenc.lab.drawing.words import counted
from posenc.lab.encodings.spec import file_digest
from posenc.lab.run import folder as runs
from posenc.lab.run.config import Backend, Data, read, to_dict
from posenc.lab.run.errors import RunError
from posenc.lab.run.printable import escape
from posenc.lab.run.schedule import seeded
from posenc.lab.run.signals import cores


def prepare(request: Request) -> Path:
    """Make a new run folder with everything that its trials need; refuse impossible options before."""
    request.refuse("preset", "texts", "vocabulary", why="which only the task text takes; leave them out")
    task, lengths = tasks.find(request.task), request.several_lengths()
    changes = request.sizes(*MODEL, *TRAIN) | request.train
    if unknown := sorted(set(changes) - set(asdict(task.sizes))):
        raise ValueError(
            f"--task {request.task}: got {unknown[0]}, expected one of {', '.join(sorted(asdict(task.sizes)))}."
        )
    if lengths and "length" in changes:
        raise ValueError("--lengths: got --length too, expected one of the two.")
    if len(set(lengths)) < len(lengths):
        raise ValueError(f"--lengths: got {lengths}, expected different lengths; give each length once.")
    sizes = replace(task.sizes, **changes)
    lengths = lengths or [sizes.length]
    seeds = request.numbered_seeds(1)
    labels = request.labelled(task.encodings, task.check)
    for label, spec in labels.items():
        for length in lengths:
            _try(task, label, spec, replace(sizes, length=length))
    jobs, threads = request.side_by_side(len(labels) * len(seeds) * len(lengths), cores())
    config = TaskConfig(
        posenc=posenc.__version__,
        command=request.command(threads),
        task=request.task,
        file_sha256=file_digest(request.task),
        encodings=labels,
        seeds=seeds,
        lengths=tuple(lengths),
        sizes=sizes,
        jobs=jobs,
        threads=threads,
        backend=cast(Backend, request.backend),
    )
    with runs.created(request.folder, request.task.rpartition("/")[2].replace(".py:", "-")) as run:
        every = {folder: _trial(config, label, length, seed) for label, length, seed, folder in trials(run, config)}
        write_configs(run, to_dict(KIND, config), every)
    return run


def _trial(config: TaskConfig, label: str, length: int, seed: int) -> Data:
    spec = config.encodings[label]
    trial = TaskTrial(
        task=config.task,
        file_sha256=config.file_sha256,
        threads=config.threads,
        sizes=replace(config.sizes, length=length),
        label=label,
        spec=spec,
        seed=seed,
        encoding_sha256=file_digest(spec),
    )
    return to_dict("task trial", trial)


def finish(run: Path, console: Console, *, jobs: int | None = None, backend: Backend | None = None) -> None:
    """Do the unfinished work of a run: trials, then the report."""
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
        f"{escape(config.task)}: {escape(tasks.find(config.task).title)}.",
        f"[dim]sizes   [/] {sizes}",
    )
    finish_run(run, console, introduction=introduction, work=work, report=report)


def run_trial(folder: str, *, device: str, parent: int) -> Outcome:
    """Train and measure one encoding with one seed; an interrupted trial continues to the same numbers."""

    def work(path: Path, ordered_to_stop: Callable[[], bool]) -> bool:
        return (path / runs.RESULTS).exists() or _run(path, ordered_to_stop)

    return run_alone(folder, parent, work)


def _run(path: Path, ordered_to_stop: Callable[[], bool]) -> bool:
    config = read(path / runs.CONFIG, TaskTrial)
    task, spec, sizes = tasks.find(config.task), config.spec, config.sizes
    for what, before in (
        (config.task, config.file_sha256),
        (spec, config.encoding_sha256),
    ):
        if file_digest(what) != before:
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
        losses = [(row["step"], row["loss"]) for row in trained]
        parameters, seconds = sum(each.numel() for each in model.parameters()), trained[-1]["seconds"]
        about = (config.label, config.seed, sizes.length)
        result = TrialResult(*about, losses, measurements, examples, parameters, seconds)
        runs.write_json(path / runs.RESULTS, msgspec.to_builtins(result))
        yield {"event": "done"}

    return train_and_measure(training, path, measure, ordered_to_stop, threads=config.threads, device="cpu")


def _try(task: Task, label: str, spec: str, sizes: Sizes) -> None:
    """Do one training step now, so that an error does not come an hour later."""
    try:
        Training(task, spec, replace(sizes, steps=1, batch=2), 0).advance()
    except (ValueError, TypeError):
        raise
    except Exception as error:
        raise RunError(f"{label} fails on its first step: {type(error).__name__}: {error}") from error

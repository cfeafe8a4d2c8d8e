"""A run of a task: the same small model trained with each encoding, measured at the trained size and past it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

import posenc
from posenc.lab.compare import find_task as tasks
from posenc.lab.compare import task_report, task_results
from posenc.lab.compare.jobs import run_trials
from posenc.lab.compare.request import Request as TextRequest
from posenc.lab.compare.task import Sizes, Task
from posenc.lab.compare.task_train import Training, seeded, train
from posenc.lab.compare.trial import Outcome, begin_or_resume, run_alone, train_to_end
from posenc.lab.compare.watch import Watch
from posenc.lab.encodings.spec import parse
from posenc.lab.run import environment
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError, resumable
from posenc.lab.run.options import command_of
from posenc.lab.run.signals import cores

KIND = "task"
Backend = Literal["loky", "ray", "dask"]


@dataclass(frozen=True)
class Request:
    """A run as Python asks for it. ``sizes`` replaces fields of the task's own :class:`Sizes`, and ``lengths`` trains
    each encoding at each of several lengths. What is None is as the task says, or as the machine has it."""

    task: str
    specs: Sequence[str] = ()
    seeds: int | None = None
    sizes: Mapping[str, Any] = field(default_factory=dict)
    jobs: int | None = None
    threads: int | None = None
    folder: Path | None = None
    backend: Backend = "loky"
    lengths: Sequence[int] = ()
    command: str = ""


def prepare_request(request: TextRequest, given: frozenset[str]) -> Path:
    """:func:`prepare` with the options of the command line; ``given`` are those that were written there."""
    if others := sorted(given & {"preset", "texts", "vocabulary"}):
        raise ValueError(f"--task {request.task}: got {', '.join(others)} too, expected them for the task text alone.")
    sizes: dict[str, Any] = {**request.model_sizes(), **request.train_sizes()}
    if request.dropout is not None:
        sizes["dropout"] = request.dropout
    backend: Any = request.backend
    command = command_of("compare", dataclasses.replace(request, folder=None, jobs=None))
    options = Request(
        request.task, request.specs, request.seeds, sizes, request.jobs, request.threads, request.folder, backend,
        request.several_lengths(), command,
    )  # fmt: skip
    return prepare(options)


def prepare(request: Request) -> Path:
    """A new run folder with all that its trials need; what cannot run is refused before there is one."""
    task = tasks.find(request.task)
    if unknown := sorted(set(request.sizes) - set(asdict(task.sizes))):
        raise ValueError(f"--task {request.task}: got {unknown[0]}, expected one of {sorted(asdict(task.sizes))}.")
    if request.lengths and "length" in request.sizes:
        raise ValueError("--lengths: got --length too, expected one of the two.")
    if len(set(request.lengths)) < len(request.lengths):
        raise ValueError(f"--lengths: got {list(request.lengths)}, expected each length once.")
    sizes = replace(task.sizes, **request.sizes)
    lengths = list(request.lengths) or [sizes.length]
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
    config = {
        "format": 1,
        "kind": KIND,
        "posenc": posenc.__version__,
        "command": request.command,
        "task": request.task,
        "file_sha256": tasks.digest(request.task),
        "encodings": labels,
        "seeds": list(range(seeds)),
        "lengths": lengths,
        "sizes": asdict(sizes),
        "jobs": jobs,
        "threads": request.threads or max(1, cores() // jobs),
        "backend": request.backend,
    }
    with runs.created(request.folder, request.task.rpartition("/")[2].replace(".py:", "-")) as run:
        for label, length, seed, folder in task_results.trials(run, config):
            folder.mkdir(exist_ok=True)
            trial = {key: config[key] for key in ("format", "posenc", "task", "file_sha256", "threads")}
            trial["sizes"] = asdict(replace(sizes, length=length))
            spec = labels[label]
            digest = _digest(spec)
            runs.write_json(
                folder / runs.CONFIG,
                {**trial, "label": label, "spec": spec, "seed": seed, "encoding_sha256": digest},
            )
        runs.write_json(run / runs.CONFIG, config)  # last: a folder that has it is whole
    return run


def finish(run: Path, console: Console, *, jobs: int | None = None, backend: Backend | None = None) -> None:
    """Do what a run still lacks: trials, then the report."""
    config = runs.read_json(run / runs.CONFIG)
    folders = [folder for *_, folder in task_results.trials(run, config)]
    pending = [folder for folder in folders if not (folder / runs.RESULTS).exists()]
    task = tasks.find(config["task"])
    sizes = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in config["sizes"].items())
    console.print(
        f"[bold]posenc {posenc.__version__}[/] compares {len(config['encodings'])} encodings at the task "
        f"{config['task']}: {task.title}.\n[dim]sizes   [/] {sizes}\n[dim]folder  [/] {run}   "
        "[dim](Ctrl-C stops, --resume goes on)[/]\n",
        highlight=False,
    )
    with resumable(["posenc", "compare", "--resume", str(run)]):
        if pending:
            with Watch(folders, Sizes(**config["sizes"]), console) as watch:
                outcomes = run_trials(
                    pending, jobs=jobs or config["jobs"], threads=config["threads"],
                    backend=backend or config["backend"], device="cpu", look=watch.look, run=run_task_trial,
                )  # fmt: skip
            if failed := [outcome for outcome in outcomes if outcome.status != "done"]:
                what = "\n".join(f"  {outcome.trial}: {outcome.message or outcome.status}" for outcome in failed)
                raise RunError(f"{len(failed)} of {len(folders)} trials did not finish:\n{what}")
        page = task_report.write(run)
    task_report.print_table(run, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)


def run_task_trial(folder: str, *, device: str, parent: int) -> Outcome:
    """Train and measure one encoding with one seed; a trial that was cut off goes on, with the same numbers."""

    def work(path: Path, ordered_to_stop: Callable[[], bool]) -> bool:
        return (path / runs.RESULTS).exists() or _run(path, ordered_to_stop)

    return run_alone(folder, parent, work)


def _run(path: Path, ordered_to_stop: Callable[[], bool]) -> bool:
    config = runs.read_json(path / runs.CONFIG)
    task, spec, sizes, checkpoint = (
        tasks.find(config["task"]), config["spec"], Sizes(**config["sizes"]), path / runs.CHECKPOINT,
    )  # fmt: skip
    for what, before, now in (
        (config["task"], config["file_sha256"], tasks.digest(config["task"])),
        (spec, config["encoding_sha256"], _digest(spec)),
    ):
        if before != now:
            raise RunError(f"{what} has changed since this run began; undo the change, or start a new run.")
    torch.set_num_threads(config["threads"])
    training = Training(task, spec, sizes, config["seed"])
    here = environment.describe(threads=config["threads"], device="cpu")
    metrics, before = begin_or_resume(training, path, here, checkpoint)
    if not train_to_end(training, metrics, checkpoint, before, ordered_to_stop):
        return False
    model = training.model.eval().requires_grad_(False)
    measurements = []
    with seeded(config["seed"], sizes.steps):
        for measurement in task.measure(model, spec, sizes):
            measurements.append(asdict(measurement))
            metrics.append({"event": "measure", **measurements[-1]})
            if ordered_to_stop():
                return False
        examples = [example._asdict() for example in task.examples(model, spec, sizes)]
        runs.save_tensors(path / task_report.SHOWN, task.show(model, spec, sizes))
    runs.save_tensors(path / runs.MODEL, dict(model.named_parameters()))
    trained = [row for row in metrics.rows() if row["event"] == "train"]
    result = {
        "label": config["label"],
        "seed": config["seed"],
        "length": sizes.length,
        "losses": [[row["step"], row["loss"]] for row in trained],
        "measurements": measurements,
        "examples": examples,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": trained[-1]["seconds"],
    }
    runs.write_json(path / runs.RESULTS, result)
    metrics.append({"event": "done"})
    checkpoint.unlink(missing_ok=True)
    return True


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

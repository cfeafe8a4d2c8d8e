"""A run of a task: the same small model trained with each encoding, measured at the trained size and past it."""

import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

import posenc
from posenc.lab.compare import task as tasks
from posenc.lab.compare import task_report
from posenc.lab.compare.jobs import run_trials
from posenc.lab.compare.request import Request as TextRequest
from posenc.lab.compare.task import Sizes
from posenc.lab.compare.trial import Outcome
from posenc.lab.run import environment
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import Interrupted, RunError
from posenc.lab.run.signals import cores

KIND = "task"
RESULT = "result.json"
Backend = Literal["loky", "ray", "dask"]


@dataclass(frozen=True)
class Request:
    """A run as the command line asks for it. ``sizes`` replaces fields of the task's own :class:`Sizes`."""

    task: str
    specs: Sequence[str] = ()
    seeds: int | None = None
    sizes: Mapping[str, Any] = field(default_factory=dict)
    jobs: int | None = None
    threads: int | None = None
    folder: Path | None = None
    backend: Backend = "loky"


def prepare_request(request: TextRequest, given: frozenset[str]) -> Path:
    """:func:`prepare` with the options of the command line; ``given`` are those that were written there."""
    if others := sorted(given & {"preset", "texts", "vocabulary"}):
        raise ValueError(f"--task {request.task}: got {', '.join(others)} too, expected them for the task text alone.")
    sizes: dict[str, Any] = {**request.model_sizes(), **request.train_sizes()}
    if request.dropout is not None:
        sizes["dropout"] = request.dropout
    backend: Any = request.backend
    return prepare(
        Request(
            request.task, request.specs, request.seeds, sizes, request.jobs, request.threads, request.folder, backend
        )
    )


def prepare(request: Request) -> Path:
    """A new run folder with all that its trials need; what cannot run is refused before there is one."""
    task = tasks.find(request.task)
    if unknown := sorted(set(request.sizes) - set(asdict(task.sizes))):
        raise ValueError(f"--task {request.task}: got {unknown[0]}, expected one of {sorted(asdict(task.sizes))}.")
    sizes = replace(task.sizes, **request.sizes)
    seeds = 1 if request.seeds is None else request.seeds
    if seeds < 1:
        raise ValueError(f"--seeds: got {seeds}, expected at least 1.")
    labels = {}
    for spec in request.specs or task.encodings:
        label = task.check(spec)
        if label in labels:
            raise ValueError(f"{label!r} names two encodings of this run; give each once, with different options.")
        labels[label] = spec
        _try(task, label, spec, sizes)
    jobs = request.jobs or min(cores(), len(labels) * seeds)
    config = {
        "format": 1,
        "kind": KIND,
        "posenc": posenc.__version__,
        "task": request.task,
        "file_sha256": tasks.digest(request.task),
        "encodings": labels,
        "seeds": list(range(seeds)),
        "sizes": asdict(sizes),
        "jobs": jobs,
        "threads": request.threads or max(1, cores() // jobs),
        "backend": request.backend,
    }
    with runs.created(request.folder, request.task.rpartition("/")[2].replace(".py:", "-")) as run:
        for seed in range(seeds):
            for label, spec in labels.items():
                folder = run / f"{label}-seed{seed}"
                folder.mkdir(exist_ok=True)
                trial = {key: config[key] for key in ("format", "posenc", "task", "file_sha256", "sizes", "threads")}
                runs.write_json(folder / runs.CONFIG, {**trial, "label": label, "spec": spec, "seed": seed})
        runs.write_json(run / runs.CONFIG, config)  # last: a folder that has it is whole
    return run


def finish(run: Path, console: Console, *, jobs: int | None = None, backend: Backend | None = None) -> None:
    """Do what a run still lacks: trials, then the report."""
    config = runs.read_json(run / runs.CONFIG)
    folders = [run / f"{label}-seed{seed}" for seed in config["seeds"] for label in config["encodings"]]
    pending = [folder for folder in folders if not (folder / RESULT).exists()]
    task = tasks.find(config["task"])
    sizes = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in config["sizes"].items())
    console.print(
        f"[bold]posenc {posenc.__version__}[/] compares {len(config['encodings'])} encodings at the task "
        f"{config['task']}: {task.title}.\n[dim]sizes   [/] {sizes}\n[dim]folder  [/] {run}   "
        "[dim](Ctrl-C stops, --resume goes on)[/]\n",
        highlight=False,
    )
    how_to_resume = f"go on with: posenc compare --resume {run}"
    done = {folder for folder in folders if folder not in pending}

    def look() -> None:
        for folder in folders:
            if folder not in done and (folder / RESULT).exists():
                done.add(folder)
                seconds = runs.read_json(folder / RESULT)["seconds"]
                console.print(
                    f"{folder.name}: {seconds:.0f} s  [dim]({len(done)} of {len(folders)})[/]", highlight=False
                )

    try:
        outcomes = (
            run_trials(
                pending, jobs=jobs or config["jobs"], threads=config["threads"], backend=backend or config["backend"],
                device="cpu", look=look, run=run_task_trial,
            )
            if pending
            else []
        )  # fmt: skip
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; finished trials are kept; {how_to_resume}", signal.SIGINT) from None
    except Interrupted as error:
        raise Interrupted(f"{error}; {how_to_resume}", error.signal_number) from None
    look()
    if failed := [outcome for outcome in outcomes if outcome.status != "done"]:
        what = "\n".join(f"  {outcome.trial}: {outcome.message or outcome.status}" for outcome in failed)
        raise RunError(f"{len(failed)} of {len(folders)} trials did not finish:\n{what}\n{how_to_resume}")
    page = task_report.write(run)
    task_report.print_table(run, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)


def run_task_trial(folder: str, *, device: str, parent: int) -> Outcome:
    """Train and measure one encoding with one seed. A trial that was cut off begins again, with the same numbers."""
    if os.getpid() != parent and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent acts on Ctrl-C
    path = Path(folder)
    is_child = os.getppid() == parent

    def stop() -> bool:
        return (path.parent / runs.STOP).exists() or (is_child and os.getppid() != parent)

    try:
        with runs.locked(path):
            runs.clear_partial_writes(path)
            if not (path / RESULT).exists() and not _run(path, stop):
                return Outcome(path.name, "stopped")
    except Exception as error:
        plain = isinstance(error, (RunError, ValueError, TypeError, OSError))
        return Outcome(path.name, "failed", str(error) if plain else f"{type(error).__name__}: {error}")
    return Outcome(path.name, "done")


def _run(path: Path, stop: Any) -> bool:
    import time

    config = runs.read_json(path / runs.CONFIG)
    if tasks.digest(config["task"]) != config["file_sha256"]:
        raise RunError(f"{config['task']} has changed since this run began; undo the change, or start a new run.")
    torch.set_num_threads(config["threads"])
    task, sizes, start = tasks.find(config["task"]), Sizes(**config["sizes"]), time.perf_counter()
    trained = tasks.train(task, config["spec"], sizes, config["seed"], stop=stop)
    if trained is None:
        return False
    model, losses = trained
    result = {
        "label": config["label"],
        "seed": config["seed"],
        "losses": losses,
        "measurements": [asdict(m) for m in task.measure(model, config["spec"], sizes)],
        "example": task.example(model, config["spec"], sizes),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(time.perf_counter() - start, 2),
        "environment": environment.describe(threads=config["threads"], device="cpu"),
    }
    runs.write_json(path / RESULT, result)
    return True


def _try(task: tasks.Task, label: str, spec: str, sizes: Sizes) -> None:
    """One step, so that a trial does not fail an hour later."""
    try:
        tasks.train(task, spec, replace(sizes, steps=1, batch=2), 0)
    except (ValueError, TypeError):
        raise
    except Exception as error:
        raise RunError(f"{label} fails on its first step: {type(error).__name__}: {error}") from error

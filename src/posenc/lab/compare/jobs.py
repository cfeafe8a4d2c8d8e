"""Runs trials in parallel, on the cores of this machine or on a cluster, with joblib's backends."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
from rich.console import Console

from posenc.lab.compare.stepwise import Settings
from posenc.lab.compare.trial import Outcome
from posenc.lab.compare.watch import Watch
from posenc.lab.run import folder as runs
from posenc.lab.run.config import Backend, Data, Device
from posenc.lab.run.errors import Interrupted, RunError, resumable
from posenc.lab.run.printable import escape
from posenc.lab.run.signals import listening

SECONDS_BETWEEN_LOOKS = 0.2


def write_configs(run: Path, config: Data, trials: Mapping[Path, Data]) -> None:
    """Write the config of a new run, and those of its trials into their folders."""
    for folder, trial in trials.items():
        folder.mkdir(exist_ok=True)
        runs.write_json(folder / runs.CONFIG, trial)
    runs.write_json(run / runs.CONFIG, config)  # last: a folder with this file is complete


def finish(run: Path, console: Console, *, introduction: Sequence[str], work: Callable[[], None], report: Any) -> None:
    """Print what will happen, do the ``work`` that a run still lacks, and write its ``report``.

    One process at a time: two would disturb each other's timings, and one could delete the other's stop file.
    """
    with runs.locked(run, patience=1.0):
        folder = f"[dim]folder  [/] {escape(run)}   [dim](Ctrl-C stops, --resume continues)[/]"
        with resumable(["posenc", "compare", "--resume", str(run)]):
            for line in (*introduction, folder, ""):
                console.print(line, soft_wrap=True)
            work()
            with console.status("Writing the report"):
                page = report.write(run)
        report.print_table(run, console)
        console.print(f"Report: {escape(page)}", soft_wrap=True)


def finish_trials(
    folders: Sequence[Path], is_done: Callable[[Path], bool], sizes: Settings, console: Console, **how: Any
) -> None:
    """Run the unfinished trials, and show the progress of each. ``how`` holds the options of
    :func:`run_trials`.

    Raises:
        RunError: some trials did not finish; the message names them, each with the reason.
    """
    pending = [folder for folder in folders if not is_done(folder)]
    if not pending:
        return
    with Watch(folders, sizes, console) as watch:
        outcomes = run_trials(pending, look=watch.look, **how)
    if failed := [outcome for outcome in outcomes if outcome.status != "done"]:
        what = "\n".join(f"  {outcome.trial}: {outcome.message or outcome.status}" for outcome in failed)
        raise RunError(f"{len(failed)} of {len(folders)} trials did not finish:\n{what}")


def run_trials(
    folders: Sequence[Path],
    *,
    jobs: int,
    threads: int,
    backend: Backend,
    device: Device,
    look: Callable[[], None],
    run: Callable[..., Outcome],
) -> list[Outcome]:
    """Run at most ``jobs`` trials at a time, and call ``look`` while they run.

    A second thread runs the trials, so that this one can watch them and handle signals. The first Ctrl-C (or SIGTERM)
    asks all trials, on every machine, to save a checkpoint and stop. The second ends this process at once, which loses
    only the work after the last checkpoints.

    Raises:
        Interrupted: after the trials have stopped because of a signal.
        RunError: a worker died, or the backend is not installed.
    """
    stop_file = folders[0].parent / runs.STOP
    stop_file.unlink(missing_ok=True)
    results: list[Outcome] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with _parallel(backend, jobs, threads):
                calls = [
                    joblib.delayed(run)(str(folder), device=_device(device, index), parent=os.getpid())
                    for index, folder in enumerate(folders)
                ]
                results.extend(joblib.Parallel(batch_size=1)(calls))
        except BaseException as error:  # a KeyboardInterrupt in a worker comes back as one here
            errors.append(error)

    worker = threading.Thread(target=work, daemon=True)
    with listening(lambda number: stop_file.touch()) as received:
        if backend == "loky":
            _start_tracker()
        worker.start()
        try:
            while worker.is_alive():
                worker.join(SECONDS_BETWEEN_LOOKS)
                look()
        except BaseException:  # stdout is closed (posenc compare | head): no trial may outlive this process
            stop_file.touch()
            worker.join()
            stop_file.unlink(missing_ok=True)
            raise
    if received:
        stop_file.unlink(missing_ok=True)
        raise Interrupted("stopped; the finished work is kept", received[0])
    if errors:
        error = errors[0]
        if isinstance(error, RunError):
            raise error
        raise RunError(f"a worker died ({type(error).__name__}: {error})") from error
    return results


@contextlib.contextmanager
def _parallel(backend: Backend, jobs: int, threads: int) -> Iterator[None]:
    """joblib with the chosen backend."""
    options: dict[str, Any] = {}
    if backend == "loky":
        options["inner_max_num_threads"] = threads
    elif backend == "ray":
        options["ray_remote_args"] = {"num_cpus": threads}
        _start_ray(jobs * threads)
    else:
        _start_dask()
    with joblib.parallel_config(backend=backend, n_jobs=jobs, **options):
        yield


def _start_tracker() -> None:
    """Start joblib's process that removes what workers leave, deaf to SIGHUP, as joblib makes it to SIGTERM.

    A terminal that is closed sends SIGHUP to it too; another one would start, and print a traceback for each name that
    it does not know.
    """
    from joblib.externals.loky.backend import resource_tracker

    number = getattr(signal, "SIGHUP", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        return
    before = signal.signal(number, signal.SIG_IGN)  # which a process that starts now inherits
    try:
        resource_tracker.ensure_running()
    finally:
        signal.signal(number, before)


def _start_ray(cpus: int) -> None:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise RunError("--backend ray needs Ray; install it on every machine: pip install ray") from error
    if not ray.is_initialized():
        # With RAY_ADDRESS set, ray.init joins that cluster and must not get num_cpus.
        num_cpus = None if "RAY_ADDRESS" in os.environ else cpus
        ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    register_ray()


def _start_dask() -> None:
    try:
        from dask.distributed import Client, get_client
    except ImportError as error:
        raise RunError(
            '--backend dask needs Dask; install it on every machine: pip install "dask[distributed]"'
        ) from error
    try:
        get_client()
    except ValueError:  # none yet: DASK_SCHEDULER_ADDRESS names a cluster, otherwise a local one starts
        Client()


def _device(device: Device, index: int) -> str:
    if device == "cpu":
        return device
    import torch

    if not (count := torch.cuda.device_count()):
        raise RunError(
            "the run began on a GPU, and this machine has none; continue where it began, or start a new run."
        )
    return f"cuda:{index % count}"

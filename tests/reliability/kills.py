"""SIGKILL at random moments of compare, save and tune: nothing that was done is lost, and nothing is left behind."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tests.reliability import small


def run(kills: int, folder: Path) -> list[str]:
    """The faults of so many kills, a third in each of the three."""
    share = kills // 3
    text = small.prose(folder)
    faults = []
    for name, job, count in (
        ("compare", _compare, kills - 2 * share),
        ("save", _save, share),
        ("tune", _tune, share),
    ):
        started = time.monotonic()
        (folder / name).mkdir()
        done, said = job(count, folder / name, text)
        faults += [f"{name}: {fault}" for fault in said]
        print(f"{done} kills of {name} in {time.monotonic() - started:.0f} s, {len(said)} faults")
    return faults


def killed(work: Callable[[], Any], longest: float) -> bool:
    """Whether the child that does the work was killed before it was done, at a moment of these seconds."""
    child = small.in_a_child(work)
    time.sleep(random.uniform(0, longest))
    with_its_children = os.getpgid(child) == child
    if with_its_children:
        os.killpg(child, signal.SIGKILL)
    else:
        os.kill(child, signal.SIGKILL)
    return small.wait(child) == -signal.SIGKILL


def seconds_of(work: Callable[[], Any]) -> float:
    """How long a child needs for the work."""
    started = time.monotonic()
    if status := small.wait(small.in_a_child(work)):
        raise RuntimeError(f"the work that is to be killed ends with {status} by itself")
    return time.monotonic() - started


def left_behind(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.endswith(".partial")]


def _compare(kills: int, folder: Path, text: Path) -> tuple[int, list[str]]:
    from posenc.lab.compare.text.config import load_config
    from posenc.lab.compare.text.job import prepare
    from posenc.lab.run.folder import CONFIG

    def begin(run: Path) -> Callable[[], Any]:
        return lambda: prepare(small.request(run, text))

    whole, faults, done, runs = folder / "whole", [], 0, 0
    to_prepare = seconds_of(begin(whole))
    to_finish = seconds_of(lambda: small.finish(whole))
    while done < kills:
        runs += 1
        run = folder / f"run{runs}"
        done += killed(begin(run), to_prepare)
        if not (run / CONFIG).exists():  # it comes last: without it there is no run, and the folder may be taken
            small.wait(small.in_a_child(begin(run)))
        load_config(run)
        for _ in range(random.randrange(1, 6)):
            if done < kills:
                done += killed(partial(small.finish, run), 1.2 * to_finish)
        if status := small.wait(small.in_a_child(partial(small.finish, run))):
            faults.append(f"{run.name} could not be gone on with: exit {status}")
        elif small.numbers(run) != small.numbers(whole):
            faults.append(f"{run.name} has other numbers than a run that was not killed")
        faults += [f"{run.name} has {name}" for name in left_behind(run)]
    return done, faults


def _save(kills: int, folder: Path, text: Path) -> tuple[int, list[str]]:
    from posenc.frequencies import Linear
    from posenc.lab.checkpoint.open import open_checkpoint
    from posenc.lab.extend.save import save

    opened = small.checkpoint(folder / "model")
    saved, faults, done = folder / "saved", [], 0
    work = lambda: save(opened, Linear(2, base=10_000), saved, length=128)  # noqa: E731
    longest = seconds_of(work)
    want = {path.name: path.read_bytes() for path in saved.iterdir()}
    shutil.rmtree(saved)
    while done < kills:
        done += killed(work, longest)
        if saved.exists():
            open_checkpoint(saved)
            if {path.name: path.read_bytes() for path in saved.iterdir()} != want:
                faults.append(f"after {done} kills the saved model is another")
            shutil.rmtree(saved)
    if status := small.wait(small.in_a_child(work)):
        faults.append(f"after {done} kills nothing could be saved: exit {status}")
    faults += [f"{name} is left" for name in left_behind(folder)]
    return done, faults


def _tune(kills: int, folder: Path, text: Path) -> tuple[int, list[str]]:
    tokens = torch.randint(0, 300, (6000,), generator=torch.Generator().manual_seed(0))
    faults, done, runs = [], 0, 0
    want = folder / "whole.safetensors"
    longest = seconds_of(lambda: small.tune(folder / "whole", tokens, into=want))
    while done < kills:
        runs += 1
        run, got = folder / f"run{runs}", folder / f"run{runs}.safetensors"
        for _ in range(random.randrange(1, 5)):
            if done < kills:
                done += killed(partial(small.tune, run, tokens), longest)
        if status := small.wait(small.in_a_child(partial(small.tune, run, tokens, into=got))):
            faults.append(f"{run.name} could not be gone on with: exit {status}")
        elif got.read_bytes() != want.read_bytes():
            faults.append(f"{run.name} came to other weights than a training that was not killed")
        faults += [f"{run.name} has {name}" for name in left_behind(run)]
    return done, faults

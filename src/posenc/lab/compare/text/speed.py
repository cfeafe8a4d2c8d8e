"""Measures training speed relative to no encoding: one process times the steps of all encodings in turn."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from posenc.lab.compare.text.config import TrialConfig
from posenc.lab.compare.text.train import Training
from posenc.lab.compare.text.trial import load_tokens, make_model

ROUNDS = 20
WARM_UP = 3


def measure(
    run: Path, trials: Sequence[TrialConfig], *, on_progress: Callable[[int], None] = lambda done: None
) -> dict[str, dict[str, float]]:
    """Return the median seconds of a training step of each encoding, and its speed relative to ``none``.

    In each round every encoding and ``none``, even if the run does not contain it, take one step. Each is compared with
    the ``none`` of the same round, because a slow phase of the machine slows the whole round.
    """
    first = trials[0]
    reference = replace(first, label="none", spec="none", file_sha256=None)
    by_label = {"none": reference} | {trial.label: trial for trial in trials}
    torch.set_num_threads(first.threads)
    device = torch.device(first.device)
    tokens, _ = load_tokens(run, device)
    trainings = {
        label: Training(make_model(trial).to(device), tokens, trial.train, seed=trial.seed, precision=trial.precision)
        for label, trial in by_label.items()
    }
    seconds: dict[str, list[float]] = {label: [] for label in trainings}
    for round_number in range(WARM_UP + ROUNDS):
        for label, training in trainings.items():
            took = _time_step(training)
            if round_number >= WARM_UP:
                seconds[label].append(took)
        on_progress(round_number + 1)
    return {
        trial.label: {
            "seconds_per_step": statistics.median(seconds[trial.label]),
            "relative_to_none": statistics.median(
                base / own for base, own in zip(seconds["none"], seconds[trial.label], strict=True)
            ),
        }
        for trial in trials
    }


def _time_step(training: Training) -> float:
    if training.device.type == "cuda":
        torch.cuda.synchronize(training.device)
    start = time.perf_counter()
    training.advance()
    if training.device.type == "cuda":
        torch.cuda.synchronize(training.device)
    return time.perf_counter() - start

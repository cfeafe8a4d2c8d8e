"""The work of a run of ``posenc extend``, in pieces of one rule each; a piece is done completely or not at all."""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posenc.integrations.transformers import extend
from posenc.lab.checkpoint.open import Checkpoint
from posenc.lab.extend import config as files
from posenc.lab.extend.candidates import Candidate, Setting, base_of, longrope, plain
from posenc.lab.extend.config import ExtendConfig, retrieval_file, rule_folder
from posenc.lab.extend.costs import operations_of
from posenc.lab.extend.folder import rule_of
from posenc.lab.extend.gaps import Gaps, default_plan, gap_losses
from posenc.lab.extend.passes import full_pass
from posenc.lab.extend.retrieval import TASKS, Task, retrieve
from posenc.lab.extend.search import known_factors, search
from posenc.lab.run import folder as runs
from posenc.lab.run.config import Data
from posenc.lab.run.progress import Stages

DEPTHS = (0.1, 0.5, 0.9)
SHORTEST = 512
"""Tokens of the shortest text into which a question fits, with any tokenizer."""


@dataclasses.dataclass
class Work:
    """A run, its model and its text: the inputs of all pieces."""

    run: Path
    config: ExtendConfig
    checkpoint: Checkpoint
    tokens: Tensor
    stages: Stages

    @property
    def plan(self) -> Gaps:
        return default_plan(self.config.trained_length, self.config.length)

    def probe(self, names: list[str]) -> None:
        """Probe each rule that has no probe yet."""
        paths = {name: rule_folder(self.run, name) / files.PROBE for name in names}
        waiting = [self._candidate(name) for name, path in paths.items() if not path.exists()]
        length = self.config.length
        for candidate, found in probed(self.checkpoint, waiting, self.tokens, self.plan, length, self.stages):
            runs.write_json(paths[candidate.name], found)

    def search(self) -> None:
        """Search for LongRoPE factors with the probe; a continued search does not repeat evaluations."""
        if (self.run / files.SEARCH).exists():
            return
        config, present = self.config, self.checkpoint.frequencies
        width = self.checkpoint.rotary_dim or 0  # models without a base have been refused
        factor = config.length / config.trained_length
        log = runs.Metrics(self.run / "search.jsonl")
        known: dict[tuple[float, ...], float] = {tuple(row["factors"]): row["loss"] for row in log.rows()}
        stage = self.stages.begin("search", config.search, unit="list")
        stage.at(0)

        def made(factors: tuple[float, ...]) -> Candidate:
            return longrope(factors, present=present, trained_length=config.trained_length, factor=factor)

        def loss_of(factors: tuple[float, ...]) -> float:
            if factors not in known:
                with applied(self.checkpoint, made(factors), config.length) as model:
                    known[factors] = float(gap_losses(model, self.tokens, self.plan).mean())
                log.append({"event": "probe", "factors": factors, "loss": known[factors]})
            return known[factors]

        starts = known_factors(
            base=base_of(present),
            trained_length=config.trained_length,
            factor=factor,
            rotary_dim=width,
        )
        found = search(
            loss_of,
            pairs=width // 2,
            factor=factor,
            starts=starts,
            budget=max(config.search, len(starts)),
            seed=config.seed,
            on_step=lambda step: stage.at(min(step.number, config.search), loss=step.best),
        )
        save_candidate(self.run, made(found.factors))
        summary = {
            "factors": found.factors,
            "loss": found.loss,
            "start_loss": min(step.loss for step in found.history if step.origin == "start"),
            "evaluations": len(found.history),
            "best": [step.best for step in found.history],
        }
        runs.write_json(self.run / files.SEARCH, summary)
        stage.done(loss=found.loss)

    def full(self, name: str) -> None:
        """Do the full pass of a rule."""
        path = rule_folder(self.run, name) / files.PASS
        if not path.exists():
            with self._set(name) as model:
                self.read(model, path, title=name)

    def read(self, model: Any, path: Path, *, title: str) -> None:
        """Do the full pass of the untouched model."""
        begun, count = time.perf_counter(), len(self.tokens)
        stage = self.stages.begin(title, count, unit="token", share=operations_of(self.checkpoint).share(count))
        stage.at(0)
        nats = full_pass(model, self.tokens, on_progress=stage.at)
        _save_nats(path, nats, time.perf_counter() - begun)
        known = nats[np.isfinite(nats)]
        stage.done(loss=float(known.mean()) if known.size else None)

    def windows(self) -> None:
        """Measure the untouched model beyond its trained length, in windows of that length: the baseline."""
        path = self.run / files.WINDOWS
        if path.exists():
            return
        trained, count = self.config.trained_length, len(self.tokens)
        starts = window_starts(trained, count)
        stage = self.stages.begin("none, in windows", len(starts) * trained, unit="token")
        stage.at(0)
        begun = time.perf_counter()
        beyond = np.empty(count - 1 - trained, dtype=np.float32)
        for index, start in enumerate(starts):
            stop = min(start + trained, count)
            piece = self.tokens[start:stop]
            nats = full_pass(self.checkpoint.model, piece, on_progress=stage.after(index * trained))
            first = trained if index == 0 else starts[index - 1] + trained - 1
            beyond[first - trained : stop - 1 - trained] = nats[first - start :]
        _save_nats(path, beyond, time.perf_counter() - begun)
        stage.done(loss=float(beyond.mean()))

    def retrieve(self, name: str) -> None:
        """Do the passkey and needle tests with a rule, with the model's chat template if it has one."""
        tokenizer = self.checkpoint.tokenizer
        for task in unasked(self.run, name):
            begun = time.perf_counter()
            stage = self.stages.begin(f"{name}, {task}", 1, unit="token")
            with self._set(name) as model:
                answers = retrieve(
                    model,
                    tokenizer,
                    task=task,
                    lengths=asked_lengths(self.config.trained_length, self.config.length),
                    depths=DEPTHS,
                    filler_tokens=self.tokens,
                    form="chat" if getattr(tokenizer, "chat_template", None) else "plain",
                    seed=self.config.seed,
                    on_progress=stage.of,
                )
            stage.done()
            found = {"answers": [dataclasses.asdict(answer) for answer in answers]}
            runs.write_json(retrieval_file(self.run, name, task), {**found, "seconds": time.perf_counter() - begun})

    def _candidate(self, name: str) -> Candidate:
        return Candidate(name, rule_of(self.run, name), self.checkpoint.frequencies)

    def _set(self, name: str) -> AbstractContextManager[Any]:
        return applied(self.checkpoint, self._candidate(name), self.config.length)


def probed(
    checkpoint: Checkpoint, rules: Sequence[Candidate], tokens: Tensor, plan: Gaps, length: int, stages: Stages
) -> Iterator[tuple[Candidate, Data]]:
    """Each rule with its gap probe, as stored in the run's file."""
    if not rules:
        return
    cells = len(plan.gaps) * plan.places
    stage = stages.begin("probe", len(rules) * cells, unit="cell")
    stage.at(0)
    for index, candidate in enumerate(rules):
        begun = time.perf_counter()
        with applied(checkpoint, candidate, length) as model:
            losses = gap_losses(model, tokens, plan, on_progress=stage.after(index * cells))
        seconds = time.perf_counter() - begun
        yield candidate, {**dataclasses.asdict(plan), "losses": losses.tolist(), "seconds": seconds}
    stage.done()


@contextlib.contextmanager
def applied(checkpoint: Checkpoint, candidate: Candidate, length: int) -> Iterator[Any]:
    """Set a rule, in the form in which it is measured, for the duration of the block."""
    with ruled(checkpoint.model, candidate.measured(length), length):
        yield checkpoint.model


def ruled(model: Any, rule: Setting, length: int) -> AbstractContextManager[Any]:
    """Set a rule unchanged for the duration of the block; None keeps the model's own rule."""
    with warnings.catch_warnings():
        # Whether it is shorter than the model's own rule is what gets measured.
        warnings.filterwarnings("ignore", r"extend: the context of .* becomes shorter", UserWarning)
        return contextlib.nullcontext() if rule is None else extend(model, rule, length=length)


def unasked(run: Path, name: str) -> list[Task]:
    """The retrieval tasks that a rule still lacks."""
    return [task for task in TASKS if not retrieval_file(run, name, task).exists()]


def asked_lengths(trained_length: int, length: int) -> tuple[int, ...]:
    """The lengths of the retrieval test: one well within the trained length, and the wanted length."""
    return tuple(sorted({max(SHORTEST, trained_length // 2), max(SHORTEST, length)}))


def window_starts(trained_length: int, count: int) -> list[int]:
    """The starts of the baseline's windows, half a window apart; the last window ends with the text."""
    half = max(1, trained_length // 2)
    last = count - trained_length
    return [*range(half, last, half), last]


def save_candidate(run: Path, candidate: Candidate) -> None:
    """Make the folder of a rule."""
    folder = rule_folder(run, candidate.name)
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_json(folder / files.CANDIDATE, {"name": candidate.name, "rule": plain(candidate.rule)})


def _save_nats(path: Path, nats: NDArray[np.float32], seconds: float) -> None:
    runs.save_tensors(path, {"nats": torch.from_numpy(nats), "seconds": torch.tensor(seconds)})

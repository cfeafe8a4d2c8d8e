"""The work of a run of ``posenc extend``: each piece is one rule's, and is done once, whole or not at all."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posenc.frequencies import Frequencies
from posenc.integrations.transformers import extend
from posenc.lab.checkpoint.open import Checkpoint
from posenc.lab.extend import config as files
from posenc.lab.extend.candidates import Candidate, Setting, longrope
from posenc.lab.extend.config import ExtendConfig, retrieval_file, rule_folder
from posenc.lab.extend.costs import Costs
from posenc.lab.extend.folder import rule_of
from posenc.lab.extend.gaps import Gaps, default_gaps, gap_losses
from posenc.lab.extend.passes import full_pass
from posenc.lab.extend.retrieval import TASKS, Task, retrieve
from posenc.lab.extend.search import known_factors, search
from posenc.lab.run import folder as runs
from posenc.lab.run.progress import Stages

DEPTHS = (0.1, 0.5, 0.9)
SHORTEST = 512
"""Tokens of the shortest text that a question fits in, whatever the tokenizer."""


@dataclasses.dataclass
class Work:
    """A run, its model, and the text: what the pieces need."""

    run: Path
    config: ExtendConfig
    checkpoint: Checkpoint
    tokens: Tensor
    costs: Costs
    stages: Stages

    @property
    def plan(self) -> Gaps:
        return plan(self.config.trained_length, self.config.length)

    def probe(self, names: list[str]) -> None:
        """The gap probe of each rule that lacks it."""
        cells = len(self.plan.gaps) * self.plan.places
        waiting = [name for name in names if not (rule_folder(self.run, name) / files.PROBE).exists()]
        if not waiting:
            return
        stage = self.stages.begin("probe", len(waiting) * cells, unit="cell")
        stage.at(0)
        for index, name in enumerate(waiting):
            begun = time.perf_counter()
            with self._set(name) as model:
                losses = gap_losses(model, self.tokens, self.plan, on_progress=stage.after(index * cells))
            probe = {**dataclasses.asdict(self.plan), "losses": plain(losses)}
            runs.write_json(
                rule_folder(self.run, name) / files.PROBE, {**probe, "seconds": time.perf_counter() - begun}
            )
        stage.done()

    def search(self) -> None:
        """The search for LongRoPE factors by the probe; what was probed before it was cut off is not probed again."""
        if (self.run / files.SEARCH).exists():
            return
        config, present, width = self.config, self.checkpoint.frequencies, self.checkpoint.rotary_dim
        if present is None or width is None:
            raise ValueError("--search: got a model with a learned table, expected a rotary one, which has factors.")
        factor = config.length / config.trained_length
        log = runs.Metrics(self.run / SEARCHED)
        known: dict[tuple[float, ...], float] = {tuple(row["factors"]): row["loss"] for row in log.rows()}
        stage = self.stages.begin("search", config.search, unit="list")
        stage.at(0)

        def made(factors: tuple[float, ...]) -> Candidate:
            return longrope(factors, present=present, trained_length=config.trained_length, factor=factor)

        def loss_of(factors: tuple[float, ...]) -> float:
            if factors not in known:
                with applied(self.checkpoint, made(factors), config.length) as model:
                    known[factors] = float(gap_losses(model, self.tokens, self.plan).mean())
                log.append({"factors": factors, "loss": known[factors]})
            return known[factors]

        starts = known_factors(
            base=present.base,  # type: ignore[attr-defined]  # who has no base has been refused
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
        """The full pass of a rule."""
        path = rule_folder(self.run, name) / files.PASS
        if not path.exists():
            with self._set(name) as model:
                self.read(model, path, title=name)

    def read(self, model: Any, path: Path, *, title: str) -> None:
        """The full pass of the model as it is."""
        begun, count = time.perf_counter(), len(self.tokens)
        stage = self.stages.begin(title, count, unit="token", share=self.costs.share(count))
        stage.at(0)
        nats = full_pass(model, self.tokens, on_progress=stage.at)
        _save_nats(path, nats, time.perf_counter() - begun)
        known = nats[np.isfinite(nats)]
        stage.done(loss=float(known.mean()) if known.size else None)

    def windows(self) -> None:
        """The untouched model beyond its trained length, in windows of it: the baseline."""
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
        """Passkey and needle with a rule, by the model's own template where it has one."""
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

    @contextlib.contextmanager
    def _set(self, name: str) -> Iterator[Any]:
        candidate = Candidate(name, rule_of(self.run, name), self.checkpoint.frequencies)
        with applied(self.checkpoint, candidate, self.config.length) as model:
            yield model


SEARCHED = "search.jsonl"


@contextlib.contextmanager
def applied(checkpoint: Checkpoint, candidate: Candidate, length: int) -> Iterator[Any]:
    """The model with a rule as it is measured, and afterwards without it."""
    with ruled(checkpoint.model, candidate.measured(length), length):
        yield checkpoint.model


@contextlib.contextmanager
def ruled(model: Any, rule: Setting, length: int) -> Iterator[None]:
    """The model with a rule as it is, and afterwards without it."""
    with contextlib.nullcontext() if rule is None else extend(model, rule, length=length):
        yield


def plan(trained_length: int, length: int) -> Gaps:
    """What the probe of a run reads; smaller blocks where the trained length is small."""
    block = min(256, max(4, trained_length // 4))
    return Gaps(default_gaps(trained_length, length, block=block), block=block, scored=3 * block // 4)


def unasked(run: Path, name: str) -> list[Task]:
    """The tasks of retrieval that a rule still has to do."""
    return [task for task in TASKS if not retrieval_file(run, name, task).exists()]


def asked_lengths(trained_length: int, length: int) -> tuple[int, ...]:
    """The lengths of the retrieval test: one well within the trained length, and the wanted length."""
    return tuple(sorted({max(SHORTEST, trained_length // 2), max(SHORTEST, length)}))


def window_starts(trained_length: int, count: int) -> list[int]:
    """Where the windows of the baseline begin: each goes on half a window, and the last ends with the text."""
    half = max(1, trained_length // 2)
    last = count - trained_length
    return [*range(half, last, half), last]


def save_candidate(run: Path, candidate: Candidate) -> None:
    """Make the folder of a rule."""
    folder = rule_folder(run, candidate.name)
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_json(folder / files.CANDIDATE, {"name": candidate.name, "rule": save_rule(candidate)})


def save_rule(candidate: Candidate) -> Any:
    """The rule as plain data."""
    return candidate.rule.to_dict() if isinstance(candidate.rule, Frequencies) else candidate.rule


def plain(losses: NDArray[np.float64]) -> list[list[float | None]]:
    """For JSON: what is no number is null."""
    return [[float(value) if np.isfinite(value) else None for value in row] for row in losses]


def _save_nats(path: Path, nats: NDArray[np.float32], seconds: float) -> None:
    runs.save_tensors(path, {"nats": torch.from_numpy(nats), "seconds": torch.tensor(seconds)})

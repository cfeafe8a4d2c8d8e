"""The files in the folder of a run of ``posenc compare``: its config, finished and unfinished trials, encodings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

import posenc
from posenc.lab.compare.text.config import Given, RunConfig, load_config
from posenc.lab.encodings.spec import parse
from posenc.lab.run import folder as runs
from posenc.lab.run.config import Data, converted
from posenc.lab.run.errors import RunError
from posenc.lab.run.schedule import seeded

Protocol = Literal["windows", "last"]
PROTOCOLS: tuple[Protocol, ...] = ("windows", "last")
T = TypeVar("T")


# The fields that are read from the rows of a trial


class _Step(msgspec.Struct):
    step: int
    loss: float | None


class _Place(msgspec.Struct):
    """The cell of the table to which an evaluation belongs."""

    protocol: Protocol
    factor: int


class Evaluation(msgspec.Struct):
    """The evaluation of a trial at one length with one protocol: numbers, or the reason why there are none."""

    length: int
    nats: float | UnsetType | None = UNSET
    perplexity: Annotated[float, msgspec.Meta(gt=0)] | UnsetType | None = UNSET
    tokens: int | UnsetType = UNSET
    refused: str | UnsetType = UNSET


class _Written(msgspec.Struct):
    tokens: list[int]


class _Done(msgspec.Struct):
    parameters: int | None = None
    parameters_added: int | None = None
    seconds: float | None = None


class Seed(msgspec.Struct, kw_only=True):
    """A trial, finished or not; ``loss`` has a pair (step, nats per token) for each row."""

    seed: int
    state: Literal["done", "unfinished", "not started"]
    steps: int
    steps_planned: int
    loss: list[tuple[int, float | None]]
    evaluate: dict[Protocol, dict[int, Evaluation]]
    parameters: int | None
    parameters_added: int | None
    seconds: float | None


def _rows(folder: Path, rows: Sequence[Data], event: str, cls: type[T]) -> list[T]:
    """The rows of an event, each converted to a class."""
    where = folder / runs.METRICS
    numbered = [(number, row) for number, row in enumerate(rows, 1) if row["event"] == event]
    return [converted(row, cls, where=f"{where}, line {number}") for number, row in numbered]


def read_trial(folder: Path, seed: int, config: RunConfig) -> tuple[Seed, list[int]]:
    """A trial, finished or not, and the tokens that it wrote."""
    rows = runs.Metrics(folder / runs.METRICS).rows()
    loss = {row.step: row.loss for row in _rows(folder, rows, "train", _Step)}  # a resumed step counts once
    evaluate: dict[Protocol, dict[int, Evaluation]] = {protocol: {} for protocol in PROTOCOLS}
    evaluations = _rows(folder, rows, "evaluate", Evaluation)
    for place, evaluation in zip(_rows(folder, rows, "evaluate", _Place), evaluations, strict=True):
        evaluate[place.protocol][place.factor] = evaluation
    done = _rows(folder, rows, "done", _Done)
    ended = done[-1] if done else _Done()
    written = _rows(folder, rows, "continuation", _Written)
    trial = Seed(
        seed=seed,
        state="done" if done else "unfinished" if rows else "not started",
        steps=max(loss, default=0),
        steps_planned=config.train.steps,
        loss=sorted(loss.items()),
        evaluate=evaluate,
        parameters=ended.parameters,
        parameters_added=ended.parameters_added,
        seconds=ended.seconds,
    )
    return trial, written[0].tokens if written else []


def encodings_of(run: Path) -> dict[str, posenc.Encoding | str]:
    """Each encoding with the weights that its first seed learned, or the reason why it cannot be built."""
    config = load_config(run)
    return {given.label: _encoding(run, given, config) for given in config.encodings}


def _encoding(run: Path, given: Given, config: RunConfig) -> posenc.Encoding | str:
    model = config.model
    try:
        with seeded(0):  # an encoding that is not trained yet looks the same in every report
            encoding = parse(given.spec).build(dim=model.dim, num_heads=model.num_heads, length=config.train.length)
        weights = runs.of_trial(run, given.label, config.seeds[0]) / runs.MODEL
        if list(encoding.parameters()) and weights.exists():
            encoding.load_state_dict(runs.load_tensors(weights, below="encoding."))
    except (ValueError, TypeError, OSError, RuntimeError, RunError) as error:
        return f"{given.spec} cannot be built here: {error}"
    return encoding

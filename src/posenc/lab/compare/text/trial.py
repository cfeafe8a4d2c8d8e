"""One encoding with one seed, from its folder alone: trains, evaluates, and continues an interrupted trial."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posenc.lab.compare.text import continuation
from posenc.lab.compare.text.config import TrialConfig, is_done, load_trial
from posenc.lab.compare.text.decoder import Decoder, build
from posenc.lab.compare.text.evaluate import evaluate
from posenc.lab.compare.text.train import Training
from posenc.lab.compare.trial import Outcome, run_alone, train_and_measure
from posenc.lab.encodings.spec import file_digest, parse
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError


def run_trial(folder: str, *, device: str, parent: int) -> Outcome:
    """Run a trial to its end, or until a stop is requested; return errors as an outcome.

    Args:
        folder: the trial's folder, RUN/<label>-seed<k>.
        device: where to compute, such as "cpu" or "cuda:1".
        parent: process id of the run; if the run started this worker process and dies, the trial stops.
    """

    def work(path: Path, ordered_to_stop: Callable[[], bool]) -> bool:
        return is_done(path) or _run(path, torch.device(device), ordered_to_stop)

    return run_alone(folder, parent, work)


def make_model(config: TrialConfig) -> Decoder:
    """The trial's decoder with its initial weights."""
    spec = parse(config.spec)
    if file_digest(config.spec) != config.file_sha256:
        raise RunError(f"{spec.file} has changed since this run began; undo the change, or start a new run.")
    return build(
        config.model,
        spec,
        vocabulary_size=config.vocabulary["size"],
        length=config.train.length,
        seed=config.seed,
    )


def load_tokens(run: Path, device: torch.device) -> tuple[Tensor, Tensor]:
    """Training and validation tokens of a run."""
    tokens = runs.load_tensors(run / runs.TOKENS)
    return tokens["train"].to(device), tokens["validation"].to(device)


def _run(folder: Path, device: torch.device, ordered_to_stop: Callable[[], bool]) -> bool:
    config = load_trial(folder)
    torch.set_num_threads(config.threads)
    train_tokens, validation_tokens = load_tokens(folder.parent, device)
    model = make_model(config).to(device)
    training = Training(model, train_tokens, config.train, seed=config.seed, precision=config.precision)

    def measure() -> Iterator[dict[str, Any]]:
        runs.save_tensors(folder / runs.MODEL, model.state_dict())
        limit, precision = model.encoding.max_positions, config.precision
        about: dict[str, Any] = {"length": config.train.length, "max_positions": limit, "precision": precision}
        yield from evaluate(model, validation_tokens, config.evaluate, **about)
        yield {"event": "continuation", "tokens": continuation.write(model, validation_tokens, **about)}
        rows = runs.Metrics(folder / runs.METRICS).rows()
        yield {
            "event": "done",
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "parameters_added": sum(parameter.numel() for parameter in model.encoding.parameters()),
            "seconds": next(row["seconds"] for row in reversed(rows) if row["event"] == "train"),
        }

    return train_and_measure(training, folder, measure, ordered_to_stop, threads=config.threads, device=str(device))

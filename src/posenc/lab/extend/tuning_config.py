"""The configuration and report of a training at the new length."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec
import torch
from torch import Tensor

from posenc.lab.run.config import Data
from posenc.lab.run.errors import RunError

Method = Literal["lora", "full"]
Positions = Literal["skipwise", "whole"]


@dataclass(frozen=True)
class TuneConfig:
    """Everything on which the results depend, as stored in FOLDER/tuning.json.

    Attributes:
        rule: as plain data.
        length, steps, window, batch, method, positions, chunks, learning_rate, warmup, rank, targets, seed: as in
            :func:`posenc.lab.extend.tune.tune`.
        text: SHA-256 of the tokens.
        model: SHA-256 of a sample of the weights.
        versions: of the packages that compute.
    """

    rule: Any
    length: int
    steps: int
    window: int
    batch: int
    method: Method
    positions: Positions
    chunks: int
    learning_rate: float
    warmup: int
    rank: int
    targets: tuple[str, ...] | None
    seed: int
    text: str
    model: str
    versions: Mapping[str, str]

    def to_dict(self) -> Data:
        """As plain data, for JSON."""
        plain: Data = msgspec.to_builtins(self)
        return plain


@dataclass(frozen=True)
class TuneReport:
    """The report of a finished training. The losses are those of its own windows; only a full pass measures the gain.

    Attributes:
        config: the configuration.
        losses: the loss of each step, in nats per token.
        trained: the number of trained parameters.
        parameters: the number of all parameters.
        seconds: the time of all steps.
        processes: the number of processes, in the last session.
    """

    config: TuneConfig
    losses: tuple[float, ...]
    trained: int
    parameters: int
    seconds: float
    processes: int

    @property
    def tokens(self) -> int:
        """The number of tokens in all windows of the training."""
        return len(self.losses) * self.config.batch * self.config.window

    def to_dict(self) -> Data:
        """As plain data, for JSON."""
        return {**msgspec.to_builtins(self), "tokens": self.tokens}


def check(config: TuneConfig, tokens: Tensor, model: Any) -> None:
    """Refuse impossible settings."""
    for name, choices in (("method", Method), ("positions", Positions)):
        if getattr(config, name) not in get_args(choices):
            raise RunError(f"tune: got {name} {getattr(config, name)!r}, expected {' or '.join(get_args(choices))}.")
    for name in ("steps", "window", "batch", "chunks", "rank"):
        if getattr(config, name) < 1:
            raise RunError(f"tune: got {name} {getattr(config, name)}, expected at least 1.")
    if tokens.ndim != 1 or len(tokens) <= config.window:
        raise RunError(f"tune: the text has {tokens.numel()} tokens, expected more than one window, {config.window}.")
    if config.positions == "whole" and config.window != config.length:
        raise RunError(
            f"tune: got windows of {config.window} tokens with their own positions, expected windows as long as the "
            f"target length, {config.length}, because shorter windows contain no new positions; give that window, or "
            'positions="skipwise".'
        )
    if config.positions == "skipwise" and not config.chunks <= config.window <= config.length:
        raise RunError(
            f"tune: got windows of {config.window} tokens, expected at least {config.chunks}, one for each chunk, and "
            f"at most the length, {config.length}."
        )
    if model.dtype == torch.float16:
        raise RunError("tune: got a model in float16, whose gradients overflow; open it in bfloat16 or float32.")

"""Validation loss at the trained length and beyond, with two protocols.

"windows": non-overlapping windows of each length, every token scored. All lengths score the same tokens, but a longer
window has fewer tokens near its start, where the context is short.

"last": windows of every length that end at the same tokens, of which only the last k are scored. Here every length
scores the same tokens, and each of them with at least length - k tokens before it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from posenc.lab.compare.text.config import EvaluateConfig, Precision

TOKENS_PER_BATCH = 8192
LARGEST_NATS = 700.0  # exp of a larger loss overflows


def evaluate(
    model: nn.Module,
    tokens: Int[Tensor, " text"],
    config: EvaluateConfig,
    *,
    length: int,
    max_positions: int | None,
    precision: Precision = "float32",
) -> Iterator[dict[str, Any]]:
    """Yield a row of metrics for each protocol and each multiple of the trained length.

    A length past ``max_positions`` is not run: its row says so, with the reason.
    """
    longest = length * max(config.factors)
    for factor in config.factors:
        context = length * factor
        for protocol in ("windows", "last"):
            row: dict[str, Any] = {"event": "evaluate", "protocol": protocol, "length": context, "factor": factor}
            if max_positions is not None and context > max_positions:
                yield {**row, "refused": f"past its table of {max_positions} positions"}
                continue
            if protocol == "windows":
                windows, scored = whole_windows(tokens, context, longest=longest, total=config.tokens), context
            else:
                scored = config.last
                windows = windows_with_same_end(
                    tokens, context, longest=longest, scored=scored, total=config.last_tokens
                )
            nats = mean_nats(model, windows, scored=scored, precision=precision)
            count = len(windows) * scored
            yield {**row, "nats": nats, "perplexity": float(np.exp(min(nats, LARGEST_NATS))), "tokens": count}


def whole_windows(
    tokens: Int[Tensor, " text"], length: int, *, longest: int, total: int
) -> Int[Tensor, "windows length_and_one"]:
    """Windows that tile about ``total`` tokens, in spans of ``longest`` spread evenly over the text."""
    spans = _spread(len(tokens), longest, count=max(1, total // longest), apart=longest)
    starts = (spans[:, None] + np.arange(0, longest, length)).flatten()
    return _cut(tokens, starts, length)


def windows_with_same_end(
    tokens: Int[Tensor, " text"], length: int, *, longest: int, scored: int, total: int
) -> Int[Tensor, "windows length_and_one"]:
    """Windows whose last tokens are the same at every length: spans of ``longest`` tokens, cut to ``length`` from the
    left. There are enough windows for ``total`` scored tokens, ``scored`` in each."""
    spans = _spread(len(tokens), longest, count=max(1, total // scored), apart=scored)
    return _cut(tokens, spans + longest - length, length)


@torch.no_grad()
def mean_nats(
    model: nn.Module, windows: Int[Tensor, "windows length_and_one"], *, scored: int, precision: Precision = "float32"
) -> float:
    """Mean loss of the last ``scored`` tokens of each window, in nats per token."""
    length = windows.shape[1] - 1
    total = 0.0
    for chunk in windows.split(max(1, TOKENS_PER_BATCH // length)):
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(chunk[:, :-1])[:, -scored:]
        targets = chunk[:, -scored:]
        losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        total += losses.double().sum().item()
    return total / (len(windows) * scored)


def _spread(text: int, span: int, *, count: int, apart: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Starts of at most ``count`` spans, the first at the start and the last at the end of the text, ``apart`` or more
    apart; a span needs one token more, the target of its last token."""
    room = text - span - 1
    if room < 0:
        raise ValueError(f"evaluate: got a text of {text} tokens, expected at least {span + 1} for windows of {span}.")
    return np.linspace(0, room, min(count, room // apart + 1)).astype(np.int64)


def _cut(tokens: Tensor, starts: np.ndarray[Any, np.dtype[np.int64]], length: int) -> Tensor:
    index = torch.from_numpy(starts)[:, None] + torch.arange(length + 1)
    return tokens[index.to(tokens.device)].long()

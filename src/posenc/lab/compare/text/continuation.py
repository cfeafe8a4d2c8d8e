"""Lets a trained decoder continue the held-out text, to the trained length and beyond."""

from pathlib import Path

import msgspec
import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from posenc.lab.compare.text.config import Precision
from posenc.lab.run import folder as runs

FACTOR, TEMPERATURE = 4, 0.7


@torch.no_grad()
def write(
    model: nn.Module, tokens: Int[Tensor, " text"], *, length: int, max_positions: int | None, precision: Precision
) -> list[int]:
    """Give the model half the trained length of the text, and let it continue to ``FACTOR`` times the
    trained length or the end of its table. Every encoding samples with the same random numbers."""
    longest = FACTOR * length if max_positions is None else min(FACTOR * length, max_positions)
    written = tokens[: max(1, length // 2)].long()[None]
    for chance in np.random.default_rng(0).random(longest - written.shape[1]):
        with torch.autocast(written.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(written)[0, -1]
        shares = (logits.double() / TEMPERATURE).softmax(-1).cumsum(-1)
        drawn = torch.searchsorted(shares, chance * shares[-1]).clamp(max=len(shares) - 1)
        written = torch.cat((written, drawn.view(1, 1)), dim=1)
    tokens_written: list[int] = written[0].tolist()
    return tokens_written


class Parts(msgspec.Struct):
    """The given text, what was written within the trained length, and what was written past it."""

    given: str
    within: str
    past: str


def parts(run: Path, written: list[int], length: int) -> Parts:
    """The given and the written tokens, as text."""
    given = max(1, length // 2)
    return Parts(*(_decoded(run, part) for part in (written[:given], written[given:length], written[length:])))


def _decoded(run: Path, tokens: list[int]) -> str:
    if not (run / runs.TOKENIZER).exists():
        return bytes(tokens).decode(errors="replace")
    import tokenizers

    decoded: str = tokenizers.Tokenizer.from_file(str(run / runs.TOKENIZER)).decode(tokens)
    return decoded

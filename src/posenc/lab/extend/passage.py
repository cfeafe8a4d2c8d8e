"""The text that a run reads, as tokens."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posenc.lab.extend.config import ExtendConfig
from posenc.lab.run.errors import RunError
from posenc.lab.run.text import Document, read_text, shipped

MOST_TRAINED = 2_000_000
"""Tokens of the text that training draws from."""


def documents(paths: Sequence[Path]) -> tuple[list[Document], list[dict[str, Any]]]:
    """The user's files, or the novels that ship, and what a run's configuration says of them.

    The novels' hard line breaks are joined: a model reads prose, not the lines of a printed page.

    Raises:
        OSError: a file that cannot be read.
        ValueError: a file that is empty, or is no UTF-8 text.
    """
    if paths:
        own = [Document(path.name, read_text(path)) for path in paths]
        return own, [{**one.describe(), "path": str(path)} for one, path in zip(own, paths, strict=True)]
    corpus = shipped()
    novels = [*corpus.train, *corpus.validation]
    return [Document(one.name, joined_lines(one.text)) for one in novels], [one.describe() for one in novels]


def joined_lines(text: str) -> str:
    """The text with the line breaks within its paragraphs turned into spaces.

    Example:
        >>> joined_lines("It was the best\\nof times.\\n\\nIt was")
        'It was the best of times.\\n\\nIt was'
    """
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def check_long_enough(texts: Sequence[Document], length: int) -> None:
    """Refuse a text of fewer bytes than tokens are wanted, before a model is loaded: a token has a byte at least."""
    size = sum(len(one.text.encode()) for one in texts) + 2 * (len(texts) - 1)
    if size < length:
        raise ValueError(_too_short(f"{size:,} bytes", length))


def tokens(texts: Sequence[Document], tokenizer: Any, length: int, *, more: int = 0) -> Tensor:
    """The first ``length`` tokens of the texts, one after the other, begun as the tokenizer begins a text.

    Args:
        texts: what to read.
        tokenizer: the model's.
        length: tokens that there must be.
        more: tokens besides, as far as there are any.

    Raises:
        ValueError: fewer tokens than ``length``.
    """
    text = "\n\n".join(one.text for one in texts)
    wanted, found = length + more, list[int]()
    taken = 8 * wanted
    while len(found) < wanted:  # a long text is not read to its end for its beginning
        encoded: Mapping[str, Any] = tokenizer(text[:taken], verbose=False)
        found = encoded["input_ids"]
        if taken >= len(text):
            break
        taken *= 4
    if len(found) < length:
        raise ValueError(_too_short(f"{len(found):,} tokens", length))
    return torch.tensor(found[:wanted])


def _too_short(has: str, length: int) -> str:
    return f"--text: the text has {has}, expected at least {length:,} tokens; give more text, or a smaller --to."


def training_text(config: ExtendConfig, tokenizer: Any, read: Tensor, window: int) -> Tensor:
    """What is trained on: the text after the passage that is measured, so that no token is scored that was learned."""
    paths = [Path(part["path"]) for part in config.text if "path" in part]
    texts, described = documents(paths)
    if [part["sha256"] for part in described] != [part["sha256"] for part in config.text]:
        raise RunError("--text: its files changed since this run began; undo the change, or start a new run.")
    rest = tokens(texts, tokenizer, len(read), more=MOST_TRAINED)[len(read) :]
    if len(rest) <= window:
        raise RunError(
            f"--tune: after the {len(read):,} tokens that are measured the text has {len(rest):,}, expected more than "
            f"{window:,}, one window to train with; give more text."
        )
    return rest

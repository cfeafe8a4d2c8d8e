"""Reads the text of a run, as tokens."""

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
"""Tokens of the text from which training draws."""


def documents(paths: Sequence[Path]) -> tuple[list[Document], list[dict[str, Any]]]:
    """The user's files, or the novels that ship with posenc, and their entries in a run's configuration.

    Line breaks within the novels' paragraphs are removed.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is empty, or is not UTF-8 text.
    """
    if paths:
        own = [Document(path.name, read_text(path)) for path in paths]
        return own, [{**one.describe(), "path": str(path.absolute())} for one, path in zip(own, paths, strict=True)]
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
    """Refuse, before a model is loaded, a text with fewer bytes than wanted tokens: a token has at least one byte."""
    size = sum(len(one.text.encode()) for one in texts) + 2 * (len(texts) - 1)
    if size < length:
        raise ValueError(_too_short(f"{size:,} bytes", length))


def tokens(texts: Sequence[Document], tokenizer: Any, length: int, *, more: int = 0) -> Tensor:
    """The first ``length`` tokens of the texts, concatenated, with the tokenizer's start token.

    Args:
        texts: the texts to read.
        tokenizer: the model's.
        length: the minimum number of tokens.
        more: further tokens, if the texts have them.

    Raises:
        ValueError: fewer tokens than ``length``.
    """
    text = "\n\n".join(one.text for one in texts)
    wanted, found = length + more, list[int]()
    taken = 8 * wanted
    while len(found) < wanted:  # only the beginning of a long text is tokenized
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
    """The training text: the text after the measured passage, so that no measured token was trained on."""
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

"""Loads real prose and turns it into tokens."""

import hashlib
import importlib.resources
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint8] | NDArray[np.int32]

SHIPPED_FOR_TRAINING = ("emma.txt", "pride_and_prejudice.txt")
SHIPPED_FOR_VALIDATION = ("persuasion.txt",)


@dataclass(frozen=True)
class Document:
    """A text and its source."""

    name: str
    text: str

    def describe(self) -> dict[str, Any]:
        """Its name, size and SHA-256, for a run's configuration."""
        data = self.text.encode()
        return {"name": self.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@dataclass(frozen=True)
class Corpus:
    """The training texts and the held-out texts."""

    train: tuple[Document, ...]
    validation: tuple[Document, ...]

    def describe(self) -> dict[str, Any]:
        return {
            "train": [document.describe() for document in self.train],
            "validation": [document.describe() for document in self.validation],
        }


def shipped() -> Corpus:
    """The novels in the package: two for training, and a third one by the same author, held out completely."""
    folder = importlib.resources.files("posenc.lab") / "data"

    def read(names: Sequence[str]) -> tuple[Document, ...]:
        return tuple(Document(name, (folder / name).read_text(encoding="utf-8")) for name in names)

    return Corpus(read(SHIPPED_FOR_TRAINING), read(SHIPPED_FOR_VALIDATION))


def from_files(paths: Sequence[Path]) -> Corpus:
    """A user's own text: the last tenth of each file, by position, is held out.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is empty, or is not UTF-8 text.
    """
    train, validation = [], []
    for path in paths:
        text = read_text(path)
        cut = len(text) - len(text) // 10
        train.append(Document(path.name, text[:cut]))
        validation.append(Document(f"{path.name} (last tenth)", text[cut:]))
    return Corpus(tuple(train), tuple(validation))


def read_text(path: Path) -> str:
    """Read the text of a user's file; refuse files that are not text."""
    data = path.read_bytes()
    if not data.strip():
        raise ValueError(f"{path}: the file is empty, expected text to train on.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: byte {error.start} is not UTF-8; the file may be binary or in another encoding; convert it to "
            "UTF-8 first."
        ) from error
    if "\0" in text:
        raise ValueError(f"{path}: byte {data.index(0)} is zero, so this is a binary file; expected text.")
    return text


@dataclass(frozen=True)
class Vocabulary:
    """Bytes, or byte pairs learned from the training text.

    Attributes:
        kind: "bytes" or "bpe".
        size: number of tokens.
        tokenizer: the ``tokenizers`` JSON of a byte-pair vocabulary.
    """

    kind: str
    size: int
    tokenizer: str | None = None

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "size": self.size}

    def encode(self, documents: Sequence[Document]) -> Tokens:
        """The tokens of all documents, concatenated."""
        text = "\n\n".join(document.text for document in documents)
        if self.tokenizer is None:
            return np.frombuffer(text.encode(), dtype=np.uint8)
        import tokenizers

        return np.array(tokenizers.Tokenizer.from_str(self.tokenizer).encode(text).ids, dtype=np.int32)


def byte_pairs(texts: Iterable[str], size: int, *, special: Sequence[str] = (), space_first: bool = False) -> Any:
    """Learn a byte-pair tokenizer from texts, after the ``special`` tokens; a text may begin with a space."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space_first)
    tokenizer.decoder = decoders.ByteLevel()
    options: dict[str, Any] = {"vocab_size": size, "special_tokens": list(special), "show_progress": False}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(initial_alphabet=alphabet, **options))
    return tokenizer


def make_vocabulary(wanted: str, documents: Sequence[Document]) -> Vocabulary:
    """``"bytes"``, or a number N for N byte pairs learned from the documents.

    Raises:
        ValueError: anything else; fewer than the 256 bytes and one pair.
    """
    if wanted == "bytes":
        return Vocabulary("bytes", 256)
    if not wanted.isdecimal() or int(wanted) < 257:
        raise ValueError(f'vocabulary: got {wanted!r}, expected "bytes" or a number of at least 257, such as 1024.')
    tokenizer = byte_pairs((document.text for document in documents), int(wanted))
    return Vocabulary("bpe", tokenizer.get_vocab_size(), tokenizer.to_str())


def check_long_enough(train: Tokens, validation: Tokens, *, length: int, longest: int) -> None:
    """Refuse a text that is too short for one training window and one validation window of the longest length."""
    for purpose, tokens, needed in (("training", train, length + 1), ("validation", validation, longest + 1)):
        if len(tokens) < needed:
            raise ValueError(
                f"text: the {purpose} part has {len(tokens)} tokens, expected at least {needed}, one window and the "
                "token after it; give a longer text, or a smaller --length."
            )

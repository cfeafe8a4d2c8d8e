"""The shared parts of text-to-text tasks: byte pairs, an encoder-decoder, and scores of its output."""

import gzip
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posenc.lab.compare.task import Example, Measurement, Sizes, Task
from posenc.lab.encodings.spec import parse
from posenc.lab.run.text import byte_pairs
from posenc.nn import Transformer

PADDING, END = 0, 1
PIECES = 2000
Rows = Sequence[Sequence[int]]
Table = Sequence[Sequence[str]]


def table(name: str) -> list[list[str]]:
    """The rows of a compressed table that ships with posenc, each a list of columns."""
    data = (resources.files("posenc.lab") / "data" / name).read_bytes()
    return [line.split("\t") for line in gzip.decompress(data).decode().splitlines()]


class Pieces:
    """A byte-pair tokenizer learned from texts; its first tokens are for padding and for the end."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.tokenizer = byte_pairs(texts, PIECES, special=("<padding>", "<end>"), space_first=True)
        self.size: int = self.tokenizer.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]

    def pairs(self, texts: list[tuple[str, str]]) -> "Pairs":
        """Encode source texts and their target texts."""
        return Pairs(self.encode([read for read, _ in texts]), self.encode([written for _, written in texts]), texts)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text up to the end token."""
        kept = list(tokens)
        text: str = self.tokenizer.decode(kept[: kept.index(END)] if END in kept else kept)
        return text.strip()


class Pairs(NamedTuple):
    """Source texts and their target texts, as tokens."""

    sources: list[list[int]]
    targets: list[list[int]]
    texts: list[tuple[str, str]]

    def at(self, indices: Sequence[int], *, cut: int | None = None) -> "Pairs":
        """A selection, with sources cut to at most ``cut`` tokens."""
        return Pairs(
            [self.sources[i][:cut] for i in indices],
            [self.targets[i] for i in indices],
            [self.texts[i] for i in indices],
        )


def prepared(train: Table, held: Table, *, source: int, target: int) -> tuple[Pieces, Pairs, Pairs]:
    """A tokenizer learned from the training rows, and the pairs of both, from two of the columns after the first."""
    pieces = Pieces([text for _, *texts in train for text in texts])
    pairs = [pieces.pairs([(row[source], row[target]) for row in side]) for side in (train, held)]
    return pieces, pairs[0], pairs[1]


def padded(rows: Rows) -> tuple[Tensor, Tensor]:
    """Tokens padded on the right, and a mask that is True for tokens."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[PADDING] * (longest - len(row))] for row in rows])
    return tokens, torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])


class EncoderDecoder(nn.Module):
    """A bidirectional encoder and a causal decoder with cross-attention.

    Encoder and decoder each have a positional encoding, built for the longest source and target of training; the
    cross-attention has none. Both share one embedding, which is also the output layer.
    """

    def __init__(self, spec: str, sizes: Sizes, vocabulary: int, longest: tuple[int, int]) -> None:
        super().__init__()
        dim, heads, layers = sizes.dim, sizes.num_heads, sizes.num_layers
        reading, writing = (
            parse(spec).build(dim=dim, num_heads=heads, length=length, causal=causal)
            for length, causal in zip(longest, (False, True), strict=True)
        )
        self.limits = (reading.max_positions, writing.max_positions)
        self.embedding = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        self.encoder = Transformer(dim, heads, layers, reading, dropout=sizes.dropout)
        self.decoder = Transformer(dim, heads, layers, writing, causal=True, cross="attention", dropout=sizes.dropout)

    def read(self, source: Tensor, mask: Tensor) -> Tensor:
        """The encoder's output for the source."""
        features: Tensor = self.encoder(self._embedded(source), attention_mask=mask)
        return features

    def logits(self, target: Tensor, context: Tensor, mask: Tensor, cache: Any = None) -> Tensor:
        """The logits of the next token, after each token of the target."""
        return F.linear(
            self.decoder(self._embedded(target), context, context_mask=mask, cache=cache), self.embedding.weight
        )

    def losses(self, pairs: Pairs) -> Tensor:
        """The loss in nats of each token of the targets and of their end tokens, in one dimension."""
        source, mask = padded(pairs.sources)
        target, real = padded([[*row, END] for row in pairs.targets])
        shifted = torch.cat((torch.full((len(target), 1), END), target[:, :-1]), dim=1)
        logits = self.logits(shifted, self.read(source, mask), mask)
        return F.cross_entropy(logits[real], target[real], reduction="none")

    def write(self, sources: Rows, longest: int) -> list[list[int]]:
        """Greedy decoding of all rows at once, to the end token or to the longest length."""
        source, mask = padded(sources)
        context, cache = self.read(source, mask), self.decoder.new_cache()
        tokens = [torch.full((len(source), 1), END)]
        done = torch.zeros(len(source), 1, dtype=torch.bool)
        while len(tokens) <= longest and not bool(done.all()):
            tokens.append(self.logits(tokens[-1], context, mask, cache)[:, -1:].argmax(-1))
            done |= tokens[-1] == END
        rows: list[list[int]] = torch.cat(tokens[1:], dim=1).tolist()
        return rows

    def looks(self, source: Sequence[int], target: Sequence[int]) -> Tensor:
        """``(targets, sources)``: the attention weights on the source before each target token is written; the
        mean over the heads and layers of the cross-attention."""
        maps = []

        def keep(attention: Any, given: tuple[Tensor, Tensor]) -> None:
            q = attention.q_proj(given[0]).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            k = attention.k_proj(given[1]).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            maps.append((q @ k.mT * attention.head_dim**-0.5).softmax(-1).mean(1)[0])

        hooks = [layer.cross_attn.register_forward_pre_hook(keep) for layer in self.decoder.layers]  # type: ignore[union-attr]
        read, mask = padded([source])
        self.logits(torch.tensor([[END, *target[:-1]]]), self.read(read, mask), mask)
        for hook in hooks:
            hook.remove()
        return torch.stack(maps).mean(0)

    def _embedded(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(tokens) * self.embedding.embedding_dim**0.5
        return embedded


class TextToText(Task):
    """A task from a source text to a target text. A subclass gives the data and the test set of each size."""

    other_units: ClassVar[Mapping[str, bool]] = {"nats a token": False}
    asked = 128  # questions at each size

    @staticmethod
    @abstractmethod
    def data() -> tuple[Pieces, Pairs, Pairs]:
        """The tokenizer, the training pairs, and the held-out pairs."""

    @abstractmethod
    def trained_on(self, sizes: Sizes) -> Pairs:
        """The training pairs for this length."""

    @abstractmethod
    def questions(self, sizes: Sizes) -> Iterator[tuple[str, Pairs]]:
        """The test pairs of each size, the trained size first."""

    @staticmethod
    @abstractmethod
    def score(written: Sequence[str], wanted: Sequence[str]) -> float:
        """The score of the outputs, in the task's main unit."""

    def model(self, spec: str, sizes: Sizes) -> nn.Module:
        pairs = self.trained_on(sizes)
        longest = max(map(len, pairs.sources)), max(map(len, pairs.targets)) + 1
        return EncoderDecoder(spec, sizes, self.data()[0].size, longest)

    def loss(self, model: EncoderDecoder, sizes: Sizes, generator: np.random.Generator) -> Tensor:
        pairs = self.trained_on(sizes)
        # A quarter of the drawn pairs, of similar lengths, so that there is less padding.
        drawn = generator.integers(0, len(pairs.sources), 4 * sizes.batch)
        drawn = drawn[np.argsort([len(pairs.sources[i]) for i in drawn], kind="stable")]
        return model.losses(pairs.at(drawn.reshape(4, -1)[generator.integers(4)].tolist())).mean()

    def measure(self, model: EncoderDecoder, spec: str, sizes: Sizes) -> Iterator[Measurement]:
        pieces = self.data()[0]
        unit = next(iter(self.other_units))
        for number, (size, pairs) in enumerate(self.questions(sizes)):
            trained, longest = number == 0, max(map(len, pairs.targets)) + 1
            for length, limit in zip((max(map(len, pairs.sources)), longest), model.limits, strict=True):
                if limit is not None and length > limit:
                    note = f"got position {length - 1}, past its table of {limit}"
                    yield from (Measurement("", size, None, trained, note, name) for name in ("", unit))
                    break
            else:
                written = model.write(pairs.sources, longest)
                score = self.score([pieces.decode(row) for row in written], [wanted for _, wanted in pairs.texts])
                yield Measurement("", size, score, trained)
                yield Measurement("", size, model.losses(pairs).double().mean().item(), trained, unit=unit)

    def examples(self, model: EncoderDecoder, spec: str, sizes: Sizes) -> Sequence[Example]:
        _, pairs = next(self.questions(sizes))
        pairs = pairs.at(range(3))
        written = model.write(pairs.sources, max(map(len, pairs.targets)) + 1)
        given = [f"{self.shorter(source, pairs)} → {target}" for source, target in pairs.texts]
        return [Example(text, self.data()[0].decode(row)) for text, row in zip(given, written, strict=True)]

    def shorter(self, source: str, pairs: Pairs) -> str:
        """A source text as the report shows it."""
        return source

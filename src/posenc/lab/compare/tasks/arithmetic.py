"""Addition of two numbers with reversed digits, and copying, with more digits than in training."""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import posenc
from posenc.lab.compare.task import Measurement, Sizes, Task
from posenc.lab.encodings.spec import parse
from posenc.nn import Transformer

PLUS, EQUALS, COPIES, END, PADDING, HINT = range(10, 16)
FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0)
LONGEST = 4  # times the trained number of digits: the longest numbers that abacus, randomized and hints are trained for
EXACT = {kind: f"% of {kind} exactly right" for kind in ("sums", "copies")}
DIGITS = {kind: f"% of the digits of {kind} right" for kind in EXACT}
SCHEMES = ("abacus", "randomized", "hints")
Integers = NDArray[np.int64]


class Problems(NamedTuple):
    """``(count, length)`` tokens, padded at the end, and a mask of the tokens that the model has to predict."""

    tokens: Tensor
    answer: Tensor


def problems(copies: NDArray[np.bool_], digits: Integers, generator: np.random.Generator) -> Problems:
    """Addition is ``a+b=c;`` where c has one digit more than a and b, copying is ``a>a;``; the lowest digit is first.

    Args:
        copies: ``(count,)``: True for the rows in which the task is to copy.
        digits: ``(count,)``: the number of digits of each number.
        generator: draws the numbers.
    """
    count, longest = len(digits), int(digits.max())
    kept = np.arange(longest) < digits[:, None]
    a, b = (np.where(kept, generator.integers(0, 10, (count, longest)), 0) for _ in range(2))
    total = np.zeros((count, longest + 1), dtype=np.int64)
    for place in range(longest):
        total[:, place] += a[:, place] + b[:, place]
        total[:, place + 1], total[:, place] = np.divmod(total[:, place], 10)
    said = np.where(copies[:, None], np.pad(a, ((0, 0), (0, 1))), total)
    column, adds = np.ones((count, 1), dtype=np.int64), ~copies[:, None]
    parts: list[tuple[Integers, NDArray[np.bool_], bool]] = [
        (a, kept, False),
        (np.where(adds, PLUS, COPIES), column > 0, False),
        (b, kept & adds, False),
        (column * EQUALS, adds, False),
        (said, np.arange(longest + 1) < digits[:, None] + adds, True),
        (column * END, column > 0, True),
    ]
    tokens = np.hstack([part for part, _, _ in parts])
    answer = np.hstack([mask & is_answer for _, mask, is_answer in parts])
    return _packed(
        torch.from_numpy(tokens), torch.from_numpy(answer), torch.from_numpy(np.hstack([m for _, m, _ in parts]))
    )


def hinted(given: Problems, first: Tensor) -> Problems:
    """Put before each digit a token for its place, from ``first`` on; the model predicts those of the answer too."""
    place = posenc.positions.digits(given.tokens < 10)
    both = torch.stack((HINT + first[:, None] + place - 1, given.tokens), dim=-1).flatten(1)
    kept = torch.stack((place > 0, given.tokens != PADDING), dim=-1).flatten(1)
    return _packed(both, given.answer.repeat_interleave(2, dim=1) & kept, kept)


def _packed(tokens: Tensor, answer: Tensor, kept: Tensor) -> Problems:
    """Move the kept tokens to the left, with padding after them."""
    order = (~kept).long().argsort(dim=1, stable=True)[:, : int(kept.sum(dim=1).max())]
    tokens = tokens.masked_fill(~kept, PADDING).gather(1, order)
    return Problems(tokens, (answer & kept).gather(1, order))


class Adder(nn.Module):
    """A small decoder, which also computes the positions for each position scheme."""

    def __init__(self, spec: str, sizes: Sizes) -> None:
        super().__init__()
        self.spec, self.places = spec, LONGEST * sizes.length + 1
        self.longest = 3 * self.places + 3
        encoding: posenc.Encoding | None = None
        if spec == "randomized":
            encoding = posenc.RoPE(head_dim=sizes.dim // sizes.num_heads)
        elif spec not in SCHEMES:
            encoding = parse(spec).build(dim=sizes.dim, num_heads=sizes.num_heads, length=3 * sizes.length + 4)
        self.max_positions = None if encoding is None else encoding.max_positions
        self.abacus = posenc.Learned(dim=sizes.dim, length=self.places + 1, std=1.0) if spec == "abacus" else None
        words = HINT + (self.places if spec == "hints" else 0)
        self.embedding = nn.Embedding(words, sizes.dim)
        self.decoder = Transformer(
            sizes.dim, sizes.num_heads, sizes.num_layers, encoding, causal=True, dropout=sizes.dropout
        )
        self.head = nn.Linear(sizes.dim, words)

    def written(self, given: Problems, generator: np.random.Generator) -> tuple[Problems, Tensor]:
        """The problems in the notation of the scheme, and the place of the lowest digit of each row: 0 after training.

        In training the place is drawn at random, so that the model learns the places of longer numbers.
        """
        first = torch.zeros(len(given.tokens), dtype=torch.int64)
        if self.training:
            highest = self.places - posenc.positions.digits(given.tokens < 10).amax(dim=1)
            first = torch.from_numpy(generator.integers(0, highest.numpy() + 1))
        return (hinted(given, first) if self.spec == "hints" else given), first

    def forward(self, tokens: Tensor, first: Tensor, generator: np.random.Generator) -> Tensor:
        """Logits of the next token, after each token."""
        x, positions = self.embedding(tokens), None
        if self.abacus is not None:
            place = posenc.positions.digits(tokens < 10)
            x = self.abacus.on_embeddings(x, torch.where(place > 0, place + first[:, None], 0))
        if self.spec == "randomized":
            drawn = generator.random((len(tokens), self.longest)).argsort(axis=1)[:, : tokens.shape[1]]
            positions = torch.from_numpy(np.sort(drawn, axis=1))
        logits: Tensor = self.head(self.decoder(x, positions=positions))
        return logits


class Arithmetic(Task):
    title = "Addition with reversed digits, and copying"
    encodings = ("none", "learned", "rope", "abacus", "randomized", "hints")
    unit = EXACT["sums"]
    other_units: ClassVar = dict.fromkeys((DIGITS["sums"], EXACT["copies"], DIGITS["copies"]), True)
    sizes = Sizes(length=6, steps=1000, batch=64, learning_rate=3e-3, warmup=100)
    expected = (
        "RoPE and a learned table fail past the trained number of digits, where abacus (McLeish et al. 2024, "
        "arXiv:2405.17399; all digits of a sum) and randomized positions (Ruoss et al. 2023, arXiv:2305.16843; the "
        "share of tokens) go further; no encoding is best everywhere (Kazemnejad et al. 2023, arXiv:2305.19466)."
    )

    def check(self, spec: str) -> str:
        return spec if spec in SCHEMES else super().check(spec)

    def model(self, spec: str, sizes: Sizes) -> nn.Module:
        return Adder(spec, sizes)

    def loss(self, model: Adder, sizes: Sizes, generator: np.random.Generator) -> Tensor:
        copies = generator.random(sizes.batch) < 0.25
        given = problems(copies, generator.integers(1, sizes.length + 1, sizes.batch), generator)
        (tokens, answer), first = model.written(given, generator)
        said = answer[:, 1:]
        return F.cross_entropy(model(tokens[:, :-1], first, generator)[said], tokens[:, 1:][said])

    def measure(self, model: Adder, spec: str, sizes: Sizes) -> Iterator[Measurement]:
        for kind in EXACT:
            for factor in FACTORS:
                digits, size = round(factor * sizes.length), f"{factor:g}x"
                generator = np.random.default_rng(digits)
                given = problems(np.full(200, kind == "copies"), np.full(200, digits), generator)
                (tokens, answer), first = model.written(given, generator)
                if model.max_positions is not None and tokens.shape[1] - 1 > model.max_positions:
                    note = f"got position {model.max_positions}, past its table"
                    yield from (Measurement("", size, None, note=note, unit=unit[kind]) for unit in (EXACT, DIGITS))
                    continue
                # If every token is right given the right tokens before it, greedy decoding writes all of them.
                guesses = model(tokens[:, :-1], first, generator).argmax(-1)
                right, said = guesses == tokens[:, 1:], answer[:, 1:]
                is_digit = said & (tokens[:, 1:] < 10)
                exact = (right | ~said).all(dim=1).double().mean().item()
                yield Measurement("", size, 100 * exact, trained=factor == 1.0, unit=EXACT[kind])
                share = right[is_digit].double().mean().item()
                yield Measurement("", size, 100 * share, trained=factor == 1.0, unit=DIGITS[kind])

"""Adding two numbers whose digits are reversed, and copying one, past the number of digits of training."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import posenc
from posenc.lab.compare.task import Measurement, Sizes, Task
from posenc.lab.encodings.spec import parse
from posenc.nn import Transformer

PLUS, EQUALS, COPIES, END, HINT = 10, 11, 12, 13, 14
FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0)
LONGEST = 4  # times the trained number of digits: what abacus, randomized and hints prepare for
SCHEMES = ("abacus", "randomized", "hints")
Numbers = NDArray[np.int64]


def problems(kind: str, digits: int, count: int, generator: np.random.Generator) -> tuple[Tensor, int]:
    """``(count, length)`` tokens, lowest digit first, and how many of the last ones are the answer.

    Addition is ``a+b=c;`` where c has one digit more than a and b, copying is ``a>a;``.
    """
    a = generator.integers(0, 10, (count, digits))
    end = np.full((count, 1), END)
    if kind == "copying":
        return torch.from_numpy(np.hstack((a, np.full((count, 1), COPIES), a, end))), digits + 1
    b = generator.integers(0, 10, (count, digits))
    c, carry = np.zeros((count, digits + 1), dtype=np.int64), np.zeros(count, dtype=np.int64)
    for place in range(digits):
        total = a[:, place] + b[:, place] + carry
        c[:, place], carry = total % 10, total // 10
    c[:, -1] = carry
    plus, equals = np.full((count, 1), PLUS), np.full((count, 1), EQUALS)
    return torch.from_numpy(np.hstack((a, plus, b, equals, c, end))), digits + 2


def hinted(tokens: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """A token for the place of each digit before it, and where the original tokens are."""
    place = posenc.positions.digits(tokens < 10)
    parts, kept = [], []
    for column in range(tokens.shape[1]):
        if bool(tokens[0, column] < 10):
            parts.append(HINT + first + place[:, column] - 1)
            kept.append(False)
        parts.append(tokens[:, column])
        kept.append(True)
    return torch.stack(parts, dim=1), torch.tensor(kept)


class Adder(nn.Module):
    """A small decoder; what a scheme of positions is given is decided here."""

    def __init__(self, spec: str, sizes: Sizes) -> None:
        super().__init__()
        self.spec, places = spec, LONGEST * sizes.length + 1
        self.longest = 3 * places + 3
        self.places = places
        encoding: posenc.Encoding | None = None
        if spec == "randomized":
            encoding = posenc.RoPE(head_dim=sizes.dim // sizes.num_heads)
        elif spec not in SCHEMES:
            encoding = parse(spec).build(dim=sizes.dim, num_heads=sizes.num_heads, length=3 * sizes.length + 4)
        self.max_positions = None if encoding is None else encoding.max_positions
        self.abacus = posenc.Learned(dim=sizes.dim, length=2 * places + 1, std=1.0) if spec == "abacus" else None
        self.embedding = nn.Embedding(HINT + 2 * places, sizes.dim)
        self.decoder = Transformer(
            sizes.dim, sizes.num_heads, sizes.num_layers, encoding, causal=True, dropout=sizes.dropout
        )
        self.head = nn.Linear(sizes.dim, HINT)

    def forward(self, tokens: Tensor, generator: np.random.Generator, *, first: int = 0) -> Tensor:
        """Logits of the token after each; ``first`` is the place of the lowest digit for abacus and hints."""
        kept = None
        x = tokens
        if self.spec == "hints":
            x, kept = hinted(tokens, first)
            # What comes next is asked for at the hint, where there is one: the token before the next kept one.
            kept = torch.cat((kept[1:], torch.tensor([True])))
        x = self.embedding(x)
        positions = None
        if self.abacus is not None:
            x = self.abacus.on_embeddings(x, posenc.positions.digits(tokens < 10, offset=first))
        if self.spec == "randomized":
            drawn = np.sort(generator.choice(self.longest, tokens.shape[1], replace=False))
            positions = torch.from_numpy(drawn)
        features = self.decoder(x, positions=positions)
        if kept is not None:
            features = features[:, kept]
            if features.shape[1] > tokens.shape[1]:  # the hint of the first digit, which nothing asks for
                features = features[:, 1:]
        logits: Tensor = self.head(features)
        return logits


class Arithmetic(Task):
    title = "Addition with reversed digits, and copying"
    encodings = ("none", "learned", "rope", "alibi", "abacus", "randomized", "hints")
    unit = "% exactly right"
    sizes = Sizes(length=5, steps=1500, batch=64, learning_rate=3e-3, warmup=50)
    expected = (
        "RoPE and a learned table fail past the trained number of digits, where abacus (McLeish et al. 2024, "
        "arXiv:2405.17399) and randomized positions (Ruoss et al. 2023, arXiv:2305.16843) go further; no encoding is "
        "best everywhere (Kazemnejad et al. 2023, arXiv:2305.19466)."
    )

    def check(self, spec: str) -> str:
        return spec if spec in SCHEMES else super().check(spec)

    def model(self, spec: str, sizes: Sizes) -> nn.Module:
        return Adder(spec, sizes)

    def loss(self, model: Adder, sizes: Sizes, generator: np.random.Generator) -> Tensor:
        kind = ("addition", "copying")[int(generator.integers(4) == 0)]
        digits = int(generator.integers(1, sizes.length + 1))
        tokens, answer = problems(kind, digits, sizes.batch, generator)
        first = int(generator.integers(0, model.places - digits)) if model.spec in ("abacus", "hints") else 0
        logits = model(tokens[:, :-1], generator, first=first)[:, -answer:]
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, -answer:].flatten())

    def measure(self, model: Adder, spec: str, sizes: Sizes) -> Iterator[Measurement]:
        for kind in ("addition", "copying"):
            for factor in FACTORS:
                digits = round(factor * sizes.length)
                generator = np.random.default_rng(digits)
                tokens, answer = problems(kind, digits, 200, generator)
                size = f"{digits} digits"
                if model.max_positions is not None and tokens.shape[1] - 1 > model.max_positions:
                    yield Measurement(kind, size, None, note=f"got position {model.max_positions}, past its table")
                    continue
                # All tokens right given the right ones before is all tokens right when it writes by itself.
                guesses = model(tokens[:, :-1], generator)[:, -answer:].argmax(-1)
                right = (guesses == tokens[:, -answer:]).all(dim=1)
                yield Measurement(kind, size, 100 * right.double().mean().item(), trained=factor == 1.0)

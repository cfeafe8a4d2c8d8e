"""Retrieval of the value of a key among distractors: a list of keys and values, then keys without values."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.nn import functional as F

from posenc.lab.compare.task import Measurement, Sizes, Task
from posenc.lab.drawing.plots import DIVERGING, Picture
from posenc.lab.encodings.spec import parse
from posenc.nn import Transformer

KEYS, VALUES, ASKED = 64, 16, 8
SHORTEST = 2
"""Pairs in a training list. With 8 to 16 pairs alone, the loss stayed at the loss of a random guess from the list."""
FACTORS = (1, 2, 4, 8)
DEPTHS = 4  # quarters of the list


def lists(pairs: int, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """``(count, 2 * (pairs + ASKED))`` tokens, a value after each key, and the pair number of each key asked for.

    All keys of a list differ, so each has one value. A value is a token from ``KEYS`` on. Each key
    is asked for once before any is asked for again.
    """
    keys = generator.permuted(np.tile(np.arange(KEYS), (count, 1)), axis=1)[:, :pairs]
    values = KEYS + generator.integers(0, VALUES, (count, pairs))
    rounds = -(-ASKED // pairs)
    asked = generator.permuted(np.tile(np.arange(pairs), (count, rounds, 1)), axis=2).reshape(count, -1)[:, :ASKED]
    every = np.hstack((np.tile(np.arange(pairs), (count, 1)), asked))
    tokens = np.stack([np.take_along_axis(side, every, axis=1) for side in (keys, values)], axis=-1)
    return torch.from_numpy(tokens.reshape(count, -1)), torch.from_numpy(asked)


class Finder(nn.Module):
    """A small decoder that predicts the value after each key that is asked for."""

    def __init__(self, spec: str, sizes: Sizes) -> None:
        super().__init__()
        dim, heads = sizes.dim, sizes.num_heads
        encoding = parse(spec).build(dim=dim, num_heads=heads, length=2 * (sizes.length + ASKED))
        self.max_positions = encoding.max_positions
        self.embedding = nn.Embedding(KEYS + VALUES, dim)
        self.decoder = Transformer(dim, heads, sizes.num_layers, encoding, causal=True, dropout=sizes.dropout)
        self.head = nn.Linear(dim, VALUES)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(count, ASKED, VALUES)`` logits."""
        logits: Tensor = self.head(self.decoder(self.embedding(tokens))[:, -2 * ASKED :: 2])
        return logits


class Retrieval(Task):
    title = "The value of a key among distractors"
    encodings = ("none", "sinusoidal", "learned", "rope", "alibi")
    unit = "% found"
    sizes = Sizes(length=8, steps=600, batch=64, learning_rate=5e-3, warmup=50)

    def model(self, spec: str, sizes: Sizes) -> nn.Module:
        if not DEPTHS <= sizes.length <= KEYS // max(FACTORS):
            raise ValueError(f"--length: got {sizes.length} pairs, expected {DEPTHS} to {KEYS // max(FACTORS)}.")
        return Finder(spec, sizes)

    def loss(self, model: Finder, sizes: Sizes, generator: np.random.Generator) -> Tensor:
        pairs = int(generator.integers(SHORTEST, sizes.length + 1))
        tokens, _ = lists(pairs, sizes.batch, generator)
        return F.cross_entropy(model(tokens).flatten(0, 1), tokens[:, -2 * ASKED + 1 :: 2].flatten() - KEYS)

    def measure(self, model: Finder, spec: str, sizes: Sizes) -> Iterator[Measurement]:
        for factor in FACTORS:
            size, trained = f"{factor * sizes.length} pairs", factor == 1
            right = found(model, factor * sizes.length)
            if right is None:
                yield Measurement("", size, None, trained, f"got position {model.max_positions}, past its table")
            else:
                yield Measurement("", size, right.nanmean().item(), trained)

    def show(self, model: Finder, spec: str, sizes: Sizes) -> Mapping[str, Tensor]:
        columns = [found(model, factor * sizes.length) for factor in FACTORS]
        empty = torch.full((DEPTHS,), torch.nan, dtype=torch.float64)
        return {
            "found": torch.stack([empty if column is None else column for column in columns], dim=1),
            "pairs": torch.tensor([factor * sizes.length for factor in FACTORS]),
        }

    def pictures(self, shown: Mapping[str, Mapping[str, Tensor]]) -> Sequence[Picture]:
        return [_depths(label, values) for label, values in shown.items()]


def found(model: Finder, pairs: int) -> Tensor | None:
    """``(DEPTHS,)``: % of the keys in each quarter of the list whose value is found; None beyond a table's length."""
    if model.max_positions is not None and 2 * (pairs + ASKED) > model.max_positions:
        return None
    tokens, asked = lists(pairs, 200, np.random.default_rng(pairs))
    right = torch.cat([model(part).argmax(-1) for part in tokens.split(50)]) == tokens[:, -2 * ASKED + 1 :: 2] - KEYS
    depth = asked * DEPTHS // pairs
    return torch.stack([100 * right[depth == quarter].double().mean() for quarter in range(DEPTHS)])


def _depths(label: str, values: Mapping[str, Tensor]) -> Picture:
    table = values["found"].numpy()

    def draw(axes: Axes) -> None:
        axes.imshow(table, cmap=DIVERGING, vmin=-100, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            axes.text(column, row, "-" if np.isnan(value) else f"{value:.0f}", ha="center", va="center", fontsize=8)
        axes.set_xticks(range(len(values["pairs"])), [f"{n}" for n in values["pairs"].tolist()])
        axes.set_yticks(range(DEPTHS), [f"{100 * q // DEPTHS}-{100 * (q + 1) // DEPTHS} %" for q in range(DEPTHS)])
        axes.set(xlabel="pairs in the list", ylabel="depth of the pair")
        axes.tick_params(length=0)

    return Picture(f"depth {label}", f"What {label} finds, by depth", "In %, of the first seed.", draw, height=2.4)

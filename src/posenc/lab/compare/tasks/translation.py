"""Translation from English to Spanish: verses of the King James Version and of the Reina-Valera of 1909."""

import functools
from collections.abc import Iterator, Mapping, Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from posenc.lab.compare.task import Sizes
from posenc.lab.compare.tasks.shared.sequences import EncoderDecoder, Pairs, Pieces, TextToText, prepared, table
from posenc.lab.compare.tasks.shared.text_scores import chrf
from posenc.lab.drawing.plots import DIVERGING, Picture

HELD_OUT = ("2Sam", "Ruth")  # books


@functools.cache
def verses() -> tuple[Pieces, Pairs, Pairs]:
    """The tokenizer of both languages, the training verses, and the verses of held-out books."""
    rows = table("verses.tsv.gz")
    train, held = ([row for row in rows if (row[0] in HELD_OUT) == held] for held in (False, True))
    return prepared(train, held, source=1, target=2)


@functools.cache
def short(length: int) -> Pairs:
    """The training verses that have at most this length."""
    _, train, _ = verses()
    return train.at([i for i, source in enumerate(train.sources) if len(source) <= length])


class Translation(TextToText):
    title = "English to Spanish, verse by verse"
    encodings = ("none", "sinusoidal", "rope", "alibi")
    unit = "chrF"
    sizes = Sizes(dim=64, num_layers=2, num_heads=4, length=32, steps=600, batch=64, learning_rate=4e-3, warmup=60)
    data = staticmethod(verses)
    score = staticmethod(chrf)

    def trained_on(self, sizes: Sizes) -> Pairs:
        if len(short(sizes.length).sources) < 500:
            raise ValueError(
                f"--length: got {sizes.length}, expected at least 12, because fewer than 500 verses are so short."
            )
        return short(sizes.length)

    def questions(self, sizes: Sizes) -> Iterator[tuple[str, Pairs]]:
        held = verses()[2]
        for factor in (1, 2, 3):
            low, high = (factor - 1) * sizes.length, factor * sizes.length
            chosen = [i for i, source in enumerate(held.sources) if low < len(source) <= high]
            if chosen:
                yield f"{low + 1}-{high} tokens", held.at(chosen[: self.asked])

    def show(self, model: EncoderDecoder, spec: str, sizes: Sizes) -> Mapping[str, Tensor]:
        held = verses()[2]
        at = min(range(len(held.sources)), key=lambda i: len(held.sources[i]) + len(held.targets[i]))
        source, target = held.sources[at], held.targets[at]
        tokens = {"source": torch.tensor(source), "target": torch.tensor(target)}
        return {**tokens, "attention": model.looks(source, target)}

    def pictures(self, shown: Mapping[str, Mapping[str, Tensor]]) -> Sequence[Picture]:
        return [_attention(label, values) for label, values in shown.items()]


def _attention(label: str, values: Mapping[str, Tensor]) -> Picture:
    pieces = verses()[0]
    columns, rows = ([pieces.decode([token]) for token in values[name].tolist()] for name in ("source", "target"))

    def draw(axes: Axes) -> None:
        axes.imshow(values["attention"].numpy(), cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)

    caption = "Before each token of the verse in Spanish (rows), the share of the attention on each token in English."
    return Picture(f"attention {label}", f"Where {label} looks", caption, draw, height=3.6)

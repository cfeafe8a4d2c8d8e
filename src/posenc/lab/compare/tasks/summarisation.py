"""Summary line of a docstring from its text: docstrings of NumPy, SciPy, scikit-learn and six more packages."""

import functools
from collections.abc import Iterator

from posenc.lab.compare.task import Sizes
from posenc.lab.compare.tasks.shared.sequences import Pairs, Pieces, TextToText, table
from posenc.lab.compare.tasks.shared.text_scores import rouge_l

HELD_OUT = 192  # the last rows
PIECES = 2000
FACTORS = (1, 2, 4)


@functools.cache
def docstrings() -> tuple[Pieces, Pairs, Pairs]:
    """The tokenizer, the training docstrings, and the docstrings of held-out files."""
    rows = table("docstrings.tsv.gz")
    pieces = Pieces([text for _, *texts in rows[:-HELD_OUT] for text in texts], PIECES)
    sides = (rows[:-HELD_OUT], rows[-HELD_OUT:])
    train, held = (pieces.pairs([(text, line) for _, line, text in side]) for side in sides)
    return pieces, train, held


@functools.cache
def cut(length: int) -> Pairs:
    """The training pairs: the first tokens of each docstring."""
    train = docstrings()[1]
    return train.at(range(len(train.sources)), cut=length)


class Summarisation(TextToText):
    title = "A function's documentation to its first line"
    encodings = ("none", "sinusoidal", "rope", "alibi", "t5")
    unit = "ROUGE-L"
    sizes = Sizes(dim=64, num_layers=2, num_heads=4, length=64, steps=500, batch=48, learning_rate=4e-3, warmup=60)
    data = staticmethod(docstrings)
    score = staticmethod(rouge_l)

    def trained_on(self, sizes: Sizes) -> Pairs:
        return cut(sizes.length)

    def questions(self, sizes: Sizes) -> Iterator[tuple[str, Pairs]]:
        """The same documents at every length, cut to that length."""
        held = docstrings()[2]
        long = [i for i, source in enumerate(held.sources) if len(source) >= max(FACTORS) * sizes.length]
        if len(long) < 3:
            raise ValueError(
                f"--length: got {sizes.length}, expected a smaller length: too few docstrings have {max(FACTORS)} "
                "times as many tokens."
            )
        for factor in FACTORS:
            yield f"{factor * sizes.length} tokens", held.at(long[: self.asked], cut=factor * sizes.length)

    def shorter(self, source: str, pairs: Pairs) -> str:
        return f"{source[:120]} …"

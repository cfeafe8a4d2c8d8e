"""Summary line of a docstring from its text: docstrings of NumPy, SciPy, scikit-learn and six more packages."""

import functools
from collections.abc import Iterator

from posenc.lab.compare.task import Sizes
from posenc.lab.compare.tasks.shared.sequences import Pairs, Pieces, TextToText, prepared, table
from posenc.lab.compare.tasks.shared.text_scores import rouge_l

HELD_OUT = 192  # the last rows
FACTORS = (1, 2, 4)


@functools.cache
def docstrings() -> tuple[Pieces, Pairs, Pairs]:
    """The tokenizer, the training docstrings, and the docstrings of held-out files."""
    rows = table("docstrings.tsv.gz")
    return prepared(rows[:-HELD_OUT], rows[-HELD_OUT:], source=2, target=1)


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

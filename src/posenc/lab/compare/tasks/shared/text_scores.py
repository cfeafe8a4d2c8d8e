"""Scores that compare a written text with the reference text."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np


def chrf(written: Sequence[str], wanted: Sequence[str]) -> float:
    """chrF2 of a corpus, 0 to 100: n-grams of 1 to 6 characters without white space; recall counts twice (beta = 2).

    Gives the same number as sacrebleu. Popovic, chrF: character n-gram F-score for automatic MT evaluation. WMT 2015.
    """
    counts = np.zeros((6, 3))  # numbers of n-grams: in both texts, in the written text, in the reference
    for pair in zip(written, wanted, strict=True):
        mine, theirs = ("".join(text.split()) for text in pair)
        for n in range(1, 7):
            ours, whole = (Counter(t[i : i + n] for i in range(len(t) - n + 1)) for t in (mine, theirs))
            counts[n - 1] += ((ours & whole).total(), ours.total(), whole.total())
    counts = counts[(counts[:, 1] > 0) & (counts[:, 2] > 0)]
    if not counts[:, 0].any():
        return 0.0
    precision, recall = (counts[:, 0] / counts[:, 1]).mean(), (counts[:, 0] / counts[:, 2]).mean()
    return float(100 * 5 * precision * recall / (4 * precision + recall))


def rouge_l(written: Sequence[str], wanted: Sequence[str]) -> float:
    """Mean F-measure of the longest common subsequence of words, 0 to 100; lower case, letters and digits only.

    Same number as rouge-score without a stemmer. Lin, ROUGE: A Package for Automatic Evaluation of Summaries. 2004.
    """
    found = []
    for pair in zip(written, wanted, strict=True):
        mine, theirs = (re.findall(r"[a-z0-9]+", text.lower()) for text in pair)
        common = [0] * (len(theirs) + 1)
        for word in mine:
            diagonal = 0
            for at, other in enumerate(theirs, 1):
                above = common[at]
                common[at] = diagonal + 1 if word == other else max(above, common[at - 1])
                diagonal = above
        found.append(200 * common[-1] / max(1, len(mine) + len(theirs)))
    return float(np.mean(found))

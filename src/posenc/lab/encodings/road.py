"""What each encoding fixed, and what it left: the words of the report. The numbers are measured elsewhere."""

import inspect
from dataclasses import dataclass

import posenc
from posenc.catalogue import CATALOGUE


@dataclass(frozen=True)
class Step:
    """One encoding in words: its formula in plain text, what it fixed, what it left, and where it is from."""

    formula: str
    fixed: str = ""
    left: str = ""
    paper: str = ""


_STEPS = {
    "none": Step(
        "x, q, k and the scores stay as they are",
        "Nothing to compute and nothing to learn. In a decoder the causal mask still lets a token count what came "
        "before it.",
        "Without a mask, the output of attention for a word does not depend on the order of the other words.",
    ),
    "integer": Step(
        "x(p) + p, on every channel",
        "Order can be seen: each position adds its own number.",
        "The number is soon much larger than the embedding, and a longer text has larger ones than any in "
        "training. bfloat16 cannot count past 256.",
    ),
    "normalized": Step(
        "x(p) + p / N, on every channel, N the trained length",
        "The code stays as small as the embedding: within N tokens it runs from 0 to 1.",
        "Neighbours now differ by 1/N only, so order is hard to see, and past N the code leaves the trained range.",
    ),
    "binary": Step(
        "x(p)[c] + digit c of p in binary: floor(p / 2^c) mod 2",
        "The code is bounded at every length, and neighbours differ by at least one whole digit.",
        "The code jumps: from 7 to 8 four digits change at once. No matrix maps each code to the next, so there is no "
        "simple rule for \u201cthree tokens on\u201d.",
    ),
    "sinusoidal": Step(
        "x(p)[2c] + sin(p w_c), x(p)[2c+1] + cos(p w_c), w_c = base^(-2c/d)",
        "The digits become smooth waves, and a step of k tokens is the same rotation wherever it starts: the linear "
        "map is exact.",
        "The code is added to the word, so that one vector has to carry both; and once queries and keys are projected "
        "from it, a score depends on where two tokens stand, not only on how far apart they are.",
    ),
    "learned": Step(
        "x(p) + row p of a learned table",
        "No formula to choose: the model finds its own codes.",
        "There is no code past the last row, every row costs memory and has to be seen in training, and nothing ties "
        "a row to its neighbours.",
    ),
    "rope": Step(
        "q, k: (a, b) -> (a cos p w_c - b sin p w_c, a sin p w_c + b cos p w_c), pair c, w_c = base^(-2c/d)",
        "Queries and keys are turned, and nothing is added to them: their norms stay the same, and a score depends on "
        "the distance alone. Nothing is learned.",
        "Distances longer than any in training turn the slow pairs to angles that the model has never seen.",
    ),
    "alibi": Step(
        "score(i, j) - m_h |i - j|, slope m_h for each head",
        "Each score gets a penalty for the distance directly. A longer text has no new kind of input: distant tokens "
        "get larger penalties.",
        "Distant tokens hardly count: the slope of each head limits how far it can see, at every length.",
    ),
}


def step(encoding: posenc.Encoding) -> Step:
    """The step of an encoding; one that is not in the catalogue speaks by the first line of its docstring."""
    for row in CATALOGUE:
        if row.load() is type(encoding):
            words = _STEPS.get(row.name, Step(row.summary))
            return Step(words.formula, words.fixed, words.left, f"{row.paper}, {row.where}, {row.year}")
    doc = inspect.cleandoc(type(encoding).__doc__ or "").splitlines()
    return Step(doc[0] if doc else f"{type(encoding).__name__}, a class without a docstring")

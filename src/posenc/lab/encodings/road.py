"""One step for each encoding on the way from integers to RoPE and ALiBi: formula, what it does, its limit.

These are the texts of the report and of ``posenc show``. The numbers beside them are measured elsewhere.
"""

import inspect
from dataclasses import dataclass

import posenc
from posenc.catalogue import CATALOGUE


@dataclass(frozen=True)
class Step:
    """One encoding in words.

    Attributes:
        formula: the formula in plain text.
        fixed: what the encoding does, and what it improves over the step before.
        left: its limit, which leads to the next step.
        paper: where the encoding is from.
    """

    formula: str
    fixed: str = ""
    left: str = ""
    paper: str = ""


_STEPS = {
    "none": Step(
        "x, q, k and the scores stay as they are",
        "Adds nothing, so there is nothing to compute and nothing to learn. In a decoder the causal mask still gives "
        "some order, because each token attends to earlier tokens only.",
        "Without a mask, the attention output of a word does not depend on the order of the other words.",
    ),
    "integer": Step(
        "x(p) + p, on every channel",
        "Adds the position p to every channel of the embedding, so that each position has its own code.",
        "The code soon is much larger than the embedding, and a longer text has larger codes than any in training. "
        "bfloat16 represents whole numbers exactly only up to 256.",
    ),
    "normalized": Step(
        "x(p) + p / N, on every channel, N the trained length",
        "Divides the position by the trained length N, so that within N tokens the code runs from 0 to 1 and stays "
        "as small as the embedding.",
        "The codes of neighbours differ by 1/N only, so the model can hardly tell them apart, and past N the code "
        "leaves the trained range.",
    ),
    "binary": Step(
        "x(p)[c] + digit c of p in binary: floor(p / 2^c) mod 2",
        "Adds one binary digit of the position to each channel. Every code is 0 or 1 at every length, and the codes "
        "of neighbours differ in at least one digit.",
        "The code jumps: from 7 to 8 four digits change at once. No single matrix maps each code to the next, so "
        "there is no simple rule for \u201cthree tokens later\u201d.",
    ),
    "sinusoidal": Step(
        "x(p)[2c] + sin(p w_c), x(p)[2c+1] + cos(p w_c), w_c = base^(-2c/d)",
        "Replaces the digits by sine and cosine waves, from fast to slow. A step of k tokens rotates each pair (sin, "
        "cos) by the same angle at every position, so one matrix maps each code to the code k tokens later, exactly.",
        "The code is added to the embedding, so one vector holds both the word and its position. After the "
        "projections to queries and keys, a score depends on where two tokens are, not only on their distance.",
    ),
    "learned": Step(
        "x(p) + row p of a learned table",
        "Adds a row of a table that is trained with the model. No formula has to be chosen.",
        "There is no row past the end of the table, each row has to occur in training and takes memory, and no rule "
        "connects the rows of neighbours.",
    ),
    "rope": Step(
        "q, k: (a, b) -> (a cos p w_c - b sin p w_c, a sin p w_c + b cos p w_c), pair c, w_c = base^(-2c/d)",
        "Rotates each pair of channels of the queries and keys by an angle that grows with the position, and adds "
        "nothing to the embedding. Norms stay the same, and a score depends on the position only through the "
        "distance. Nothing is learned. Llama 3.2 encodes positions in this way, with base 500 000.",
        "Distances longer than any in training rotate the slow pairs to angles that the model has never seen.",
    ),
    "alibi": Step(
        "score(i, j) - m_h |i - j|, slope m_h for each head",
        "Subtracts from each score a penalty that grows with the distance. A longer text has the same kind of "
        "penalty, only larger ones for the distant tokens.",
        "Distant tokens hardly count: at every length, the slope of a head limits how far the head can see.",
    ),
}


def step(encoding: posenc.Encoding) -> Step:
    """The step of an encoding. For one that is not in the catalogue, the first line of its docstring is the formula."""
    for row in CATALOGUE:
        if row.load() is type(encoding):
            words = _STEPS.get(row.name, Step(row.summary))
            return Step(words.formula, words.fixed, words.left, f"{row.paper}, {row.where}, {row.year}")
    doc = inspect.cleandoc(type(encoding).__doc__ or "").splitlines()
    return Step(doc[0] if doc else f"{type(encoding).__name__}, a class without a docstring")

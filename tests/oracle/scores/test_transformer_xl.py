"""Scores after memories against the authors' layer."""

import json
from pathlib import Path

import numpy as np

from posenc.oracle.scores.transformer_xl import bias

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "transformer_xl_scores.json").read_text())["values"]


def test_scores_after_memories_are_the_authors() -> None:
    q, k = np.reshape(GOLDEN["q"], (1, 2, 4, 4)), np.reshape(GOLDEN["k"], (1, 2, 7, 4))
    added = bias(
        q,
        k,
        np.arange(3, 7),
        np.arange(7),
        weight=np.reshape(GOLDEN["weight"], (8, 8)),
        u=np.reshape(GOLDEN["u"], (2, 4)),
        v=np.reshape(GOLDEN["v"], (2, 4)),
        scale=0.5,
    )
    scores = (0.5 * q @ k.swapaxes(-1, -2) + added)[0]
    theirs = np.reshape(np.array(GOLDEN["scores"], dtype=float), (2, 4, 7))
    seen = ~np.isnan(theirs)
    assert seen[0].sum(axis=-1).tolist() == [4, 5, 6, 7]
    np.testing.assert_allclose(scores[seen], theirs[seen], rtol=0, atol=1e-6)

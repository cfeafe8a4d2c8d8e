"""The bias against the code that the field runs (the paper has none of its own)."""

import json
from pathlib import Path

import numpy as np

from posenc.oracle.scores.fire import bias

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "fire_bias.json").read_text())["values"]
NETWORK = {
    "hidden_weight": GOLDEN["hidden_weight"],
    "hidden_bias": GOLDEN["hidden_bias"],
    "out_weight": np.reshape(GOLDEN["out_weight"], (3, 5)),
    "out_bias": GOLDEN["out_bias"],
}


def test_the_bias_is_that_of_the_code_in_use() -> None:
    b = bias(np.arange(7), np.arange(7), c=GOLDEN["c"], threshold=GOLDEN["threshold"], **NETWORK)
    np.testing.assert_allclose(b.ravel(), GOLDEN["bias"], rtol=0, atol=2e-6)  # theirs is float32


def test_the_first_key_has_the_same_share_at_every_length_past_the_threshold() -> None:
    i = np.array([10, 100, 10_000])
    b = bias(i, [0], c=0.5, threshold=5, **NETWORK)
    np.testing.assert_allclose(b[:, 1:], b[:, :1].repeat(2, axis=1), rtol=0, atol=1e-6)

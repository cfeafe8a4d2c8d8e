"""The bias against the authors' lines."""

import json
from pathlib import Path

import numpy as np

from posenc.oracle.scores.tupe import bias

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "tupe_bias.json").read_text())["values"]


def test_the_bias_is_the_authors() -> None:
    b = bias(
        np.arange(6),
        np.arange(6),
        table=np.reshape(GOLDEN["table"], (6, 8)),
        norm_weight=np.ones(8),
        norm_bias=np.zeros(8),
        q_weight=np.reshape(GOLDEN["q_weight"], (8, 8)),
        q_bias=GOLDEN["q_bias"],
        k_weight=np.reshape(GOLDEN["k_weight"], (8, 8)),
        k_bias=GOLDEN["k_bias"],
        num_heads=2,
    )
    np.testing.assert_allclose(b.ravel(), GOLDEN["bias"], rtol=0, atol=1e-7)

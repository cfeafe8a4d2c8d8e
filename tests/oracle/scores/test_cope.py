"""A head of attention against the authors' class."""

import json
from pathlib import Path

import numpy as np

from posenc.oracle.dot_product_attention import attention
from posenc.oracle.scores.cope import bias

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "cope_attention.json").read_text())["values"]


def test_the_output_is_the_authors() -> None:
    q, k, v = (np.reshape(GOLDEN[name], (1, 1, 7, 4)) for name in "qkv")
    scores = np.where(np.tri(7, dtype=bool), 0.5 * q @ k.swapaxes(-1, -2), -np.inf)
    added = bias(q, scores, table=np.reshape(GOLDEN["table"], (4, 4)), scale=0.5)
    np.testing.assert_allclose(attention(q, k, v, bias=added, causal=True).ravel(), GOLDEN["out"], rtol=0, atol=1e-7)


def test_open_gates_count_tokens() -> None:
    """With every gate open, the position is the number of tokens from the key to the query, both included."""
    table = np.arange(6.0)[:, None]
    scores = np.where(np.tri(5, dtype=bool), 1e3, -np.inf)[None, None]
    b = bias(np.ones((1, 1, 5, 1)), scores, table=table, scale=1.0)
    np.testing.assert_array_equal(b[0, 0, 4], [5, 4, 3, 2, 1])

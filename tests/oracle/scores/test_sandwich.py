"""The bias against NVIDIA NeMo's module, and against the product of two sinusoidal codes."""

import json
from pathlib import Path

import numpy as np

from posenc.oracle.embeddings.sinusoidal import codes
from posenc.oracle.scores.sandwich import bias

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "sandwich_bias.json").read_text())["values"]


def test_the_bias_is_that_of_nemo() -> None:
    b = bias([11], np.arange(12), num_heads=4, code_dim=16)
    np.testing.assert_allclose(b[:, 0].ravel(), GOLDEN["bias"], rtol=0, atol=2e-5)  # theirs is float32


def test_the_bias_before_it_is_weighed_has_the_values_of_the_survey() -> None:
    n = np.array([0, 1, 10, 100, 1000])
    b = bias(n, [0], num_heads=8, code_dim=128)[:, :, 0]
    np.testing.assert_allclose(b[0], [0, -1.447, -19.341, -33.319, -53.390], rtol=0, atol=6e-4)  # head 1 of 8 weighs 1


def test_the_bias_is_the_product_of_two_codes_less_its_largest_value() -> None:
    inv_freq = 10_000.0 ** (-2 * np.arange(1, 9) / 16)
    p = codes(np.arange(30), inv_freq=inv_freq)
    np.testing.assert_allclose(
        bias(np.arange(30), np.arange(30), num_heads=8, code_dim=16)[0], p @ p.T - 8, rtol=0, atol=1e-13
    )

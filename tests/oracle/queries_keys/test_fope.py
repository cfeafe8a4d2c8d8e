"""The oracle of FoPE: what the authors' code gives, RoPE with the identity, and a sum by hand."""

import json
from pathlib import Path

import numpy as np

from posenc.oracle.queries_keys import fope, rope

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "fope.json").read_text())["values"]


def test_it_is_what_the_authors_code_gives() -> None:
    rates = 10_000 ** (-np.arange(8) / 8)
    y = fope.rotate(
        GOLDEN["x"],
        GOLDEN["positions"],
        inv_freq=rates[rates >= 2 * np.pi / GOLDEN["trained_length"]],
        cos_coef=GOLDEN["cos_coef"],
        sin_coef=GOLDEN["sin_coef"],
    )
    np.testing.assert_allclose(y, GOLDEN["y"], rtol=0, atol=1e-15)


def test_with_the_identity_and_all_rates_it_is_rope() -> None:
    x, rates = np.random.default_rng(0).standard_normal((1, 2, 5, 8)), 100 ** (-np.arange(4) / 4)
    for pairing in ("half", "interleaved"):
        eye = {name: np.eye(4)[None] for name in ("cos_coef", "sin_coef")}
        y = fope.rotate(x, np.arange(5), inv_freq=rates, **eye, pairing=pairing)
        np.testing.assert_allclose(y, rope.rotate(x, np.arange(5), inv_freq=rates, pairing=pairing), atol=1e-15)


def test_two_waves_by_hand() -> None:
    half_turn = {"inv_freq": [np.pi, np.pi / 2], "cos_coef": [[[1.0], [10.0]]], "sin_coef": [[[5.0], [7.0]]]}
    for dropped, (a, b) in {"turned": (1 - 3, 3 + 1), "still": (1, 3)}.items():
        y = fope.rotate([[[[2.0, 1.0, 4.0, 3.0]]]], [1], **half_turn, dropped=dropped)
        # cos of a half turn and of a quarter are -1 and 0, sin 0 and 1: C = -1, S = 7
        np.testing.assert_allclose(y, [[[[-2 - 28, a, -4 + 14, b]]]], atol=1e-13)

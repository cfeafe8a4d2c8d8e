"""The oracle of PoPE: its two forms agree, numbers by hand, and what released code gives."""

import json
from pathlib import Path

import numpy as np
import pytest

from posenc.oracle.queries_keys import pope

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "pope.json").read_text())["values"]


def test_one_channel_by_hand() -> None:
    ln2 = np.log(2)
    turned = pope.polar([[[[0.0]]]], [1], inv_freq=[np.pi / 2])
    np.testing.assert_allclose(turned, [[[[0, ln2]]]], atol=1e-16)
    turned = pope.polar([[[[0.0]]]], [1], inv_freq=[np.pi / 2], phase=[[-np.pi / 2]])
    np.testing.assert_allclose(turned, [[[[ln2, 0]]]], atol=1e-16)
    score = pope.score([0.0], [0.0], 3, 1, inv_freq=[np.pi / 2], phase=[0.0])
    assert score == pytest.approx(-(ln2**2), abs=1e-15)  # two tokens are half a turn


def test_the_product_of_what_two_tokens_become_is_the_sum_of_cosines() -> None:
    draw = np.random.default_rng(0)
    q, k = draw.standard_normal((2, 1, 4, 6, 8))
    phase, rates = draw.uniform(-2 * np.pi, 0, (2, 8)), 100 ** (-np.arange(8) / 8)
    i, j = np.arange(6) + 5, 2.5 * np.arange(6)
    wide_q = pope.polar(q, i, inv_freq=rates)
    wide_k = pope.polar(k, j, inv_freq=rates, phase=phase)
    for head, query, key in [(0, 0, 5), (1, 3, 3), (2, 4, 1), (3, 5, 0)]:
        expected = pope.score(
            q[0, head, query], k[0, head, key], i[query], j[key], inv_freq=rates, phase=phase[head // 2]
        )
        assert wide_q[0, head, query] @ wide_k[0, head, key] == pytest.approx(expected, abs=1e-13)


def test_phases_beyond_their_limits_are_the_limits() -> None:
    k, where, rates = np.ones((1, 2, 3, 4)), [0, 1, 2], np.ones(4)
    for given, limit in ((0.7, 0.0), (-9.0, -2 * np.pi)):
        got = pope.polar(k, where, inv_freq=rates, phase=np.full((2, 4), given))
        np.testing.assert_array_equal(got, pope.polar(k, where, inv_freq=rates, phase=np.full((2, 4), limit)))


def test_it_is_what_released_code_gives() -> None:
    q, k, phase = (np.array(GOLDEN[name]) for name in ("q", "k", "phase"))
    rates = 10_000 ** (-np.arange(q.shape[-1]) / q.shape[-1])
    where = GOLDEN["positions"]
    scores = pope.polar(q, where, inv_freq=rates) @ pope.polar(k, where, inv_freq=rates, phase=phase).swapaxes(-1, -2)
    np.testing.assert_allclose(scores, GOLDEN["scores"], rtol=1e-6, atol=1e-6)

"""Sine and cosine codes, against 50 digits, the authors' code, installed models and the addition theorem."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from posenc.oracle.embeddings.sinusoidal import codes

GOLDEN = Path(__file__).parents[2] / "golden"
ORDERS = ["interleaved", "concatenated"]


def golden(name: str) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = json.loads((GOLDEN / f"{name}.json").read_text())["values"]
    return values


def paper_inv_freq(dim: int) -> npt.NDArray[np.float64]:
    return np.array([10000.0 ** (-2 * pair / dim) for pair in range(dim // 2)])


def test_the_paper_puts_sines_on_even_channels_and_cosines_on_odd_ones() -> None:
    np.testing.assert_array_equal(codes([0], inv_freq=[1.0, 0.1, 0.01]), [[0, 1, 0, 1, 0, 1]])
    code = codes([1], inv_freq=[np.pi / 2, np.pi])
    np.testing.assert_allclose(code, [[1, 0, 0, -1]], rtol=0, atol=1e-15)


def test_the_concatenated_order_is_all_sines_then_all_cosines() -> None:
    code = codes([1], inv_freq=[np.pi / 2, np.pi], order="concatenated")
    np.testing.assert_allclose(code, [[1, 0, 0, -1]], rtol=0, atol=1e-15)
    code = codes([1], inv_freq=[np.pi / 2, np.pi / 6], order="concatenated")
    np.testing.assert_allclose(code, [[1, 0.5, 0, np.sqrt(0.75)]], rtol=0, atol=1e-15)


def test_both_orders_hold_the_same_numbers() -> None:
    p, w = np.arange(100), paper_inv_freq(32)
    interleaved, concatenated = codes(p, inv_freq=w), codes(p, inv_freq=w, order="concatenated")
    np.testing.assert_array_equal(interleaved[:, 0::2], concatenated[:, :16])
    np.testing.assert_array_equal(interleaved[:, 1::2], concatenated[:, 16:])


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 'interleaved' or 'concatenated'"):
        codes([0], inv_freq=[1.0], order="half")


@pytest.mark.parametrize("order", ORDERS)
def test_sines_and_cosines_are_those_of_50_digits(order: str) -> None:
    for entry in golden("cos_sin_50_digits"):
        inv_freq, position = float(entry["inv_freq"]), entry["position"]
        sine, cosine = codes([position], inv_freq=[inv_freq], order=order)[0]
        # inv_freq is rounded to float64, and so is its product with the position: half a unit in the last place each.
        bound = position * inv_freq * 2.0**-52 + 2.0**-52
        assert abs(sine - float(entry["sin"])) <= bound, entry
        assert abs(cosine - float(entry["cos"])) <= bound, entry


def test_dot_products_depend_on_the_distance_as_the_formula_says() -> None:
    for entry in golden("sinusoidal_dot_products"):
        w = paper_inv_freq(entry["dim"])
        for start in (0, 77):
            first, second = codes([start, start + entry["distance"]], inv_freq=w)
            np.testing.assert_allclose(first @ second, float(entry["dot"]), rtol=1e-12)


def test_dot_products_of_512_channels_are_the_well_known_ones() -> None:
    code = codes([0, 1, 10, 100, 1000], inv_freq=paper_inv_freq(512))
    np.testing.assert_allclose(code @ code[0], [256, 249.102, 173.790, 111.950, 44.972], rtol=0, atol=5e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_a_shift_of_position_is_a_linear_map_that_does_not_know_the_position(order: str) -> None:
    p, shift, w = np.arange(50.0), 17, paper_inv_freq(16)
    here, there = codes(p, inv_freq=w, order=order), codes(p + shift, inv_freq=w, order=order)
    sines, cosines = (slice(0, None, 2), slice(1, None, 2)) if order == "interleaved" else (slice(0, 8), slice(8, 16))
    # sin(a + b) = sin a cos b + cos a sin b, cos(a + b) = cos a cos b - sin a sin b
    turn = np.exp(1j * w * shift)
    np.testing.assert_allclose(
        there[:, sines], turn.real * here[:, sines] + turn.imag * here[:, cosines], rtol=0, atol=1e-13
    )
    np.testing.assert_allclose(
        there[:, cosines], -turn.imag * here[:, sines] + turn.real * here[:, cosines], rtol=0, atol=1e-13
    )


def test_every_code_has_the_same_length() -> None:
    code = codes(np.arange(1000), inv_freq=paper_inv_freq(64))
    np.testing.assert_allclose((code**2).sum(-1), 32, rtol=1e-14)


def test_positions_may_be_fractional_and_batched() -> None:
    p, w = np.array([[0.5, 1.0, -2.0], [7.25, 0.0, 3.0]]), paper_inv_freq(8)
    code = codes(p, inv_freq=w)
    assert code.shape == (2, 3, 8)
    np.testing.assert_allclose(
        code[..., 1::2] + 1j * code[..., 0::2], np.exp(1j * p[..., None] * w), rtol=0, atol=1e-15
    )


def test_it_equals_the_timing_signal_of_tensor2tensor() -> None:
    for entry in golden("tensor2tensor_timing_signal"):
        code = codes(entry["positions"], inv_freq=entry["inv_freq"], order="concatenated")
        # That code takes its frequencies by exp and log, which at position 1000 shows in the last few digits.
        np.testing.assert_allclose(code, entry["codes"], rtol=0, atol=2e-12)


def test_it_equals_the_sinusoidal_table_of_marian() -> None:
    marian = pytest.importorskip("transformers.models.marian.modeling_marian")
    table = marian.MarianSinusoidalPositionalEmbedding(100, 32).create_weight().numpy()
    code = codes(np.arange(100), inv_freq=paper_inv_freq(32), order="concatenated")
    np.testing.assert_allclose(code, table, rtol=0, atol=2.0**-24)


def test_it_equals_the_sinusoids_of_whisper() -> None:
    whisper = pytest.importorskip("transformers.models.whisper.modeling_whisper")
    table = whisper.sinusoids(100, 32).numpy()
    code = codes(np.arange(100), inv_freq=10000.0 ** (-np.arange(16) / 15), order="concatenated")
    # Whisper forms angles of up to 99 radians in float32.
    np.testing.assert_allclose(code, table, rtol=0, atol=3e-5)

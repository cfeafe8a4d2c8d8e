"""The comparator must fail where it should: a lenient one is worse than none."""

import numpy as np
import pytest
import torch

from posenc.testing import assert_matches_oracle


def pair(size: int = 1_000_000, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, np.ndarray]:
    expected = np.random.default_rng(0).normal(size=size)
    return torch.from_numpy(expected).to(dtype), expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_one_rounding_passes(dtype: torch.dtype) -> None:
    actual, expected = pair(dtype=dtype)
    # Not slack=0: torch rounds float64 to float16 by way of float32.
    assert_matches_oracle(actual, expected, dtype=dtype, slack=0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_two_roundings_of_half_precision_fail(dtype: torch.dtype) -> None:
    actual, expected = pair(dtype=dtype)
    next_up = torch.nextafter(actual, torch.full_like(actual, torch.inf))
    with pytest.raises(AssertionError, match="beyond their budget"):
        assert_matches_oracle(next_up, expected, dtype=dtype)


def test_one_wrong_element_in_a_million_fails_and_is_named() -> None:
    actual, expected = pair()
    actual[123_456] += 1e-4
    with pytest.raises(AssertionError, match=r"1 of 1000000 elements .* worst is at \(123456,\)"):
        assert_matches_oracle(actual, expected, dtype=torch.float32)


def test_a_flipped_sign_fails() -> None:
    actual, expected = pair(100)
    actual[7] *= -1
    with pytest.raises(AssertionError, match=r"\(7,\)"):
        assert_matches_oracle(actual, expected, dtype=torch.float32)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_nan_or_an_infinity_fails(value: float) -> None:
    actual, expected = pair(100)
    actual[7] = value
    with pytest.raises(AssertionError, match=r"1 of 100 elements .* \(7,\)"):
        assert_matches_oracle(actual, expected, dtype=torch.float32)


def test_a_nan_in_the_oracle_fails_even_against_a_nan() -> None:
    actual, expected = pair(100)
    actual[7] = expected[7] = np.nan
    with pytest.raises(AssertionError, match=r"\(7,\)"):
        assert_matches_oracle(actual, expected, dtype=torch.float32)


def test_equal_infinities_pass() -> None:
    expected = np.array([-np.inf, 0.0])
    assert_matches_oracle(torch.tensor([-torch.inf, 0.0]), expected, dtype=torch.float32)


def test_a_wrong_dtype_fails() -> None:
    actual, expected = pair(10)
    with pytest.raises(AssertionError, match="got dtype"):
        assert_matches_oracle(actual.double(), expected, dtype=torch.float32)


def test_a_wrong_shape_fails_even_if_it_would_broadcast() -> None:
    actual, expected = pair(10)
    with pytest.raises(AssertionError, match="got shape"):
        assert_matches_oracle(actual[None], expected, dtype=torch.float32)
    with pytest.raises(AssertionError, match="got shape"):
        assert_matches_oracle(actual[:1], expected, dtype=torch.float32)


def test_the_scale_widens_the_budget_where_terms_cancel() -> None:
    expected = np.array([1e-9])
    actual = torch.tensor([1e-9 + 1e-7])
    assert_matches_oracle(actual, expected, dtype=torch.float32, scale=1.0)
    with pytest.raises(AssertionError):
        assert_matches_oracle(actual, expected, dtype=torch.float32)


def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    actual, expected = pair(100)
    actual[0] += 1e-3
    monkeypatch.setenv("CI", "true")
    with pytest.raises(AssertionError):
        assert_matches_oracle(actual, expected, dtype=torch.float32)

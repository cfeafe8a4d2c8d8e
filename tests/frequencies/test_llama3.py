import numpy as np
import pytest

from posenc.frequencies import Geometric, Llama3


@pytest.mark.parametrize("factor", [1.0, 8.0, 32.0])
@pytest.mark.parametrize(
    ("low", "high", "trained_length"), [(1.0, 4.0, 8192), (2.0, 3.0, 2048), (1.0, 1.0, 8192), (2.5, 2.5, 4096)]
)
def test_agrees_with_transformers(factor, low, high, trained_length, agrees_with_transformers):
    rule = Llama3(factor, trained_length=trained_length, low_freq_factor=low, high_freq_factor=high)
    parameters = {
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": trained_length,
    }
    agrees_with_transformers(rule, "llama3", parameters, base=500_000.0, max_positions=131072)


@pytest.mark.parametrize(
    ("head_dim", "factor", "kept_blended_divided", "slowest"),
    [(128, 8, (29, 6, 29), 3.0689e-7), (64, 32, (15, 3, 14), 9.4183e-8)],
    ids=["Llama-3.1-8B", "Llama-3.2-1B"],
)
def test_keeps_blends_and_divides_as_many_pairs_as_in_the_models(head_dim, factor, kept_blended_divided, slowest):
    rates = Llama3(factor, trained_length=8192).inv_freq(head_dim)
    ratio = Geometric(500_000).inv_freq(head_dim) / rates
    kept, divided = int((ratio == 1).sum()), int((np.abs(ratio - factor) < 1e-12 * factor).sum())
    assert (kept, head_dim // 2 - kept - divided, divided) == kept_blended_divided
    assert rates[-1] == pytest.approx(slowest, rel=5e-5)


def test_factor_one_is_the_plain_rule():
    np.testing.assert_allclose(
        Llama3(1, trained_length=8192).inv_freq(128), Geometric(500_000).inv_freq(128), rtol=3e-16, atol=0
    )


@pytest.mark.parametrize(("low", "high"), [(4.0, 1.0), (0.0, 4.0)])
def test_thresholds_in_the_wrong_order_are_refused(low, high):
    with pytest.raises(ValueError, match="expected 0 < low_freq_factor <= high_freq_factor"):
        Llama3(8, trained_length=8192, low_freq_factor=low, high_freq_factor=high)


def test_equal_thresholds_are_a_step():
    """Llama 4 Scout has 1 and 1."""
    ratio = Geometric(500_000).inv_freq(128) / Llama3(16, trained_length=8192, high_freq_factor=1.0).inv_freq(128)
    assert (int((ratio == 1).sum()), int((ratio == 16).sum())) == (35, 29)

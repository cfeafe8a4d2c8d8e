import numpy as np
import pytest

from posenc.frequencies import Geometric, LongRoPE

SHORT = tuple(np.linspace(1.0, 1.5, 32).tolist())
LONG = tuple(np.linspace(1.0, 60.0, 32).tolist())


@pytest.mark.parametrize("length", [None, 4096, 4097, 100_000])
@pytest.mark.parametrize("attention_factor", [None, 1.19])
def test_agrees_with_transformers(length, attention_factor, agrees_with_transformers):
    rule = LongRoPE(SHORT, LONG, trained_length=4096, factor=32, attention_factor=attention_factor)
    parameters = {
        "short_factor": list(SHORT),
        "long_factor": list(LONG),
        "original_max_position_embeddings": 4096,
        "attention_factor": attention_factor,
    }
    agrees_with_transformers(rule, "longrope", parameters, length=length, max_positions=131072)


def test_the_attention_factor_is_that_of_phi_3():
    assert LongRoPE([1.0], [2.0], trained_length=4096, factor=32).attention_factor == pytest.approx(1.19024, abs=5e-6)


def test_factors_of_one_are_the_plain_rule():
    rule = LongRoPE([1.0] * 32, [1.0] * 32, trained_length=4096, factor=1)
    assert (rule.inv_freq(64, length=9999) == Geometric().inv_freq(64)).all()
    assert rule.attention_factor == 1


def test_a_fixed_switch_takes_one_list_whatever_the_length():
    for switch, factors in (("short", SHORT), ("long", LONG)):
        rule = LongRoPE(SHORT, LONG, trained_length=4096, factor=32, switch=switch)
        assert not rule.depends_on_length
        for length in (None, 1, 10**6):
            np.testing.assert_allclose(rule.inv_freq(64, length=length) * factors, Geometric().inv_freq(64), rtol=3e-16)


def test_the_attention_factor_can_change_with_the_list():
    rule = LongRoPE(SHORT, LONG, trained_length=4096, attention_factor=1.2, long_attention_factor=1.25)
    assert rule.attention_factor_at(np.array([4096, 4097])).tolist() == [1.2, 1.25]
    with pytest.raises(ValueError, match="got long_attention_factor with switch='long'"):
        LongRoPE(SHORT, LONG, trained_length=4096, attention_factor=1.2, long_attention_factor=1.25, switch="long")


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="got 2 short_factors and 3 long_factors"):
        LongRoPE([1.0] * 2, [1.0] * 3, trained_length=4096, factor=2)
    with pytest.raises(ValueError, match="got 32 factors for 128 channels, expected 64"):
        LongRoPE(SHORT, LONG, trained_length=4096, factor=2).inv_freq(128)
    for bad in ([], [0.0], [-1.0], [float("nan")]):
        with pytest.raises(ValueError, match="expected a number above 0 for each pair"):
            LongRoPE(bad, [1.0], trained_length=4096, factor=2)


def test_neither_factor_nor_attention_factor_is_refused():
    with pytest.raises(ValueError, match="got neither factor nor attention_factor"):
        LongRoPE([1.0], [1.0], trained_length=4096)


def test_an_unknown_switch_is_refused():
    with pytest.raises(ValueError, match=r"got switch 'batch', expected one of \('sequence', 'short', 'long'\)"):
        LongRoPE([1.0], [1.0], trained_length=4096, factor=2, switch="batch")

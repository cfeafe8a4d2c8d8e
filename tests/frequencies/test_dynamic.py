import numpy as np
import pytest

from posenc.frequencies import NTK, DynamicNTK, Geometric


@pytest.mark.parametrize("factor", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("length", [None, 100, 4096, 4097, 8192, 100_000])
def test_agrees_with_transformers(factor, length, agrees_with_transformers):
    agrees_with_transformers(
        DynamicNTK(factor, trained_length=4096), "dynamic", {"factor": factor}, length=length, max_positions=4096
    )


@pytest.mark.parametrize("length", [None, 1, 4096])
def test_is_the_plain_rule_within_the_trained_length(length):
    rule = DynamicNTK(4, trained_length=4096)
    assert (rule.inv_freq(64, length=length) == Geometric().inv_freq(64)).all()


def test_factor_one_is_the_paper_s_rule_with_the_factor_that_the_length_needs():
    rule = DynamicNTK(1, trained_length=4096)
    assert (rule.inv_freq(64, length=12288) == NTK(3).inv_freq(64)).all()


def test_the_slowest_rate_is_divided_by_the_stretch():
    rates = DynamicNTK(2, trained_length=4096).inv_freq(64, length=8192)
    assert Geometric().inv_freq(64)[-1] / rates[-1] == pytest.approx(3)
    assert rates[0] == 1


def test_says_that_it_depends_on_the_length():
    assert DynamicNTK(2, trained_length=4096).depends_on_length
    assert not np.array_equal(
        DynamicNTK(2, trained_length=64).inv_freq(8, length=65), DynamicNTK(2, trained_length=64).inv_freq(8, length=66)
    )

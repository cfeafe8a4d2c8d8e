import numpy as np
import pytest

from posenc.frequencies import Custom


def test_gives_back_what_it_was_given():
    rates = np.array([1.0, 0.3, 0.0])
    assert (Custom(rates).inv_freq(6) == rates).all()
    assert Custom(rates) == Custom([1.0, 0.3, 0.0])


def test_does_not_change_with_the_array_that_it_came_from():
    rates = np.array([1.0, 0.3])
    rule = Custom(rates)
    rates[0] = 7
    assert rule.inv_freq(4)[0] == 1


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"got 2 rates for 8 channels, expected 4.*use rotary_dim=4"):
        Custom([1.0, 0.1]).inv_freq(8)


@pytest.mark.parametrize("rates", [[], [float("nan")], [1.0, float("inf")]])
def test_rates_that_are_no_numbers_are_refused(rates):
    with pytest.raises(ValueError, match="expected one finite number"):
        Custom(rates)

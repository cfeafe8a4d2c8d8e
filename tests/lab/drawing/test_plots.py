"""Ticks of a logarithmic axis."""

import pytest

from posenc.lab.drawing.plots import round_values


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (4.0, 60.0, "5 10 20 50"),
        (11.8741, 12.6887, "12 12.2 12.4 12.6"),
        (99.5, 103.0, "100 101 102 103"),
        (1.0, 1.001, "1 1.0002 1.0004 1.0006 1.0008"),
    ],
)
def test_ticks_are_round_numbers_in_a_narrow_range_too(low: float, high: float, ticks: str) -> None:
    found = round_values(low, high)
    assert " ".join(f"{value:g}" for value in found) == ticks
    assert all(low <= value <= high for value in found)

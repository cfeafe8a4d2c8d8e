"""The oracle of M-RoPE: which coordinate turns which pair, as the models' papers draw it."""

import numpy as np
import pytest

from posenc.oracle.queries_keys import mrope, rope


@pytest.mark.parametrize(
    ("layout", "sections", "drawing"),
    [
        ("chunked", (2, 3, 3), "tthhhwww"),
        ("interleaved", (4, 2, 2), "thwthwtt"),
        ("interleaved", (3, 3, 2), "thwthwth"),
        ("time_last", (2, 3, 3), "hwhwhwtt"),
    ],
)
def test_pairs_go_by_the_coordinates_that_the_layout_draws(
    layout: str, sections: tuple[int, ...], drawing: str
) -> None:
    axes = [mrope.axis_of_pair(pair, sections=sections, layout=layout) for pair in range(8)]
    assert "".join("thw"[axis] for axis in axes) == drawing
    assert tuple(axes.count(axis) for axis in range(3)) == sections


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_a_text_is_rotated_as_by_rope(pairing: str) -> None:
    x, p = np.random.default_rng(0).standard_normal((5, 16)), np.arange(5) * 9
    rates = 1e6 ** (-np.arange(8) / 8)
    turned = mrope.rotate(x, np.stack([p] * 3, axis=1), inv_freq=rates, sections=(2, 3, 3), pairing=pairing)
    np.testing.assert_array_equal(turned, rope.rotate(x, p, inv_freq=rates, pairing=pairing))


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="layout is 'thw'"):
        mrope.axis_of_pair(0, sections=(1, 1, 1), layout="thw")


def test_a_head_goes_by_the_coordinate_of_its_key_head() -> None:
    axes = [mrope.axis_of_head(head, heads=16, sections=(2, 3, 3)) for head in range(16)]
    assert axes == [0] * 4 + [1] * 6 + [2] * 6

"""The oracle of axial RoPE: where each layout puts the pairs of an axis, and complex numbers."""

import numpy as np
import pytest

from posenc.oracle.queries_keys import axial, rope

LAYOUTS = {
    "half": "hhwwhhww",
    "half_per_axis": "hhhhwwww",
    "interleaved": "hhhhwwww",
    "half_alternating": "hwhwhwhw",
    "interleaved_alternating": "hhwwhhww",
    "dealt_half": "hhwwhhww",
    "dealt_half_alternating": "hwhwhwhw",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_along_an_axis_changes_its_channels_alone(layout: str) -> None:
    x = np.random.default_rng(0).standard_normal((1, 8))
    for axis, name in enumerate("hw"):
        where = np.eye(2)[None, axis] * 3
        changed = axial.rotate(x, where, layout=layout) != x
        assert "".join("hw"[axis] if c else "-" for c in changed[0]) == LAYOUTS[layout].replace("wh"[axis], "-")
        assert name in LAYOUTS[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norms_are_kept_and_offsets_alone_matter(layout: str) -> None:
    x = np.random.default_rng(0).standard_normal((5, 16))
    where = np.random.default_rng(1).integers(0, 9, (5, 2))
    turned = axial.rotate(x, where, layout=layout)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(x, axis=1), rtol=1e-14)
    moved = axial.rotate(x, where + np.array([4, 7]), layout=layout)
    np.testing.assert_allclose(moved @ moved.T, turned @ turned.T, atol=1e-12)


@pytest.mark.parametrize("layout", ["interleaved", "half_per_axis"])
def test_each_half_of_the_head_is_a_rope_of_its_own(layout: str) -> None:
    x = np.random.default_rng(0).standard_normal((5, 16))
    where = np.random.default_rng(1).integers(0, 9, (5, 2))
    pairing = "interleaved" if layout == "interleaved" else "half"
    rates = 100 ** (-np.arange(4) / 4)
    halves = [rope.rotate(x[:, 8 * a : 8 * a + 8], where[:, a], inv_freq=rates, pairing=pairing) for a in range(2)]
    np.testing.assert_allclose(
        axial.rotate(x, where, base=100, layout=layout), np.concatenate(halves, axis=1), atol=1e-14
    )


@pytest.mark.parametrize("layout", ["dealt_half", "dealt_half_alternating"])
def test_a_dealt_ladder_is_that_of_one_rope_if_the_coordinates_are_equal(layout: str) -> None:
    x = np.random.default_rng(0).standard_normal((5, 16))
    p = np.arange(5)
    rates = 10_000 ** (-np.arange(8) / 8)
    if layout == "dealt_half":  # Pixtral orders the rungs 0 2 4 6 1 3 5 7
        rates = np.concatenate((rates[::2], rates[1::2]))
    np.testing.assert_allclose(
        axial.rotate(x, np.stack((p, p), axis=1), layout=layout), rope.rotate(x, p, inv_freq=rates), atol=1e-14
    )


@pytest.mark.parametrize("layout", ["half", "half_per_axis", "interleaved"])
def test_widths_that_differ_give_each_axis_a_rope_of_its_own(layout: str) -> None:
    """In another order of channels for "half", whose pairs run across the whole head."""
    x = np.random.default_rng(0).standard_normal((5, 16))
    where = np.random.default_rng(1).integers(-9, 9, (5, 3))
    widths, bases = (2, 4, 10), (10.0, 100.0, 3.0)
    turned = axial.rotate(x, where, base=bases, layout=layout, widths=widths)
    for axis, (width, base) in enumerate(zip(widths, bases, strict=True)):
        first = sum(widths[:axis])
        channels = np.arange(first, first + width)
        if layout == "half":
            channels = np.concatenate((channels[: width // 2] - first // 2, channels[: width // 2] - first // 2 + 8))
        alone = rope.rotate(
            x[:, channels],
            where[:, axis],
            inv_freq=base ** (-np.arange(width // 2) / (width // 2)),
            pairing="interleaved" if layout == "interleaved" else "half",
        )
        np.testing.assert_allclose(turned[:, channels], alone, atol=1e-14)


def test_a_ladder_across_heads_is_one_rope_over_their_pairs_if_the_coordinates_are_equal() -> None:
    """Three heads of four pairs, two axes: six rungs, each of them twice."""
    x = np.random.default_rng(0).standard_normal((1, 3, 5, 8))
    p = np.arange(5)
    turned = axial.rotate_across_heads(x, np.stack((p, p), axis=1))
    rates = np.repeat(10_000 ** (-np.arange(6) / 6), 2).reshape(3, 4)
    for head in range(3):
        alone = rope.rotate(x[:, head], p, inv_freq=rates[head])
        np.testing.assert_allclose(turned[:, head], alone, atol=1e-14)


def test_the_first_pairs_stand_still_where_axes_cannot_share_them() -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 8))
    turned = axial.rotate_across_heads(x, np.full((5, 3), 2.0))
    assert (turned != x).reshape(2, 5, 2, 4).any(axis=(1, 2)).tolist() == [[False, False, True, True], [True] * 4]

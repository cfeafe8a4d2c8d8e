"""The decomposed bias against Hugging Face's SAM and ViTDet, and timm's MViTv2."""

import numpy as np
import pytest
import torch
from tests import peers

from posenc.oracle.scores.decomposed import bias

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("window", [(4, 4), (3, 5)])
def test_it_is_that_of_vitdet(window: tuple[int, int]) -> None:
    vitdet = pytest.importorskip("transformers.models.vitdet.modeling_vitdet")
    places = window[0] * window[1]
    q, rows, columns = (RNG.normal(size=(n, 6)) for n in (2 * places, 2 * window[0] - 1, 2 * window[1] - 1))
    expected = vitdet.add_decomposed_relative_positions(
        torch.zeros(2, places, places, dtype=torch.float64),
        torch.from_numpy(q.reshape(2, places, 6)),
        torch.from_numpy(rows),
        torch.from_numpy(columns),
        window,
        window,
    )
    got = bias(q.reshape(1, 2, places, 6), np.arange(places), np.arange(places), rows=rows, columns=columns)
    np.testing.assert_allclose(got[0], expected.numpy(), rtol=0, atol=1e-14)


def test_with_a_class_token_it_is_that_of_mvitv2() -> None:
    mvit = peers.timm("models.mvitv2")
    q, rows, columns = RNG.normal(size=(1, 2, 13, 6)), RNG.normal(size=(5, 6)), RNG.normal(size=(7, 6))
    expected = mvit.cal_rel_pos_type(
        torch.zeros(1, 2, 13, 13, dtype=torch.float64), torch.from_numpy(q), True, [3, 4], [3, 4],
        torch.from_numpy(rows), torch.from_numpy(columns),
    )  # fmt: skip
    got = bias(q, np.arange(13), np.arange(13), rows=rows, columns=columns, prefix=1)
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-14)


def test_two_places_by_hand() -> None:
    """Place 1 is one to the right of place 0: from 1 to 0 the distance along x is 1, which is row 2 of three."""
    got = bias([[[[1.0], [10.0]]]], [0, 1], [0, 1], rows=[[0.5]], columns=[[1.0], [2.0], [4.0]])
    np.testing.assert_array_equal(got[0, 0], [[2.5, 1.5], [45.0, 25.0]])

"""The bias against Hugging Face's Swin."""

import numpy as np
import pytest
import torch

from posenc.oracle.scores.swin import bias


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("window", [(7, 7), (4, 6)])
def test_the_bias_is_that_of_swin(window: tuple[int, int]) -> None:
    swin = pytest.importorskip("transformers.models.swin.modeling_swin")
    theirs = swin.SwinRelativePositionBias(3, window)
    torch.nn.init.normal_(theirs.relative_position_bias_table)
    places = np.arange(window[0] * window[1])
    table = theirs.relative_position_bias_table.detach().numpy()
    np.testing.assert_array_equal(
        bias(places, places, table=table, window=window).astype(np.float32), theirs()[0].detach().numpy()
    )


def test_the_same_offset_has_the_same_number() -> None:
    table = np.random.default_rng(0).normal(size=(3 * 5, 1))
    b = bias(np.arange(6), np.arange(6), table=table, window=(2, 3))[0]
    assert b[0, 1] == b[1, 2] == b[3, 4]  # one to the left
    assert b[0, 3] == b[1, 4] == b[2, 5]  # one row up


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("window", [(4, 4), (3, 5)])
def test_with_a_class_token_the_bias_is_that_of_beit(window: tuple[int, int]) -> None:
    beit = pytest.importorskip("transformers.models.beit.modeling_beit")
    index = beit.BeitRelativePositionBias.generate_relative_position_index(window).numpy()
    table = np.random.default_rng(0).normal(size=((2 * window[0] - 1) * (2 * window[1] - 1) + 3, 2))
    places = np.arange(1 + window[0] * window[1])
    got = bias(places, places, table=table, window=window, prefix=1)
    np.testing.assert_array_equal(got, np.moveaxis(table[index], -1, 0))

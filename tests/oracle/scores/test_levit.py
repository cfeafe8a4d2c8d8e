"""The bias against timm's LeViT and Hugging Face's."""

import numpy as np
import pytest
import torch
from tests import peers

from posenc.oracle.scores.levit import bias


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_it_is_the_bias_of_timms_levit(grid: tuple[int, int]) -> None:
    theirs = peers.timm("models.levit").Attention(16, 8, num_heads=2, resolution=grid)
    theirs.eval()  # which gives nothing back
    torch.nn.init.normal_(theirs.attention_biases)
    places = np.arange(grid[0] * grid[1])
    got = bias(places, places, table=theirs.attention_biases.detach().numpy(), grid=grid)
    np.testing.assert_array_equal(got.astype(np.float32), theirs.get_attention_biases("cpu").detach().numpy())


def test_it_is_the_bias_of_transformers_levit() -> None:
    levit = pytest.importorskip("transformers.models.levit.modeling_levit")
    theirs = levit.LevitAttention(16, 8, 2, 2, 4)
    theirs.eval()
    theirs.attention_bias_idxs.copy_(torch.tensor(theirs.indices).view(16, 16))
    torch.nn.init.normal_(theirs.attention_biases)
    got = bias(np.arange(16), np.arange(16), table=theirs.attention_biases.detach().numpy(), grid=(4, 4))
    np.testing.assert_array_equal(got.astype(np.float32), theirs.get_attention_biases("cpu").detach().numpy())


def test_a_mirror_changes_nothing() -> None:
    b = bias(np.arange(6), np.arange(6), table=np.arange(12.0).reshape(2, 6), grid=(2, 3))
    assert b[0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert b[0, 2].tolist() == [2, 1, 0, 5, 4, 3]
    np.testing.assert_array_equal(b, b.swapaxes(-1, -2))

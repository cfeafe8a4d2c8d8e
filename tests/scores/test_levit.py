"""LeViT: the same output with its bias replaced, and queries at every second place."""

from typing import Any

import numpy as np
import pytest
import torch
from tests import peers
from torch import Tensor

import posenc
from posenc.oracle.scores import levit as oracle


def test_timms_levit_gives_the_same_with_its_biases_replaced() -> None:
    levit = peers.timm("models.levit")
    torch.manual_seed(0)
    model = levit.Levit(
        img_size=64, embed_dim=(32, 32), key_dim=8, depth=(1, 1), num_heads=(2, 2), attn_ratio=2, mlp_ratio=2,
        num_classes=3,
    ).eval()  # fmt: skip
    layers = [m for m in model.modules() if hasattr(m, "attention_biases")]
    assert len(layers) >= 3
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for layer in layers:
            torch.nn.init.normal_(layer.attention_biases)
            layer.attention_bias_cache.clear()
        expected = model(image)
        for layer in layers:
            heads, places = layer.attention_biases.shape
            side = int(places**0.5)
            encoding = posenc.scores.LeViTBias(heads, window=(side, side))
            encoding.table.copy_(layer.attention_biases)
            keys = torch.arange(places)
            queries = len(layer.attention_bias_idxs)
            at = keys if queries == places else keys.view(side, side)[::2, ::2].flatten()
            layer.get_attention_biases = lambda device, e=encoding, at=at, keys=keys: e.bias(at, keys)
        got = model(image)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("window", [(3, 5), (5, 2)])
def test_a_grid_that_is_no_square_has_the_oracles_bias(window: tuple[int, int]) -> None:
    encoding = posenc.scores.LeViTBias(num_heads=2, window=window)
    torch.nn.init.normal_(encoding.table)
    places = torch.arange(window[0] * window[1])
    expected = oracle.bias(places.numpy(), places[:4].numpy(), table=encoding.table.detach().numpy(), grid=window)
    np.testing.assert_allclose(encoding.bias(places, places[:4]).detach().numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize("positions", [torch.tensor([196]), torch.tensor([0.5])])
def test_a_place_that_is_not_in_the_grid_is_refused(positions: Tensor) -> None:
    with pytest.raises(ValueError, match="LeViTBias: got"):
        posenc.scores.LeViTBias(num_heads=2).bias(positions, positions)


@pytest.mark.parametrize(("heads", "window"), [(0, (4, 4)), (2, (4,)), (2, (4, 0))])
def test_a_grid_without_two_sides_is_refused(heads: int, window: Any) -> None:
    with pytest.raises(ValueError, match="LeViTBias: got num_heads"):
        posenc.scores.LeViTBias(heads, window=window)


@pytest.mark.parametrize("side", [4, 14, 20])
def test_another_window_is_read_as_timm_does(side: int) -> None:
    timm = peers.timm("layers.pos_embed_rel")
    bias = posenc.scores.LeViTBias(num_heads=3, window=(7, 7))
    torch.nn.init.normal_(bias.table)
    theirs = timm.resize_rel_pos_bias_table_levit(bias.table.detach().T, (side * side, 3)).T
    assert torch.equal(bias.resized(side, side).table.detach(), theirs)
    assert torch.equal(bias.resized(7, 7).table, bias.table)
    assert bias.resized(5, 9).window == (5, 9)

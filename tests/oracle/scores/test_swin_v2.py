"""The bias against Hugging Face's Swin v2, at its window and at another."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from posenc.oracle.scores.swin_v2 import bias


@pytest.mark.parametrize(("window", "trained"), [((8, 8), (8, 8)), ((6, 6), (4, 4))])
def test_the_bias_is_that_of_swin_v2(window: tuple[int, int], trained: tuple[int, int]) -> None:
    swin_v2 = pytest.importorskip("transformers.models.swinv2.modeling_swinv2")
    config = SimpleNamespace(qkv_bias=True, attention_probs_dropout_prob=0.0)
    given = [0, 0] if trained == window else list(trained)
    module = swin_v2.Swinv2SelfAttention(config, dim=12, num_heads=3, window_size=window, pretrained_window_size=given)
    table = 16 * torch.sigmoid(module.continuous_position_bias_mlp(module.relative_coords_table).view(-1, 3))
    theirs = table[module.relative_position_index.view(-1)].view(window[0] * window[1], window[0] * window[1], 3)
    mlp = module.continuous_position_bias_mlp
    places = np.arange(window[0] * window[1])
    ours = bias(
        places,
        places,
        window=window,
        trained_window=trained,
        hidden_weight=mlp[0].weight.detach().numpy(),
        hidden_bias=mlp[0].bias.detach().numpy(),
        out_weight=mlp[2].weight.detach().numpy(),
    )
    np.testing.assert_allclose(ours, theirs.permute(2, 0, 1).detach().numpy(), rtol=0, atol=2e-5)

"""Relative logits against the modules of transformers, one with each form."""

import numpy as np
import pytest
import torch

from posenc.oracle.scores.inkling import bias, mixture


def test_the_bias_is_that_of_inkling() -> None:
    inkling = pytest.importorskip("transformers.models.inkling.modeling_inkling")
    module = inkling.InklingRelativeLogits(3, 5).double()
    torch.nn.init.normal_(module.proj)
    x, weight = torch.randn(2, 8, 6, dtype=torch.float64), torch.randn(4 * 3, 6, dtype=torch.float64)
    places = torch.arange(8)
    with torch.no_grad():
        theirs = module((x @ weight.T).view(2, 8, 4, 3), places, places)
    r = mixture(x.numpy(), weight=weight.numpy(), num_heads=4)
    ours = bias(r, places, places, profiles=module.proj.detach().numpy())
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-12)
    assert np.count_nonzero(ours[0, 0]) == 8 * 5 - 10  # a band of five distances, which begins at the diagonal


def test_the_bias_is_that_of_inkling_2() -> None:
    inkling2 = pytest.importorskip("transformers.models.inkling2.modeling_inkling2")
    config = inkling2.Inkling2TextConfig(hidden_size=6, d_rel=3, rel_l2_clip_threshold=0.7)
    module = inkling2.Inkling2RelativePositionBias(config, 4, 5, log_scaling=False).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    x, places = torch.randn(2, 8, 6, dtype=torch.float64), torch.arange(8)
    with torch.no_grad():
        theirs = module(x, places[:, None] - places, places[None])
        weight, scale, profiles = (p.numpy() for p in (module.linear.weight, module.norm.scale, module.proj))
    r = mixture(x.numpy(), weight=weight, num_heads=4, scale=scale, clip=0.7)
    assert (np.linalg.norm(r, axis=-1) > 0.699).mean() > 0.5  # most are clipped: the test sees it
    # Their clipping is computed in float32.
    np.testing.assert_allclose(bias(r, places, places, profiles=profiles), theirs.numpy(), rtol=0, atol=1e-5)

"""Keys and values against Hugging Face's VITS, which has Shaw's positions in its text encoder, and by hand."""

import numpy as np
import pytest
import torch

from posenc.oracle.dot_product_attention import attention
from posenc.oracle.scores.shaw import bias, values


def test_the_output_is_that_of_the_attention_of_vits() -> None:
    vits = pytest.importorskip("transformers.models.vits.modeling_vits")
    config = vits.VitsConfig(hidden_size=12, num_attention_heads=2, window_size=3, attention_dropout=0.0)
    module = vits.VitsAttention(config).double().eval()
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    with torch.no_grad():
        theirs, _ = module(x)
        q, k, v = (
            projection(x).view(2, 9, 2, 6).transpose(1, 2).numpy()
            for projection in (module.q_proj, module.k_proj, module.v_proj)
        )
        keys, vals = module.emb_rel_k[0].numpy(), module.emb_rel_v[0].numpy()
        p = np.arange(9)
        added = bias(q, p, p, table=keys, scale=6**-0.5, beyond="nothing")
        y = attention(q, k, v, bias=added)
        # The weights themselves: values that are unit vectors, one for each key.
        weights = attention(q, k, np.broadcast_to(np.eye(9), (2, 2, 9, 9)), bias=added)
        y = y + values(weights, p, p, table=vals, beyond="nothing")
        ours = module.out_proj(torch.from_numpy(y.swapaxes(1, 2).reshape(2, 9, 12).copy()))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=1e-12)


def test_far_keys_have_the_last_row() -> None:
    table = np.arange(3.0)[:, None]  # behind, here, ahead
    b = bias(np.ones((1, 1, 5, 1)), np.arange(5), np.arange(5), table=table, scale=2.0)
    np.testing.assert_array_equal(b[0, 0, 2], [0, 0, 2, 4, 4])
    b = bias(np.ones((1, 1, 5, 1)), np.arange(5), np.arange(5), table=table + 1, scale=1.0, beyond="nothing")
    np.testing.assert_array_equal(b[0, 0, 2], [0, 1, 2, 3, 0])

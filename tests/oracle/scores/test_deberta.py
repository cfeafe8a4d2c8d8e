"""Rows and scores against Hugging Face's DeBERTa v2."""

import numpy as np
import pytest
import torch

from posenc.oracle.dot_product_attention import attention
from posenc.oracle.scores.deberta import bias, bucket


@pytest.mark.parametrize(("span", "max_distance"), [(256, 512), (32, 128), (8, 64)])
def test_log_buckets_are_those_of_deberta_v2(span: int, max_distance: int) -> None:
    deberta = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    n = torch.arange(1 - max_distance, max_distance)
    theirs = deberta.make_log_bucket_position(n, span, max_distance).long()
    expected = (theirs + span).clamp(0, 2 * span - 1).numpy()
    np.testing.assert_array_equal(bucket(n.numpy(), span=span, max_distance=max_distance), expected)


@pytest.mark.parametrize("buckets", [-1, 4])
def test_the_output_is_that_of_the_attention_of_deberta_v2(buckets: int) -> None:
    deberta = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    config = deberta.DebertaV2Config(
        hidden_size=12, num_attention_heads=2, relative_attention=True, position_buckets=buckets,
        max_relative_positions=9, pos_att_type=["p2c", "c2p"], attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0, share_att_key=False,
    )  # fmt: skip
    module = deberta.DisentangledSelfAttention(config).double().eval()
    span = 9 if buckets < 0 else buckets
    x, table = torch.randn(1, 11, 12, dtype=torch.float64), torch.randn(2 * span, 12, dtype=torch.float64)
    with torch.no_grad():
        theirs, _ = module(x, torch.ones(1, 1, 11, 11), rel_embeddings=table)
        q, k, v = (
            projection(x).view(1, 11, 2, 6).transpose(1, 2).numpy()
            for projection in (module.query_proj, module.key_proj, module.value_proj)
        )
        rows = [
            projection(table).view(2 * span, 2, 6).transpose(0, 1).numpy()
            for projection in (module.pos_query_proj, module.pos_key_proj)
        ]
    p, scale = np.arange(11), 18**-0.5
    far = None if buckets < 0 else 9
    added = bias(q, k, p, p, q_table=rows[0], k_table=rows[1], scale=scale, max_distance=far)
    ours = attention(q, k, v, bias=added, scale=scale).swapaxes(1, 2).reshape(1, 11, 12)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-6)  # their scale is a float32

"""The decomposed bias inside SAM and MViTv2, whose outputs stay what they were."""

from typing import Any

import pytest
import torch
from tests import peers
from torch import Tensor

import posenc
from posenc.scores import DecomposedBias


def filled(rows: Tensor, columns: Tensor, heads: int, *, prefix: int = 0) -> DecomposedBias:
    window = ((len(rows) + 1) // 2, (len(columns) + 1) // 2)
    encoding = DecomposedBias(heads, rows.shape[1], window=window, prefix=prefix).to(rows)
    with torch.no_grad():
        encoding.rows.copy_(rows)
        encoding.columns.copy_(columns)
    return encoding


def test_attention_with_it_is_the_attention_of_sam() -> None:
    sam = pytest.importorskip("transformers.models.sam.modeling_sam")
    from transformers import SamVisionConfig

    config = SamVisionConfig(hidden_size=24, num_attention_heads=3, image_size=48, patch_size=8)
    theirs = sam.SamVisionAttention(config, window_size=6).double().eval()
    for table in (theirs.rel_pos_h, theirs.rel_pos_w):
        torch.nn.init.normal_(table)
    x = torch.randn(2, 6, 6, 24, dtype=torch.float64)
    encoding = filled(theirs.rel_pos_h.detach(), theirs.rel_pos_w.detach(), 3)
    with torch.no_grad():
        expected = theirs(x)[0]
        q, k, v = theirs.qkv(x).reshape(2, 36, 3, 3, 8).permute(2, 0, 3, 1, 4)
        for implementation in ("auto", "dense", "blocks"):
            y = posenc.attention(q, k, v, encoding, implementation=implementation)  # type: ignore[arg-type]
            got = theirs.proj(y.transpose(1, 2).reshape(2, 6, 6, 24))
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)  # whose softmax is in float32


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("token", [False, True])
def test_pooled_keys_of_mvitv2_stand_at_the_last_of_their_places(stride: int, token: bool) -> None:
    mvit = peers.timm("models.mvitv2")
    prefix, side, pooled = int(token), 8, 8 // stride
    q = torch.randn(2, 3, prefix + side * side, 4, dtype=torch.float64)
    rows, columns = torch.randn(2, 2 * side - 1, 4, dtype=torch.float64)
    zeros = torch.zeros(2, 3, q.shape[2], prefix + pooled * pooled, dtype=torch.float64)
    expected = mvit.cal_rel_pos_type(zeros.clone(), q, token, [side, side], [pooled, pooled], rows, columns)
    encoding = filled(rows, columns, 3, prefix=prefix)
    places = torch.arange(side * side).view(side, side)[stride - 1 :: stride, stride - 1 :: stride].flatten() + prefix
    keys = torch.cat((torch.arange(prefix), places))
    got = encoding.on_scores(zeros, None, keys, q=q, k=torch.zeros(2, 3, len(keys), 4, dtype=torch.float64))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_a_resized_table_is_that_of_vitdet() -> None:
    vitdet = pytest.importorskip("transformers.models.vitdet.modeling_vitdet")
    encoding = filled(torch.randn(27, 8), torch.randn(27, 8), 2)
    other = encoding.resized(20, 14)
    assert other.window == (20, 14)
    whole = torch.arange(20)
    expected = vitdet.get_rel_pos(20, 20, encoding.rows)
    assert torch.equal(other.rows[whole[:, None] - whole + 19], expected)
    assert torch.equal(other.columns, encoding.columns)


def test_nothing_is_added_where_a_class_token_is() -> None:
    encoding = filled(torch.randn(3, 4), torch.randn(5, 4), 2, prefix=2)
    q = torch.randn(1, 2, 8, 4)
    added = encoding.on_scores(torch.zeros(1, 2, 8, 8), None, None, q=q, k=q)
    assert not added[..., :2, :].any()
    assert not added[..., :2].any()
    assert added[..., 2:, 2:].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 2, "head_dim": 0}, "got head_dim 0, expected at least 1"),
        ({"num_heads": 2, "head_dim": 4, "prefix": -1}, "got prefix -1, expected 0 or above"),
        ({"num_heads": 2, "head_dim": 4, "window": (7,)}, r"got num_heads 2 and window \(7,\)"),
    ],
)
def test_sizes_that_make_no_table_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"DecomposedBias: {message}"):
        DecomposedBias(**options)


def test_queries_of_another_width_and_places_outside_are_refused() -> None:
    encoding = DecomposedBias(2, 4, window=(2, 2), prefix=1)
    with pytest.raises(ValueError, match="q has head_dim 8 but this encoding was built for head_dim 4"):
        posenc.attention(*torch.zeros(3, 1, 2, 5, 8), encoding)
    with pytest.raises(ValueError, match="got position 5, expected below 5: a window of 2 x 2 patches after 1"):
        posenc.attention(*torch.zeros(3, 1, 2, 6, 4), encoding)

"""T5: buckets on every device alike, and T5 itself with its attention replaced."""

import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import posenc


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (16, 64), (64, 1000), (32, 10**6)])
@pytest.mark.parametrize("direction", ["causal", "both"])
def test_buckets_are_those_of_t5(num_buckets: int, max_distance: int, direction: str) -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    encoding = posenc.T5Bias(num_heads=1, num_buckets=num_buckets, max_distance=max_distance, direction=direction)
    n = torch.arange(3000)
    for i, j in ((n, n[:1]), (n[:1], n)):
        theirs = t5.T5Attention._relative_position_bucket(
            j[None, :] - i[:, None], bidirectional=direction == "both", num_buckets=num_buckets,
            max_distance=max_distance,
        )  # fmt: skip
        assert torch.equal(encoding.buckets(i, j), theirs)


@given(i=st.integers(0, 2**20), j=st.integers(0, 2**20), both=st.booleans())
def test_every_distance_has_a_bucket(i: int, j: int, both: bool) -> None:
    encoding = posenc.T5Bias(num_heads=1, direction="both" if both else "causal")
    found = int(encoding.buckets(torch.tensor([i]), torch.tensor([j])))
    assert 0 <= found < 32
    assert (found >= 16) == (j > i) if both else found == 0 or j < i


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("decoder", [False, True])
def test_t5_gives_the_same_with_its_attention_replaced(decoder: bool) -> None:
    """Self-attention of every layer goes through posenc, whose one object all layers share."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.t5.modeling_t5 import T5Attention, T5Stack

    torch.manual_seed(0)
    config = transformers.T5Config(
        d_model=32, d_kv=8, num_heads=4, num_layers=2, d_ff=32, vocab_size=50, is_decoder=decoder, use_cache=False,
        relative_attention_num_buckets=8, relative_attention_max_distance=20,
    )  # fmt: skip
    model = T5Stack(config).double().eval()
    model.embed_tokens = torch.nn.Embedding(50, 32).double()
    ids = torch.randint(50, (2, 30))
    with torch.no_grad():
        expected = model(ids).last_hidden_state
        encoding = posenc.T5Bias(
            num_heads=4, num_buckets=8, max_distance=20, direction="causal" if decoder else "both", scale="none"
        ).double()
        encoding.table.copy_(model.block[0].layer[0].SelfAttention.relative_attention_bias.weight)

        def forward(self: T5Attention, hidden_states: Tensor, **_: object) -> tuple[Tensor, None, None]:
            q, k, v = (p(hidden_states).unflatten(-1, (4, 8)).transpose(1, 2) for p in (self.q, self.k, self.v))
            y = posenc.attention(q, k, v, encoding, causal=decoder, implementation="blocks")
            return self.o(y.transpose(1, 2).flatten(2)), None, None

        with pytest.MonkeyPatch.context() as patch:
            if decoder:
                pass  # no encoder states are given, so cross-attention is skipped
            patch.setattr(T5Attention, "forward", forward)
            got = model(ids).last_hidden_state
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_the_scale_of_t5_is_one_and_is_honoured() -> None:
    q = torch.randn(1, 2, 4, 16)
    plain, t5 = posenc.T5Bias(num_heads=2), posenc.T5Bias(num_heads=2, scale="none")
    t5.load_state_dict(plain.state_dict())
    assert torch.equal(
        posenc.attention(q, q, q, t5, causal=True), posenc.attention(q, q, q, plain, scale=1.0, causal=True)
    )
    assert not torch.equal(posenc.attention(q, q, q, t5, causal=True), posenc.attention(q, q, q, plain, causal=True))
    assert posenc.Compose(posenc.RoPE(head_dim=16), t5).softmax_scale(16) == 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_buckets": 31}, 'expected num_buckets to be a multiple of 2 for direction="causal"'),
        ({"num_buckets": 6, "direction": "both"}, 'expected num_buckets to be a multiple of 4 for direction="both"'),
        ({"num_buckets": 2, "direction": "both"}, "multiple of 4"),
        ({"max_distance": 16}, "max_distance above 16, the number of distances that have their own bucket"),
        ({"scale": "one"}, "got direction 'causal' and scale 'one'"),
    ],
)
def test_options_that_make_no_buckets_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"T5Bias: .*{re.escape(said)}"):
        posenc.T5Bias(num_heads=2, **options)


@pytest.mark.parametrize(
    "encoding",
    [posenc.T5Bias(num_heads=2), posenc.T5Bias(num_heads=2, direction="both"), posenc.scores.DeBERTa(16, 2)],
    ids=["causal", "both", "deberta"],
)
def test_positions_that_one_row_gives_to_all_are_taken_without_a_warning(encoding: posenc.Encoding) -> None:
    at, q = torch.arange(6).expand(3, 6), torch.randn(3, 2, 6, 8)
    y = posenc.attention(q, q, q, encoding, q_positions=at, k_positions=at, causal=True)  # a warning is an error here
    torch.testing.assert_close(y, posenc.attention(q, q, q, encoding, causal=True))

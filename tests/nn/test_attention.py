"""The layer against PyTorch's own, against Hugging Face's blocks, and against attention called by hand."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import posenc
from posenc import catalogue
from posenc.nn import Attention, Block, Cache, SlidingCache, StaticCache, Transformer

DIM, HEADS = 32, 4


def inputs(batch: int = 2, seq: int = 7, dim: int = DIM) -> Tensor:
    return torch.randn(batch, seq, dim, generator=torch.Generator().manual_seed(seq * dim + batch))


def real(*lengths: int, seq: int, side: str) -> Tensor:
    count = torch.arange(seq)
    rows = [count < n if side == "right" else count >= seq - n for n in lengths]
    return torch.stack(rows)


# What others made


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_multihead_attention_whose_weights_it_took(causal: bool, bias: bool) -> None:
    theirs = nn.MultiheadAttention(DIM, HEADS, bias=bias, batch_first=True).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours, x = Attention.from_multihead(theirs, causal=causal), inputs()
    mask = ~torch.ones(7, 7, dtype=torch.bool).tril() if causal else None
    torch.testing.assert_close(ours(x), theirs(x, x, x, attn_mask=mask)[0])
    padded = real(7, 4, seq=7, side="right")
    torch.testing.assert_close(
        ours(x, attention_mask=padded), theirs(x, x, x, attn_mask=mask, key_padding_mask=~padded)[0]
    )


def test_it_is_the_cross_attention_whose_weights_it_took() -> None:
    theirs = nn.MultiheadAttention(DIM, HEADS, kdim=20, vdim=20, batch_first=False).eval()
    ours, x, context = Attention.from_multihead(theirs), inputs(), inputs(seq=5, dim=20)
    expected = theirs(x.transpose(0, 1), context.transpose(0, 1), context.transpose(0, 1))[0].transpose(0, 1)
    torch.testing.assert_close(ours(x, context), expected)


@pytest.mark.parametrize("option", ["add_bias_kv", "add_zero_attn"])
def test_what_has_no_equal_here_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match="expected bias_k=False, add_zero_attn=False"):
        Attention.from_multihead(nn.MultiheadAttention(DIM, HEADS, **{option: True}))


def test_a_block_takes_the_weights_of_llama_and_a_stack_decodes_as_it_does() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=DIM, intermediate_size=48, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=2, rope_theta=500.0,
    )  # fmt: skip
    theirs = transformers.LlamaModel(config).eval()
    rope = posenc.RoPE(head_dim=DIM // HEADS, frequencies=posenc.Geometric(base=500.0))
    ours = Transformer(DIM, HEADS, 2, rope, num_kv_heads=2, causal=True, mlp_dim=48, eps=config.rms_norm_eps).eval()
    ours.load_state_dict({n: w for n, w in theirs.state_dict().items() if not n.startswith("embed_tokens")})
    tokens = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = real(9, 6, seq=9, side="left")
    with torch.no_grad():
        embedded = theirs.embed_tokens(tokens)
        expected = theirs(tokens, attention_mask=mask.long()).last_hidden_state
        cache = ours.new_cache()
        steps = [ours(embedded[:, :5], attention_mask=mask[:, :5], cache=cache)]
        steps += [ours(embedded[:, t : t + 1], cache=cache) for t in range(5, 9)]
        for got in (ours(embedded, attention_mask=mask), torch.cat(steps, dim=1)):
            torch.testing.assert_close(got[mask], expected[mask], atol=2e-6, rtol=1e-5)


def test_an_attention_takes_the_weights_of_qwen_3_with_its_norms() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3RotaryEmbedding

    config = transformers.Qwen3Config(
        hidden_size=DIM, num_attention_heads=HEADS, num_key_value_heads=2, head_dim=16, attn_implementation="eager"
    )
    theirs = Qwen3Attention(config, layer_idx=0).eval()
    nn.init.uniform_(theirs.q_norm.weight, 0.5, 2.0)
    ours = Attention(DIM, HEADS, posenc.RoPE(head_dim=16), num_kv_heads=2, head_dim=16, causal=True, qk_norm="rms")
    ours.load_state_dict(theirs.state_dict())
    x = inputs()
    cos_sin = Qwen3RotaryEmbedding(config)(x, torch.arange(7)[None])
    hidden = torch.full((7, 7), -torch.inf).triu(1)[None, None]
    expected, _ = theirs(x, position_embeddings=cos_sin, attention_mask=hidden)
    torch.testing.assert_close(ours(x), expected)


def test_an_attention_takes_the_weights_of_gpt_oss_with_its_sinks() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention

    config = transformers.GptOssConfig(
        hidden_size=DIM, num_attention_heads=HEADS, num_key_value_heads=2, head_dim=8, attn_implementation="eager",
        layer_types=["full_attention"], num_hidden_layers=1,
    )  # fmt: skip
    theirs = GptOssAttention(config, layer_idx=0).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    ours = Attention(DIM, HEADS, num_kv_heads=2, head_dim=8, causal=True, bias=True, sinks="learned")
    ours.load_state_dict(theirs.state_dict())
    x, hidden = inputs(), torch.full((7, 7), -torch.inf).triu(1)[None, None]
    still = torch.ones(1, 7, 4), torch.zeros(1, 7, 4)  # no rotation
    torch.testing.assert_close(ours(x), theirs(x, position_embeddings=still, attention_mask=hidden)[0])


# Cross-attention


@pytest.mark.parametrize("name", ["none", "rope", "alibi", "t5", "shaw"])
def test_a_context_is_projected_once_and_queries_go_on_from_where_they_were(name: str) -> None:
    options = {"direction": "both"} if name == "t5" else {}
    encoding = posenc.make(name, dim=DIM, num_heads=HEADS, **options)
    layer, x, context = Attention(DIM, HEADS, encoding, num_kv_heads=2).eval(), inputs(), inputs(seq=5)
    mask = real(5, 3, seq=5, side="left")
    with torch.no_grad():
        whole = layer(x, context, attention_mask=mask)
        cache = layer.new_cache()
        steps = [layer(x[:, :2], context, attention_mask=mask, cache=cache)]
        layer.k_proj.weight.zero_()  # not looked at again
        steps += [layer(x[:, t : t + 1], context, cache=cache) for t in range(2, 7)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)
    with pytest.raises(ValueError, match="expected the same context"):
        layer(x[:, :1], context[:, :4], cache=cache)


def test_padding_of_a_context_changes_nothing() -> None:
    layer = Attention(DIM, HEADS, posenc.RoPE(head_dim=8))
    x, context, mask = inputs(), inputs(seq=5), real(5, 3, seq=5, side="left")
    torch.testing.assert_close(
        layer(x, context, attention_mask=mask)[1:], layer(x[1:], context[1:, 2:])
    )  # fmt: skip


def test_an_encoding_whose_state_runs_along_one_sequence_is_refused() -> None:
    layer = Attention(DIM, HEADS, posenc.Forgetting(dim=DIM, num_heads=HEADS))
    with pytest.raises(ValueError, match="Forgetting, whose state runs along one sequence"):
        layer(inputs(), inputs(seq=5))


# Caches


def test_padding_on_the_right_may_be_decoded_after() -> None:
    layer = Attention(DIM, HEADS, posenc.RoPE(head_dim=8), causal=True)
    x, new, mask = inputs(), inputs(seq=1), real(7, 4, seq=7, side="right")
    cache = layer.new_cache()
    layer(x, attention_mask=mask, cache=cache)
    got = layer(new, cache=cache)[1:]
    torch.testing.assert_close(got, layer(torch.cat((x[1:, :4], new[1:]), dim=1))[:, -1:])
    assert cache.tokens.next_position.tolist() == [[8], [5]]


def test_padding_within_a_state_is_refused() -> None:
    layer = Attention(DIM, HEADS, posenc.Forgetting(dim=DIM, num_heads=HEADS), causal=True)
    with pytest.raises(ValueError, match="expected padding on the left only"):
        layer(inputs(), attention_mask=real(7, 4, seq=7, side="right"), cache=layer.new_cache())


def test_padding_after_a_token_is_taken_where_the_state_is_one_of_each_token() -> None:
    encoding = posenc.scores.InklingBias(DIM, HEADS, rank=3, extent=4)
    layer, x, new = Attention(DIM, HEADS, encoding, causal=True).eval(), inputs(seq=7), inputs(seq=1)
    cache = layer.new_cache()
    with torch.no_grad():
        encoding.profiles.normal_()
        layer(x, attention_mask=real(7, 4, seq=7, side="right"), cache=cache)
        got = layer(new, cache=cache)[1:]
        torch.testing.assert_close(got, layer(torch.cat((x[1:, :4], new[1:]), dim=1))[:, -1:])


def test_coordinates_of_an_image_are_followed_by_text() -> None:
    encoding = posenc.MRoPE(head_dim=8, sections=(2, 1, 1))
    layer, x = Attention(DIM, HEADS, encoding, causal=True), inputs(seq=8)
    image = posenc.positions.grid(1, 2, 2, prefix=1)
    every = torch.cat((image, torch.tensor([2, 3, 4])[:, None].expand(1, 3, 3)), dim=1)
    cache = layer.new_cache()
    parts = [layer(x[:, :5], positions=image, cache=cache), layer(x[:, 5:], cache=cache)]
    torch.testing.assert_close(torch.cat(parts, dim=1), layer(x, positions=every))


def test_a_static_cache_refuses_what_does_not_fit_before_it_writes() -> None:
    layer = Attention(DIM, HEADS, causal=True).requires_grad_(False)
    cache = layer.new_cache(8)
    assert isinstance(cache, StaticCache)
    layer(inputs(), cache=cache)
    before = cache.keys.clone()
    with pytest.raises(ValueError, match="got 9 tokens, expected at most max_length 8"):
        layer(inputs(seq=2), cache=cache)
    assert torch.equal(cache.keys, before)
    address = cache.keys.data_ptr()
    layer(inputs(seq=1), cache=cache)
    assert (cache.keys.data_ptr(), cache.length) == (address, 8)
    with pytest.raises(ValueError, match="require a gradient"):
        Attention(DIM, HEADS, causal=True)(inputs(), cache=StaticCache(8))


def test_layers_choose_their_cache() -> None:
    assert type(Attention(DIM, HEADS, causal=True).new_cache()) is Cache
    assert isinstance(Attention(DIM, HEADS, causal=True, window=3).new_cache(), SlidingCache)


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "got dim 32 for 5 heads"),
        ({"num_kv_heads": 3}, "got 4 query heads for 3 key heads"),
        ({"num_kv_heads": 0}, "got num_kv_heads 0, expected at least 1"),
        ({"window": 0}, "got window 0"),
        ({"dropout": 1.0}, "got dropout 1.0"),
        ({"qk_norm": "l2"}, "got qk_norm 'l2'"),
        ({"sinks": "yes"}, "got sinks 'yes'"),
    ],
)
def test_sizes_and_options_are_checked(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Attention(DIM, **{"num_heads": HEADS, **options})


def test_the_other_order_of_dimensions_is_refused() -> None:
    layer = Attention(DIM, HEADS, posenc.ALiBi(num_heads=HEADS), causal=True)
    with pytest.raises(ValueError, match="projects its own heads"):
        layer(torch.zeros(2, 7, HEADS, 8))
    with pytest.raises(ValueError, match="transpose the last two"):
        layer(torch.zeros(2, DIM, 7))
    with pytest.raises(ValueError, match="unsqueeze the batch"):
        layer(torch.zeros(7, DIM))
    seq_first = inputs().transpose(0, 1)
    with pytest.raises(ValueError, match="transpose the first two dimensions"):
        layer(seq_first, attention_mask=torch.ones(2, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="transpose its first two dimensions"):
        layer(seq_first, positions=torch.arange(7))


def test_arguments_that_mean_nothing_together_are_refused() -> None:
    x, both = inputs(), Attention(DIM, HEADS)
    with pytest.raises(ValueError, match="not causal"):
        both(x, cache=Cache())
    with pytest.raises(ValueError, match="cache of the last 2 tokens for a layer with window None"):
        Attention(DIM, HEADS, causal=True)(x, cache=SlidingCache(2))
    with pytest.raises(ValueError, match="context with causal=True"):
        Attention(DIM, HEADS, causal=True)(x, x)
    with pytest.raises(ValueError, match="context_positions without a context"):
        both(x, context_positions=3)
    with pytest.raises(ValueError, match="expected one of 20 channels"):
        Attention(DIM, HEADS, context_dim=20)(x)
    with pytest.raises(ValueError, match=r"attention_mask torch\.float32"):
        both(x, attention_mask=torch.ones(2, 7))
    with pytest.raises(ValueError, match="built with cross-attention"):
        Block(DIM, HEADS, cross="attention")(x)
    layer, cache = Attention(DIM, HEADS, causal=True), Cache()
    layer(x, cache=cache)
    with pytest.raises(ValueError, match="documents for tokens that follow cached tokens without"):
        layer(x[:, :1], documents=torch.tensor([1]), cache=cache)


# Together


def test_a_users_mask_and_padding_hold_together() -> None:
    layer, x = Attention(DIM, HEADS), inputs()
    mine = torch.ones(7, 7, dtype=torch.bool).triu()
    padded = real(7, 4, seq=7, side="left")
    both = layer(x, mask=mine & padded[:, None, None, :])
    torch.testing.assert_close(layer(x, mask=mine, attention_mask=padded), both)
    added = torch.zeros(7, 7).masked_fill(~mine, -torch.inf)
    torch.testing.assert_close(layer(x, mask=added, attention_mask=padded), both)


def test_dropout_acts_in_training_alone() -> None:
    layer, x = Attention(DIM, HEADS, dropout=0.5), inputs()
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_documents_and_padding_in_one_row() -> None:
    layer, x = Attention(DIM, HEADS, posenc.make("rope", dim=DIM, num_heads=HEADS), causal=True), inputs(batch=1)
    documents = torch.tensor([[1, 1, 1, 2, 2, 2, 2]])
    mask = torch.tensor([[0, 1, 1, 1, 1, 1, 0]])
    got = layer(x, documents=documents, attention_mask=mask)
    torch.testing.assert_close(got[:, 1:3], layer(x[:, 1:3]))
    torch.testing.assert_close(got[:, 3:6], layer(x[:, 3:6]))


@pytest.mark.parametrize(
    "name", ["rope", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sinusoidal", "alibi", "forgetting"))]
)
def test_a_stack_compiles_in_one_graph(name: str) -> None:
    model = Transformer(DIM, HEADS, 2, posenc.make(name, dim=DIM, num_heads=HEADS), causal=True)
    x, mask = inputs(), real(7, 4, seq=7, side="left")
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    torch.testing.assert_close(compiled(x, attention_mask=mask)[mask], model(x, attention_mask=mask)[mask])


def test_each_layer_may_have_its_own_encoding() -> None:
    rope, table = posenc.RoPE(head_dim=8), posenc.Sinusoidal(dim=DIM)
    layers = posenc.PerLayer({"a": rope, "b": table}, pattern=["a", "b"], num_layers=2)
    model, x = Transformer(DIM, HEADS, 2, layers), inputs()
    by_hand = table.on_embeddings(x)
    for block in model.layers:
        by_hand = block(by_hand)
    torch.testing.assert_close(model(x), model.norm(by_hand))
    with pytest.raises(ValueError, match="an encoding for 2 layers, expected 3"):
        Transformer(DIM, HEADS, 3, layers)


def test_hooks_and_attention_called_by_hand_refuse_the_other_order_where_it_shows() -> None:
    q, k = torch.zeros(2, 7, HEADS, 8), torch.zeros(2, 7, 2, 8)  # (batch, seq, heads, head_dim)
    with pytest.raises(ValueError, match=r"q of 4 tokens and k of 2 without k_positions, .* build it with seq_dim=-3"):
        posenc.RoPE(head_dim=8).on_queries_keys(q, k)
    with pytest.raises(ValueError, match=r"got 4 queries for 2 keys with causal=True, .* transpose"):
        posenc.attention(q, k, k, causal=True)
    with pytest.raises(ValueError, match=r"q has 7 heads but ALiBi .* transpose\(1, 2\)"):
        posenc.attention(q, q, q, posenc.ALiBi(num_heads=HEADS))


def test_the_page_on_your_own_model_is_true() -> None:
    pytest.importorskip("transformers")
    page = Path(__file__).parents[2] / "docs" / "howto" / "in_your_model.md"
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)


@pytest.mark.parametrize(
    "encoding",
    [
        posenc.AxialRoPE(8),
        posenc.MixedRoPE(8, num_heads=4),
        posenc.embeddings.SinusoidalGrid(32),
        posenc.Compose(posenc.embeddings.SinusoidalGrid(32), posenc.AxialRoPE(8)),
    ],
    ids=lambda encoding: type(encoding).__name__,
)
def test_the_patches_of_an_image_have_rows_and_columns(encoding: posenc.Encoding) -> None:
    """Which the layers hand to whoever reads them; that the attention itself reads none must not refuse them."""
    torch.manual_seed(0)
    model = Transformer(32, 4, 2, encoding).double()
    x = torch.randn(2, 20, 32, dtype=torch.float64)
    grid = posenc.positions.grid(4, 5)
    mixed_up = torch.randperm(20)
    y = model(x, positions=grid)
    torch.testing.assert_close(model(x[:, mixed_up], positions=grid[:, mixed_up]), y[:, mixed_up])
    assert not torch.allclose(model(x, positions=grid.flip(-1)), y)
    with pytest.raises(ValueError, match="NaN or infinite"):
        posenc.attention(*torch.zeros(3, 1, 4, 20, 8), encoding, q_positions=grid * torch.nan)  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"got shape \(1, 20, 2\), expected \(1, 19, 2\)"):
        posenc.attention(*torch.zeros(3, 1, 4, 19, 8), encoding, k_positions=grid)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.zeros(2, 6, dtype=torch.int64), "expected floating point .*; embed the tokens first"),
        (torch.zeros(6, 32), r"shape \(6, 32\), expected floating point and \(batch, seq, 32\)"),
        (torch.zeros(2, 32, 6), r"shape \(2, 32, 6\), expected floating point and \(batch, seq, 32\)"),
    ],
)
def test_a_transformer_refuses_what_is_no_embedding(x: Tensor, says: str) -> None:
    """The norm of its first block answered token ids with "Given normalized_shape=[32], expected input with shape"."""
    with pytest.raises(ValueError, match=f"Transformer: got x of .*{says}"):
        Transformer(32, 4, 1, posenc.RoPE(8))(x)


@pytest.mark.parametrize("encoding", [posenc.T5Bias(4), posenc.XPos(8)], ids=lambda value: type(value).__name__)
def test_an_encoder_refuses_an_encoding_for_earlier_keys_alone(encoding: posenc.Encoding) -> None:
    x, real = torch.randn(2, 6, 32), torch.ones(2, 6, dtype=torch.bool)
    for given in ({}, {"attention_mask": real}, {"positions": 3}, {"documents": torch.tensor([0, 0, 0, 1, 1, 1])}):
        with pytest.raises(
            ValueError, match=f"Attention: got {type(encoding).__name__}, which is defined only for keys at or before"
        ):
            Attention(32, 4, encoding)(x, **given)  # type: ignore[arg-type]
        Attention(32, 4, encoding, causal=True)(x, **given)  # type: ignore[arg-type]
    Attention(32, 4, encoding)(x, mask=torch.ones(6, 6, dtype=torch.bool).tril())
    Attention(32, 4, encoding)(x[:, :1])


SCORES = posenc.scores


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        (posenc.RoPE(8), "got RoPE of head_dim 8 for heads of 16 channels; build it with head_dim=16, or with .*=8"),
        (posenc.RoPE(32), r"got RoPE of head_dim 32 for heads of 16 channels; build it with head_dim=16\."),
        (posenc.AxialRoPE(8), "got AxialRoPE of head_dim 8"),
        (posenc.PoPE(8, num_heads=4), r"got PoPE of head_dim 8 .* head_dim=16\."),
        (posenc.PoPE(16, num_heads=8), "got PoPE for 8 key heads, and this layer has 2 of 4 query heads"),
        (
            posenc.MixedRoPE(16, num_heads=4),
            "got MixedRoPE for 4 key heads, .* build it with num_heads=4, num_kv_heads=2",
        ),
        (posenc.ALiBi(8), "got ALiBi of 8 heads for a layer of 4 query heads; build it with num_heads=4"),
        (posenc.Compose(posenc.RoPE(16), posenc.T5Bias(2)), "got T5Bias of 2 heads"),
        (posenc.Compose(posenc.RoPE(8), posenc.ALiBi(4)), "got RoPE of head_dim 8"),
        (SCORES.Shaw(4, 8), "got Shaw of head_dim 8 for heads of 16 channels"),
        (posenc.CoPE(4, 8), "got CoPE of head_dim 8"),
        (
            posenc.Compose(posenc.PoPE(16, num_heads=4, num_kv_heads=2), posenc.CoPE(4, 16)),
            "got CoPE .* of 32 channels",
        ),
        (SCORES.DeBERTa(32, 4), "got DeBERTa of dim 32 for all query heads of 64 channels"),
        (SCORES.TransformerXL(32, 4), "got TransformerXL of dim 32 for all query heads of 64"),
        (posenc.Forgetting(64, 4), "got Forgetting of dim 64 for x of 48 channels"),
        (SCORES.InklingBias(64, 4), "got InklingBias of dim 64 for x of 48"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, posenc.Encoding) else "",
)
def test_an_encoding_of_other_sizes_is_refused_when_the_layer_is_built(encoding: posenc.Encoding, says: str) -> None:
    """It was refused in the first forward, or by the sizes of tensors in it."""
    with pytest.raises(ValueError, match=f"Attention: {says}"):
        posenc.nn.Attention(48, 4, encoding, num_kv_heads=2, head_dim=16)


@pytest.mark.parametrize("name", catalogue.names())
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_every_encoding_of_the_right_sizes_is_taken(name: str, kv_heads: int) -> None:
    needed: dict[str, dict[str, Any]] = {
        "normalized": {"length": 8}, "learned": {"length": 8}, "tupe": {"length": 8}, "mrope": {"sections": (4, 4)},
        "fope": {"trained_length": 8}, "temperature": {"form": "log", "length": 8},
    }  # fmt: skip
    given = needed.get(name, {})
    if name in ("mixed", "fope", "pope"):
        given = {**given, "num_kv_heads": kv_heads}
    encoding = catalogue.make(name, dim=64, num_heads=4, **given)
    layer = posenc.nn.Attention(64, 4, encoding, num_kv_heads=kv_heads, causal=True)
    assert layer(torch.randn(1, 4, 64)).shape == (1, 4, 64)


def test_an_encoding_of_one_s_own_may_mean_something_else_by_its_sizes() -> None:
    class Half(posenc.QueryKeyEncoding):
        head_dim = 8  # of the part that it changes

        def on_queries_keys(self, q: Any, k: Any, positions: Any = None, *, k_positions: Any = None) -> Any:
            return q, k

    assert posenc.nn.Attention(64, 4, Half())(torch.randn(1, 3, 64)).shape == (1, 3, 64)

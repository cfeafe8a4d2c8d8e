"""What is refused, in the house's words, before it does harm: arguments, numbers, positions, layouts, dictionaries."""

import math

import numpy as np
import pytest
import torch

import posenc
from posenc.frequencies import Custom, DynamicNTK, Linear, LongRoPE
from posenc.positions import multimodal, shard, unshard

Q = torch.randn(1, 4, 5, 16, generator=torch.Generator().manual_seed(0))
NAN, INFINITY = math.nan, math.inf


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: posenc.YaRN(4, trained_length=64, attention_factor=NAN), "YaRN: got attention_factor nan"),
        (lambda: posenc.YaRN(4, trained_length=64, attention_factor=0.0), "YaRN: got attention_factor 0.0"),
        (lambda: posenc.YaRN(4, trained_length=64, beta_fast=INFINITY), "YaRN: got beta_fast inf"),
        (lambda: posenc.YaRN(4, trained_length=64, mscale_all_dim=-20.0), "YaRN: got 0.1 mscale_all_dim"),
        (lambda: DynamicNTK(2, trained_length=INFINITY), "DynamicNTK: got trained_length inf"),
        (lambda: DynamicNTK(2, trained_length=None), "got trained_length None, expected the number of tokens"),
        (lambda: Custom((1.0, 0.1), attention_factor=(0, 0)), r"Custom: got attention_factor \(0, 0\)"),
        (lambda: Custom((1.0, 0.1), attention_factor=-1), "Custom: got attention_factor -1"),
        (lambda: LongRoPE([1.0], [1.0], trained_length=8, attention_factor=NAN), "LongRoPE: got attention_factor nan"),
        (
            lambda: LongRoPE([1.0], [1.0], trained_length=8, factor=2, long_attention_factor=0),
            "long_attention_factor 0",
        ),
        (lambda: Linear(np.float32("nan")), "Linear: got factor"),
        (lambda: Linear(True), "Linear: got factor True"),
        (lambda: posenc.Normalized(dim=4, length=NAN), "Normalized: got length nan, expected a whole number"),
        (lambda: posenc.Learned(dim=4, length=8, std=1e300), r"Learned: got std 1e\+300"),
        (lambda: posenc.Learned(dim=4, length=8.0), "Learned: got length 8.0, expected a whole number"),
        (lambda: posenc.Learned(dim=0, length=8), "Learned: got dim 0"),
        (lambda: posenc.Integer(0), "Integer: got dim 0, expected at least 1"),
        (lambda: posenc.Binary(-2), "Binary: got dim -2, expected at least 1"),
        (lambda: posenc.Normalized(0, length=8), "Normalized: got dim 0, expected at least 1"),
        (lambda: posenc.ALiBi(num_heads=NAN), "ALiBi: got num_heads nan"),
        (lambda: posenc.ALiBi("4"), "ALiBi: got num_heads '4'"),
        (lambda: posenc.scores.SwinBias(4, window=7), r"SwinBias: got window 7, expected \(rows, columns\)"),
        (lambda: posenc.scores.SwinBias(4, window="77"), r"SwinBias: got window '77', expected \(rows, columns\)"),
        (lambda: posenc.XPos(head_dim=16, gamma=INFINITY), "XPos: got gamma inf"),
        (lambda: posenc.FIRE(num_heads=4, threshold=INFINITY), "FIRE: got threshold inf"),
        (lambda: posenc.SSMax(num_heads=4, start=NAN), "SSMax: got start nan"),
        (lambda: posenc.Temperature("log", length=INFINITY), "Temperature: got length inf"),
        (lambda: posenc.RoPE(head_dim=None), "RoPE: got head_dim None"),
        (lambda: posenc.make("rope", dim=8.0, num_heads=2), "RoPE: got dim 8.0, expected a whole number"),
        (lambda: posenc.make("none", dim=8, num_heads=2, foo=1), "NoPE: got the option 'foo', expected none"),
        (lambda: posenc.PerLayer({"a": posenc.NoPE()}, pattern=["a"], num_layers=NAN), "PerLayer: got num_layers nan"),
    ],
)
def test_numbers_that_are_none_are_refused_where_they_are_given(make, says):
    with pytest.raises((ValueError, TypeError), match=says):
        make()


def test_whole_numbers_of_numpy_and_lengths_with_a_point_are_taken():
    assert posenc.RoPE(head_dim=np.int64(16)).head_dim == 16
    assert DynamicNTK(2, trained_length=4096.0).trained_length == 4096


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (5, "from_dict got a value of type int, expected a mapping"),
        ({}, "got name None, expected one of"),
        ({"name": []}, r"got name \[\], expected one of"),
        ({"name": "Compose"}, "Compose: from_dict got no 'encodings'"),
        ({"name": "Compose", "encodings": 3}, "Compose: got a value of type int as encodings"),
        ({"name": "Compose", "encodings": [], "scale": 2}, r"Compose: from_dict got unknown keys \['scale'\]"),
        ({"name": "RoPE"}, "RoPE: from_dict got no 'head_dim'"),
        ({"name": "RoPE", "head_dim": 8, "x": 1}, r"RoPE: from_dict got unknown keys \['x'\]"),
    ],
)
def test_a_dictionary_that_describes_no_encoding_is_refused(data, says):
    with pytest.raises((ValueError, TypeError), match=says):
        posenc.from_dict(data)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"layers": 3}, r"unknown keys \['layers'\]"), ({"encodings": 3}, "got a value of type int as encodings")],
)
def test_a_dictionary_of_layers_has_no_unknown_keys(change, says):
    data = posenc.PerLayer({"a": posenc.NoPE()}, pattern=["a"], num_layers=2).to_dict()
    assert len(posenc.PerLayer.from_dict(data)) == 2
    with pytest.raises((ValueError, TypeError), match=says):
        posenc.PerLayer.from_dict(data | change)
    with pytest.raises(ValueError, match="from_dict got no 'pattern'"):
        posenc.PerLayer.from_dict({"encodings": {}, "num_layers": 2})


ENCODINGS = {
    "rope": posenc.RoPE(head_dim=16), "dynamic": posenc.RoPE(head_dim=16, frequencies=DynamicNTK(2, trained_length=4)),
    "xpos": posenc.XPos(head_dim=16), "mrope": posenc.MRoPE(head_dim=16, sections=(2, 3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.uint64, torch.uint16, torch.bool, torch.complex64]
)
def test_positions_that_a_dtype_cannot_hold_are_refused(name, dtype):
    """bfloat16 has 385 distinct numbers among 0 to 511."""
    with pytest.raises(TypeError, match=f"got a {dtype} tensor, expected"):
        ENCODINGS[name].on_queries_keys(Q, Q, torch.arange(5).to(dtype))
    with pytest.raises(TypeError, match=f"got a {dtype} tensor, expected"):
        posenc.attention(Q, Q, Q, posenc.ALiBi(num_heads=4), q_positions=torch.arange(5).to(dtype), causal=True)


def test_coordinates_in_half_precision_are_refused():
    grid = posenc.positions.grid(1, 5, 1).expand(1, 5, 3)
    with pytest.raises(TypeError, match=r"got a torch.bfloat16 tensor"):
        ENCODINGS["mrope"].on_queries_keys(Q, Q, grid.bfloat16())


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("positions", [2**63 - 1, 2**53, torch.arange(5) + 2**60], ids=str)
def test_positions_past_what_is_exact_are_refused(name, positions):
    with pytest.raises(ValueError, match=r"expected at most 2\*\*53|cannot represent the scale"):
        ENCODINGS[name].on_queries_keys(Q, Q, positions)


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("before", [[], [1], [0, 1]])
def test_what_was_called_before_changes_no_answer(name, before):
    """True is no position, though it equals 1, with which the last result is kept."""
    for offset in before:
        ENCODINGS[name].rotate(Q, offset)
    with pytest.raises(TypeError, match="got a value of type bool"):
        ENCODINGS[name].rotate(Q, True)


@pytest.mark.parametrize("name", ENCODINGS)
def test_one_offset_for_queries_and_keys_of_two_lengths_is_refused(name):
    rope = ENCODINGS[name]
    for positions in (None, 3):
        with pytest.raises(ValueError, match=r"q of 5 tokens and k of 9 without k_positions.*seq_dim=-3"):
            rope.on_queries_keys(Q, torch.zeros(1, 4, 9, 16), positions)
    with pytest.raises(ValueError, match=r"q of 4 tokens and k of 2 without k_positions.*seq_dim=-3"):  # (B, T, H, D)
        rope.on_queries_keys(Q.transpose(1, 2), Q.transpose(1, 2)[:, :, :2])
    q, k = rope.on_queries_keys(Q, torch.zeros(1, 4, 9, 16), None, k_positions=0)
    assert (q.shape[2], k.shape[2]) == (5, 9)


def test_attention_refuses_what_it_would_get_wrong_in_silence():
    short = Q[:, :, :3]
    for options in ({"window": 2}, {"causal": True}, {"documents": torch.zeros(3, dtype=torch.int64)}):
        with pytest.raises(ValueError, match="expected no more"):
            posenc.attention(Q, short, short, **options)
    with pytest.raises(ValueError, match="got scale nan"):
        posenc.attention(Q, Q, Q, scale=NAN)
    with pytest.raises(ValueError, match=r"got dropout_p 1.5"):
        posenc.attention(Q, Q, Q, dropout_p=1.5)
    with pytest.raises(TypeError, match=r"got window 2.0"):
        posenc.attention(Q, Q, Q, window=2.0)
    with pytest.raises(ValueError, match="got v of 8 channels, expected 16, because Shaw adds to the values"):
        posenc.attention(Q, Q, Q[..., :8], posenc.scores.Shaw(num_heads=4, head_dim=16))
    assert (
        posenc.attention(Q, Q, Q[..., :8], posenc.scores.Shaw(num_heads=4, head_dim=16, values="none")).shape[-1] == 8
    )


@pytest.mark.parametrize("scale", [0.0, -1.0])
@pytest.mark.parametrize("implementation", ["sdpa", "channels", "blocks", "dense", "auto"])
@pytest.mark.parametrize("encoding", [None, posenc.ALiBi(num_heads=4)], ids=["plain", "alibi"])
def test_a_scale_of_zero_or_below_is_computed_by_all(scale, implementation, encoding):
    if (encoding is None) != (implementation in ("sdpa", "auto")) and implementation in ("sdpa", "channels"):
        return
    q, k, v = torch.randn(3, 1, 4, 6, 16, dtype=torch.float64)
    p = torch.arange(6)
    scores = scale * q @ k.mT + (0 if encoding is None else encoding.bias(p, p))
    scores = scores.masked_fill(p > p[:, None], -torch.inf)
    y = posenc.attention(q, k, v, encoding, causal=True, scale=scale, implementation=implementation)
    torch.testing.assert_close(y, scores.softmax(-1) @ v, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "encoding", [posenc.T5Bias(num_heads=4), posenc.Compose(posenc.XPos(head_dim=16), posenc.ALiBi(num_heads=4))]
)
def test_a_causal_encoding_in_an_encoder_is_refused(encoding):
    with pytest.raises(ValueError, match="at or before their query, and neither causal=True nor"):
        posenc.attention(Q, Q, Q, encoding)
    padding = torch.tensor([1, 1, 1, 1, 0]).bool()[None, None, None]  # one row, which hides no key after a query
    with pytest.raises(ValueError, match="nor a mask with a row for each query"):
        posenc.attention(Q, Q, Q, encoding, mask=padding)
    posenc.attention(Q, Q, Q, encoding, mask=padding, causal=True)
    posenc.attention(Q[:, :, -2:], Q, Q, encoding, mask=padding)  # the last queries, which may see what it shows
    posenc.attention(Q, Q, Q, encoding, causal=True)
    posenc.attention(Q, Q, Q, encoding, mask=torch.ones(5, 5).tril().bool())
    posenc.attention(Q[:, :, -1:], Q, Q, encoding)  # a step of decoding
    posenc.attention(Q, Q, Q, encoding, q_positions=torch.arange(5) + 5)  # all keys of an earlier part
    posenc.attention(Q, Q, Q, posenc.T5Bias(num_heads=4, direction="both"))


def test_channels_are_refused_where_their_factors_do_not_hold():
    alibi = posenc.ALiBi(num_heads=4)
    ask = {"implementation": "channels"}
    with pytest.raises(ValueError, match="causal is not set"):
        posenc.attention(Q, Q, Q, alibi, **ask)
    falling = torch.tensor([0, 1, 2, 0, 1])
    with pytest.raises(ValueError, match="a key before its query has a higher position"):
        posenc.attention(Q, Q, Q, alibi, causal=True, q_positions=falling, k_positions=falling, **ask)
    with pytest.raises(ValueError, match="a key before its query has a higher position"):
        posenc.attention(
            Q, Q, Q, alibi, causal=True, q_positions=torch.arange(5), k_positions=torch.arange(5) + 1, **ask
        )
    packed = {"documents": torch.tensor([0, 0, 0, 1, 1]), "q_positions": falling, "k_positions": falling}
    torch.testing.assert_close(
        posenc.attention(Q, Q, Q, alibi, causal=True, **packed, **ask),
        posenc.attention(Q, Q, Q, alibi, causal=True, **packed, implementation="dense"),
    )
    sandwich = posenc.scores.Sandwich(num_heads=4)  # whose factors are the bias itself
    torch.testing.assert_close(
        posenc.attention(Q, Q, Q, sandwich, **ask), posenc.attention(Q, Q, Q, sandwich, implementation="dense"),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_a_packed_mask_starts_each_document_anew():
    kinds = torch.tensor([0, 0, 1, 1, 0])
    grids = torch.tensor([[1, 1, 2]])
    packed = multimodal(kinds, image_grids=grids, mask=torch.tensor([1, 1, 2, 2, 0]))
    assert packed[:, 0].tolist() == [0, 1, 0, 0, 0]
    assert packed[:, 2].tolist() == [0, 1, 0, 1, 0]
    with pytest.raises(ValueError, match="got a mask of"):
        multimodal(kinds, image_grids=grids, mask=torch.ones(1, 4))


def test_a_dimension_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"shard: got dim 2 for an array of shape \(8,\), expected -1 to 0"):
        shard(torch.arange(8), rank=0, ranks=2, dim=2)
    with pytest.raises(ValueError, match="unshard: got no parts"):
        unshard([])
    with pytest.raises(ValueError, match="expected one shape for all parts"):
        unshard([torch.arange(3), torch.arange(2)])


@pytest.mark.parametrize("implementation", ["cpu", "triton"])
def test_a_kernel_that_was_asked_for_is_not_replaced_where_there_is_none_for_the_layout(implementation):
    x = torch.randn(2, 3, 4, 5, 8)
    rope = posenc.RoPE(8, implementation=implementation)
    for call in (rope.rotate, rope.inverse, lambda x: rope.on_queries_keys(x, x)):
        with pytest.raises(ValueError, match=f"got implementation '{implementation}' and a tensor of 5 dimensions"):
            call(x)
    with pytest.raises(ValueError, match="there is no kernel for this layout"):
        posenc.explain(rope.on_queries_keys, x, x)
    assert posenc.RoPE(8).rotate(x).shape == x.shape


@pytest.mark.parametrize("encoding", [None, posenc.NoPE(), posenc.RoPE(8)])
@pytest.mark.parametrize("positions", [True, -1, [0, 1, 2], torch.arange(4), torch.arange(3).bfloat16(), 2**60])
def test_positions_that_nothing_reads_are_refused_too(encoding, positions):
    q = torch.randn(1, 2, 3, 8)
    for name in ("q_positions", "k_positions"):
        with pytest.raises((TypeError, ValueError), match=f"{name}: got"):
            posenc.attention(q, q, q, encoding, causal=True, **{name: positions})
    posenc.attention(q, q, q, encoding, causal=True, q_positions=5, k_positions=torch.arange(3))


@pytest.mark.parametrize("implementation", ["cpu", "eager"])
def test_rows_and_columns_are_sent_to_an_encoding_that_reads_them(implementation):
    where, x = posenc.positions.grid(2, 3), torch.randn(1, 2, 6, 16)
    with pytest.raises(ValueError, match="such as AxialRoPE or SinusoidalGrid"):
        posenc.RoPE(16, implementation=implementation).rotate(x, where)
    for encoding in (posenc.ALiBi(num_heads=2), posenc.T5Bias(num_heads=2)):
        with pytest.raises(ValueError, match="such as AxialRoPE or SinusoidalGrid"):
            posenc.attention(x, x, x, encoding, q_positions=where, k_positions=where)
    with pytest.raises(ValueError, match="such as AxialRoPE or SinusoidalGrid"):
        posenc.Learned(16, length=9).on_embeddings(x[:, 0], where)


@pytest.mark.parametrize("make", [posenc.RoPE, posenc.XPos, posenc.AxialRoPE])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 5)])
def test_positions_as_many_as_the_other_axis_name_seq_dim(make, shape):
    """q and k of (batch, seq, heads, head_dim): without positions nothing tells heads from tokens."""
    q, where = torch.randn(2, 5, 3, 8), torch.zeros(shape, dtype=torch.long)
    with pytest.raises(ValueError, match=r"got 5 positions for x of shape \(2, 5, 3, 8\), expected 3.*seq_dim=-3\."):
        make(8).on_queries_keys(q, q, where)
    if make is not posenc.XPos:
        right = make(8, seq_dim=-3)
        right.on_queries_keys(q, q, where)
        with pytest.raises(ValueError, match=r"got 5 positions .*expected 3.*seq_dim=-2\."):
            right.on_queries_keys(q.transpose(1, 2), q.transpose(1, 2), where)


def test_coordinates_as_many_as_the_other_axis_name_seq_dim():
    q, where = torch.randn(2, 6, 3, 8), posenc.positions.grid(2, 3)
    with pytest.raises(ValueError, match=r"got 6 positions .*seq_dim=-3\."):
        posenc.AxialRoPE(8).on_queries_keys(q, q, where)
    q = torch.randn(1, 2, 6, 8)  # two heads, and two coordinates of each token without a batch
    with pytest.raises(ValueError, match=r"Use positions\[None\]"):
        posenc.AxialRoPE(8).on_queries_keys(q, q, where[0])


def test_as_many_tokens_as_coordinates_are_a_text_only_where_the_rows_are_those_of_the_batch():
    where, axial = torch.arange(9).view(3, 3), posenc.AxialRoPE(12, axes=3)
    one, three = torch.randn(1, 2, 3, 12), torch.randn(3, 2, 3, 12)
    with pytest.raises(ValueError, match=r"Use positions\[None\] for the same in every row"):
        axial.rotate(one, where)
    text = where[..., None].expand(-1, -1, 3)
    torch.testing.assert_close(axial.rotate(three, where), axial.rotate(three, text), rtol=0, atol=0)


@pytest.mark.parametrize("encoding", [posenc.ALiBi(num_heads=4), posenc.RoPE(16)])
def test_positions_of_each_head_are_refused_as_such(encoding):
    where = torch.zeros(1, 4, 5, dtype=torch.long)
    at = encoding.places[0]
    with pytest.raises(ValueError, match="the same in all heads; for positions of each head rotate one head at a time"):
        encoding.on_queries_keys(Q, Q, where) if at == "queries_keys" else encoding.on_scores(Q @ Q.mT, where, where)


META = {"device": "meta"}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: posenc.attention(Q, Q.to(**META), Q), "attention: got q on cpu, k on meta, v on cpu, expected all"),
        (lambda: posenc.attention(Q, Q, Q.to(**META), posenc.ALiBi(4)), "got q on cpu, k on cpu, v on meta"),
        (lambda: posenc.attention(Q, Q, Q, mask=torch.ones(5, 5, **META).bool()), "got a mask on meta for q on cpu"),
        (lambda: posenc.RoPE(16).rotate(Q, torch.arange(5, **META)), "positions: got positions on the meta device"),
        (lambda: posenc.Learned(16, length=8).on_embeddings(Q[0], torch.arange(5, **META)), "on the meta device"),
        (lambda: posenc.attention(*3 * [Q.to_sparse()]), "got q of torch.sparse_coo, expected a dense tensor"),
        (lambda: posenc.attention(*3 * [Q.to_sparse()], posenc.ALiBi(4), causal=True), "got q of torch.sparse_coo"),
        (lambda: posenc.Sinusoidal(16).on_embeddings(Q[0].to_sparse()), r"Sinusoidal: .* give x\.to_dense\(\)"),
        (lambda: posenc.XPos(16).on_queries_keys(Q.to_sparse(), Q), r"XPos: .* give q\.to_dense\(\)"),
    ],
)
def test_devices_and_layouts_that_do_not_go_together(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("encoding", [posenc.Learned(16, length=8), posenc.Sinusoidal(16)])
def test_a_code_without_embeddings_is_named_where_an_encoding_is_called_as_a_layer(encoding):
    with pytest.raises(TypeError, match=r"encoding\.codes\(positions\) are the codes without x"):
        encoding(torch.arange(5))

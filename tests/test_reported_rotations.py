"""Faults that others reported of rotations, biases and their rules in 2025 and 2026, each tried on posenc."""

import math

import pytest
import torch
from torch import Tensor

import posenc
from posenc.embeddings import FourierFeatures, SinusoidalGrid
from posenc.frequencies import DynamicNTK, Geometric, Llama3, LongRoPE, YaRN

HEADS, HEAD_DIM, SEQ = 4, 16, 12
FAR = 65536 + torch.arange(SEQ)
GRID = torch.stack([torch.arange(SEQ) // 4, torch.arange(SEQ) % 4], -1)
X = torch.randn(1, SEQ, 64, generator=torch.Generator().manual_seed(0))
Q, K, V = torch.randn(3, 1, HEADS, SEQ, HEAD_DIM, generator=torch.Generator().manual_seed(1))


def three(positions: Tensor) -> Tensor:
    return torch.stack([positions, 65536 + positions % 3, 65536 + positions % 4], -1)[None]


FAR_AWAY = {
    "rope": lambda: posenc.RoPE(HEAD_DIM).on_queries_keys(Q, K, FAR)[0],
    "mrope": lambda: posenc.MRoPE(HEAD_DIM, sections=(2, 3, 3), layout="chunked").on_queries_keys(Q, K, three(FAR))[0],
    "axial": lambda: posenc.AxialRoPE(HEAD_DIM).on_queries_keys(Q, K, (65536 + GRID)[None])[0],
    "sinusoidal": lambda: posenc.Sinusoidal(64).on_embeddings(X, FAR),
    "sinusoids of a grid": lambda: SinusoidalGrid(64).on_embeddings(X, (65536 + GRID)[None]),
    "fourier": lambda: FourierFeatures(64).on_embeddings(X, (65536 + GRID)[None]),
    "alibi": lambda: posenc.attention(Q, K, V, posenc.ALiBi(HEADS), q_positions=FAR, k_positions=FAR, causal=True),
}


@pytest.mark.parametrize("name", FAR_AWAY)
def test_autocast_does_not_round_positions(name: str) -> None:
    """huggingface/diffusers#13920, Ideogram 4: bfloat16 has steps of 512 at 65536, and all patches had one place."""
    with torch.no_grad():
        torch.manual_seed(0)
        exact = FAR_AWAY[name]()
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            inside = FAR_AWAY[name]()
    assert torch.equal(inside.float(), exact)
    assert not torch.allclose(exact[..., 0, :], exact[..., 1, :])


@pytest.mark.parametrize("inference", [False, True])
def test_positions_that_are_counted_up_in_place_are_read_again(inference: bool) -> None:
    """ml-explore/mlx-lm#1699: a cache counts its offset up in place, and the rotation kept what it had made of it."""
    with torch.inference_mode(inference):
        rope, positions, q = posenc.RoPE(HEAD_DIM), torch.arange(3), Q[:, :, :3].clone()
        rope.on_queries_keys(q, q, positions)
        positions += 7
        moved = rope.on_queries_keys(q, q, positions)[0]
        assert torch.equal(moved, posenc.RoPE(HEAD_DIM).on_queries_keys(q, q, 7)[0])
        positions.data.add_(7)
        moved = rope.on_queries_keys(q, q, positions)[0]
        assert torch.equal(moved, posenc.RoPE(HEAD_DIM).on_queries_keys(q, q, 14)[0])


def test_tables_outlive_the_meta_device_and_a_cast() -> None:
    """unslothai/unsloth#4112: transformers 5 makes a model on meta and fills its buffers with what lies in memory.
    tenstorrent/tt-metal#54516: a model in bfloat16 has a rate of 0.75 for 0.7498942, and float32 does not undo it."""
    makers = (
        lambda: posenc.RoPE(HEAD_DIM),
        lambda: posenc.XPos(HEAD_DIM),
        lambda: posenc.Sinusoidal(64),
        lambda: posenc.ALiBi(HEADS),
    )
    for make in makers:
        with torch.device("meta"):
            made = torch.nn.ModuleList([make()])
        encoding = made.to_empty(device="cpu").to(torch.bfloat16).to(torch.float32)[0]
        fresh = make()
        assert not list(made.buffers())
        if isinstance(encoding, posenc.Sinusoidal):
            assert torch.equal(encoding.on_embeddings(X), fresh.on_embeddings(X))
        elif isinstance(encoding, posenc.ALiBi):
            assert torch.equal(posenc.attention(Q, K, V, encoding), posenc.attention(Q, K, V, fresh))
        else:
            assert torch.equal(encoding.on_queries_keys(Q, K, 900)[0], fresh.on_queries_keys(Q, K, 900)[0])


def test_the_two_weights_of_yarn_go_to_two_places() -> None:
    """NVIDIA/Megatron-LM#1429: the softmax scale was raised by mscale, and not by mscale_all_dim."""
    rule = YaRN(40, trained_length=4096, mscale=0.707, mscale_all_dim=1.0)
    log = 0.1 * math.log(40)
    assert rule.attention_factor == pytest.approx((0.707 * log + 1) / (log + 1))
    assert rule.score_factor == pytest.approx((log + 1) ** 2)


@pytest.mark.parametrize("encoding", ["rope", "mrope"])
def test_an_attention_factor_of_its_own_is_that_of_every_rotation(encoding: str) -> None:
    """vllm-project/vllm#46280, #48351: a config's attention_factor was dropped, and not read by M-RoPE either."""
    rule = YaRN(64, trained_length=4096, attention_factor=1.3)
    if encoding == "rope":
        rotated = posenc.RoPE(HEAD_DIM, frequencies=rule).on_queries_keys(Q, K, 5)[0]
    else:
        mrope = posenc.MRoPE(HEAD_DIM, sections=(2, 3, 3), layout="chunked", frequencies=rule)
        rotated = mrope.on_queries_keys(Q, K, three(torch.arange(SEQ)))[0]
    assert torch.allclose(rotated.norm(dim=-1), 1.3 * Q.norm(dim=-1))


def test_dynamic_ntk_begins_at_the_trained_length_and_by_its_own_factor() -> None:
    """vllm-project/vllm#52665: a text below the trained length had other rates. ml-explore/mlx-lm#1554: the factor was
    always 2, and the length that was looked at was the number of heads."""
    rule = DynamicNTK(6.0, trained_length=2048, base=1e6)
    plain = 1e6 ** (-torch.arange(8, dtype=torch.float64) / 8)
    for length in (1, 16, 2048):
        assert torch.allclose(torch.from_numpy(rule.inv_freq(16, length=length)), plain, rtol=1e-12)
    raised = 1e6 * (6 * 4096 / 2048 - 5) ** (16 / 14)
    expected = raised ** (-torch.arange(8, dtype=torch.float64) / 8)
    assert torch.allclose(torch.from_numpy(rule.inv_freq(16, length=4096)), expected, rtol=1e-12)
    more_heads_than_that = torch.randn(1, 4096, 2, 16, generator=torch.Generator().manual_seed(0))
    ropes = (posenc.RoPE(16, frequencies=each) for each in (rule, Geometric(1e6)))
    assert torch.equal(*(rope.on_queries_keys(more_heads_than_that, more_heads_than_that)[0] for rope in ropes))


@pytest.mark.parametrize("make", [lambda: None, lambda: posenc.ALiBi(HEADS), lambda: posenc.T5Bias(HEADS)])
@pytest.mark.parametrize("given", [True, False])
def test_queries_behind_a_cache_see_all_of_it(make, given: bool) -> None:  # type: ignore[no-untyped-def]
    """onnx/onnx#8054, gittensor-ai-lab/sparkinfer#3: a causal mask counted from the first query of a chunk.
    keras-team/keras-hub#2861: the bias of Falcon was as long as the queries, 0 at each step, and broadcast.
    NVIDIA/TensorRT-LLM#13870, keras-team/keras-hub#2932: T5 had no bias behind a cache, or that of the first query."""
    encoding = make()
    whole = posenc.attention(Q, K, V, encoding, causal=True)
    for length in (1, 2, 5):
        places = {"q_positions": SEQ - length, "k_positions": 0} if given else {}
        part = posenc.attention(Q[:, :, -length:], K, V, encoding, causal=True, **places)
        assert torch.allclose(part, whole[:, :, -length:], atol=1e-6)


def test_slopes_are_the_authors_for_any_number_of_heads() -> None:
    """ml-explore/mlx#3071: one geometric sequence for 12 heads. paiml/aprender#2143: the first head had slope 1."""

    def slopes(count: int) -> list[float]:
        power = 2 ** math.floor(math.log2(count))
        first = [2 ** (-8 * (i + 1) / power) for i in range(power)]
        return first + (slopes(2 * power)[::2][: count - power] if count > power else [])

    for count in range(1, 41):
        assert posenc.ALiBi(count).slopes == pytest.approx(slopes(count), rel=1e-12)


def test_a_share_of_the_heads_is_not_given_the_slopes_of_others() -> None:
    """flashinfer-ai/flashinfer#1606, #5101, bigscience-workshop/Megatron-DeepSpeed#227: each process of several took
    the slopes of its own number of heads, or those of the first heads."""
    with pytest.raises(ValueError, match="heads"):
        posenc.attention(Q[:, :2], K[:, :2], V[:, :2], posenc.ALiBi(HEADS))
    whole = posenc.attention(Q, K, V, posenc.ALiBi(HEADS), causal=True)
    for heads in (slice(0, 2), slice(2, HEADS)):
        alibi = posenc.ALiBi(len(Q[0, heads]), rule=posenc.ALiBi(HEADS).slopes[heads])
        part = posenc.attention(Q[:, heads], K[:, heads], V[:, heads], alibi, causal=True)
        torch.testing.assert_close(part, whole[:, heads])


@pytest.mark.parametrize(
    "rule", [Geometric(1e6), YaRN(4, trained_length=4096), Llama3(8, trained_length=8192)], ids=str
)
@pytest.mark.parametrize("kind", ["rope", "mrope"])
def test_a_model_in_bfloat16_has_exact_rates_and_positions(rule, kind: str) -> None:  # type: ignore[no-untyped-def]
    """sgl-project/sglang-jax#1472, Modalities/modalities#462: rates were rounded to bfloat16 before the product.
    huggingface/candle#3520: positions too, so that 15962 and 15968 had one angle."""
    where = torch.tensor([15962, 15968])
    q = Q[:, :, :2].bfloat16()
    if kind == "rope":
        encoding: posenc.Encoding = posenc.RoPE(HEAD_DIM, frequencies=rule)
    else:
        encoding = posenc.MRoPE(HEAD_DIM, sections=(2, 3, 3), layout="chunked", frequencies=rule)
    got = encoding.to(torch.bfloat16).on_queries_keys(q, q, where)[0]
    angle = where[:, None].double() * torch.from_numpy(rule.inv_freq(HEAD_DIM))
    a, b = q.double().chunk(2, -1)
    turned = torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)
    want = rule.attention_factor * turned
    assert float((got.double() - want).abs().max()) <= 0.01 * float(want.abs().max())


def test_a_text_of_exactly_the_trained_length_has_the_short_factors() -> None:
    """unslothai/unsloth#10681: the long list began one token early. lablup/mlxcel#1358, apache/tvm#18422,
    ggml-org/llama.cpp#24875: the long list was used for short texts too, or chosen by the size of the cache."""
    rule = LongRoPE([1.0] * 8, [4.0] * 8, trained_length=8, factor=4.0)
    plain, rope = (posenc.RoPE(HEAD_DIM, frequencies=each) for each in (Geometric(), rule))
    for length in (1, 7, 8, 9):
        q = Q[:, :, :length]
        rates = Geometric() if length <= 8 else LongRoPE([4.0] * 8, [4.0] * 8, trained_length=8, attention_factor=1.0)
        want = posenc.RoPE(HEAD_DIM, frequencies=rates).rotate(q) * rule.attention_factor
        torch.testing.assert_close(rope.rotate(q), want)
    assert not torch.allclose(plain.rotate(Q[:, :, :9]) * rule.attention_factor, rope.rotate(Q[:, :, :9]))


def test_yarn_raises_scores_once() -> None:
    """guoqingbao/xinfer#329: cos and sin have YaRN's temperature, and the softmax scale was raised by it again."""
    rule = YaRN(12, trained_length=4096)
    rope, plain = (posenc.RoPE(HEAD_DIM, frequencies=each) for each in (rule, Geometric()))
    q, k = Q[:, :, :1], K[:, :, :1]
    at_zero = [posenc.attention(*pair, V[:, :, :1], each) for each, pair in ((rope, (q, k)), (plain, (q, k)))]
    assert torch.equal(*at_zero)
    assert rule.score_factor == 1
    scores = (rope.rotate(q) * rope.rotate(k)).sum() / (q * k).sum()
    assert float(scores) == pytest.approx((0.1 * math.log(12) + 1) ** 2, rel=1e-5)


def test_a_temperature_is_exact_at_the_edges_of_its_steps() -> None:
    """AI-Hypercomputer/maxtext#1611: positions in the dtype of the activations; in bfloat16 8191 is 8192."""
    tuned = posenc.Temperature("llama4", length=8192, strength=0.1)
    where = torch.tensor([8190, 8191, 16382, 16383])
    with torch.autocast("cpu", torch.bfloat16):
        found = tuned.to(torch.bfloat16).temperature(where).flatten()
    expected = [1.0, 1 + 0.1 * math.log(2), 1 + 0.1 * math.log(2), 1 + 0.1 * math.log(3)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    out = posenc.attention(Q[:, :, :4], K, V, tuned, q_positions=where, k_positions=0)
    want = torch.cat([posenc.attention(Q[:, :, i : i + 1] * tau, K, V) for i, tau in enumerate(expected)], 2)
    torch.testing.assert_close(out, want)


@pytest.mark.parametrize("seq_dim", [-2, -3])
def test_code_that_turns_the_other_way_is_a_rope_of_negative_rates(seq_dim: int) -> None:
    """karpathy/nanochat#489: it turns by -angle, as modded-nanogpt does, and its checkpoints need that."""
    rates = posenc.Geometric(base=100_000).inv_freq(HEAD_DIM)
    angle = torch.arange(Q.shape[2])[:, None] * torch.from_numpy(rates)
    cos, sin = angle.cos().float(), angle.sin().float()
    first, second = Q.chunk(2, -1)
    theirs = torch.cat((first * cos + second * sin, second * cos - first * sin), -1)
    other_way = posenc.RoPE(HEAD_DIM, frequencies=posenc.frequencies.Custom(-rates), seq_dim=seq_dim)
    q = Q if seq_dim == -2 else Q.transpose(1, 2)
    ours = other_way.on_queries_keys(q, q)[0]
    torch.testing.assert_close(ours if seq_dim == -2 else ours.transpose(1, 2), theirs)
    assert torch.equal(
        ours, posenc.RoPE(HEAD_DIM, frequencies=posenc.Geometric(base=100_000), seq_dim=seq_dim).inverse(q)
    )

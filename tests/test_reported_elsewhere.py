"""Faults that others reported of seams in their code, each tried on posenc against a dense float64 evaluation."""

import math

import pytest
import torch
from torch import Tensor

import posenc
from posenc.frequencies import DynamicNTK
from posenc.nn import Transformer

HEADS, HEAD_DIM = 4, 8
DIM = HEADS * HEAD_DIM


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    made: Tensor = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.to(dtype)


def heads(batch: int, length: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return numbers(batch, HEADS, length, HEAD_DIM, seed=seed, dtype=dtype)


def turned(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    """RoPE with pairs of halves, from its definition; positions ``(seq,)`` or ``(batch, seq)``."""
    rates = base ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
    angle = positions.double()[..., None] * rates
    angle = angle if angle.ndim == 2 else angle[:, None]
    a, b = x.double().chunk(2, -1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)


def weighed(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, added: Tensor | float = 0.0) -> Tensor:
    scores = (q @ k.mT / HEAD_DIM**0.5 + added).masked_fill(~seen, -math.inf)
    return scores.softmax(-1).nan_to_num(0.0) @ v


def decoder(encoding: posenc.Encoding | None, window: int | None = None) -> Transformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Transformer(DIM, HEADS, 2, encoding, causal=True, window=window, mlp_dim=8)
    return model.double().eval().requires_grad_(False)


ENCODINGS = {
    "rope": lambda: posenc.RoPE(HEAD_DIM),
    "alibi": lambda: posenc.ALiBi(HEADS),
    "learned": lambda: posenc.Learned(DIM, length=64),
    "rope and a temperature": lambda: posenc.Compose(posenc.RoPE(HEAD_DIM), posenc.Temperature("log", length=3)),
}


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("chunks", [(4, 5, 1, 1), (4, 1, 6, 1), (9, 2), (3, 3, 3, 3)])
def test_a_padded_batch_is_read_in_chunks_as_each_row_alone(name: str, window: int | None, chunks: tuple) -> None:
    """unslothai/unsloth#3699, Comfy-Org/ComfyUI#15698: one offset for rows of several lengths. lablup/mlxcel#678,
    mlx-node/mlx-node#33, jundot/omlx#2363: several tokens after a cache that slides, counted twice or not at all.
    pytorch/executorch#20346, #21857: a chunk longer than the window lost keys, or saw too many.
    RobertCsordas/moeut#6: the query's offset was taken before the cache was joined."""
    model, pad, total = decoder(ENCODINGS[name](), window), 3, sum(chunks)
    x = numbers(2, total, DIM)
    whole = torch.cat((model(x[:1]), torch.cat((x[1:, :pad], model(x[1:, pad:])), 1)))
    cache, at, parts = model.new_cache(), 0, []
    for count in chunks:
        mask = torch.arange(at, at + count) >= torch.tensor([[0], [pad]])
        parts.append(model(x[:, at : at + count], attention_mask=mask if at < pad else None, cache=cache))
        at += count
    got = torch.cat(parts, 1)
    torch.testing.assert_close(got[0], whole[0])
    torch.testing.assert_close(got[1, pad:], whole[1, pad:])


def test_padding_has_no_position_below_zero_and_no_number_from_before() -> None:
    """fla-org/flash-linear-attention#967: offsets below zero left rows of uninitialised memory."""
    q, rope = heads(2, 5, dtype=torch.float32), posenc.RoPE(HEAD_DIM)
    with pytest.raises(ValueError, match="expected"):
        rope.rotate(q, torch.arange(5) - torch.tensor([[0], [3]]))
    where = posenc.positions.from_mask(torch.arange(5) >= torch.tensor([[0], [3]]))
    torch.testing.assert_close(rope.rotate(q, where).double(), turned(q, where), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", ["auto", "dense", "blocks", "sdpa", "cpu"])
@pytest.mark.parametrize("window", [1, 2, 5, 100])
def test_a_window_counts_the_token_itself_and_keeps_a_mask(implementation: str, window: int) -> None:
    """huggingface/transformers#39408, ml-explore/mlx-lm#390: one key too many. NVIDIA/Megatron-LM#7039: a window in
    whose place the caller's mask was dropped. huggingface/transformers#45511: NaN where all of a window is padding."""
    n = 12
    q, k, v = (heads(2, n, seed) for seed in range(3))
    real = torch.arange(n) >= torch.tensor([[0], [7]])
    t, u = torch.arange(n)[:, None], torch.arange(n)
    seen = (u <= t) & (t - u < window) & real[:, None, None]
    options = {"causal": True, "window": window, "mask": real[:, None, None]}
    got = posenc.attention(q.float(), k.float(), v.float(), implementation=implementation, **options)
    torch.testing.assert_close(got.double(), weighed(q, k, v, seen), rtol=1e-4, atol=1e-5)


def test_a_window_full_of_padding_has_gradients_without_nan() -> None:
    q, k, v = (heads(1, 8, seed, torch.float32).requires_grad_() for seed in range(3))
    real = (torch.arange(8) >= 5)[None, None, None]
    for implementation in ("auto", "dense", "blocks"):
        y = posenc.attention(q, k, v, causal=True, window=2, mask=real, implementation=implementation)
        for gradient in torch.autograd.grad(y.square().sum(), (q, k, v)):
            assert bool(gradient.isfinite().all())


def test_one_length_at_two_offsets_has_two_answers() -> None:
    """lucidrains/rotary-embedding-torch#11: the offset was no part of the key of the cache."""
    q = heads(1, 3)
    for encoding in (
        posenc.RoPE(HEAD_DIM),
        posenc.RoPE(HEAD_DIM, seq_dim=-2, frequencies=DynamicNTK(2, trained_length=99)),
    ):
        for offset in (0, 5, 0, 70):
            torch.testing.assert_close(encoding.rotate(q, offset), turned(q, torch.arange(3) + offset))


def test_a_short_text_after_a_long_one_has_its_own_rates() -> None:
    """huggingface/transformers#27226: the base stayed stretched. vllm-project/vllm#52675: a length below the trained
    one made a complex base. huggingface/transformers#25104: cached keys kept the rates of a shorter text."""
    rule = DynamicNTK(2, trained_length=16)
    rope = posenc.RoPE(HEAD_DIM, frequencies=rule)
    rope.rotate(heads(1, 64))
    for n in (1, 4, 16):
        torch.testing.assert_close(rope.rotate(heads(1, n)), turned(heads(1, n), torch.arange(n)))
    stretched = 10_000.0 * (2 * 24 / 16 - 1) ** (HEAD_DIM / (HEAD_DIM - 2))
    torch.testing.assert_close(rope.rotate(heads(1, 24)), turned(heads(1, 24), torch.arange(24), base=stretched))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Transformer(DIM, HEADS, 1, rope, causal=True, mlp_dim=8).double().eval().requires_grad_(False)
    x, cache = numbers(1, 24, DIM), model.new_cache()
    parts = [model(part, cache=cache) for part in x.split((10, 1, 8, 5), 1)]
    torch.testing.assert_close(parts[-1], model(x)[:, 19:])


def test_caches_that_were_filled_alone_are_read_together() -> None:
    """scouzi1966/maclocal-api#92: keys were rotated from 0 on and then shifted by padding; the query was not."""
    rope, lengths, width = posenc.RoPE(HEAD_DIM), (7, 4), 7
    k, v, q = heads(2, width, 1), heads(2, width, 2), heads(2, 1, 3)
    real = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    own = posenc.positions.from_mask(real)
    merged = torch.zeros_like(k)
    for row, n in enumerate(lengths):
        merged[row, :, width - n :] = rope.rotate(k[row : row + 1, :, width - n :])[0]
    last = torch.tensor(lengths)[:, None] - 1
    got = posenc.attention(
        rope.rotate(q, last), merged, v, rope, q_positions=last, k_positions=own, mask=real[:, None, None]
    )
    torch.testing.assert_close(got, weighed(turned(q, last), turned(k, own), v, real[:, None, None]))


def test_steps_of_several_coordinates_go_on_from_the_offset() -> None:
    """Blaizzy/mlx-vlm#1983: every generated token had position 0. huggingface/transformers#47342: three rows of
    coordinates were taken for a pack of documents."""
    rope = posenc.MRoPE(HEAD_DIM, sections=(1, 1, 2))
    q = heads(1, 2)
    torch.testing.assert_close(rope.rotate(q, 9), turned(q, torch.tensor([9, 10])))
    image = torch.tensor([[[4, 4, 4], [4, 4, 5], [4, 5, 4], [4, 5, 5]]])  # columns fall, and no document begins
    x = numbers(1, 4, DIM)
    model = decoder(rope)
    assert not torch.allclose(model(x, positions=image)[:, 2:], model(x[:, 2:], positions=image[:, 2:]))


@pytest.mark.parametrize("implementation", ["auto", "channels", "dense", "blocks", "cpu"])
def test_alibi_by_row_or_by_key_is_one_bias(implementation: str) -> None:
    """mosaicml/llm-foundry#186, NVIDIA-NeMo/Speech#7105: one row of biases for all queries is right under a causal
    mask alone. ofirpress/attention_with_linear_biases#20: without a mask at inference there was no bias at all."""
    q, k, v = (heads(1, 6, seed) for seed in range(3))
    t, u = torch.arange(6)[:, None], torch.arange(6)
    slopes = 2.0 ** (-8 * torch.arange(1, HEADS + 1, dtype=torch.float64) / HEADS)
    bias = -slopes[:, None, None] * (t - u).abs()
    alibi, ask = posenc.ALiBi(HEADS), {"implementation": implementation}
    cast = [x.float() if implementation == "cpu" else x for x in (q, k, v)]
    got = posenc.attention(*cast, alibi, causal=True, **ask).double()
    torch.testing.assert_close(got, weighed(q, k, v, u <= t, bias), rtol=1e-4, atol=1e-5)
    step = posenc.attention(cast[0][:, :, -1:], *cast[1:], alibi, causal=implementation == "channels", **ask).double()
    torch.testing.assert_close(step, got[:, :, -1:], rtol=1e-4, atol=1e-5)
    if implementation != "channels":  # whose one row of biases is refused without a causal mask
        both = posenc.attention(*cast, alibi, **ask).double()
        torch.testing.assert_close(
            both, weighed(q, k, v, torch.ones(6, 6, dtype=torch.bool), bias), rtol=1e-4, atol=1e-5
        )


def test_a_temperature_counts_within_the_document() -> None:
    """mosaicml/llm-foundry#1793: positions of a pack from its start would have made the later documents hotter."""
    lengths = (3, 6)
    encoding = posenc.Compose(posenc.RoPE(HEAD_DIM), posenc.Temperature("llama4", length=2))
    documents = torch.repeat_interleave(torch.arange(2), torch.tensor(lengths))
    model, x = decoder(encoding), numbers(1, 9, DIM)
    packed = model(x, documents=documents).split(lengths, 1)
    for got, rows in zip(packed, x.split(lengths, 1), strict=True):
        torch.testing.assert_close(got, model(rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_far_positions_are_as_exact_as_near_ones(dtype: torch.dtype) -> None:
    """kekzl/imp#1316: off by 1e-2 at 131 071. KellerJordan/modded-nanogpt#39, huggingface/transformers#29285: tables
    in bfloat16, by a cast of the model or under autocast."""
    x = heads(1, 4, dtype=dtype)
    rope = posenc.RoPE(HEAD_DIM).to(torch.bfloat16)
    unit = x.double().abs().max() * torch.finfo(dtype).eps
    for start in (0, 131_068, 2**20):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = rope.rotate(x, start)
        want = turned(x, torch.arange(4) + start)
        assert float((got.double() - want).abs().max()) <= 2 * unit


def test_a_pack_given_by_its_ends_is_rotated_by_document() -> None:
    """huggingface/transformers#35941, allenai/OLMo-core#503, pytorch/torchtitan#2559: positions of a pack counted on
    from one document into the next."""
    ends = torch.tensor([0, 3, 4, 9])
    where = posenc.positions.from_lengths(ends)
    q = heads(1, 9)
    got = posenc.RoPE(HEAD_DIM).rotate(q, where)
    for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        torch.testing.assert_close(got[:, :, start:stop], turned(q[:, :, start:stop], torch.arange(stop - start)))


@pytest.mark.parametrize("lengths", [(3, 1, 4), (1, 1, 1, 5), (2, 1, 1)])
def test_a_document_of_one_token_has_its_own_bounds(lengths: tuple[int, ...]) -> None:
    """modelscope/ms-swift#9904: a document began where a position falls, and from 0 to 0 nothing falls."""
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    ends = torch.tensor([0, *lengths]).cumsum(0)
    assert torch.equal(posenc.positions.from_documents(documents), posenc.positions.from_lengths(ends))
    for encoding in (posenc.RoPE(HEAD_DIM), posenc.ALiBi(HEADS)):
        model, x = decoder(encoding), numbers(1, sum(lengths), DIM)
        packed = model(x, documents=documents).split(lengths, 1)
        for got, rows in zip(packed, x.split(lengths, 1), strict=True):
            torch.testing.assert_close(got, model(rows))


def test_a_pack_of_images_and_videos_is_numbered_by_document() -> None:
    """hiyouga/LlamaFactory#10783: positions of a pack ended before its padding. NVIDIA/Megatron-Bridge#4532,
    radixark/miles#1272, alibaba/ROLL#452: the second document of a pack went on from the first, or had the images of
    another. sgl-project/sglang#3682: the seconds between frames were dropped. vllm-project/vllm#33039: a video's
    tokens counted as text."""
    image, video = [0, 0, 1, 1, 1, 1, 0], [0, 2, 2, 2, 2, 2, 2, 0, 0]
    kinds = torch.tensor([image + video + [0, 0]])
    mask = torch.tensor([[1] * len(image) + [2] * len(video) + [0, 0]])
    grids = {"image_grids": torch.tensor([[1, 4, 4]]), "video_grids": torch.tensor([[3, 2, 4]])}
    options = {"merge": 2, "time_steps": [2.5], "positions_per_second": 2.0}
    packed = posenc.positions.multimodal(kinds, mask=mask, **grids, **options)
    alone = posenc.positions.multimodal(torch.tensor(image), image_grids=grids["image_grids"], merge=2)
    film = posenc.positions.multimodal(torch.tensor(video), video_grids=grids["video_grids"], **options)
    assert packed.shape == (1, kinds.shape[1], 3)
    assert torch.equal(packed[0], torch.cat((alone, film, torch.zeros(2, 3, dtype=torch.long))))
    assert film[1:7, 0].tolist() == [1, 1, 6, 6, 11, 11]  # frames are five positions apart
    assert film[7].tolist() == [12, 12, 12]


@pytest.mark.parametrize("start", [0, 2])
def test_a_text_after_an_image_goes_on_by_positions_not_by_tokens(start: int) -> None:
    """nobodywho-ooo/nobodywho#688: behind an image the number of cached tokens is not the next position.
    vllm-project/vllm#54498: nor is the next position the slot in the cache, as a drafter took it to be."""
    kinds = torch.tensor([[0] * start + [1] * 6 + [0]])
    where = posenc.positions.multimodal(kinds, image_grids=torch.tensor([[1, 2, 3]]))
    following = int(where.amax()) + 1
    assert following < kinds.shape[1]
    model, x = decoder(posenc.MRoPE(HEAD_DIM, sections=(1, 1, 2))), numbers(1, kinds.shape[1] + 2, DIM)
    more = torch.arange(following, following + 2)[None, :, None].expand(1, 2, 3)
    whole = model(x, positions=torch.cat((where, more), 1))
    cache = model.new_cache()
    model(x[:, :-2], positions=where, cache=cache)
    steps = torch.cat([model(x[:, at : at + 1], cache=cache) for at in (-2, x.shape[1] - 1)], 1)
    torch.testing.assert_close(steps, whole[:, -2:])


SHARDED = {
    "rope": lambda: posenc.RoPE(HEAD_DIM),
    "alibi": lambda: posenc.ALiBi(HEADS),
    "t5": lambda: posenc.T5Bias(HEADS).double(),
}


@pytest.mark.parametrize("name", SHARDED)
@pytest.mark.parametrize("scheme", ["contiguous", "zigzag"])
def test_a_rank_has_the_biases_of_its_own_tokens(name: str, scheme: str) -> None:
    """NVIDIA/TransformerEngine#1046: a kernel that is not told where its chunk lies makes biases from 0 on."""
    q, k, v = (heads(1, 16, seed) for seed in range(3))
    encoding, every = SHARDED[name](), torch.arange(16)
    with torch.no_grad():
        if name == "rope":
            k = encoding.rotate(k, every)  # type: ignore[operator]
        turned_q = encoding.rotate(q, every) if name == "rope" else q  # type: ignore[operator]
        whole = posenc.attention(turned_q, k, v, encoding, causal=True, q_positions=every, k_positions=every)
        parts = []
        for rank in range(4):
            own = posenc.positions.shard(every, rank=rank, ranks=4, scheme=scheme)  # type: ignore[arg-type]
            part = posenc.positions.shard(q, rank=rank, ranks=4, scheme=scheme, dim=2)  # type: ignore[arg-type]
            if name == "rope":
                part = encoding.rotate(part, own)  # type: ignore[operator]
            mask = every <= own[:, None]
            parts.append(posenc.attention(part, k, v, encoding, q_positions=own, k_positions=every, mask=mask))
    torch.testing.assert_close(posenc.positions.unshard(parts, scheme=scheme, dim=2), whole)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SHARDED)
def test_keys_that_were_dropped_leave_the_others_in_their_places(name: str) -> None:
    """warpfront/hipfire#391: after an eviction queries were rotated by the slot in the cache, keys by their place."""
    n, encoding = 9, SHARDED[name]()
    q, k, v = heads(1, 1), heads(1, n, 1), heads(1, n, 2)
    every, now = torch.arange(n), torch.tensor([n - 1])
    kept = torch.tensor([0, 1, 4, 7, 8])
    with torch.no_grad():
        if name == "rope":
            q, k = encoding.rotate(q, now), encoding.rotate(k, every)  # type: ignore[operator]
        places = {"q_positions": now}
        whole = posenc.attention(q, k, v, encoding, mask=torch.isin(every, kept), k_positions=every, **places)
        got = posenc.attention(q, k[:, :, kept], v[:, :, kept], encoding, k_positions=kept, **places)
    torch.testing.assert_close(got, whole)


@pytest.mark.parametrize("name", SHARDED)
def test_branches_of_a_tree_share_their_positions(name: str) -> None:
    """NVIDIA/TensorRT-LLM#13081: each node of a tree of drafts had a position of its own, siblings too."""
    encoding = SHARDED[name]()
    parents = [None, 0, 1, 2, 2, 3, 4]  # three tokens, and two drafts of two tokens each
    depth = torch.tensor([0, 1, 2, 3, 3, 4, 4])
    seen = torch.eye(7, dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent is not None:
            seen[node] |= seen[parent]
    q, k, v = (heads(1, 7, seed) for seed in range(3))

    def attended(nodes: Tensor, mask: Tensor) -> Tensor:
        mine = [x[:, :, nodes] for x in (q, k, v)]
        if isinstance(encoding, posenc.RoPE):
            mine[:2] = [encoding.rotate(x, depth[nodes]) for x in mine[:2]]
        places = {"q_positions": depth[nodes], "k_positions": depth[nodes]}
        return posenc.attention(*mine, encoding, mask=mask, **places)

    with torch.no_grad():
        tree = attended(torch.arange(7), seen)
        for branch in (torch.tensor([0, 1, 2, 3, 5]), torch.tensor([0, 1, 2, 4, 6])):
            alone = attended(branch, torch.ones(5, 5, dtype=torch.bool).tril())
            torch.testing.assert_close(tree[:, :, branch], alone)


@pytest.mark.parametrize(
    "make", [lambda: posenc.AxialRoPE(HEAD_DIM), lambda: posenc.MRoPE(HEAD_DIM, sections=(1, 1, 2))]
)
def test_positions_of_more_patches_than_there_are_tokens_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    """zhang0jhon/diffusion-4k#17: ids of each latent pixel for tokens of 2 x 2 of them."""
    encoding = make()
    axes = encoding.coordinates
    with pytest.raises(ValueError, match="expected"):
        encoding.on_queries_keys(heads(1, 16), heads(1, 16), torch.zeros(1, 64, axes, dtype=torch.long))

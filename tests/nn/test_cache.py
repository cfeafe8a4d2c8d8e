"""Tokens that are taken back from a cache, and rows that change places: what follows is as if it had never been.

Speculative decoding takes a rejected draft back (huggingface/transformers#47447, vllm-project/vllm#54498,
spiritbuun/buun-llama-cpp#58: positions behind an image are not a number of tokens); a beam search gives rows up
(facebookresearch/fairseq2#74: padding has to follow its row).
"""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import posenc
from posenc.frequencies import DynamicNTK
from posenc.nn import Attention, Block, Cache, SlidingCache, StaticCache, Transformer

DIM, HEADS = 32, 2
ENCODINGS: dict[str, Any] = {
    "none": lambda: None,
    "rope": lambda: posenc.RoPE(16),
    "dynamic ntk": lambda: posenc.RoPE(16, frequencies=DynamicNTK(2.0, trained_length=6)),
    "xpos": lambda: posenc.XPos(16),
    "pope": lambda: posenc.PoPE(16, num_heads=HEADS, start="uniform"),
    "alibi": lambda: posenc.ALiBi(num_heads=HEADS),
    "t5": lambda: posenc.T5Bias(num_heads=HEADS),
    "cope": lambda: posenc.CoPE(HEADS, 16, length=16),
    "forgetting": lambda: posenc.Forgetting(DIM, HEADS),
    "inkling": lambda: posenc.scores.InklingBias(DIM, HEADS, rank=2, extent=4),
    "learned": lambda: posenc.Learned(DIM, length=32),
    "sinusoidal": lambda: posenc.Sinusoidal(DIM),
}
LEFT = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])


def model(name: str, **options: Any) -> Transformer:
    torch.manual_seed(0)
    layers = 1 if name == "dynamic ntk" else 2  # in a second one a token is read at the length of its call
    made = Transformer(DIM, HEADS, layers, ENCODINGS[name](), causal=True, **options)
    for parameter in made.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def tokens(seq: int, seed: int = 0, batch: int = 2) -> Tensor:
    return torch.randn(batch, seq, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("room", [None, 16])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ENCODINGS)
@torch.no_grad()
def test_a_draft_that_is_rejected_leaves_nothing_behind(name: str, padded: bool, room: int | None) -> None:
    decoder, prompt, draft, rest = model(name), tokens(5), tokens(3, seed=1), tokens(2, seed=2)
    mask = LEFT if padded else None
    plain, drafted = decoder.new_cache(room), decoder.new_cache(room)
    decoder(prompt, attention_mask=mask, cache=plain)
    decoder(draft[:, :1], cache=plain)
    expected = decoder(rest, cache=plain)
    decoder(prompt, attention_mask=mask, cache=drafted)
    decoder(draft, cache=drafted)
    for block in drafted:
        block.drop(2)
    torch.testing.assert_close(decoder(rest, cache=drafted), expected, atol=1e-5, rtol=1e-5)
    assert drafted[0].own.length == 8
    for block in drafted:
        block.drop(8)
    torch.testing.assert_close(
        decoder(prompt, attention_mask=mask, cache=drafted), decoder(prompt, attention_mask=mask)
    )


@pytest.mark.parametrize("room", [None, 16])
@pytest.mark.parametrize("rows", [[1, 0], [1, 1], [0, 1, 1], [1]])
@pytest.mark.parametrize("name", ENCODINGS)
@torch.no_grad()
def test_rows_take_their_padding_and_their_positions_along(name: str, rows: list[int], room: int | None) -> None:
    decoder, prompt = model(name), tokens(5)
    new = tokens(1, seed=3, batch=len(rows))
    cache, expected = decoder.new_cache(room), []
    decoder(prompt, attention_mask=LEFT, cache=cache)
    for block in cache:
        block.reorder(rows)
    found = decoder(new, cache=cache)
    for i, row in enumerate(rows):
        alone = decoder.new_cache()
        decoder(prompt[row : row + 1], attention_mask=LEFT[row : row + 1], cache=alone)
        expected.append(decoder(new[i : i + 1], cache=alone))
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("given", [3, torch.tensor([3, 4]), torch.tensor([[3, 4]]), torch.tensor([[3, 4], [0, 1]])])
@pytest.mark.parametrize("name", ENCODINGS)
@torch.no_grad()
def test_rows_keep_positions_that_were_given_for_all_of_them(name: str, given: torch.Tensor | int) -> None:
    """With as many tokens as rows, one position for each token was taken for one for each row."""
    decoder, prompt, new = model(name), tokens(2), tokens(1, seed=3)
    cache, plain = decoder.new_cache(), decoder.new_cache()
    for kept in (cache, plain):
        decoder(prompt, positions=given, cache=kept)
    for block in cache:
        block.reorder([1, 0])
    torch.testing.assert_close(decoder(new.flip(0), cache=cache), decoder(new, cache=plain).flip(0))


@torch.no_grad()
def test_positions_behind_an_image_go_on_after_a_draft() -> None:
    """Behind a grid of 3 x 2 the next position is 3, and not 6."""
    torch.manual_seed(0)
    layer = Attention(DIM, HEADS, posenc.MRoPE(16, sections=(2, 3, 3)), causal=True)
    image = posenc.positions.multimodal(torch.tensor([[0, 1, 1, 1, 1, 1, 1]]), image_grids=torch.tensor([[1, 3, 2]]))
    cache, plain = layer.new_cache(), layer.new_cache()
    assert image.shape == (1, 7, 3)
    for kept in (cache, plain):
        layer(tokens(7, batch=1), positions=image, cache=kept)
    layer(tokens(4, seed=1, batch=1), cache=cache)
    cache.drop(4)
    assert int(cache.tokens.next_position) == int(plain.tokens.next_position) == 4
    assert torch.equal(layer(tokens(2, seed=2, batch=1), cache=cache), layer(tokens(2, seed=2, batch=1), cache=plain))
    cache.drop(2 + 1)  # into the image: the place behind what is left
    assert int(cache.tokens.next_position) == 4


@torch.no_grad()
def test_a_document_goes_on_after_a_draft() -> None:
    decoder = model("rope")
    ids = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]])
    one, other = decoder.new_cache(), decoder.new_cache()
    for cache in (one, other):
        decoder(tokens(5), documents=ids, cache=cache)
    decoder(tokens(3, seed=1), documents=torch.tensor([[1, 2, 2], [0, 0, 1]]), cache=one)
    for block in one:
        block.drop(3)
    assert torch.equal(one[0].own.tokens.next_position, other[0].own.tokens.next_position)
    torch.testing.assert_close(decoder(tokens(2, seed=2), cache=one), decoder(tokens(2, seed=2), cache=other))


@torch.no_grad()
def test_a_window_that_has_moved_on_cannot_go_back_but_its_copy_can() -> None:
    decoder = model("rope", window=4)
    cache = decoder.new_cache()
    decoder(tokens(2), cache=cache)
    for block in cache:
        block.drop(1)  # nothing was let go of yet
    decoder(tokens(6, seed=1), cache=cache)
    assert isinstance(cache[0].own, SlidingCache)
    with pytest.raises(ValueError, match=r"remove more tokens than the last 3 tokens.*copy\.copy\(cache\)"):
        cache[0].drop(1)
    saved = copy.copy(cache[0].own)
    before = saved.keys
    decoder.layers[0](tokens(3, seed=2), cache=cache[0])  # type: ignore[operator]
    assert torch.equal(saved.keys, before)  # type: ignore[arg-type]
    assert cache[0].own.tokens.next_position == 10
    assert saved.tokens.next_position == 7


@torch.no_grad()
def test_a_context_stays_where_queries_are_taken_back() -> None:
    torch.manual_seed(0)
    block = Block(DIM, HEADS, posenc.RoPE(16), causal=True, cross="attention", cross_encoding=posenc.RoPE(16)).eval()
    context, cache, plain = tokens(4, seed=5), block.new_cache(), block.new_cache()
    block(tokens(3), context, cache=cache)
    block(tokens(3), context, cache=plain)
    block(tokens(2, seed=1), context, cache=cache)
    cache.drop(2)
    torch.testing.assert_close(
        block(tokens(1, seed=2), context, cache=cache), block(tokens(1, seed=2), context, cache=plain)
    )
    cache.reorder([1, 0])
    assert cache.cross is not None
    assert cache.cross.length == 4
    torch.testing.assert_close(
        block(tokens(1, seed=2).flip(0), context.flip(0), cache=cache),
        block(tokens(1, seed=2), context, cache=plain).flip(0),
    )


@pytest.mark.parametrize("cache", [Cache(), SlidingCache(4), StaticCache(8)], ids=lambda cache: type(cache).__name__)
@torch.no_grad()
def test_what_is_no_number_of_tokens_and_no_row_is_refused(cache: Cache) -> None:
    torch.manual_seed(0)
    layer = Attention(DIM, HEADS, causal=True, window=4)
    cache.reorder([5])  # an empty one has no rows
    cache.drop(0)
    layer(tokens(2), cache=cache)
    for count in (3, -1, True, 1.0):
        with pytest.raises(ValueError, match="expected 0 to 2, the number of tokens in the cache"):
            cache.drop(count)  # type: ignore[arg-type]
    for rows in ([2], [-1], [[0, 1]], [0.5], [True, False]):
        with pytest.raises(ValueError, match="expected whole numbers from 0 to 1"):
            cache.reorder(rows)  # type: ignore[arg-type]
    assert cache.length == 2


def test_a_static_cache_that_was_emptied_takes_another_batch() -> None:
    layer, cache = Attention(DIM, HEADS, posenc.RoPE(16), causal=True).eval(), StaticCache(8)
    x = torch.randn(3, 4, DIM)
    with torch.no_grad():
        layer(x, cache=cache)
        cache.drop(4)
        assert torch.equal(layer(x[:2], cache=cache), layer(x[:2]))


def test_a_static_cache_refuses_a_step_of_another_batch_and_keeps_what_it_has() -> None:
    layer, cache = Attention(DIM, HEADS, posenc.RoPE(16), causal=True).eval(), StaticCache(8)
    x = torch.randn(2, 6, DIM)
    with torch.no_grad():
        layer(x[:, :5], cache=cache)
        with pytest.raises(ValueError, match="keys of 1 rows for a cache of 2 rows"):
            layer(torch.randn(1, 1, DIM), cache=cache)
        assert torch.allclose(layer(x[:, 5:], cache=cache), layer(x)[:, 5:], atol=1e-6)


def test_a_copy_of_a_static_cache_has_memory_of_its_own() -> None:
    layer, cache = Attention(DIM, HEADS, posenc.RoPE(16), causal=True).eval(), StaticCache(8)
    x, other = torch.randn(2, 7, DIM), torch.randn(2, 2, DIM)
    with torch.no_grad():
        layer(x[:, :4], cache=cache)
        branch = copy.copy(cache)
        layer(other[:, :1], cache=branch)
        assert torch.allclose(layer(x[:, 4:], cache=cache), layer(x)[:, 4:], atol=1e-6)
        expected = layer(torch.cat((x[:, :4], other), dim=1))[:, -1:]
        assert torch.allclose(layer(other[:, 1:], cache=branch), expected, atol=1e-6)
    assert copy.copy(StaticCache(8)).keys is None


@pytest.mark.parametrize("rows", [[1, 0], [1, 0, 1]])
def test_a_static_cache_that_was_begun_in_inference_mode_goes_on_outside_of_it(rows: list[int]) -> None:
    layer, cache = Attention(DIM, HEADS, posenc.RoPE(16), causal=True).eval(), StaticCache(8)
    x = torch.randn(2, 7, DIM)
    with torch.inference_mode():
        layer(x[:, :5], cache=cache)
    with torch.no_grad():
        assert torch.allclose(layer(x[:, 5:6], cache=cache), layer(x)[:, 5:6], atol=1e-6)
        cache.reorder(rows)
        assert torch.allclose(layer(x[rows, 6:], cache=cache), layer(x)[rows, 6:], atol=1e-6)


def test_all_queries_of_cross_attention_taken_back_leave_the_keys_of_the_context() -> None:
    layer = Attention(DIM, HEADS, posenc.RoPE(16)).eval()
    cache, x, context = layer.new_cache(), torch.randn(2, 3, DIM), torch.randn(2, 6, DIM)
    with torch.no_grad():
        layer(x, context, cache=cache)
        cache.drop(3)
        with pytest.raises(ValueError, match="got count 1, expected 0 to 0"):
            cache.drop(1)
        assert torch.allclose(layer(x, context, cache=cache), layer(x, context), atol=1e-6)


def test_a_count_of_tokens_may_be_an_integer_of_numpy() -> None:
    layer = Attention(DIM, HEADS, posenc.RoPE(16), causal=True).eval()
    cache, x = layer.new_cache(), torch.randn(1, 5, DIM)
    with torch.no_grad():
        layer(x, cache=cache)
        cache.drop(np.int64(2))  # type: ignore[arg-type]
        assert torch.allclose(layer(x[:, 3:], cache=cache), layer(x)[:, 3:], atol=1e-6)

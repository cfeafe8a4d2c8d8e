"""What the tests of other libraries ask of their encodings, asked of ours, with the numbers of those libraries."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.peers import timm
from torch import Tensor, nn

import posenc
from posenc.embeddings import LearnedGrid, Timesteps
from posenc.frequencies import NTK, LearnedRates, Linear, Linspaced
from posenc.nn import Block, Transformer


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def theirs() -> Any:
    return pytest.importorskip("x_transformers.x_transformers")


@pytest.mark.parametrize("rows", [torch.tensor([0, 1, 2, 4]), torch.tensor([[0, 1, 2, 4], [1, 3, 5, 7]])])
@pytest.mark.parametrize("heads", [2, 3, 12])
def test_alibi_of_given_positions(theirs: Any, rows: Tensor, heads: int) -> None:
    """x-transformers, test_custom_alibi: one row for all, and one for each."""
    q = numbers(2, heads, 4, 8)
    bias = theirs.AlibiPositionalBias(heads).forward_custom_pos(rows if rows.ndim == 2 else rows[None])
    expected = nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=bias)
    for implementation in ("auto", "blocks", "dense"):
        ours = posenc.attention(
            q, q, q, posenc.ALiBi(heads), q_positions=rows, k_positions=rows, implementation=implementation
        )
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_alibi_on_some_of_the_heads(theirs: Any) -> None:
    """x-transformers, alibi_num_heads: the others have no bias."""
    bias = theirs.AlibiPositionalBias(2, total_heads=4)(5, 5)
    slopes = (*posenc.ALiBi(2).slopes, 0, 0)
    torch.testing.assert_close(posenc.ALiBi(4, rule=slopes).bias(torch.arange(5), torch.arange(5)), bias)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (16, 40), (32, 512)])
def test_buckets_of_distances(theirs: Any, causal: bool, buckets: int, farthest: int) -> None:
    module = theirs.RelativePositionBias(1.0, causal=causal, num_buckets=buckets, max_distance=farthest, heads=3)
    ours = posenc.T5Bias(
        3, num_buckets=buckets, max_distance=farthest, direction="causal" if causal else "both", scale="none"
    )
    weight = module.relative_attention_bias.weight
    assert ours.table.shape == weight.shape
    with torch.no_grad():
        ours.table.copy_(weight)
        expected = module(300, 600)
    torch.testing.assert_close(ours.bias(torch.arange(300, 600), torch.arange(600)), expected)


def test_counts_of_keys_that_matter(theirs: Any) -> None:
    """x-transformers, test_cope."""
    module, ours = theirs.CoPE(8, 4, 6), posenc.CoPE(num_heads=4, head_dim=8, length=6)
    with torch.no_grad():
        module.pos_emb.copy_(numbers(6, 8))
        ours.table.copy_(module.pos_emb)
    q, k, v = numbers(3, 2, 4, 7, 8, seed=1)
    ahead = torch.ones(7, 7, dtype=torch.bool).triu(1)
    scores = (q @ k.mT / 8**0.5).masked_fill(ahead, -torch.finfo(q.dtype).max)
    weights = (scores + module(q * 8**-0.5, scores)).masked_fill(ahead, -torch.inf).softmax(-1)
    torch.testing.assert_close(posenc.attention(q, k, v, ours, causal=True), weights @ v, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("uniform", [False, True])
def test_polar_positions(theirs: Any, uniform: bool) -> None:
    """x-transformers, test_pope: its scores, as its attention makes them of the softplus of q and k."""
    torch.manual_seed(0)
    with torch.no_grad():  # it draws its phases in place
        module = theirs.PolarEmbedding(8, 4, bias_uniform_init=uniform)
    ours = posenc.PoPE(head_dim=8, num_heads=4)
    with torch.no_grad():
        ours.phase.copy_(module.learned_bias[:, 0])
    q, k = numbers(2, 1, 4, 15, 8)
    angle, phase = module(torch.arange(15))
    expected = theirs.apply_polar_pos_emb(q, angle) @ theirs.apply_polar_pos_emb(k, angle + phase).mT
    turned_q, turned_k = ours.on_queries_keys(q, k)
    torch.testing.assert_close(turned_q @ turned_k.mT, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, None),
        ({"interpolation_factor": 4.0}, Linear(4)),
        ({"base_rescale_factor": 4.0}, NTK(4)),
    ],
)
@pytest.mark.parametrize("rows", [torch.arange(6), torch.tensor([[0, 1, 2, 3, 4, 5], [3, 4, 5, 9, 10, 11]])])
def test_rotations_of_given_positions(theirs: Any, options: dict[str, float], rule: Any, rows: Tensor) -> None:
    """x-transformers, test_custom_rotary_pos_emb, with its two rules for longer texts."""
    q = numbers(2, 4, 6, 16)
    expected = theirs.apply_rotary_pos_emb(q, *theirs.RotaryEmbedding(8, **options)(rows))
    rope = posenc.RoPE(16, rotary_dim=8, frequencies=rule, pairing="interleaved")
    torch.testing.assert_close(rope.rotate(q, rows), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("given", [False, True])
def test_queries_and_a_context_are_rotated_by_their_own_positions(given: bool) -> None:
    """x-transformers, test_cross_attn_rotary: with context_pos both sides of the cross-attention turn, else none."""
    rope = posenc.RoPE(16, pairing="interleaved")
    block = Block(64, 4, rope, cross="attention", cross_encoding=rope if given else None).eval()
    x, context, where, other = numbers(1, 6, 64), numbers(1, 9, 64, seed=1), torch.arange(6) + 2, torch.arange(9) * 3
    seen = block(x, context, positions=where, **({"context_positions": other} if given else {}))
    moved = block(x, context, positions=where + 5, **({"context_positions": other + 5} if given else {}))
    torch.testing.assert_close(moved, seen, atol=1e-5, rtol=1e-5)
    assert torch.allclose(block(x, context, positions=where), seen, atol=1e-6) is not given


@pytest.mark.parametrize("name", ["rotary", "polar"])
def test_a_text_in_parts_is_read_as_the_whole(name: str) -> None:
    """x-transformers, test_pos_emb_parity and test_seq_start_pos_parity, with both at once."""
    encoding = posenc.RoPE(32) if name == "rotary" else posenc.PoPE(head_dim=32, num_heads=4, start="uniform")
    torch.manual_seed(0)
    model = Transformer(128, 4, 1, encoding, causal=True).eval().requires_grad_(False)
    x, real = numbers(2, 15, 128), torch.arange(15) >= torch.tensor([[5], [0]])
    whole, cache = model(x, attention_mask=real), model.new_cache()
    parts = [model(x[:, :10], attention_mask=real[:, :10], cache=cache)]
    parts += [model(x[:, at : at + 1], cache=cache) for at in range(10, 15)]
    torch.testing.assert_close(torch.cat(parts, 1)[real], whole[real], atol=1e-5, rtol=1e-5)


def test_coordinates_between_minus_one_and_one() -> None:
    """rotary-embedding-torch, freqs_for="pixel" and get_axial_freqs, as its README turns a video."""
    package = pytest.importorskip("rotary_embedding_torch")
    q = numbers(1, 8, 4, 6, 5, 96)
    module = package.RotaryEmbedding(dim=16, freqs_for="pixel", max_freq=256)
    expected = package.apply_rotary_emb(module.get_axial_freqs(4, 6, 5), q).flatten(2, 4)
    axes = [torch.linspace(-1, 1, n, dtype=torch.float64) for n in (4, 6, 5)]
    where = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(1, -1, 3)
    rule = Linspaced(torch.pi, 128 * torch.pi)
    rope = posenc.AxialRoPE(96, axes=3, rotary_dim=48, frequencies=rule, layout="interleaved")
    torch.testing.assert_close(rope.rotate(q.flatten(2, 4), where), expected, atol=2e-4, rtol=1e-4)


def test_learned_rates_are_learned_again_and_again() -> None:
    """lucidrains/rotary-embedding-torch#18: angles of the first step were kept, and its graph was gone."""
    rope = posenc.RoPE(16, frequencies=LearnedRates(parameter="rates"))
    optimizer, seen = torch.optim.SGD(rope.parameters(), 0.1), []
    for step in range(3):
        q, k = rope.on_queries_keys(numbers(1, 2, 9, 16, seed=step), numbers(1, 2, 9, 16, seed=9))
        (q @ k.mT).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(rope.rates.detach().clone())
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_codes_of_times_have_what_diffusers_asks_of_its_own() -> None:
    """diffusers, tests/models/test_layers_utils.py, EmbeddingsTests: its properties, and its numbers."""
    codes = Timesteps(256, order="sin_cos", shift=1).codes(torch.arange(16)).numpy()
    assert np.abs(codes[0, :128]).sum() < 1e-5
    assert np.abs(codes[0, 128:] - 1).sum() < 1e-5
    assert np.abs(codes[:, -1] - 1).sum() < 1e-5
    slopes = np.abs(np.gradient(codes, axis=-1)).mean(axis=1)
    assert (np.diff(slopes) > 0).all()
    sines, cosines = Timesteps(16, shift=1).codes(torch.arange(10)).chunk(2, -1)[::-1]
    assert torch.equal(torch.cat((sines, cosines), -1), Timesteps(16, order="sin_cos", shift=1).codes(torch.arange(10)))
    known = {
        (1, "sin_cos", 1): (0.9646, 0.9804, 0.9892, 0.9615, 0.9787, 0.9882, 0.9582, 0.9769, 0.9872),
        (0, "cos_sin", 1): (0.3019, 0.2280, 0.1716, 0.3146, 0.2377, 0.1790, 0.3272, 0.2474, 0.1864),
        (1, "sin_cos", 1000): (-0.9801, -0.9464, -0.9349, -0.3952, 0.8887, -0.9709, 0.5299, -0.2853, -0.9927),
    }
    for (shift, order, scale), expected in known.items():
        made = Timesteps(64, shift=shift, order=order, scale=scale).codes(torch.arange(128))  # type: ignore[arg-type]
        torch.testing.assert_close(made[23:26, 47:50].flatten().float(), torch.tensor(expected), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("square", [False, True])
def test_a_batch_of_images_of_several_sizes_has_its_rows(square: bool) -> None:
    """timm, test_naflexvit_direct_grid_sample_parity: each image has the table stretched to its own size."""
    naflex = timm("models.naflexvit")
    module = naflex.NaFlexEmbeds(
        patch_size=2, in_chans=3, embed_dim=8, proj_type="linear", class_token=False, pos_embed="learned",
        pos_embed_grid_size=(5, 7), pos_embed_ar_preserving=square, pos_embed_use_grid_sample=True,
    )  # fmt: skip
    sizes = ((2, 3), (3, 4))
    coordinates = torch.zeros(2, 12, 2, dtype=torch.long)
    for row, (height, width) in enumerate(sizes):
        coordinates[row, : height * width] = posenc.positions.grid(height, width)[0]
    x = numbers(2, 12, 8)
    expected = x.clone()
    with torch.no_grad():
        module._apply_learned_naflex_pos_embed_grid_sample(expected, coordinates)
    table = LearnedGrid.from_table(module.pos_embed.detach().reshape(35, 8), grid=(5, 7))
    for row, (height, width) in enumerate(sizes):
        stretched = (max(height, width),) * 2 if square else (height, width)
        made = table.resized(*stretched)  # as in transformers, without antialiasing
        where = posenc.positions.grid(height, width)[0] @ torch.tensor([stretched[1], 1])
        ours = made.on_embeddings(x[row : row + 1, : height * width], where)
        torch.testing.assert_close(ours[0], expected[row, : height * width], atol=1e-5, rtol=1e-5)

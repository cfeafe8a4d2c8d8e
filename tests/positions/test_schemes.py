"""Which number a token gets: each scheme by hand, against its authors' words, and as NumPy."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import peers

import posenc
from posenc import positions
from posenc.positions.dual_chunks import distances


def golden(name: str) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = json.loads((Path(__file__).parent.parent / "golden" / f"{name}.json").read_text())[
        "values"
    ]
    return values


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The kind of the array


AS_GIVEN = {
    "from_mask": (positions.from_mask, [0, 1, 1, 0]),
    "from_lengths": (positions.from_lengths, [0, 2, 5]),
    "from_documents": (positions.from_documents, [3, 3, 1]),
    "shard": (lambda x: positions.shard(x, rank=1, ranks=2), [5, 6, 7, 8]),
    "unshard": (lambda x: positions.unshard([x, x]), [1, 2]),
    "multimodal": (positions.multimodal, [0, 0, 0]),
    "shifted": (lambda x: positions.shifted(x, max_shift=9, generator=generator()), [0, 1, 2]),
    "digits": (positions.digits, [0, 1, 1]),
    "grouped": (lambda x: positions.grouped(x, group=2, window=2)[0], [0, 1, 2]),
    "dual_chunk": (lambda x: positions.dual_chunk(x, chunk=2, trained_length=4).successive, [0, 1, 2]),
    "sequential": (lambda x: positions.sequential(3, like=x), [0]),
    "grid": (lambda x: positions.grid(2, 2, like=x), [0]),
    "randomized": (lambda x: positions.randomized(3, max_length=9, generator=generator(), like=x), [0]),
    "skipwise": (lambda x: positions.skipwise(3, target_length=9, generator=generator(), like=x), [0]),
}


@pytest.mark.parametrize("name", AS_GIVEN)
def test_torch_gives_torch_and_numpy_gives_numpy_and_the_input_is_left_alone(name: str) -> None:
    function, values = AS_GIVEN[name]
    in_torch, in_numpy = torch.tensor(values), np.array(values)
    of_torch, of_numpy = function(in_torch), function(in_numpy)
    assert isinstance(of_torch, torch.Tensor)
    assert isinstance(of_numpy, np.ndarray)
    assert of_torch.dtype == torch.int64
    assert (of_torch.numpy() == of_numpy).all()
    assert in_torch.tolist() == in_numpy.tolist() == values


def test_a_list_is_refused() -> None:
    with pytest.raises(TypeError, match="from_mask: got a value of type list, expected a torch or a NumPy array"):
        positions.from_mask([0, 1])  # type: ignore[type-var]


# One sequence, padding, packs


def test_sequential_goes_on_from_an_offset() -> None:
    assert positions.sequential(3, offset=7).tolist() == [7, 8, 9]
    with pytest.raises(ValueError, match="got offset -1"):
        positions.sequential(3, offset=-1)


def test_a_mask_on_either_side_or_with_holes() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0]])
    assert positions.from_mask(mask).tolist() == [[0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 1, 2], [0, 0, 0, 0]]
    assert torch.equal(positions.from_mask(mask.bool()), positions.from_mask(mask))
    with pytest.raises(ValueError, match="got values other than 0 and 1"):
        positions.from_mask(torch.tensor([0.0, -torch.inf]))


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_a_pack_is_its_documents_one_after_the_other(lengths: list[int]) -> None:
    expected = [p for length in lengths for p in range(length)]
    cumulative = torch.tensor([0, *itertools.accumulate(lengths)])
    assert positions.from_lengths(cumulative).tolist() == expected
    ids = torch.tensor([d for d, length in enumerate(lengths) for _ in range(length)], dtype=torch.int64)
    assert positions.from_documents(ids).tolist() == expected


def test_documents_in_a_batch() -> None:
    assert positions.from_documents(torch.tensor([[1, 1, 2], [5, 4, 4]])).tolist() == [[0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("ends", [[], [1, 2], [0, 3, 2]])
def test_ends_that_are_none_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="expected 0 and then the end of each document"):
        positions.from_lengths(torch.tensor(ends, dtype=torch.int64))


# Shards


@pytest.mark.parametrize("scheme", ["contiguous", "zigzag"])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_shards_put_together_are_the_whole(ranks: int, scheme: positions.Scheme) -> None:
    whole = torch.randn(2, 12, 5)
    parts = [positions.shard(whole, rank=r, ranks=ranks, scheme=scheme, dim=1) for r in range(ranks)]
    assert all(part.shape == (2, 12 // ranks, 5) for part in parts)
    assert torch.equal(positions.unshard(parts, scheme=scheme, dim=1), whole)


def test_the_dimension_of_the_tokens_is_not_guessed() -> None:
    """NVIDIA/Megatron-LM#1612: M-RoPE under context parallelism was cut along another dimension than the tokens'."""
    where = positions.grid(4, 4)
    with pytest.raises(ValueError, match=r"shape \(1, 16, 2\) and no dim, .*1 for positions \(batch, seq, axes\)"):
        positions.shard(where, rank=0, ranks=2)  # gave the rows of all patches
    parts = [positions.shard(where, rank=rank, ranks=2, scheme="zigzag", dim=1) for rank in range(2)]
    with pytest.raises(ValueError, match="no dim"):
        positions.unshard(parts, scheme="zigzag")
    assert torch.equal(positions.unshard(parts, scheme="zigzag", dim=1), where)
    assert positions.shard(where[0, :, 0], rank=1, ranks=2).shape == (8,)


def test_zigzag_gives_all_ranks_equally_many_pairs_under_a_causal_mask() -> None:
    work = [int((positions.shard(torch.arange(24), rank=r, ranks=3, scheme="zigzag") + 1).sum()) for r in range(3)]
    assert len(set(work)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0, "ranks": 5}, "got 12 tokens for 5 ranks, expected a multiple of 5 .*pad to 15"),
        ({"rank": 0, "ranks": 4, "scheme": "zigzag"}, "expected a multiple of 8 .*pad to 16"),
        ({"rank": 2, "ranks": 2}, "got rank 2 of 2 ranks"),
        ({"rank": -1, "ranks": 2}, "got rank -1"),
        ({"rank": 0, "ranks": 2, "scheme": "ring"}, "got scheme 'ring'"),
    ],
)
def test_shards_that_do_not_exist_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        positions.shard(torch.arange(12), **options)  # type: ignore[type-var]


# Grids


def test_a_grid_runs_along_its_last_axis_first() -> None:
    where = positions.grid(2, 3, 4)
    assert where.shape == (1, 24, 3)
    assert where[0].tolist() == [list(index) for index in np.ndindex(2, 3, 4)]


def test_tokens_before_and_after_a_grid_stand_at_zero() -> None:
    where = positions.grid(2, 2, prefix=1, suffix=2, start=1)[0]
    assert where.tolist() == [[0, 0], [1, 1], [1, 2], [2, 1], [2, 2], [0, 0], [0, 0]]
    rope = posenc.AxialRoPE(head_dim=8)
    x = torch.randn(1, 1, 7, 8)
    turned = rope.rotate(x, where[None])
    assert torch.equal(turned[:, :, [0, 5, 6]], x[:, :, [0, 5, 6]])


def test_a_centred_grid_is_that_of_dinov3() -> None:
    from transformers.models.dinov3_vit.modeling_dinov3_vit import get_patches_center_coordinates

    theirs = get_patches_center_coordinates(3, 5, dtype=torch.float64, device=torch.device("cpu"))
    torch.testing.assert_close(positions.grid(3, 5, unit="centred")[0], theirs)


@pytest.mark.parametrize("normalize", ["separate", "max", "min"])
def test_a_centred_grid_is_that_of_dinov3_in_timm_for_each_way_to_normalise(normalize: str) -> None:
    """Through the rotation, since timm's module gives sines and cosines of 2 pi x / period alone."""
    timm = peers.timm("layers.pos_embed_sincos")
    module = timm.RotaryEmbeddingDinoV3(64, normalize_coords=normalize).eval()
    sines, cosines = module.get_embed([8, 6]).double().chunk(2, dim=-1)
    where = positions.grid(8, 6, unit="centred", normalize=normalize.replace("separate", "each"))
    rates = 2 * math.pi * posenc.Geometric(100).inv_freq(32)
    angle, _ = posenc.AxialRoPE(64, frequencies=posenc.frequencies.Custom(rates)).phases(where)
    torch.testing.assert_close(torch.cat((angle, angle), -1)[0].sin(), sines, rtol=0, atol=3e-6)
    torch.testing.assert_close(torch.cat((angle, angle), -1)[0].cos(), cosines, rtol=0, atol=3e-6)


def test_a_fitted_grid_is_that_of_eva_in_timm() -> None:
    timm = peers.timm("layers.pos_embed_sincos")
    module = timm.RotaryEmbeddingCat(64, in_pixels=False, feat_shape=[8, 6], ref_feat_shape=[4, 4])
    q = torch.randn(1, 2, 48, 64, generator=torch.Generator().manual_seed(0))
    ours = posenc.AxialRoPE(64, layout="interleaved").rotate(q, positions.grid(8, 6, fit=(4, 4)))
    torch.testing.assert_close(ours, timm.apply_rot_embed_cat(q, module.get_embed()), rtol=0, atol=3e-6)


def test_fitted_grids_lie_as_their_names_say() -> None:
    """Two patches laid upon four, and an axis that is left alone."""
    assert positions.grid(3, 2, fit=(None, 4))[0, :2].tolist() == [[0, 0], [0, 2]]
    assert positions.grid(3, 2, fit=(None, 4), align="middles")[0, :2].tolist() == [[0, 0.5], [0, 2.5]]
    assert positions.grid(3, 2, fit=(None, 4), align="ends")[0, :2].tolist() == [[0, 0], [0, 3]]
    assert positions.grid(3, 4, fit=(3, 4)).dtype == torch.int64
    assert positions.grid(1, fit=(4,), align="ends")[0].tolist() == [[0]]
    # torchvision and torch resample images by their middles: the coordinate of a new pixel in the old image.
    row = torch.arange(4.0)[None, None, None]
    smaller = torch.nn.functional.interpolate(row, size=(1, 2), mode="bilinear", align_corners=False).flatten()
    torch.testing.assert_close(positions.grid(2, fit=(4,), align="middles")[0, :, 0].float(), smaller)
    ends = torch.nn.functional.interpolate(row, size=(1, 3), mode="bilinear", align_corners=True).flatten()
    torch.testing.assert_close(positions.grid(3, fit=(4,), align="ends")[0, :, 0].float(), ends)


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1)])
def test_a_grid_from_its_centre_is_that_of_qwen_image(size: tuple[int, int]) -> None:
    """The frames count from 0; rows and columns from the middle, so that they are negative before it."""
    qwen = pytest.importorskip("diffusers.models.transformers.transformer_qwenimage", reason="no diffusers")
    turns, _ = qwen.QwenEmbedRope(10000, [16, 56, 56], scale_rope=True)([(1, *size)], "cpu", max_txt_seq_len=5)
    where = positions.grid(1, *size, origin=("start", "centre", "centre"))
    angle, _ = posenc.AxialRoPE(128, axes=(16, 56, 56), layout="interleaved").phases(where)
    torch.testing.assert_close(torch.view_as_real(turns)[..., 1].double(), angle[0].sin(), rtol=0, atol=3e-6)
    assert where.dtype == torch.int64
    assert int(where.min()) == -math.ceil(max(size) / 2)


def test_a_grid_from_its_middle_with_steps_is_that_of_mochi() -> None:
    mochi = pytest.importorskip("diffusers.models.transformers.transformer_mochi", reason="diffusers is not installed")
    theirs = mochi.MochiRoPE()._get_positions(3, 9, 6, dtype=torch.float64)
    step = (192 * 192 / (9 * 6)) ** 0.5
    ours = positions.grid(3, 9, 6, origin=("start", "middle", "middle"), step=(1, step, step))
    torch.testing.assert_close(ours[0], theirs)
    assert positions.grid(3, 5, origin="middle")[0, [0, -1]].tolist() == [[-1, -2], [1, 2]]


def test_each_axis_has_its_own_start_and_step() -> None:
    where = positions.grid(3, 2, start=(-1, 5), step=(7, 1))
    assert where[0].tolist() == [[-1, 5], [-1, 6], [6, 5], [6, 6], [13, 5], [13, 6]]
    assert positions.grid(3, 2, step=0.5).dtype == torch.float64
    assert positions.grid(4, step=0.8, start=0.1)[0, :, 0].tolist() == [0.1 + 0.8 * i for i in range(4)]


@pytest.mark.parametrize(
    "options", [{"shift": 0.3}, {"jitter": 1.5}, {"rescale": 2.0}, {"shift": 0.1, "jitter": 2.0, "rescale": 1.2}]
)
def test_augmented_coordinates_are_those_of_dinov3(options: dict[str, float]) -> None:
    from transformers.models.dinov3_vit.modeling_dinov3_vit import augment_patches_center_coordinates

    where = positions.grid(5, 7, prefix=2, suffix=1, unit="centred")
    torch.manual_seed(3)
    theirs = augment_patches_center_coordinates(where[0, 2:-1], **options)
    ours = positions.augmented(where, prefix=2, suffix=1, generator=torch.Generator().manual_seed(3), **options)
    torch.testing.assert_close(ours[0, 2:-1], theirs)
    assert torch.equal(ours[0, [0, 1, -1]], where[0, [0, 1, -1]])
    assert not torch.equal(ours, where)


def test_augmented_coordinates_stay_within_their_limits_and_differ_from_row_to_row() -> None:
    where = positions.grid(4, 6, unit="centred").expand(500, 24, 2)  # none of them is 0
    before = where.clone()
    generator = torch.Generator().manual_seed(0)
    moved = positions.augmented(where, shift=0.25, generator=generator) - where
    assert (moved - moved[:, :1]).abs().max() < 1e-12  # one shift for all patches of a row
    assert 0.24 < moved.abs().max() <= 0.25
    stretched = positions.augmented(where, jitter=2.0, generator=generator) / where
    assert 0.5 <= stretched.min() < 0.51 < 1.98 < stretched.max() <= 2
    assert not torch.allclose(stretched[:, :1, 0], stretched[:, :1, 1])
    scaled = positions.augmented(where, rescale=2.0, generator=generator) / where
    assert (scaled - scaled[:, :1, :1]).abs().max() < 1e-12
    assert torch.equal(where, before)
    assert torch.equal(positions.augmented(where), where)
    assert positions.augmented(positions.grid(2, 2)).dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift": -0.1}, "got shift -0.1, expected 0 or more"),
        ({"jitter": 0.5}, "got jitter 0.5, expected 1 or more"),
        ({"rescale": float("inf")}, "got rescale inf"),
        ({"prefix": -1}, "got prefix -1"),
    ],
)
def test_augmentations_that_do_not_exist_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        positions.augmented(positions.grid(2, 2), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got shape"):
        positions.augmented(torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((), {}, "got no axes"),
        ((3, 0), {}, "got size 0"),
        ((3,), {"prefix": -1}, "got prefix -1"),
        ((3,), {"unit": "pixels"}, "got unit 'pixels'"),
        ((3,), {"unit": "centred", "start": 1}, 'got start with unit "centred"'),
        ((3,), {"unit": "centred", "origin": "centre"}, 'got origin with unit "centred"'),
        ((3,), {"unit": "centred", "fit": (4,)}, 'got fit with unit "centred"'),
        ((3,), {"unit": "centred", "step": 2}, 'got step with unit "centred"'),
        ((3,), {"normalize": "max"}, "got normalize 'max' without unit=\"centred\""),
        ((3,), {"unit": "centred", "normalize": "all"}, "got normalize 'all'"),
        ((3,), {"origin": "corner"}, "got origin 'corner'"),
        ((3,), {"fit": (4,), "align": "corners"}, "got align 'corners'"),
        ((3,), {"fit": (0,)}, "got fit 0"),
        ((3, 3), {"fit": (4,)}, "got 1 values of fit for 2 axes"),
        ((3, 3), {"step": (1, 2, 3)}, "got 3 values of step for 2 axes"),
        ((3,), {"step": float("nan")}, "got step nan"),
        ((3,), {"start": "one"}, "got start 'one'"),
    ],
)
def test_grids_that_do_not_exist_are_refused(shape: tuple[int, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        positions.grid(*shape, **options)  # type: ignore[arg-type]


# Drawn in training


@settings(max_examples=30)
@given(length=st.integers(0, 20), more=st.integers(0, 50), seed=st.integers(0, 99))
def test_randomized_positions_rise_and_stay_below_the_limit(length: int, more: int, seed: int) -> None:
    drawn = positions.randomized(length, max_length=length + more, rows=3, generator=generator(seed))
    assert drawn.shape == (3, length)
    assert bool((drawn.diff(dim=-1) > 0).all())
    assert bool((drawn < length + more).all())
    assert torch.equal(drawn, positions.randomized(length, max_length=length + more, rows=3, generator=generator(seed)))


def test_randomized_positions_use_the_whole_range_evenly() -> None:
    drawn = positions.randomized(4, max_length=8, rows=4000, generator=generator())
    share = torch.bincount(drawn.flatten(), minlength=8) / 4000
    torch.testing.assert_close(share, torch.full((8,), 0.5), atol=0.03, rtol=0)


def test_no_rows_of_randomized_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="randomized: got rows 0, expected a whole number of at least 1"):
        positions.randomized(4, max_length=8, rows=0)


@settings(max_examples=50)
@given(length=st.integers(1, 20), more=st.integers(0, 50), chunks=st.integers(1, 4), seed=st.integers(0, 99))
def test_skipwise_positions_leap_between_chunks_and_nowhere_else(
    length: int, more: int, chunks: int, seed: int
) -> None:
    chunks = min(chunks, length)
    drawn = positions.skipwise(length, target_length=length + more, chunks=chunks, generator=generator(seed))
    assert drawn[0] == 0
    assert drawn[-1] < length + more
    assert bool((drawn.diff() >= 1).all())
    assert int((drawn.diff() > 1).sum()) <= chunks - 1


def test_skipwise_positions_reach_the_target() -> None:
    last = {int(positions.skipwise(4, target_length=8, generator=generator(seed))[-1]) for seed in range(100)}
    assert last == {3, 4, 5, 6, 7}


def test_shifted_rows_have_a_shift_each() -> None:
    moved = positions.shifted(torch.arange(5).expand(200, 5), max_shift=3, generator=generator())
    assert bool((moved.diff(dim=-1) == 1).all())
    assert set(moved[:, 0].tolist()) == {0, 1, 2, 3}
    assert torch.equal(positions.shifted(torch.arange(5), max_shift=0), torch.arange(5))


# Digits, groups, chunks


def test_digits_start_anew_in_each_number() -> None:
    text = torch.tensor([[c.isdigit() for c in "12+345=753"], [c.isdigit() for c in "1-1-22----"]])
    assert positions.digits(text).tolist() == [[1, 2, 0, 1, 2, 3, 0, 1, 2, 3], [1, 0, 1, 0, 1, 2, 0, 0, 0, 0]]
    assert positions.digits(text, offset=9)[0].tolist() == [10, 11, 0, 10, 11, 12, 0, 10, 11, 12]


@pytest.mark.parametrize(("group", "window"), [(2, 4), (8, 1024), (3, 7), (1, 5)])
def test_far_distances_go_on_where_near_ones_end(group: int, window: int) -> None:
    p = torch.arange(4 * window)
    q, k = positions.grouped(p, group=group, window=window)
    near, far = p[:, None] - p[None, :], q[:, None] - k[None, :]
    taken = torch.where(near < window, near, far)
    causal = near >= 0
    # From a key to the one before it grows by at most one; by two at the seam, if the groups do not fill the window.
    steps = -taken.diff(dim=1)[causal[:, 1:]]
    assert int(steps.max()) == (1 if window % group == 0 else 2)
    assert int(taken.max()) <= window + (len(p) - window) // group + 1
    if group == 1:
        assert torch.equal(taken[causal], near[causal])


def test_self_extend_reaches_as_far_as_its_paper_says() -> None:
    trained, group, window = 64, 4, 16
    longest = (trained - window) * group + window
    q, k = positions.grouped(torch.arange(longest), group=group, window=window)
    assert int((q[:, None] - k[None, :]).max()) < trained


def test_the_distances_of_dual_chunk_attention_are_those_of_its_figure_2() -> None:
    matrix = distances(torch.arange(12), chunk=6, trained_length=10)
    assert matrix[:6, :6].tolist() == [[i - j for j in range(6)] for i in range(6)]
    assert matrix[6:, 6:].tolist() == [[i - j for j in range(6)] for i in range(6)]
    assert matrix[6:, :6].tolist() == [[q - j for j in range(6)] for q in (6, 7, 8, 9, 9, 9)]
    # within a window of c - s = 4 tokens, distances are exact across the border of two chunks
    near = torch.arange(12)[:, None] - torch.arange(12)[None, :]
    assert torch.equal(matrix[(near >= 0) & (near <= 4)], near[(near >= 0) & (near <= 4)])


def test_distances_of_dual_chunk_attention_never_leave_the_trained_window() -> None:
    matrix = distances(torch.arange(60), chunk=6, trained_length=10)
    causal = torch.ones(60, 60).tril().bool()
    assert int(matrix[causal].max()) == 9
    assert int(matrix[causal].min()) == 0
    with pytest.raises(ValueError, match="got trained_length 6, expected a whole number of at least 7"):
        positions.dual_chunk(torch.arange(3), chunk=6, trained_length=6)


# The length of the sequence that a token stands in


def test_each_document_has_its_length() -> None:
    lengths = positions.sequence_lengths(torch.tensor([[0, 1, 2, 0, 1], [0, 0, 0, 1, 2], [5, 6, 7, 8, 9]]))
    assert lengths.tolist() == [[3, 3, 3, 2, 2], [3, 3, 3, 3, 3], [10] * 5]
    assert positions.sequence_lengths(torch.tensor([0.0, 0.5, 1.5])).tolist() == [2, 2, 2]


def test_dual_chunks_are_those_of_the_released_code_by_name() -> None:
    """ChunkLlama's tables at its natural call, chunk_size 3072 and local_window 512: clamped at 3072, not 3071."""
    from posenc.positions.dual_chunks import distances, dual_chunk

    c, local = 3072, 512
    s = c - local
    p = torch.arange(3 * s)
    code = dual_chunk(p, chunk=s, trained_length=c, clamp="code")
    theirs = (torch.arange(s) + s).clamp(max=c)
    assert torch.equal(code.successive[:s], theirs)
    assert set(code.between.tolist()) == {int(theirs[s - 1])} == {c}
    paper = dual_chunk(p, chunk=s, trained_length=c)
    assert int(paper.successive.max()) == int(paper.between.max()) == c - 1
    assert torch.equal(code.keys, paper.keys)
    short = dual_chunk(torch.arange(8), chunk=4, trained_length=100, clamp="code")  # 2s - 1 is below c
    assert set(short.between.tolist()) == {7}
    apart = distances(torch.arange(12), chunk=4, trained_length=6, clamp="code")
    assert int(apart.max()) == 6
    with pytest.raises(ValueError, match="dual_chunk: got clamp 'vllm'"):
        dual_chunk(p, chunk=4, trained_length=6, clamp="vllm")  # type: ignore[arg-type]


@pytest.mark.parametrize("case", golden("chunkllama_positions"), ids=lambda case: f"{case['chunk_size']}")
def test_dual_chunks_by_code_are_those_behind_chunkllamas_tables(case: dict[str, Any]) -> None:
    size = case["chunk_size"]
    ours = positions.dual_chunk(
        torch.arange(case["tokens"]), chunk=size - case["local_window"], trained_length=size, clamp="code"
    )
    for name in ("keys", "within", "successive", "between"):
        assert getattr(ours, name).tolist() == case[name], name


@pytest.mark.parametrize("case", golden("pose_cuts"), ids=lambda case: f"{case['length']}")
def test_cuts_and_leaps_of_pose_are_those_that_the_authors_code_drew(case: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    length, target = case["length"], case["target_length"]
    cuts, leaps = set(), set()
    for _ in range(1000):
        drawn = positions.skipwise(length, target_length=target, cuts="authors", generator=generator)
        leaps.add(int(drawn[-1]) - (length - 1))
        cuts |= {int(at) + 1 for at in (drawn.diff() > 1).nonzero()}
    assert sorted(cuts) == case["first_chunks"]
    assert [min(leaps), max(leaps)] == case["leaps"]


def test_skipwise_cuts_where_the_authors_do_by_name() -> None:
    from posenc.positions import skipwise

    def first_chunks(cuts: str) -> set[int]:
        generator = torch.Generator().manual_seed(0)
        drawn = [skipwise(9, target_length=10_000, cuts=cuts, generator=generator) for _ in range(300)]
        return {int((each.diff() > 1).nonzero()[0]) + 1 for each in drawn if bool((each.diff() > 1).any())}

    assert first_chunks("authors") == {1, 2, 3, 4, 5}
    assert first_chunks("anywhere") == set(range(1, 9))
    with pytest.raises(ValueError, match="got cuts 'authors' for 3 chunks"):
        skipwise(9, target_length=99, chunks=3, cuts="authors")


def test_a_mask_is_counted_within_a_graph() -> None:
    """Its check of the values is not part of a graph, which would break there."""
    counted = torch.compile(positions.from_mask, backend="eager", fullgraph=True)

    class Model(torch.nn.Module):
        def forward(self, mask: torch.Tensor) -> torch.Tensor:
            return positions.from_mask(mask)

    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    exported = torch.export.export(Model(), (mask,)).module()
    for real in (mask, mask.flip(-1)):
        expected = positions.from_mask(real)
        assert torch.equal(counted(real), expected)
        assert torch.equal(exported(real), expected)
    assert positions.from_mask(mask.to("meta")).shape == mask.shape
    with pytest.raises(ValueError, match="expected an attention mask"):
        positions.from_mask(2 * mask)

"""The measurements are checked against encodings whose properties are known."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from torch import Tensor

import posenc
from posenc.lab.encodings import properties
from posenc.lab.encodings.properties import Properties, codes_of, measure, order_test, smallest_distance, unique_codes

DIM, HEADS = 32, 4
OPTIONS = {"normalized": {"length": 64}, "learned": {"length": 64}}


def make(name: str, **options: object) -> posenc.Encoding:
    torch.manual_seed(0)
    return posenc.make(name, dim=DIM, num_heads=HEADS, **(OPTIONS.get(name, {}) | options))


@pytest.fixture(scope="module")
def measured() -> dict[str, Properties]:
    road = ("none", "integer", "normalized", "binary", "sinusoidal", "learned", "rope", "alibi")
    return {name: measure(make(name), dim=DIM, num_heads=HEADS, positions=4096) for name in road}


@pytest.mark.parametrize("name", ["t5", "fire", "shaw", "forgetting"])
def test_an_encoding_of_the_scores_is_measured_and_one_that_reads_tokens_says_so(name: str) -> None:
    found = measure(make(name), dim=DIM, num_heads=HEADS, positions=256)
    assert found.order > 1e-3
    contextual = name in ("shaw", "forgetting")
    assert (found.unique is None) == contextual
    assert ("depends on the content of the tokens" in found.reasons.get("unique", "")) == contextual


# 1: a code of its own


def brute_force(codes: Tensor) -> float:
    return min(float((a - b).norm()) for a, b in itertools.combinations(codes, 2))


@pytest.mark.parametrize("count", [2, 63, 64, 65, 200])
def test_the_smallest_distance_is_that_of_all_pairs(count: int) -> None:
    codes = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    distance, (i, j) = smallest_distance(codes, block=16)
    assert distance == pytest.approx(brute_force(codes))
    assert i < j
    assert float((codes[i] - codes[j]).norm()) == pytest.approx(distance)


def test_a_close_pair_is_found_far_apart_in_the_order_and_far_from_zero() -> None:
    codes = 1e6 + torch.arange(5000, dtype=torch.float64)[:, None].expand(-1, 4).clone()
    codes[4321] = codes[17] + 1e-3
    assert smallest_distance(codes) == (pytest.approx(2e-3, rel=1e-6), (17, 4321))


def test_integers_in_bfloat16_repeat_after_256(measured: dict[str, Properties]) -> None:
    unique = measured["integer"].unique
    assert unique is not None
    assert unique["bfloat16"].pair == (256, 257)
    # 257 whole numbers up to 256, then 128 for each doubling up to 4095, which rounds to 4096.
    assert unique["bfloat16"].distinct == 257 + 4 * 128
    assert unique["bfloat16"].distance == 0
    assert unique["float32"].distinct == 4096
    assert unique["float32"].distance == pytest.approx(DIM**0.5)


def test_minus_zero_is_zero() -> None:
    assert unique_codes(torch.tensor([[0.0], [-0.0], [1.0]])).pair == (0, 1)


def test_sines_have_a_code_of_their_own_in_both_dtypes(measured: dict[str, Properties]) -> None:
    for name in ("sinusoidal", "rope", "binary"):
        unique = measured[name].unique
        assert unique is not None
        assert [unique[dtype].distinct for dtype in ("float32", "bfloat16")] == [4096, 4096]


def test_binary_codes_repeat_where_the_digits_end() -> None:
    codes = codes_of(posenc.Binary(dim=5), torch.arange(100), dim=5, num_heads=1)
    assert unique_codes(codes).pair == (0, 32)


# 2: a linear map


@pytest.mark.parametrize("name", ["sinusoidal", "rope"])
def test_waves_have_an_exact_linear_map(name: str, measured: dict[str, Properties]) -> None:
    linear_map = measured[name].linear_map
    assert linear_map is not None
    assert linear_map.worst < 1e-11


@pytest.mark.parametrize("name", ["integer", "normalized", "binary", "learned", "alibi"])
def test_the_others_have_none(name: str, measured: dict[str, Properties]) -> None:
    linear_map = measured[name].linear_map
    assert linear_map is not None
    assert linear_map.worst > 0.3


def test_a_small_table_is_not_learned_by_heart() -> None:
    """64 rows of 64 channels: any map can be fitted to them, and none holds for a row that was not seen."""
    torch.manual_seed(1)
    encoding = posenc.Learned(dim=64, length=64)
    assert properties.best_linear_map(encoding, dim=64, num_heads=1).worst > 0.5


def test_a_table_of_few_rows_is_given_no_number_but_a_reason() -> None:
    found = measure(posenc.Learned(dim=8, length=10), dim=8, num_heads=1)
    assert found.linear_map is None
    assert "only 10 positions" in found.reasons["linear_map"]


# 4: deterministic, no table


def test_only_the_learned_table_costs_memory_and_differs_from_build_to_build(measured: dict[str, Properties]) -> None:
    for name, found in measured.items():
        if name == "learned":
            assert found.cost == properties.Cost(64 * DIM, 4 * DIM, False)
        else:
            assert found.cost == properties.Cost(0, 0.0, True)


# 5: more dimensions


def test_waves_keep_their_linear_map_on_a_grid_and_the_others_have_none(measured: dict[str, Properties]) -> None:
    for name, found in measured.items():
        if name == "none":
            assert found.grid is None
        else:
            assert found.grid is not None
            assert found.grid.distance > 0
            assert (found.grid.residual < 1e-11) == (name in ("sinusoidal", "rope"))


def test_the_distance_on_a_grid_is_that_of_all_pairs_of_points() -> None:
    found = properties.on_a_grid(posenc.Sinusoidal(dim=8), dim=8, num_heads=1)
    axis = posenc.Sinusoidal(dim=4).codes(torch.arange(found.side))
    x, y = torch.meshgrid(torch.arange(found.side), torch.arange(found.side), indexing="ij")
    codes = torch.cat((axis[x.flatten()], axis[y.flatten()]), dim=-1)
    assert found.distance == pytest.approx(smallest_distance(codes)[0])


# Order


def test_order_is_invisible_without_an_encoding_and_visible_with_any(measured: dict[str, Properties]) -> None:
    assert measured["none"].order < 1e-14
    for name, found in measured.items():
        if name != "none":
            assert found.order > 1e-3, name
    assert measured["rope"].order > 0.1


def test_the_order_test_moves_the_other_words_only() -> None:
    """A bias towards the key at the same position sees nothing of the others' order."""

    class Diagonal(posenc.ScoreEncoding):
        def __init__(self, num_heads: int) -> None:
            super().__init__()
            self.num_heads = num_heads

        def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
            same = (q_positions[:, None] == k_positions[None, :]).float()
            return 3 * same.expand(self.num_heads, -1, -1)

    assert order_test(Diagonal(HEADS), dim=DIM, num_heads=HEADS) < 1e-14


# Any encoding


def test_the_code_of_each_place_is_what_is_documented() -> None:
    positions = torch.arange(5)
    sinusoidal = posenc.Sinusoidal(dim=DIM)
    assert torch.equal(codes_of(sinusoidal, positions, dim=DIM, num_heads=HEADS), sinusoidal.codes(positions))
    rope = posenc.RoPE(head_dim=8)
    ones = torch.ones(5, 8, dtype=torch.float64)
    assert torch.equal(codes_of(rope, positions, dim=DIM, num_heads=HEADS), rope.rotate(ones, positions))
    alibi = posenc.ALiBi(num_heads=HEADS)
    expected = alibi.bias(positions, torch.zeros(1))[:, :, 0].T.double()
    assert torch.equal(codes_of(alibi, positions, dim=DIM, num_heads=HEADS), expected)
    assert codes_of(posenc.NoPE(), positions, dim=DIM, num_heads=HEADS).shape == (5, 0)


def test_an_encoding_of_your_own_and_a_composition_are_measured_too() -> None:
    class Quadratic(posenc.EmbeddingEncoding):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.dim = dim

        def codes(self, positions: Tensor) -> Tensor:
            p = positions.double()
            return torch.stack([torch.ones_like(p), p, p**2], dim=-1).repeat(1, 1 + self.dim // 3)[..., : self.dim]

    found = measure(Quadratic(12), dim=12, num_heads=1, positions=500)
    assert found.linear_map is not None
    assert found.linear_map.worst < 1e-6  # a shift maps polynomials to polynomials
    both = measure(posenc.Compose(posenc.RoPE(8), posenc.ALiBi(HEADS)), dim=DIM, num_heads=HEADS, positions=500)
    assert both.width == 8 + HEADS
    assert both.grid is None
    assert "halve" in both.reasons["grid"]


def test_what_does_not_apply_is_none_with_a_reason_and_the_rest_is_plain_data(measured: dict[str, Properties]) -> None:
    none = measured["none"]
    assert (none.unique, none.linear_map, none.grid) == (None, None, None)
    assert set(none.reasons) == {"unique", "linear_map", "grid"}
    for found in measured.values():
        data = json.loads(json.dumps(dataclasses.asdict(found)))
        assert data["order"] == found.order
        assert np.isfinite(data["cost"]["bytes_per_position"])

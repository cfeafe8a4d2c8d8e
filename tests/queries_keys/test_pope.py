"""PoPE: the sum of cosines, released code, phases and their limits, wider heads everywhere, its refusals."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import posenc
from posenc.frequencies import Custom, DynamicNTK, LearnedRates
from posenc.nn import Attention
from posenc.oracle.queries_keys import pope as oracle

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pope.json").read_text())["values"]


def heads(seq: int, seed: int = 0, heads: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, heads, seq, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def uniform(**options: object) -> posenc.PoPE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return posenc.PoPE(head_dim=8, num_heads=4, start="uniform", **options)  # type: ignore[arg-type]


def test_scores_are_those_of_released_code() -> None:
    q, k = (torch.tensor(GOLDEN[name], dtype=torch.float64) for name in ("q", "k"))
    pope = posenc.PoPE(q.shape[-1], num_heads=q.shape[1], num_kv_heads=len(GOLDEN["phase"])).double()
    pope.load_state_dict({"phase": torch.tensor(GOLDEN["phase"])})
    wide_q, wide_k = pope.on_queries_keys(q, k, torch.tensor(GOLDEN["positions"]))
    expected = torch.tensor(GOLDEN["scores"], dtype=torch.float64)
    torch.testing.assert_close(wide_q @ wide_k.mT, expected, rtol=1e-6, atol=1e-6)


def test_an_installed_library_agrees() -> None:
    theirs = pytest.importorskip("PoPE_pytorch")
    ours, other = uniform(), theirs.PoPE(8, heads=4)
    other.load_state_dict({"bias": ours.phase.detach()}, strict=False)
    q, k = heads(30, dtype=torch.float32), heads(30, 1, dtype=torch.float32)
    wide_q, wide_k = other.apply_pope_to_qk(other(30), q, k)
    mine_q, mine_k = ours.on_queries_keys(q, k)
    torch.testing.assert_close(mine_q @ mine_k.mT, wide_q @ wide_k.mT, rtol=1e-5, atol=2e-5)


def test_the_angle_of_a_score_is_the_distance_and_not_what_the_tokens_say() -> None:
    """In RoPE a score of the same distance changes its sign with the content; with one channel PoPE's does not."""
    pope = posenc.PoPE(1, num_heads=1, frequencies=Custom([0.5])).double()
    q = torch.linspace(-3, 3, 13, dtype=torch.float64).view(13, 1, 1, 1)
    for distance in (0, 2, 5):
        wide_q, wide_k = pope.on_queries_keys(q, q.flip(0), distance, k_positions=0)
        signs = (wide_q * wide_k).sum(-1).sign()
        assert bool((signs == math.copysign(1, math.cos(0.5 * distance))).all())


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_each_group_has_the_phases_of_its_key_head_and_queries_have_none(kv_heads: int) -> None:
    pope = uniform(num_kv_heads=kv_heads)
    q, k = heads(6), heads(6, 1, heads=kv_heads)
    wide_q, wide_k = pope.on_queries_keys(q, k, 3)
    where, rates = torch.arange(6).numpy() + 3, pope.frequencies.inv_freq(16)
    phase = pope.phase.detach().double().numpy()
    expected = oracle.polar(k.numpy(), where, inv_freq=rates, phase=phase)
    torch.testing.assert_close(wide_k, torch.from_numpy(expected), rtol=0, atol=1e-14)
    expected = oracle.polar(q.numpy(), where, inv_freq=rates)
    torch.testing.assert_close(wide_q, torch.from_numpy(expected), rtol=0, atol=1e-14)


def test_positions_of_rows_and_of_another_sequence() -> None:
    pope = uniform()
    q, k = heads(3), heads(5, 1)
    rows = torch.tensor([[0, 1, 2], [7, 8, 9]])
    wide_q, wide_k = pope.on_queries_keys(q, k, rows, k_positions=4)
    for row in (0, 1):
        alone_q, alone_k = pope.on_queries_keys(q[row : row + 1], k[row : row + 1], rows[row], k_positions=4)
        assert torch.equal(alone_q[0], wide_q[row])
        assert torch.equal(alone_k[0], wide_k[row])


def test_phases_start_where_they_are_told() -> None:
    assert not posenc.PoPE(8, num_heads=2).phase.any()
    drawn = posenc.PoPE(64, num_heads=16, start="uniform").phase
    assert -2 * math.pi <= drawn.min() < -6
    assert -0.3 < drawn.max() <= 0


def test_a_phase_beyond_its_limit_counts_as_the_limit_and_still_learns() -> None:
    q, k = heads(5), heads(5, 1)
    for given, limit in ((0.5, 0.0), (-7.0, -2 * math.pi)):
        pope, at_limit = (posenc.PoPE(8, num_heads=4).double() for _ in range(2))
        torch.nn.init.constant_(pope.phase, given)
        torch.nn.init.constant_(at_limit.phase, limit)
        sums = []
        for each in (pope, at_limit):
            wide_q, wide_k = each.on_queries_keys(q, k)
            sums.append((wide_q @ wide_k.mT).square().sum())
            sums[-1].backward()
        torch.testing.assert_close(sums[0], sums[1])
        assert pope.phase.grad is not None
        assert bool(pope.phase.grad.all())
        torch.testing.assert_close(pope.phase.grad, at_limit.phase.grad)


def test_the_rule_s_factors_reach_the_scores() -> None:
    plain = posenc.PoPE(8, num_heads=4, frequencies=posenc.Geometric(500.0))
    rates = tuple(posenc.Geometric(500.0).inv_freq(16).tolist())
    louder = posenc.PoPE(8, num_heads=4, frequencies=Custom(rates, attention_factor=1.5))
    scores = [q @ k.mT for q, k in (each.on_queries_keys(heads(5), heads(5, 1)) for each in (plain, louder))]
    torch.testing.assert_close(scores[1], 1.5**2 * scores[0])
    hot = posenc.PoPE(8, num_heads=4, frequencies=posenc.YaRN(4, trained_length=64, mscale_all_dim=1.0))
    assert hot.scales_scores
    assert hot.temperature(torch.arange(3)) == hot.frequencies.score_factor > 1


def test_the_scale_is_that_of_the_channels_before() -> None:
    pope = posenc.PoPE(head_dim=8, num_heads=4)
    for head_dim in (8, 16, 99):
        assert pope.softmax_scale(head_dim) == 8**-0.5
        both = posenc.Compose(pope, posenc.ALiBi(num_heads=4))
        assert both.softmax_scale(head_dim) == pytest.approx(8**-0.5)
        assert both.widening == 2
        assert posenc.Compose(pope, posenc.T5Bias(4, scale="none")).softmax_scale(head_dim) == pytest.approx(1)
    q, k, v = heads(6), heads(6, 1), heads(6, 2)
    wide_q, wide_k = pope.on_queries_keys(q, k)
    expected = (8**-0.5 * wide_q @ wide_k.mT).softmax(-1) @ v
    torch.testing.assert_close(posenc.attention(wide_q, wide_k, v, pope), expected)


def test_large_numbers_are_their_own_magnitudes_in_every_dtype() -> None:
    pope = posenc.PoPE(head_dim=8, num_heads=4)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        x = torch.full((1, 4, 1, 8), 300.0, dtype=dtype)
        assert torch.equal(pope.on_queries_keys(x, x)[0][..., :8], x)
        assert pope.on_queries_keys(-x, -x)[0][..., :8].abs().max() < 1e-7
    x = torch.full((1, 4, 1, 8), 25.0, dtype=torch.float64)  # where the error of ln(1 + e^x) = x is seen
    assert pope.on_queries_keys(x, x)[0][0, 0, 0, 0].item() == 25 + math.log1p(math.exp(-25))


@pytest.mark.parametrize("options", [{}, {"max_length": 9}, {"window": 4}], ids=["appended", "static", "sliding"])
@pytest.mark.parametrize("qk_norm", [None, "rms"])
def test_caches_hold_wide_keys_and_values_as_they_were(options: dict[str, int], qk_norm: str | None) -> None:
    torch.manual_seed(0)
    window, room = options.get("window"), options.get("max_length")
    pope = posenc.PoPE(head_dim=8, num_heads=4, num_kv_heads=2, start="uniform")
    norm: Any = qk_norm
    layer = Attention(32, 4, pope, num_kv_heads=2, causal=True, window=window, qk_norm=norm).eval()
    x, cache = torch.randn(2, 9, 32), layer.new_cache(room)
    with torch.no_grad():
        steps = [layer(x[:, t : t + 1], cache=cache) for t in range(9)]
        torch.testing.assert_close(torch.cat(steps, dim=1), layer(x), rtol=1e-4, atol=1e-5)
    assert cache.keys is not None
    assert cache.values is not None
    assert cache.keys.shape[-1] == 16
    assert cache.values.shape[-1] == 8


def test_a_context_is_cached_and_asked_again() -> None:
    torch.manual_seed(0)
    layer = Attention(32, 4, posenc.PoPE(8, num_heads=4, num_kv_heads=2, start="uniform"), num_kv_heads=2).eval()
    x, context, cache = torch.randn(2, 6, 32), torch.randn(2, 5, 32), layer.new_cache()
    with torch.no_grad():
        parts = [layer(part, context, cache=cache) for part in x.split((2, 1, 3), dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), layer(x, context), rtol=1e-4, atol=1e-5)


def test_an_encoding_that_reads_queries_is_built_for_wide_ones() -> None:
    """CoPE of the same head_dim is refused by its own words; of twice the channels it reads what place 2 made."""
    pope, x = posenc.PoPE(head_dim=8, num_heads=4), heads(5)
    q, k = pope.on_queries_keys(x, x)
    with pytest.raises(ValueError, match="q has head_dim 16 but this encoding was built for head_dim 8"):
        posenc.attention(q, k, x, posenc.Compose(pope, posenc.CoPE(4, 8)).double(), causal=True)
    both = posenc.Compose(pope, posenc.CoPE(4, 16)).double()
    assert posenc.attention(q, k, x, both, causal=True).shape == (2, 4, 5, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_dim": 0}, "got head_dim 0, expected at least 1"),
        ({"num_heads": 0}, "got num_heads 0"),
        ({"num_kv_heads": 3}, "got num_heads 4 and num_kv_heads 3, expected num_heads to be a multiple"),
        ({"start": "ones"}, r"got start 'ones', expected one of \('zero', 'uniform'\)"),
        ({"frequencies": DynamicNTK(2, trained_length=9)}, "expected a rule with fixed rates"),
        ({"frequencies": LearnedRates()}, "expected a rule with fixed rates"),
        ({"frequencies": Custom([1.0, 0.1])}, "Custom: got"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.PoPE(**({"head_dim": 8, "num_heads": 4} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("q", "k", "message"),
    [
        ((2, 4, 5, 16), (2, 4, 5, 8), r"^PoPE: q has head_dim 16 .* build it with head_dim=16\.$"),
        ((2, 4, 5, 8), (2, 4, 5, 6), r"^PoPE: k has head_dim 6 "),
        ((2, 4, 5, 8), (2, 3, 5, 8), "PoPE: got 3 heads, expected a multiple of 2, the number of key heads"),
        ((4, 5, 8), (4, 5, 8), r"PoPE: q has shape \(4, 5, 8\), expected \(batch, heads, seq, head_dim\)"),
        ((2, 4, 5, 8), (2, 4, 3, 8), r"q of 5 tokens and k of 3 without k_positions, .* transpose\(1, 2\) each"),
    ],
)
def test_what_does_not_fit_is_refused(q: tuple[int, ...], k: tuple[int, ...], message: str) -> None:
    pope = posenc.PoPE(head_dim=8, num_heads=4, num_kv_heads=2)
    with pytest.raises(ValueError, match=message):
        pope.on_queries_keys(torch.zeros(q), torch.zeros(k))


def test_other_things_than_tensors_and_positions_are_refused() -> None:
    pope, q = posenc.PoPE(head_dim=8, num_heads=4), heads(5)
    with pytest.raises(TypeError, match="got None for q, expected a tensor"):
        pope.on_queries_keys(None, q)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"k_positions: got shape \(4,\), expected \(5,\)"):
        pope.on_queries_keys(q, q, k_positions=torch.arange(4))
    with pytest.raises(ValueError, match="positions: got offset -1"):
        pope.on_queries_keys(q, q, -1)


def test_cached_keys_are_moved_by_a_rope_of_twice_the_channels() -> None:
    """Place 2 gives what that RoPE makes of (mu, 0), so it turns a key to another position."""
    pope, q = uniform(), heads(5)
    _, k = pope.on_queries_keys(q, q, 3)
    with pytest.raises(TypeError, match="got PoPE, which does more to a key than rotate it"):
        posenc.rerotate(k, 3, 9, encoding=pope)
    moved = posenc.rerotate(k, 3, 9, encoding=posenc.RoPE(16))
    torch.testing.assert_close(moved, pope.on_queries_keys(q, q, 9)[1])

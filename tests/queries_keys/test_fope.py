"""FoPE: the authors' code, its start, rates that are kept and dropped, groups, cached keys, refusals."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import posenc
from posenc.frequencies import DynamicNTK, LearnedRates
from posenc.oracle.queries_keys import fope as oracle

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "fope.json").read_text())["values"]


def made(**options: Any) -> posenc.FoPE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return posenc.FoPE(**({"head_dim": 16, "num_heads": 4, "trained_length": 64} | options))


def heads(seq: int, seed: int = 0, heads: int = 4) -> torch.Tensor:
    return torch.randn(2, heads, seq, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_it_turns_as_the_authors_code() -> None:
    fope = posenc.FoPE(16, num_heads=2, trained_length=GOLDEN["trained_length"]).double()
    fope.load_state_dict({name: torch.tensor(GOLDEN[name], dtype=torch.float64) for name in ("cos_coef", "sin_coef")})
    x, where = torch.tensor(GOLDEN["x"], dtype=torch.float64), torch.tensor(GOLDEN["positions"])
    for turned in fope.on_queries_keys(x, x, where):
        torch.testing.assert_close(turned, torch.tensor(GOLDEN["y"], dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("per_head", [True, False])
def test_it_starts_as_rope_of_the_rates_that_are_kept_and_some_noise(per_head: bool) -> None:
    fope, x = made(gain=0.0, dropped="still", per_head=per_head), heads(9)
    partial = posenc.RoPE(16, frequencies=posenc.frequencies.Custom([*fope.frequencies.inv_freq(16)[:3], *[0.0] * 5]))
    torch.testing.assert_close(fope.rotate(x), partial.rotate(x))
    noise = made(head_dim=128, trained_length=10**6, per_head=per_head, gain=0.5).cos_coef.detach()
    noise = noise - torch.eye(noise.shape[-1])
    rates = noise.shape[1]  # of several heads PyTorch takes the first dimension for one that counts, and so the authors
    fan = rates * (rates + 4) if per_head else 2 * rates
    assert noise.std().item() == pytest.approx(0.5 * math.sqrt(2 / fan), rel=0.03)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("dropped", ["turned", "still"])
def test_each_group_has_the_coefficients_of_its_key_head(kv_heads: int, dropped: Any) -> None:
    fope = made(num_kv_heads=kv_heads, dropped=dropped, kept=5)
    q, k = heads(6), heads(6, 1, kv_heads)
    coefficients = {name: fope.get_parameter(name).detach().double().numpy() for name in ("cos_coef", "sin_coef")}
    for x, turned in zip((q, k), fope.on_queries_keys(q, k, 3), strict=True):
        expected = oracle.rotate(
            x.numpy(), range(3, 9), inv_freq=fope.frequencies.inv_freq(16)[:5], dropped=dropped, **coefficients
        )
        torch.testing.assert_close(turned, torch.from_numpy(expected), rtol=0, atol=1e-14)


def test_pairs_that_were_dropped_are_turned_by_an_eighth_or_left() -> None:
    x = heads(3)
    turned, still = made(dropped="turned").rotate(x), made(dropped="still").rotate(x)
    first, second = x[..., 3:8], x[..., 11:]
    torch.testing.assert_close(turned[..., 3:8], first - second)
    torch.testing.assert_close(turned[..., 11:], second + first)
    assert torch.equal(still[..., 3:8], first)
    assert torch.equal(still[..., 11:], second)


def test_coefficients_are_stored_and_learn_if_asked_to() -> None:
    assert not any(parameter.requires_grad for parameter in made().parameters())
    assert list(made().state_dict()) == ["cos_coef", "sin_coef"]
    fope = made(learned=True, num_kv_heads=2)
    q, k = fope.on_queries_keys(heads(7), heads(7, 1, 2), 5)
    posenc.attention(q, k, k, causal=True).square().sum().backward()
    for parameter in fope.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.abs().gt(0).all())


def test_cached_keys_are_turned_back_and_moved() -> None:
    fope, k = made(), heads(5)
    cached = fope.rotate(k, 7)
    torch.testing.assert_close(fope.inverse(cached, 7), k, rtol=0, atol=1e-12)
    torch.testing.assert_close(posenc.rerotate(cached, 7, 2, encoding=fope), fope.rotate(k, 2), rtol=0, atol=1e-12)


def test_rates_are_kept_that_make_a_turn_within_the_trained_length() -> None:
    assert made(trained_length=7).cos_coef.shape == (4, 1, 1)
    assert made(trained_length=10**6).cos_coef.shape == (4, 8, 8)
    assert made(num_kv_heads=2, kept=8).cos_coef.shape == (2, 8, 8)
    assert made(rotary_dim=8, kept=2, per_head=False).sin_coef.shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_kv_heads": 3}, "got num_heads 4 and num_kv_heads 3, expected num_heads to be a multiple"),
        ({"trained_length": 6}, r"got trained_length 6, in which no rate .* expected at least 7 tokens"),
        ({"trained_length": 0}, "got trained_length 0, expected at least 1 token"),
        ({"kept": 9}, "got kept 9, expected 1 to 8, the number of pairs"),
        ({"kept": 0}, "got kept 0"),
        ({"gain": -1.0}, "got gain -1.0, expected 0 or more"),
        ({"dropped": "zero"}, r"got dropped 'zero', expected one of \('turned', 'still'\)"),
        ({"frequencies": DynamicNTK(2, trained_length=9)}, "expected a rule with fixed rates"),
        ({"frequencies": LearnedRates()}, "expected a rule with fixed rates"),
        ({"rotary_dim": 7}, "got rotary_dim 7"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**options)


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="got 3 heads, expected a multiple of 2"):
        made(num_kv_heads=2).rotate(heads(5, heads=3))

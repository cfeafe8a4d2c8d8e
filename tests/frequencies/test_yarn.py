import math

import numpy as np
import pytest

from posenc.frequencies import Geometric, YaRN


@pytest.mark.parametrize("factor", [1.0, 4.0, 40.0])
@pytest.mark.parametrize(("beta_fast", "beta_slow"), [(32, 1), (16, 2), (1, 1), (8, 8)])
@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("trained_length", [64, 4096, 10**7])
def test_agrees_with_transformers(factor, beta_fast, beta_slow, truncate, trained_length, agrees_with_transformers):
    rule = YaRN(
        factor,
        trained_length=trained_length,
        beta_fast=beta_fast,
        beta_slow=beta_slow,
        ends="rounded" if truncate else "exact",
    )
    parameters = {
        "factor": factor,
        "original_max_position_embeddings": trained_length,
        "beta_fast": beta_fast,
        "beta_slow": beta_slow,
        "truncate": truncate,
    }
    agrees_with_transformers(rule, "yarn", parameters)


@pytest.mark.parametrize(("mscale", "mscale_all_dim"), [(0.707, 0.707), (1.0, 1.0), (1.0, 0.5), (0.5, 2.0)])
@pytest.mark.parametrize("factor", [1.0, 40.0])
def test_its_temperature_agrees_with_transformers(mscale, mscale_all_dim, factor, agrees_with_transformers):
    rule = YaRN(factor, trained_length=4096, mscale=mscale, mscale_all_dim=mscale_all_dim)
    parameters = {
        "factor": factor,
        "original_max_position_embeddings": 4096,
        "mscale": mscale,
        "mscale_all_dim": mscale_all_dim,
    }
    agrees_with_transformers(rule, "yarn", parameters)


def test_an_attention_factor_given_is_taken(agrees_with_transformers):
    rule = YaRN(4, trained_length=4096, attention_factor=1.5)
    parameters = {"factor": 4.0, "original_max_position_embeddings": 4096, "attention_factor": 1.5}
    agrees_with_transformers(rule, "yarn", parameters)


def test_the_ramp_of_llama_2_runs_over_the_pairs_of_the_authors_code():
    rule = YaRN(16, trained_length=4096)
    assert rule.ramp_ends(128) == (20, 46)
    exact = YaRN(16, trained_length=4096, ends="exact").ramp_ends(128)
    assert exact == pytest.approx((20.9445, 45.0269), abs=5e-5)


def test_the_ramp_of_gpt_oss_is_not_rounded():
    rule = YaRN(32, trained_length=4096, base=150_000, ends="exact")
    assert rule.ramp_ends(64) == pytest.approx((8.0928, 17.3980), abs=5e-5)
    assert rule.attention_factor == pytest.approx(1.3466, abs=5e-5)


def test_code_and_paper_differ_by_a_factor_of_three_in_llama_2():
    code = YaRN(16, trained_length=4096).inv_freq(128)
    paper = YaRN(16, trained_length=4096, ramp="paper").inv_freq(128)
    ratio = np.maximum(code / paper, paper / code)
    assert int(ratio.argmax()) == 38
    assert ratio.max() == pytest.approx(3.04, abs=5e-3)


def test_the_paper_s_ramp_is_linear_in_the_turns():
    rule = YaRN(16, trained_length=4096, ramp="paper")
    plain = Geometric().inv_freq(128)
    turns = 4096 * plain / (2 * math.pi)
    for rate, old, r in zip(rule.inv_freq(128), plain, turns, strict=True):
        if r < 1:
            assert rate == old / 16
        elif r > 32:
            assert rate == old
        else:
            gamma = (r - 1) / 31
            assert rate == pytest.approx((1 - gamma) * old / 16 + gamma * old, rel=1e-14)


@pytest.mark.parametrize("ramp", ["code", "paper"])
def test_factor_one_is_the_plain_rule(ramp):
    rule = YaRN(1, trained_length=4096, ramp=ramp)
    np.testing.assert_allclose(rule.inv_freq(128), Geometric().inv_freq(128), rtol=3e-16, atol=0)
    assert rule.attention_factor == 1
    assert rule.score_factor == 1


def test_the_temperature_goes_to_the_score_factor_where_deepseek_puts_it():
    v2 = YaRN(40, trained_length=4096, mscale=0.707, mscale_all_dim=0.707)
    assert v2.attention_factor == 1
    assert v2.score_factor == pytest.approx((0.1 * 0.707 * math.log(40) + 1) ** 2)
    v3 = YaRN(40, trained_length=4096, mscale_all_dim=1.0)
    assert v3.score_factor == pytest.approx(1.8739, abs=5e-5)
    assert YaRN(40, trained_length=4096).score_factor == 1


def test_the_clamps_differ_where_the_ramp_would_leave_the_head():
    channels, pairs = (YaRN(4, trained_length=10**5, clamp=clamp) for clamp in ("channels", "pairs"))
    assert channels.ramp_ends(64) == (21, 34)
    assert pairs.ramp_ends(64) == (21, 31)
    assert channels.inv_freq(64)[-1] > Geometric().inv_freq(64)[-1] / 4
    assert pairs.inv_freq(64)[-1] == Geometric().inv_freq(64)[-1] / 4


@pytest.mark.parametrize("clamp", ["channels", "pairs"])
def test_keeps_everything_if_every_pair_turns_often_in_the_trained_window(clamp):
    rule = YaRN(4, trained_length=10**12, clamp=clamp)
    assert (rule.inv_freq(64) == Geometric().inv_freq(64)).all()


def test_betas_in_the_wrong_order_are_refused():
    for fast, slow in ((1, 32), (4, 0)):
        with pytest.raises(ValueError, match="expected 0 < beta_slow <= beta_fast"):
            YaRN(4, trained_length=4096, beta_fast=fast, beta_slow=slow)


def test_settings_of_the_other_ramp_are_refused():
    with pytest.raises(ValueError, match=r"got ends 'exact' and clamp 'channels' with ramp=\"paper\""):
        YaRN(4, trained_length=4096, ramp="paper", ends="exact")


@pytest.mark.parametrize("name", ["ramp", "ends", "clamp"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match=f"got {name} 'other', expected one of"):
        YaRN(4, trained_length=4096, **{name: "other"})


def test_a_window_in_which_nothing_turns_is_refused():
    with pytest.raises(ValueError, match=r"got trained_length 6 and beta_slow 1.*more than 6 tokens"):
        YaRN(4, trained_length=6)


def test_equal_betas_are_a_step():
    """Kimi-K2 has 1 and 1."""
    rule = YaRN(32, trained_length=4096, base=5e4, beta_fast=1.0, beta_slow=1.0, mscale_all_dim=1.0)
    ratio = Geometric(5e4).inv_freq(64) / rule.inv_freq(64)
    assert (int((ratio == 1).sum()), int((ratio == 32).sum())) == (20, 12)
    assert rule.attention_factor == 1.0
    assert rule.score_factor == pytest.approx(1.81326, abs=1e-5)
    step = YaRN(32, trained_length=4096, base=5e4, beta_fast=1, ramp="paper")
    paper = Geometric(5e4).inv_freq(64) / step.inv_freq(64)
    assert (int((paper == 1).sum()), int((paper == 32).sum())) == (20, 12)

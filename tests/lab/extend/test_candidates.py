"""Which rules are tried, and what they are called."""

import dataclasses
import math

import numpy as np
import pytest

from posenc.frequencies import (
    NTK,
    Custom,
    DynamicNTK,
    Frequencies,
    Geometric,
    Linear,
    Llama3,
    LongRoPE,
    Proportional,
    YaRN,
)
from posenc.lab.extend.candidates import Candidate, candidates, longrope

PLAIN = Geometric(100_000.0)


def tried(present: Frequencies | None, length: int, *wanted: str, trained_length: int = 8192) -> dict[str, Candidate]:
    found = candidates(present=present, trained_length=trained_length, length=length, wanted=wanted or None)
    return {candidate.name: candidate for candidate in found}


def test_the_defaults_are_a_handful_around_the_ratio_of_the_lengths() -> None:
    assert list(tried(PLAIN, 12288)) == [
        *("none", "linear:1.5", "ntk:1.5", "ntk:2", "dynamic:2", "yarn:1.5", "yarn:2"),
        *("yarn-paper:1.5", "yarn-paper:2", "llama3:1.5", "llama3:2", "base:400000"),
    ]
    assert [name for name in tried(PLAIN, 16384) if name.startswith("yarn:")] == ["yarn:2", "yarn:4"]
    assert [name for name in tried(PLAIN, 10_000) if name.startswith("yarn:")] == ["yarn:1.23", "yarn:2"]


@pytest.mark.parametrize("length", [8194, 9999, 12288, 16384, 100_000, 1_000_000])
def test_every_factor_reaches_the_length(length: int) -> None:
    for candidate in tried(PLAIN, length).values():
        factor = getattr(candidate.rule, "factor", None)
        if factor is not None and not isinstance(candidate.rule, DynamicNTK):
            assert factor * 8192 >= length


@pytest.mark.parametrize("length", [9999, 12288, 16384])
def test_a_name_reads_back_as_the_same_rule(length: int) -> None:
    for name, candidate in tried(PLAIN, length).items():
        (again,) = candidates(present=PLAIN, trained_length=8192, length=length, wanted=[name])
        assert again == candidate
        assert again.name == name
    odd = tried(PLAIN, 12288, "yarn:2.50", "base:1e6", "yarn:0003")
    assert list(odd) == ["yarn:2.5", "base:1000000", "yarn:3"]


def test_each_kind_is_the_rule_that_it_says() -> None:
    rules = {name: candidate.rule for name, candidate in tried(PLAIN, 16384).items()}
    own = {"trained_length": 8192, "base": 100_000.0}
    assert rules["none"] is None
    assert rules["linear:2"] == Linear(2, base=1e5)
    assert rules["ntk:4"] == NTK(4, base=1e5)
    assert rules["dynamic:2"] == DynamicNTK(2, **own)
    assert rules["yarn:2"] == YaRN(2, **own)
    assert rules["yarn-paper:2"] == YaRN(2, ramp="paper", **own)
    assert rules["llama3:4"] == Llama3(4, **own)
    assert rules["base:1600000"] == Geometric(1.6e6)


def test_wanted_chooses_and_keeps_its_order_and_says_nothing_twice() -> None:
    assert list(tried(PLAIN, 16384, "yarn", "none", "yarn:2", "linear:8")) == ["yarn:2", "yarn:4", "none", "linear:8"]


def test_a_learned_table_is_interpolated_or_left() -> None:
    assert [(name, c.rule) for name, c in tried(None, 2048, trained_length=1024).items()] == [
        ("none", None),
        ("interpolate", "interpolate"),
    ]
    with pytest.raises(ValueError, match="'yarn', which does not apply to a learned table"):
        tried(None, 2048, "yarn:2", trained_length=1024)


def test_a_model_with_a_rule_of_its_own_keeps_base_and_settings() -> None:
    own = YaRN(4, trained_length=4096, base=150_000.0, beta_slow=2.0, ends="exact")
    found = tried(own, 32768, trained_length=4096)
    assert found["yarn:8"].rule == dataclasses.replace(own, factor=8, attention_factor=0.1 * math.log(8) + 1)
    paper = YaRN(8, trained_length=4096, base=150_000.0, beta_slow=2.0, ramp="paper")
    assert found["yarn-paper:8"].rule == paper
    assert found["llama3:8"].rule == Llama3(8, trained_length=4096, base=150_000.0)
    there = tried(own, 16384, trained_length=4096)
    assert "yarn:4" not in there  # it is "none"
    assert "yarn:8" in there
    assert tried(own, 16384, "yarn:4", trained_length=4096)["yarn:4"].rule == own
    cool = YaRN(4, trained_length=4096, attention_factor=1.0)
    assert tried(cool, 32768, "yarn:8", trained_length=4096)["yarn:8"].rule == dataclasses.replace(cool, factor=8)
    tuned = Llama3(8, trained_length=8192, low_freq_factor=2.0)
    assert tried(tuned, 262_144, "llama3:32")["llama3:32"].rule == dataclasses.replace(tuned, factor=32)


def test_what_leaves_pairs_alone_is_given_only_rules_that_do() -> None:
    found = tried(Proportional(0.25, base=1e6), 16384)
    assert list(found) == ["none", "linear:2", "base:16000000"]
    assert found["linear:2"].rule == Proportional(0.25, base=1e6, factor=2)
    assert list(tried(Custom([1.0, 0.1]), 16384)) == ["none"]


def test_a_rule_that_follows_the_length_is_measured_as_it_is_at_that_length() -> None:
    dynamic = tried(PLAIN, 16384)["dynamic:2"]
    fixed = dynamic.measured(16384)
    assert fixed == NTK(3.0, base=1e5)
    assert isinstance(dynamic.rule, DynamicNTK)
    assert np.array_equal(fixed.inv_freq(64), dynamic.rule.inv_freq(64, length=16384))
    assert dynamic.measured(100) == NTK(1.0, base=1e5)
    assert tried(PLAIN, 16384)["yarn:2"].measured(16384) == YaRN(2, trained_length=8192, base=1e5)


def test_a_model_that_follows_the_length_itself_is_fixed_even_if_left_as_it_is() -> None:
    phi = LongRoPE([1.0, 1.5], [2.0, 4.0], trained_length=4096, factor=32)
    none = tried(phi, 8192, "none", trained_length=4096)["none"]
    assert none.rule is None
    for length, factors in ((4096, (1.0, 1.5)), (8192, (2.0, 4.0))):
        fixed = none.measured(length)
        assert isinstance(fixed, LongRoPE)
        assert fixed.short_factors == fixed.long_factors == factors
        assert fixed.attention_factor == phi.attention_factor
    assert tried(PLAIN, 16384)["none"].measured(16384) is None


def test_searched_factors_become_a_rule_that_does_not_change_with_the_length() -> None:
    rule = longrope([1.0, 2.0], present=PLAIN, trained_length=8192, factor=2).rule
    assert isinstance(rule, LongRoPE)
    for length in (1, 100_000):
        assert np.allclose(rule.inv_freq(4, length=length), PLAIN.inv_freq(4) / [1.0, 2.0], rtol=1e-15)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("yarm:2", "did you mean 'yarn'"),
        ("yarn:two", "expected a number after the colon"),
        ("yarn:", "expected a number after the colon"),
        ("yarn:0.5", "YaRN: got factor 0.5"),
        ("yarn:inf", "YaRN: got factor inf"),
        ("base:1", "got base 1"),
        ("none:2", "this rule takes no number"),
        ("longrope", "--search"),
        ("interpolate", "does not apply to Geometric"),
    ],
)
def test_what_cannot_be_tried_is_said(wanted: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tried(PLAIN, 16384, wanted)


def test_a_length_within_the_trained_one_needs_no_rule() -> None:
    with pytest.raises(ValueError, match="expected at least 8194: the model was trained with 8192 tokens"):
        tried(PLAIN, 8192)

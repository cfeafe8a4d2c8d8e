import json

import numpy as np
import pytest

from posenc import frequencies
from posenc.frequencies import (
    NTK,
    Custom,
    DynamicNTK,
    Frequencies,
    Geometric,
    LearnedRates,
    Linear,
    Linspaced,
    Llama3,
    Logspaced,
    LongRoPE,
    NTKAlpha,
    NTKMixed,
    Proportional,
    RIFLEx,
    Tensor2Tensor,
    Turns,
    YaRN,
)

ONE_OF_EACH = (
    Geometric(base=500),
    Linear(4),
    NTK(4, base=500),
    NTKAlpha(1000),
    NTKMixed(4, 0.625),
    DynamicNTK(2, trained_length=64),
    YaRN(16, trained_length=64, mscale=0.7, mscale_all_dim=0.5),
    Llama3(8, trained_length=8192),
    LongRoPE([1.0] * 16, [2.0] * 16, trained_length=64, factor=4),
    Proportional(0.25),
    RIFLEx(4, 66, base=256),
    Tensor2Tensor(),
    Linspaced(0, 5),
    Logspaced(3, 0.1),
    Turns(NTK(2, base=100)),
    LearnedRates(Linear(2), parameter="rates"),
    Custom(np.linspace(1, 0.1, 16)),
)


def test_every_rule_is_listed_and_examined_here():
    assert sorted(type(rule).__name__ for rule in ONE_OF_EACH) == sorted(frequencies.RULES)


@pytest.mark.parametrize("rule", ONE_OF_EACH, ids=lambda rule: type(rule).__name__)
class TestEveryRule:
    def test_gives_a_finite_float64_rate_for_each_pair(self, rule):
        rates = rule.inv_freq(32)
        assert rates.dtype == np.float64
        assert rates.shape == (16,)
        assert np.isfinite(rates).all()
        assert (rates >= 0).all()

    def test_comes_back_from_json_as_it_was(self, rule):
        assert Frequencies.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule

    def test_is_frozen_and_hashable(self, rule):
        with pytest.raises(AttributeError):
            rule.base = 3
        assert len({rule, Frequencies.from_dict(rule.to_dict())}) == 1

    def test_answers_for_a_batch_of_lengths_if_it_depends_on_the_length(self, rule):
        lengths = np.array([[3, 64], [65, 1000]])
        if not rule.depends_on_length:
            assert (rule.inv_freq(32, length=10**6) == rule.inv_freq(32)).all()
            return
        together = rule.inv_freq(32, length=lengths)
        assert together.shape == (2, 2, 16)
        for index, length in np.ndenumerate(lengths):
            assert (together[index] == rule.inv_freq(32, length=int(length))).all()
            assert rule.attention_factor_at(lengths)[index] == rule.attention_factor_at(int(length))

    @pytest.mark.parametrize("rotary_dim", [0, 7, 31])
    def test_refuses_channels_that_do_not_pair_up(self, rule, rotary_dim):
        with pytest.raises(ValueError, match=r"expected|pairs"):
            rule.inv_freq(rotary_dim)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="got rule 'Frequencies', expected one of"):
        Frequencies.from_dict({"rule": "Frequencies"})
    with pytest.raises(ValueError, match="got rule None"):
        Frequencies.from_dict({})


def test_an_unknown_key_is_refused():
    with pytest.raises(ValueError, match=r"Linear got unknown keys \['scale'\], expected \['factor', 'base'\]"):
        Frequencies.from_dict({"rule": "Linear", "factor": 2, "scale": 3})


SCALED = {
    "Linear": lambda **given: Linear(**{"factor": 2} | given),
    "NTK": lambda **given: NTK(**{"factor": 2} | given),
    "NTKAlpha": lambda **given: NTKAlpha(given.get("factor", 2), base=given.get("base", 1e4)),
    "NTKMixed": lambda **given: NTKMixed(**{"factor": 2} | given),
    "DynamicNTK": lambda **given: DynamicNTK(**{"factor": 2, "trained_length": 64} | given),
    "YaRN": lambda **given: YaRN(**{"factor": 2, "trained_length": 64} | given),
    "Llama3": lambda **given: Llama3(**{"factor": 2, "trained_length": 64} | given),
    "LongRoPE": lambda **given: LongRoPE([1.0], [2.0], **{"factor": 2, "trained_length": 64} | given),
    "Proportional": lambda **given: Proportional(**{"share": 0.5, "factor": 2} | given),
}


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("factor", [0.5, 0, -1, float("nan"), float("inf"), "2"])
def test_a_factor_below_one_is_refused_when_the_rule_is_built(name, factor):
    with pytest.raises(ValueError, match=rf"{name}: got (factor|alpha) .*, expected 1 or more"):
        SCALED[name](factor=factor)


@pytest.mark.parametrize("name", ["DynamicNTK", "YaRN", "Llama3", "LongRoPE"])
@pytest.mark.parametrize("trained_length", [None, 0, -5, True, "4096"])
def test_a_rule_without_its_trained_length_is_refused_when_it_is_built(name, trained_length):
    with pytest.raises(ValueError, match=rf"{name}: got trained_length .*original_max_position_embeddings"):
        SCALED[name](trained_length=trained_length)


@pytest.mark.parametrize("rule", [DynamicNTK, YaRN, Llama3])
def test_a_trained_length_has_no_default(rule):
    with pytest.raises(TypeError, match="trained_length"):
        rule(2)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("base", [1, 0, -10, float("inf"), float("nan")])
def test_a_base_that_gives_no_falling_rates_is_refused(name, base):
    with pytest.raises(ValueError, match="got base"):
        SCALED[name](base=base)

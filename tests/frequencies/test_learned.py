import pytest

from posenc.frequencies import DynamicNTK, LearnedRates, YaRN


def test_starts_where_its_rule_puts_it():
    start = YaRN(4, trained_length=64, mscale_all_dim=1.0)
    rule = LearnedRates(start)
    assert (rule.inv_freq(32) == start.inv_freq(32)).all()
    assert (rule.attention_factor, rule.score_factor) == (start.attention_factor, start.score_factor)


def test_a_start_that_moves_is_refused():
    for start in (DynamicNTK(2, trained_length=64), LearnedRates()):
        with pytest.raises(ValueError, match="expected a rule with fixed rates"):
            LearnedRates(start)


def test_an_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match=r"got parameter 'angle', expected one of \('rates', 'log_scale'\)"):
        LearnedRates(parameter="angle")

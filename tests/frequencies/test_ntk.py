import json
from pathlib import Path

import numpy as np
import pytest

from posenc.frequencies import NTK, Geometric, Linear, NTKAlpha, NTKMixed

RELEASED = json.loads((Path(__file__).parent.parent / "golden" / "ntk_mixed.json").read_text())["values"]

# The base that each factor leads to at 128 channels and base 10000: Peng et al., arXiv 2309.00071, section 3.1,
# evaluated in float64.
STRETCHED_BASES = {2: 20221.3, 4: 40889.9, 8: 82684.6, 16: 167198.7}


@pytest.mark.parametrize("factor", STRETCHED_BASES)
def test_is_the_plain_rule_with_a_larger_base(factor):
    np.testing.assert_allclose(
        NTK(factor).inv_freq(128), Geometric(STRETCHED_BASES[factor]).inv_freq(128), rtol=2e-6, atol=0
    )


@pytest.mark.parametrize("head_dim", [4, 64, 128, 256])
def test_leaves_the_fastest_rate_alone_and_divides_the_slowest_by_the_factor(head_dim):
    ratio = Geometric().inv_freq(head_dim) / NTK(8).inv_freq(head_dim)
    assert ratio[0] == 1
    assert ratio[-1] == pytest.approx(8, rel=1e-14)
    assert (np.diff(ratio) > 0).all()


def test_factor_one_is_the_plain_rule():
    assert (NTK(1).inv_freq(64) == Geometric().inv_freq(64)).all()
    assert (NTKAlpha(1).inv_freq(64) == Geometric().inv_freq(64)).all()


def test_one_pair_is_refused():
    with pytest.raises(ValueError, match="NTK: got 2 channels, expected at least 4"):
        NTK(2).inv_freq(2)


def test_alpha_is_what_transformers_makes_of_hunyuan():
    from transformers import HunYuanDenseV1Config
    from transformers.models.hunyuan_v1_dense.modeling_hunyuan_v1_dense import HunYuanDenseV1RotaryEmbedding

    config = HunYuanDenseV1Config(
        head_dim=64,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "alpha": 1000.0, "factor": 1.0},
    )
    theirs = HunYuanDenseV1RotaryEmbedding(config).inv_freq.double().numpy()
    np.testing.assert_allclose(NTKAlpha(1000).inv_freq(64), theirs, rtol=2e-6, atol=0)


@pytest.mark.parametrize("case", RELEASED, ids=lambda case: f"{case['by']} {case['mixed_b']}")
def test_the_fixed_and_the_mixed_rule_are_those_of_released_code(case):
    rule = NTKMixed(case["factor"], case["mixed_b"] or 1.0, base=case["base"])
    np.testing.assert_allclose(rule.inv_freq(case["rotary_dim"]), case["inv_freq"], rtol=1e-6, atol=0)


def test_the_fixed_rule_is_a_larger_base_and_one_divisor_for_all():
    expected = Geometric(8 * 10_000).inv_freq(64) / 8 ** (2 / 64)
    np.testing.assert_allclose(NTKMixed(8).inv_freq(64), expected, rtol=1e-14, atol=0)
    assert NTKMixed(8).inv_freq(64)[-1] == pytest.approx(Geometric().inv_freq(64)[-1] / 8, rel=1e-14)


def test_a_small_exponent_comes_near_to_interpolation():
    np.testing.assert_allclose(NTKMixed(8, 1e-9).inv_freq(64), Linear(8).inv_freq(64), rtol=1e-7, atol=0)


@pytest.mark.parametrize("exponent", [0, -1.0])
def test_an_exponent_out_of_range_is_refused(exponent):
    with pytest.raises(ValueError, match="NTKMixed: got exponent"):
        NTKMixed(2, exponent)

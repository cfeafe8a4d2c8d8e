"""The geometric rule, and what every rule must refuse."""

import json
import math
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

import posenc
from posenc.frequencies import RULES, Frequencies

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "cos_sin_50_digits.json").read_text())["values"]


@pytest.mark.parametrize("row", GOLDEN[::5], ids=lambda row: f"{row['head_dim']}-{row['base']}-{row['pair']}")
def test_rates_agree_with_50_digits(row: dict[str, str]) -> None:
    inv_freq = posenc.Geometric(base=float(row["base"])).inv_freq(int(row["head_dim"]))
    assert inv_freq.dtype == np.float64
    assert inv_freq[int(row["pair"])] == pytest.approx(float(row["inv_freq"]), rel=1e-15)


@pytest.mark.parametrize(("dim", "longest"), [(128, 54_410), (512, 60_611)])
def test_the_longest_wavelength_is_below_two_pi_base(dim: int, longest: int) -> None:
    wavelength = 2 * math.pi / posenc.Geometric().inv_freq(dim)[-1]
    assert round(wavelength) == longest
    assert wavelength < 2 * math.pi * 10_000


def test_it_agrees_with_transformers() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(hidden_size=512, num_attention_heads=4)
    theirs, factor = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    rule = posenc.Geometric(base=config.rope_parameters["rope_theta"])
    np.testing.assert_allclose(theirs.numpy(), rule.inv_freq(128), rtol=2e-6)
    assert factor == rule.attention_factor == 1


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_frozen_and_comes_back_from_plain_data(rule: str) -> None:
    made = getattr(posenc, rule)()
    assert Frequencies.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    with pytest.raises(FrozenInstanceError):
        made.base = 3


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_refuses_what_has_no_pairs_or_does_not_fall(rule: str) -> None:
    with pytest.raises(ValueError, match=r"got 7 channels, expected an even number of at least 2, .* use 8"):
        getattr(posenc, rule)().inv_freq(7)
    for base in (1, 0, -5, math.nan):
        with pytest.raises(ValueError, match="got base"):
            getattr(posenc, rule)(base=base)

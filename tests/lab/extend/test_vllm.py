"""vLLM's flags: what it makes of them on its way to the config is the rule that was measured."""

import json
import math
import shlex
from typing import Any

import pytest

from posenc import RoPE
from posenc.frequencies import NTK, Custom, DynamicNTK, Frequencies, Geometric, Linear, Llama3, LongRoPE, YaRN
from posenc.integrations.transformers import describe
from posenc.lab.extend.flags import flags, stored_as_factors

transformers = pytest.importorskip("transformers")

TRAINED, LENGTH, HEAD = 8192, 12_288, 64
SIZES = {"hidden_size": 4 * HEAD, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 16}


def as_vllm_does(config: Any, flag: str) -> Any:
    """The config of a model as ``ModelConfig.__post_init__`` of vLLM's config/model.py leaves it.

    Overrides that are no dicts go into the loading of the config, the others after it: a dict in a config of its own
    (``text_config``) is merged into that, key by key, and any other takes the place of the one that was there. Then
    ``patch_rope_parameters`` of transformers_utils/config.py asks transformers to standardize and validate.
    """
    words = shlex.split(flag, comments=True)
    assert words[0::2] == ["--hf-overrides", "--max-model-len"]
    overrides: dict[str, Any] = json.loads(words[1])
    loaded = type(config).from_dict(
        config.to_dict(), **{key: value for key, value in overrides.items() if not isinstance(value, dict)}
    )
    for key, value in overrides.items():
        if isinstance(value, dict):
            present = getattr(loaded, key, None)
            if isinstance(present, transformers.PreTrainedConfig):
                merge(present, value)
            else:
                setattr(loaded, key, value)
    loaded.standardize_rope_params()
    loaded.validate_rope()
    assert int(words[3]) <= loaded.max_position_embeddings  # or vLLM refuses --max-model-len
    return loaded


def merge(target: Any, updates: dict[str, Any]) -> None:
    """``ModelConfig._update_nested``."""
    for key, value in updates.items():
        inside = target.get(key) if isinstance(target, dict) else getattr(target, key, None)
        if isinstance(value, dict) and inside is not None:
            merge(inside, value)
        elif isinstance(target, dict):
            target[key] = value
        else:
            setattr(target, key, value)


RULES: list[Frequencies | None] = [
    None,
    Geometric(5e5),
    Linear(2, base=1e5),
    NTK(2, base=1e5),
    DynamicNTK(2, trained_length=TRAINED, base=1e5),
    YaRN(2, trained_length=TRAINED, base=1e5),
    YaRN(2, trained_length=TRAINED, base=1e5, attention_factor=1.0),
    YaRN(2, trained_length=TRAINED, base=1e5, ends="exact", beta_fast=16.0),
    YaRN(2, trained_length=TRAINED, base=1e5, ramp="paper"),
    Llama3(2, trained_length=TRAINED, base=1e5),
    LongRoPE([1.0] * 32, [2.0] * 32, trained_length=TRAINED, base=1e5, factor=2),
    Custom([0.9**i for i in range(32)], attention_factor=1.1),
]
LINEAR = {"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0}
PLAIN = {"rope_type": "default", "rope_theta": 1e5}


@pytest.mark.parametrize("present", [PLAIN, LINEAR], ids=["plain", "linear before"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_config_that_comes_out_means_the_rule(rule: Frequencies | None, present: dict[str, Any]) -> None:
    config = transformers.LlamaConfig(**SIZES, max_position_embeddings=TRAINED, rope_parameters=present)
    (found,) = describe(as_vllm_does(config, flag_of(rule, HEAD)))
    assert isinstance(found.encoding, RoPE)
    wanted = rule or describe(config).groups[0].encoding.frequencies  # type: ignore[attr-defined]
    check_same(found.encoding, wanted)


@pytest.mark.parametrize("rule", [Linear(2, base=1e5), YaRN(2, trained_length=TRAINED, base=1e5), NTK(2, base=1e5)])
def test_where_half_of_a_head_turns_it_still_does(rule: Frequencies) -> None:
    parameters = {**PLAIN, "partial_rotary_factor": 0.5}
    config = transformers.PhiConfig(**SIZES, max_position_embeddings=TRAINED, rope_parameters=parameters)
    (found,) = describe(as_vllm_does(config, flag_of(rule, HEAD // 2)))
    assert isinstance(found.encoding, RoPE)
    assert found.encoding.rotary_dim == HEAD // 2
    check_same(found.encoding, rule)


def flag_of(rule: Frequencies | None, rotary_dim: int) -> str:
    return flags(rule, trained_length=TRAINED, length=LENGTH, rotary_dim=rotary_dim, head_dim=HEAD)["vLLM"]


def check_same(rope: RoPE, wanted: Frequencies) -> None:
    """At the length that is wanted: the rates, and the factor of cos and sin."""
    width, found = rope.rotary_dim, rope.frequencies
    assert found.inv_freq(width, length=LENGTH) == pytest.approx(wanted.inv_freq(width, length=LENGTH), rel=1e-9)
    assert math.isclose(found.attention_factor_at(LENGTH), wanted.attention_factor_at(LENGTH), rel_tol=1e-9)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (Geometric(5e5), "--rope-scaling yarn"),
        (Llama3(8.0, trained_length=TRAINED, base=5e5), "none: a GGUF file of this model stores factors"),
        (LongRoPE([1.0] * 32, [2.0] * 32, trained_length=TRAINED, factor=2.0), "none: a GGUF file of this model"),
        (None, "--rope-scaling yarn"),
    ],
)
def test_llama_cpp_divides_by_the_factors_of_a_file_besides(own: Frequencies | None, said: str) -> None:
    """A GGUF file of Llama 3.1 has ``rope_freqs.weight``, which no flag of llama.cpp turns off."""
    sizes = {"trained_length": TRAINED, "length": LENGTH, "rotary_dim": HEAD, "factors": stored_as_factors(own)}
    yarn = YaRN(2.0, trained_length=TRAINED, base=5e5)
    assert flags(yarn, **sizes)["llama.cpp"].startswith(said)  # type: ignore[arg-type]
    assert flags(None, **sizes)["llama.cpp"].startswith(f"--ctx-size {LENGTH}")  # type: ignore[arg-type]

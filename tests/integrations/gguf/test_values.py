"""A value of a GGUF file that llama.cpp refuses, or makes nothing sensible of, is refused; the others are its own."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integrations.gguf.test_description import gguf_file

from posenc import RoPE, YaRN
from posenc.frequencies import Custom, Geometric, Linear
from posenc.integrations.gguf import describe

WRONG: list[tuple[str, str, tuple[Any, ...]]] = [
    ("llama", "rope__scaling__factor", (-4.0, "four", True)),
    ("llama", "rope__scale_linear", (-4.0, "four", False)),
    ("llama", "rope__freq_base", (-10000.0, 0.0, True)),
    ("llama", "rope__scaling__attn_factor", (-1.0, 0.0, "one")),
    ("llama", "rope__scaling__finetuned", (1, "yes")),
    ("llama", "attention__head_count_kv", ("two", True, [-1, 2])),
    ("llama", "rope__scaling__original_context_length", (2.0**33, -1.0)),
    ("gemma3", "rope__freq_base_swa", (-10000.0, False)),
    ("gemma3", "rope__local__freq_base", (-10000.0, 0.0)),
    ("gemma3", "attention__sliding_window", (-1024.0, 0.5, "wide", True)),
    ("cohere2", "attention__sliding_window_pattern", (True, 1.5, "LLLG", [0.5, 1.0])),
    ("mistral3", "attention__temperature_scale", (-0.1, "0.1")),
    ("qwen3next", "attention__recurrent_layers", (2, "all", [2, 0])),
    ("t5", "decoder_block_count", (10**6, -2.0, "six")),
    ("deepseek4", "attention__compress_rope_freq_base", (-160000.0, "many")),
]


@pytest.mark.parametrize(("arch", "key", "values"), WRONG)
def test_a_value_that_no_model_has_is_refused_with_its_key(
    arch: str, key: str, values: tuple[Any, ...], tmp_path: Path
) -> None:
    """llama.cpp refuses a value of another type, and computes NaN of a base below 0."""
    name = key.replace("__", ".")
    for value in values:
        path = gguf_file(tmp_path / "m.gguf", arch, **{key: value})
        with pytest.raises(ValueError, match=rf"{name} .*expected"):
            describe(path)
        path.unlink()


def test_a_list_for_the_layers_has_a_value_for_each(tmp_path: Path) -> None:
    for arch, key in (("lfm2", "attention__head_count_kv"), ("gemma4", "attention__sliding_window_pattern")):
        path = gguf_file(
            tmp_path / f"{arch}.gguf", arch, block_count=4, attention__sliding_window=64, **{key: [1, 0, 1]}
        )
        with pytest.raises(ValueError, match="expected a list of 4 values, one for each layer"):
            describe(path)


def test_a_group_of_no_layers_has_windows_alone(tmp_path: Path) -> None:
    """As llama.cpp's ``set_swa_pattern`` reads 0."""
    keys: dict[str, Any] = {"attention__sliding_window": 512, "rope__freq_base": 1e6, "block_count": 6}
    (group,) = describe(gguf_file(tmp_path / "m.gguf", "gemma3", attention__sliding_window_pattern=0, **keys))
    assert isinstance(group.encoding, RoPE)
    assert (group.layers, group.encoding.frequencies) == (tuple(range(6)), Geometric(10_000.0))


ATTN = 0.1 * math.log(8.0) + 1.0


def test_attn_factor_multiplies_what_any_rule_has(tmp_path: Path) -> None:
    """llama.cpp hands ``rope.scaling.attn_factor`` to every rotation, and YaRN multiplies it by its own.

    The keys are those that its converter writes for OLMo 3 (conversion of ``Olmo3ForCausalLM``).
    """
    keys: dict[str, Any] = {
        "rope__freq_base": 500_000.0,
        "rope__scaling__type": "yarn",
        "rope__scaling__factor": 8.0,
        "rope__scaling__attn_factor": ATTN,
        "rope__scaling__original_context_length": 8192,
        "attention__sliding_window": 4096,
        "attention__sliding_window_pattern": [True, True, True, False],
    }
    sliding, full = describe(gguf_file(tmp_path / "o.gguf", "olmo2", block_count=4, **keys))
    assert isinstance(full.encoding, RoPE)
    assert isinstance(full.encoding.frequencies, YaRN)
    assert full.encoding.frequencies.attention_factor == pytest.approx(ATTN**2, abs=1e-6)
    assert isinstance(sliding.encoding, RoPE)
    assert sliding.encoding.frequencies == Geometric(500_000.0)
    assert "multiplies cos and sin besides" in full.notes[-1]
    for kind, plain in (("none", Geometric()), ("linear", Linear(8.0))):
        own = {"rope__scaling__type": kind, "rope__scaling__factor": 8.0, "rope__scaling__attn_factor": 1.5}
        (group,) = describe(gguf_file(tmp_path / f"{kind}.gguf", "llama", **own))
        assert isinstance(group.encoding, RoPE)
        assert isinstance(group.encoding.frequencies, Custom)
        assert group.encoding.frequencies.attention_factor == 1.5
        np.testing.assert_allclose(group.encoding.frequencies.inv_freq(64), plain.inv_freq(64))
    for arch in ("deepseek2", "gemma3"):
        path = gguf_file(tmp_path / f"{arch}.gguf", arch, rope__scaling__attn_factor=1.5)
        with pytest.raises(ValueError, match=r"attn_factor 1.5, expected 1"):
            describe(path)

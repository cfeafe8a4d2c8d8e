"""GGUF files that Ollama's converter writes, as its models read them (ollama/ollama, convert and model/models): names
of architectures that llama.cpp does not have, other names of keys, and what its code corrects in its own older files.
"""

from pathlib import Path
from typing import Any

import pytest
from tests.integrations.gguf.test_description import gguf_file

from posenc import Compose, MRoPE, NoPE, RoPE, Temperature
from posenc.frequencies import Custom, Geometric, Linear, YaRN
from posenc.integrations.gguf import describe

GEMMA: dict[str, Any] = {"attention__key_length": 64, "attention__sliding_window": 1024}
BASES: dict[str, Any] = {"rope__global__freq_base": 1e6, "rope__local__freq_base": 1e4}


def test_gptoss_is_scaled_by_yarn_though_its_file_names_no_kind_of_scaling(tmp_path: Path) -> None:
    keys = {"rope__freq_base": 150000.0, "rope__scaling__factor": 32.0, "rope__scaling__original_context_length": 4096}
    (group,) = describe(gguf_file(tmp_path / "m.gguf", "gptoss", **keys))
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == YaRN(32.0, trained_length=4096, base=150000.0)
    assert (group.encoding.pairing, group.encoding.rotary_dim, group.trained_length) == ("half", 64, 4096)


def test_olmo3_scales_the_layers_without_a_window(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"attention__sliding_window": 4096, "rope__freq_base": 5e5, "rope__scaling__factor": 8.0}
    keys |= {"attention__sliding_window_pattern": [True, True, True, False], "rope__scaling__type": "yarn"}
    keys["rope__scaling__original_context_length"] = 8192
    local, distant = describe(gguf_file(tmp_path / "m.gguf", "olmo3", block_count=4, **keys))
    assert isinstance(local.encoding, RoPE)
    assert isinstance(distant.encoding, RoPE)
    assert (local.layers, local.encoding.frequencies) == ((0, 1, 2), Geometric(5e5))
    assert (distant.layers, distant.encoding.frequencies) == ((3,), YaRN(8.0, trained_length=8192, base=5e5))


@pytest.mark.parametrize(("count", "factor"), [(26, 1.0), (34, 8.0), (48, 8.0), (62, 8.0)])
def test_gemma_3_of_ollama_means_the_factor_that_its_file_lacks(tmp_path: Path, count: int, factor: float) -> None:
    """Its code sets it by the number of layers. The files of llama.cpp's converter say it."""
    rule = Geometric(1e6) if factor == 1 else Linear(factor, base=1e6)
    local, distant = describe(gguf_file(tmp_path / "m.gguf", "gemma3", block_count=count, **GEMMA, **BASES))
    assert isinstance(local.encoding, RoPE)
    assert isinstance(distant.encoding, RoPE)
    assert (local.encoding.frequencies, distant.encoding.frequencies) == (Geometric(1e4), rule)
    assert any("8 is understood" in note for note in distant.notes) == (factor != 1)
    own = gguf_file(tmp_path / "n.gguf", "gemma3", block_count=count, rope__freq_base=1e6, **GEMMA)
    assert isinstance(described := describe(own).groups[1].encoding, RoPE)
    assert described.frequencies == Geometric(1e6)  # of llama.cpp's converter: without a factor it has none


def test_gemma_3_of_ollama_with_yarn_has_no_temperature_and_ends_of_its_own(tmp_path: Path) -> None:
    keys: dict[str, Any] = {**GEMMA, "rope__local__freq_base": 1e4, "rope__scaling__type": "yarn"}
    keys |= {"rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 2048}
    distant = describe(gguf_file(tmp_path / "m.gguf", "gemma3", block_count=6, **keys)).groups[1].encoding
    assert isinstance(distant, RoPE)
    assert distant.frequencies == YaRN(4.0, trained_length=2048, base=1e6, beta_fast=64.0, attention_factor=1.0)


@pytest.mark.parametrize(
    ("arch", "key", "layout"),
    [
        ("qwen25vl", "rope__mrope_section", "chunked"),
        ("glmocr", "rope__mrope_section", "chunked"),
        ("qwen3vl", "rope__mrope_section", "interleaved"),
        ("qwen3vl", "mrope_sections", "interleaved"),
    ],
)
def test_sections_under_the_names_of_ollama(tmp_path: Path, arch: str, key: str, layout: str) -> None:
    described = describe(gguf_file(tmp_path / "m.gguf", arch, **{key: [12, 10, 10]}))
    (group,) = described
    assert isinstance(group.encoding, MRoPE)
    assert (group.encoding.sections, group.encoding.layout) == ((12, 10, 10), layout)
    assert described.unread == ()


def test_mllamas_layers_that_attend_to_an_image_do_not_rotate(tmp_path: Path) -> None:
    tensors = {"token_embd.weight": [0.0] * 32, "rope_freqs.weight": [1.0] * 16 + [8.0] * 16}
    keys: dict[str, Any] = {"rope__freq_base": 5e5, "attention__cross_attention_layers": [1, 3]}
    text, image = describe(gguf_file(tmp_path / "m.gguf", "mllama", tensors, block_count=5, **keys))
    assert isinstance(text.encoding, RoPE)
    assert isinstance(text.encoding.frequencies, Custom)
    assert (text.layers, text.encoding.pairing) == ((0, 2, 4), "interleaved")
    assert (image.layers, isinstance(image.encoding, NoPE)) == ((1, 3), True)
    with pytest.raises(ValueError, match=r"cross_attention_layers is 3, expected a list of whole numbers"):
        describe(gguf_file(tmp_path / "n.gguf", "mllama", tensors, block_count=5, attention__cross_attention_layers=3))


def test_deepseek_ocr_and_mistrals_temperature_under_its_name_there(tmp_path: Path) -> None:
    (group,) = describe(gguf_file(tmp_path / "m.gguf", "deepseekocr"))
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.pairing, group.encoding.frequencies) == ("half", Geometric())
    keys = {"rope__scaling__type": "yarn", "rope__scaling__factor": 16.0, "rope__scaling_beta": 0.1}
    keys["rope__scaling__original_context_length"] = 2048
    (mistral,) = describe(gguf_file(tmp_path / "n.gguf", "mistral3", **keys))
    assert isinstance(mistral.encoding, Compose)
    (temperature,) = (part for part in mistral.encoding.parts if isinstance(part, Temperature))
    assert (temperature.length, temperature.strength) == (2048, 0.1)
    assert "is Ollama's, whose code divides all positions by the factor" in mistral.notes[-1]

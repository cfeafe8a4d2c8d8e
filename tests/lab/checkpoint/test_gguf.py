"""GGUF files are read as llama.cpp runs them: pairing, windows and layers without rotation, by architecture."""

from pathlib import Path
from typing import Any

import pytest
from tests.lab.test_inspect import gguf_file, rotating

from posenc import ALiBi, Compose, Learned, MRoPE, NoPE, RoPE, T5Bias, YaRN
from posenc.frequencies import Geometric
from posenc.lab.checkpoint import gguf_architectures as of
from posenc.lab.checkpoint.gguf import describe_gguf

#: What llama.cpp's llama_model_rope_type gives for its constants LLM_ARCH_..., September 2026: neighbouring channels,
NORM = """
    LLADA LLAMA LLAMA4 DECI BAICHUAN STARCODER INTERNLM2 MINICPM XVERSE COMMAND_R COHERE2 OLMO ARCTIC DEEPSEEK DEEPSEEK2
    DEEPSEEK2OCR PLM CHATGLM GRANITE GRANITE_MOE GRANITE_HYBRID CHAMELEON BAILINGMOE NEO_BERT SMOLLM3 ARCEE ERNIE4_5
    ERNIE4_5_MOE MISTRAL3 MISTRAL4 LLAMA_EMBED MAINCODER GLM_DSA GLM4
"""
#: halves,
NEOX = """
    FALCON FALCON_H1 GROK DBRX BERT JINA_BERT_V3 MODERN_BERT NOMIC_BERT NOMIC_BERT_MOE EUROBERT STABLELM BITNET QWEN
    QWEN2 DREAM QWEN2MOE QWEN3 QWEN3MOE LLADA_MOE RND1 OLMO2 OLMOE PHI2 PHI3 PHIMOE PLAMO PLAMO2 PLAMO3 GEMMA GEMMA2
    GEMMA3 GEMMA3N GEMMA4 GEMMA_EMBEDDING STARCODER2 OPENELM GPTNEOX CODESHELL ORION NEMOTRON EXAONE EXAONE4 EXAONE_MOE
    MINICPM3 BAILINGMOE2 DOTS1 HUNYUAN_MOE JAIS2 GPT_OSS HUNYUAN_DENSE LFM2 LFM2MOE SMALLTHINKER SEED_OSS GROVEMOE
    APERTUS MINIMAXM2 COGVLM PANGU_EMBED AFMOE QWEN3NEXT MIMO2 GLM4_MOE HUNYUAN_VL
"""
#: and several coordinates.
MROPE, IMROPE = "QWEN2VL PADDLEOCR", "QWEN3VL QWEN3VLMOE QWEN35 QWEN35MOE"

#: Architectures that the pinned package gguf does not name yet.
NEWER = {"laguna", "mellum", "granite_swa", "cohere2moe"}


def test_pairings_are_those_of_llama_cpp() -> None:
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")
    name_of = {constant.name: name for constant, name in gguf.MODEL_ARCH_NAMES.items()}
    norm, neox = ({name_of[constant] for constant in text.split()} for text in (NORM, NEOX))
    tables = of.TABLES  # whose code adds a table and asks for no rotation, whatever that function gives
    assert norm - tables == of.INTERLEAVED - NEWER
    assert neox - tables == of.HALF - NEWER
    assert {name_of[c] for c in MROPE.split()} == {arch for arch, layout in of.SECTIONS.items() if layout == "chunked"}
    assert {name_of[c] for c in IMROPE.split()} == {a for a, layout in of.SECTIONS.items() if layout == "interleaved"}
    assert set(name_of.values()) >= of.KNOWN - NEWER
    every = [of.INTERLEAVED, of.HALF, of.SECTIONS.keys(), of.TABLES, of.ALIBI, of.T5, of.UNROTATED]
    assert sum(map(len, every)) == len(of.KNOWN)


WINDOW = {"attention__sliding_window": 1024}


@pytest.mark.parametrize(
    ("arch", "count", "keys", "expected"),
    [
        ("afmoe", 8, WINDOW, {1e4: [0, 1, 2, 4, 5, 6]}),
        ("exaone-moe", 4, WINDOW, {1e4: [0, 1, 2]}),
        ("cohere2moe", 8, {**WINDOW, "leading_dense_block_count": 1}, {1e4: [0, 1, 2, 3, 5, 6, 7]}),
        ("smallthinker", 8, WINDOW, {1e4: [1, 2, 3, 5, 6, 7]}),
        ("smallthinker", 8, {}, {1e4: list(range(8))}),
        ("llama4", 4, {"attention__sliding_window": 0}, {1e4: [0, 1, 2, 3]}),
        ("granite_swa", 3, {"attention__rope_pattern": [1, 0, 1]}, {1e4: [0, 2]}),
        ("plamo3", 8, {**WINDOW, "rope__freq_base": 1e6}, {1e4: [0, 1, 2, 3, 4, 5, 6], 1e6: [7]}),
        (
            "mimo2",
            3,
            {**WINDOW, "rope__freq_base": 1e6, "attention__sliding_window_pattern": [1, 0, 1]},
            {1e4: [0, 2], 1e6: [1]},
        ),
        ("gpt-oss", 4, {**WINDOW, "rope__freq_base": 150000.0}, {150000.0: [0, 1, 2, 3]}),
        ("gemma3", 6, {**WINDOW, "rope__freq_base": 1e6, "rope__freq_base_swa": 5e4}, {5e4: [0, 1, 2, 3, 4], 1e6: [5]}),
        ("baichuan", 32, {}, {1e4: list(range(32))}),
        ("baichuan", 40, {}, {}),
        ("jamba", 4, {"attention__head_count_kv": [0, 0, 4, 0]}, {}),
    ],
)
def test_layers_rotate_as_llama_cpp_rotates_them(
    tmp_path: Path, arch: str, count: int, keys: dict[str, Any], expected: dict[float, list[int]]
) -> None:
    described = describe_gguf(gguf_file(tmp_path / "m.gguf", arch, block_count=count, **keys))
    assert rotating(described) == expected


def test_windows_without_scaling_of_their_own(tmp_path: Path) -> None:
    """Olmo 3, which is olmo2 there: its windows are plain, and the other layers have YaRN."""
    yarn = {"type": "yarn", "factor": 8.0, "original_context_length": 8192}
    keys: dict[str, Any] = {f"rope__scaling__{key}": value for key, value in yarn.items()}
    path = gguf_file(tmp_path / "m.gguf", "olmo2", block_count=4, rope__freq_base=5e5, **WINDOW, **keys)
    local, distant = describe_gguf(path)
    assert (local.layers, distant.layers) == ((0, 1, 2), (3,))
    assert isinstance(local.encoding, RoPE)
    assert isinstance(distant.encoding, RoPE)
    assert local.encoding.frequencies == Geometric(5e5)
    assert distant.encoding.frequencies == YaRN(8.0, trained_length=8192, base=5e5)
    (both,) = describe_gguf(gguf_file(tmp_path / "g.gguf", "gpt-oss", block_count=4, **WINDOW, **keys))
    assert both.layers == (0, 1, 2, 3)


def test_latent_attention_has_the_length_of_a_key_as_it_is_meant(tmp_path: Path) -> None:
    keys = {"attention__key_length": 576, "attention__key_length_mla": 192, "rope__dimension_count": 64}
    (group,) = describe_gguf(gguf_file(tmp_path / "m.gguf", "deepseek2", **keys))
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.head_dim, group.encoding.rotary_start, group.encoding.rotary_dim) == (192, 128, 64)


def test_windows_have_heads_of_another_width(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"attention__key_length": 512, "attention__key_length_swa": 256, "rope__freq_base": 1e6}
    keys |= {"attention__sliding_window_pattern": [1, 0], "rope__dimension_count": 512}
    local, distant = describe_gguf(gguf_file(tmp_path / "m.gguf", "gemma4", **WINDOW, **keys))
    assert isinstance(local.encoding, RoPE)
    assert isinstance(distant.encoding, RoPE)
    assert (local.encoding.head_dim, distant.encoding.head_dim) == (256, 512)


def test_other_encodings(tmp_path: Path) -> None:
    encoder, decoder = describe_gguf(gguf_file(tmp_path / "t5.gguf", "t5", attention__relative_buckets_count=32))
    assert isinstance(encoder.encoding, T5Bias)
    assert isinstance(decoder.encoding, T5Bias)
    assert (encoder.encoding.direction, decoder.encoding.direction) == ("both", "causal")
    for arch, cls in (("refact", ALiBi), ("starcoder", Learned), ("nemotron_h", NoPE)):
        assert isinstance(describe_gguf(gguf_file(tmp_path / f"{arch}.gguf", arch)).groups[0].encoding, cls)
    path = gguf_file(tmp_path / "glm.gguf", "glm4", rope__dimension_sections=[8, 12, 12, 0])
    assert isinstance(describe_gguf(path).groups[0].encoding, MRoPE)
    first = describe_gguf(gguf_file(tmp_path / "l4.gguf", "llama4", block_count=4)).layer(3)
    assert isinstance(first.encoding, Compose)


def test_what_is_not_used_is_named_and_what_is_altered_is_refused(tmp_path: Path) -> None:
    described = describe_gguf(gguf_file(tmp_path / "m.gguf", "llama", rope__scaling__yarn_ext_factor=0.5))
    assert described.unread == ("llama.rope.scaling.yarn_ext_factor: not used",)
    for keys, words in (
        ({"rope__freq_base": "much"}, "rope.freq_base is 'much', expected a number"),
        ({"rope__dimension_count": 0}, "rope.dimension_count is 0, expected a whole number above 0"),
        ({"attention__max_alibi_bias": 4.0}, "max_alibi_bias is 4, expected 8"),
    ):
        arch = "bloom" if "attention__max_alibi_bias" in keys else "llama"
        with pytest.raises(ValueError, match=words):
            describe_gguf(gguf_file(tmp_path / "n.gguf", arch, **keys))

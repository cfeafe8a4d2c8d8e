"""GGUF files are read as llama.cpp runs them: pairing, windows and layers without rotation, by architecture."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from posenc import ALiBi, Compose, Learned, MRoPE, NoPE, RoPE, T5Bias, Temperature, YaRN
from posenc.frequencies import Custom, Geometric, Linear, LongRoPE, NTKAlpha
from posenc.integrations.gguf import architectures as of
from posenc.integrations.gguf import describe
from posenc.lab.inspect import inspect
from posenc.scores import InklingBias


def gguf_file(path: Path, arch: str, tensors: dict[str, Any] | None = None, **keys: Any) -> Path:
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(keys.pop("block_count", 2))
    writer.add_context_length(8192)
    writer.add_embedding_length(256)
    writer.add_head_count(4)
    for key, value in keys.items():
        name = f"{arch}.{key.replace('__', '.')}"
        add = {
            bool: writer.add_bool,
            str: writer.add_string,
            float: writer.add_float32,
            int: writer.add_uint32,
            list: writer.add_array,
        }
        add[type(value)](name, value)
    for name, values in (tensors or {"token_embd.weight": [0.0] * 32}).items():
        writer.add_tensor(name, np.array(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rotating(described: Any) -> dict[float, list[int]]:
    """The layers that rotate, by base."""
    found: dict[float, list[int]] = {}
    for group in described:
        if isinstance(group.encoding, RoPE):
            found.setdefault(getattr(group.encoding.frequencies, "base", 0.0), []).extend(group.layers)
    return found


#: What llama.cpp's llama_model_rope_type gives for its constants LLM_ARCH_..., November 2026: neighbouring channels,
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
    APERTUS MINIMAXM2 COGVLM PANGU_EMBED AFMOE QWEN3NEXT MIMO2 STEP35 GLM4_MOE HUNYUAN_VL
"""
#: and several coordinates.
MROPE, IMROPE = "QWEN2VL PADDLEOCR", "QWEN3VL QWEN3VLMOE QWEN35 QWEN35MOE"

#: Architectures that the pinned package gguf does not name yet.
NEWER = of.names("""
    bailingmoe3 cohere2moe deepseek32 deepseek4 deepseek41 dflash dots3note eagle3 gemma4-assistant glm5-next
    berrylm deepseekocr gigachat35 glmocr gptoss k2-horizon mllama olmo3 onyx qwen25vl
    granite_swa graniteswitch hrm_text hy_v3 hy_v4 kimi-k3 laguna maple mellum minimax-01 minimax-m3 muse-glimmer
    inkling nanbeige pockettts qwen3tts qwen4exp spark2_5 talkie
""")


def test_pairings_are_those_of_llama_cpp() -> None:
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")
    name_of = {constant.name: name for constant, name in gguf.MODEL_ARCH_NAMES.items()}
    norm, neox = ({name_of[constant] for constant in text.split()} for text in (NORM, NEOX))
    other = of.TABLES | of.PLAIN  # whose code adds a table, or names its own pairing, whatever that function gives
    assert norm - other == of.INTERLEAVED - NEWER
    assert neox - other == of.HALF - NEWER - of.PLAIN
    for constants, layout in ((MROPE, "chunked"), (IMROPE, "interleaved")):
        assert {name_of[c] for c in constants.split()} == {
            arch for arch, own in of.SECTIONS.items() if own == layout and arch not in NEWER
        }
    assert set(name_of.values()) >= of.KNOWN - NEWER
    every = [of.INTERLEAVED, of.HALF, of.SECTIONS.keys(), of.TABLES, of.ALIBI, of.T5, of.PROFILES, of.UNROTATED]
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
        ("gemma3", 6, {"rope__freq_base": 1e6}, {1e6: list(range(6))}),  # no window is stored
        ("gemma3", 6, {**WINDOW, "rope__global__freq_base": 1e6}, {1e4: [0, 1, 2, 3, 4], 1e6: [5]}),  # Ollama's
        ("gpt-oss", 4, {**WINDOW, "rope__freq_base": 1e6, "rope__freq_base_swa": 1e5}, {1e5: [0, 2], 1e6: [1, 3]}),
        ("mellum", 4, {**WINDOW, "rope__freq_base": 5e5, "rope__freq_base_swa": 1e4}, {5e5: [0, 1, 2, 3]}),
        ("cohere2moe", 4, {**WINDOW, "leading_dense_block_count": 0}, {1e4: [1, 2, 3]}),
        ("muse-glimmer", 4, {**WINDOW, "rope__freq_base": 5e5}, {5e5: [0, 1, 2]}),
        ("qwen3next", 5, {"nextn_predict_layers": 1}, {1e4: [3]}),  # onnxruntime/mobius#522: one layer too many
        ("minimax-01", 16, {}, {1e4: [7, 15]}),
        ("onyx", 8, {**WINDOW, "rope__freq_base": 5e5}, {5e5: [0, 1, 2, 4, 5, 6]}),
        ("berrylm", 4, {"attention__recurrent_layers": [True, False, True, False]}, {1e4: [1, 3]}),
        ("gigachat35", 8, {"nextn_predict_layers": 1, "attention__key_length_mla": 192}, {1e4: [3]}),
        ("k2-horizon", 2, {"rope__freq_base": 1e7}, {1e7: [0, 1]}),
        ("qwen3next", 3, {"attention__recurrent_layers": [True, False, True]}, {1e4: [1]}),
        ("kimi-k3", 2, {"attention__head_count_kv": [0, 4]}, {}),
    ],
)
def test_layers_rotate_as_llama_cpp_rotates_them(
    tmp_path: Path, arch: str, count: int, keys: dict[str, Any], expected: dict[float, list[int]]
) -> None:
    described = describe(gguf_file(tmp_path / "m.gguf", arch, block_count=count, **keys))
    assert rotating(described) == expected


def test_windows_without_scaling_of_their_own(tmp_path: Path) -> None:
    """Olmo 3, which is olmo2 there: its windows are plain, and the other layers have YaRN."""
    yarn = {"type": "yarn", "factor": 8.0, "original_context_length": 8192}
    keys: dict[str, Any] = {f"rope__scaling__{key}": value for key, value in yarn.items()}
    path = gguf_file(tmp_path / "m.gguf", "olmo2", block_count=4, rope__freq_base=5e5, **WINDOW, **keys)
    local, distant = describe(path)
    assert (local.layers, distant.layers) == ((0, 1, 2), (3,))
    assert isinstance(local.encoding, RoPE)
    assert isinstance(distant.encoding, RoPE)
    assert local.encoding.frequencies == Geometric(5e5)
    assert distant.encoding.frequencies == YaRN(8.0, trained_length=8192, base=5e5)
    (both,) = describe(gguf_file(tmp_path / "g.gguf", "gpt-oss", block_count=4, **WINDOW, **keys))
    assert both.layers == (0, 1, 2, 3)


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_a_scaling_without_a_factor_is_noted(tmp_path: Path, kind: str) -> None:
    """onnxruntime/mobius#458: a kind of scaling, and no factor, which llama.cpp takes for 1."""
    (group,) = describe(gguf_file(tmp_path / "m.gguf", "llama", rope__scaling__type=kind, rope__freq_base=5e5))
    assert isinstance(group.encoding, RoPE)
    plain = Geometric(5e5).inv_freq(64)
    np.testing.assert_allclose(group.encoding.frequencies.inv_freq(64), plain, rtol=1e-12)
    assert group.encoding.frequencies.attention_factor == 1
    assert group.notes == (f"the scaling is {kind!r}, and its factor is 1 or not stored: it scales nothing",)


def test_k2_horizons_ends_of_the_ramp_are_stored(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"type": "yarn", "factor": 4.0, "original_context_length": 2048, "yarn_beta_fast": 16.0}
    stored = {f"rope__scaling__{key}": value for key, value in keys.items()}
    (group,) = describe(gguf_file(tmp_path / "m.gguf", "k2-horizon", **stored))
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == YaRN(4.0, trained_length=2048, beta_fast=16.0, beta_slow=1.0)
    assert group.encoding.pairing == "half"


def test_latent_attention_has_the_length_of_a_key_as_it_is_meant(tmp_path: Path) -> None:
    gigachat = {"attention__key_length_mla": 192, "rope__dimension_count": 64, "full_attention_interval": 2}
    (group,) = describe(gguf_file(tmp_path / "g.gguf", "gigachat35", **gigachat))
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.rotary_start, group.encoding.pairing) == (128, "interleaved")
    keys = {"attention__key_length": 576, "attention__key_length_mla": 192, "rope__dimension_count": 64}
    (group,) = describe(gguf_file(tmp_path / "m.gguf", "deepseek2", **keys))
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.head_dim, group.encoding.rotary_start, group.encoding.rotary_dim) == (192, 128, 64)


def test_windows_have_heads_of_another_width(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"attention__key_length": 512, "attention__key_length_swa": 256, "rope__freq_base": 1e6}
    keys |= {"attention__sliding_window_pattern": [1, 0], "rope__dimension_count": 512}
    local, distant = describe(gguf_file(tmp_path / "m.gguf", "gemma4", **WINDOW, **keys))
    assert isinstance(local.encoding, RoPE)
    assert isinstance(distant.encoding, RoPE)
    assert (local.encoding.head_dim, distant.encoding.head_dim) == (256, 512)


@pytest.mark.parametrize(
    ("arch", "keys", "local", "others"),
    [
        ("mimo2", {"rope__dimension_count": 32, "attention__key_length_swa": 64}, (64, 32), (64, 32)),
        ("step35", {"rope__dimension_count": 64}, (64, 64), (64, 32)),
        ("laguna", {"rope__dimension_count": 32, "rope__dimension_count_swa": 64}, (64, 64), (64, 32)),
        ("spark2_5", {"rope__dimension_count": 32, "rope__dimension_count_swa": 16}, (64, 16), (64, 32)),
    ],
)
def test_windows_rotate_as_many_channels_as_llama_cpp_rotates_there(
    tmp_path: Path, arch: str, keys: dict[str, Any], local: tuple[int, int], others: tuple[int, int]
) -> None:
    keys = {**WINDOW, "rope__freq_base": 1e6, "attention__sliding_window_pattern": [1, 0], **keys}
    found = describe(gguf_file(tmp_path / "m.gguf", arch, **keys))
    encodings = [found.layer(layer).encoding for layer in (0, 1)]
    assert [(e.head_dim, e.rotary_dim) for e in encodings if isinstance(e, RoPE)] == [local, others]


YARN = {"rope__scaling__type": "yarn", "rope__scaling__factor": 8.0, "rope__scaling__original_context_length": 2048}
M = 0.1 * math.log(8.0) + 1.0


@pytest.mark.parametrize(
    ("arch", "keys", "expected", "cos", "scores"),
    [
        ("qwen3", {"yarn_beta_fast": 16.0, "yarn_attn_factor": 1.0}, (32.0, 1.0), M, 1.0),  # nobody reads them
        ("grok", {"yarn_ext_factor": 1.0, "yarn_attn_factor": 1.0}, (8.0, 1.0), M, 1.0),
        ("mistral3", {"yarn_beta_fast": 16.0, "yarn_log_multiplier": 1.0}, (16.0, 1.0), 1.0, 1.0),
        ("mistral3", {}, (32.0, 1.0), M, 1.0),
        ("mistral4", {"yarn_log_multiplier": 0.1}, (32.0, 1.0), 1.0, M * M),
        ("deepseek2", {}, (32.0, 1.0), M, M * M),  # files from before the key existed
        ("deepseek2", {"yarn_log_multiplier": 0.0707}, (32.0, 1.0), 1.0, (0.0707 * math.log(8.0) + 1.0) ** 2),
    ],
)
def test_yarn_is_what_llama_cpp_makes_of_its_keys(
    tmp_path: Path, arch: str, keys: dict[str, Any], expected: tuple[float, float], cos: float, scores: float
) -> None:
    keys = YARN | {f"rope__scaling__{key}": value for key, value in keys.items()}
    (group,) = describe(gguf_file(tmp_path / "m.gguf", arch, **keys))
    assert isinstance(group.encoding, RoPE)
    rule = group.encoding.frequencies
    assert isinstance(rule, YaRN)
    assert (rule.beta_fast, rule.beta_slow) == expected
    assert (rule.attention_factor, rule.score_factor) == (pytest.approx(cos), pytest.approx(scores))


@pytest.mark.parametrize(
    ("arch", "key", "length"),
    [("mistral3", "rope__scaling__original_context_length", 4096), ("mistral4", "attention__temperature_length", 512)],
)
def test_temperatures_by_position(tmp_path: Path, arch: str, key: str, length: int) -> None:
    """antonellof/ferrox#213: the keys were dropped without a word."""
    path = gguf_file(tmp_path / "m.gguf", arch, **{"attention__temperature_scale": 0.1, key: length})
    described = describe(path)
    temperature = described.groups[0].encoding.parts[1]
    assert isinstance(temperature, Temperature)
    assert (temperature.form, temperature.length, temperature.strength) == ("mistral", length, 0.1)
    assert described.unread == ()


def test_what_is_particular_to_one_architecture(tmp_path: Path) -> None:
    """The base of Hunyuan, the whole heads of DeepSeek-OCR, factors beside a scaling."""
    keys: dict[str, Any] = {"rope__freq_base": 1e4, "rope__scaling__alpha": 1000.0, "rope__scaling__type": "none"}
    (group,) = describe(gguf_file(tmp_path / "h.gguf", "hunyuan_vl", **keys))
    assert getattr(group.encoding, "frequencies", None) == NTKAlpha(1000.0)
    (group,) = describe(gguf_file(tmp_path / "o.gguf", "deepseek2-ocr", rope__dimension_count=0))
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.pairing, group.encoding.rotary_dim) == ("half", 64)
    linear: dict[str, Any] = {"rope__scaling__type": "linear", "rope__scaling__factor": 4.0}
    factors = {"rope_freqs.weight": [2.0] * 32}
    (group,) = describe(gguf_file(tmp_path / "l.gguf", "llama", factors, **linear))
    assert isinstance(group.encoding, RoPE)
    np.testing.assert_allclose(group.encoding.frequencies.inv_freq(64) * 8, Geometric().inv_freq(64))
    refused: tuple[tuple[str, dict[str, Any], dict[str, Any] | None, str], ...] = (
        ("llama", YARN, factors, "rope_freqs.weight and YaRN"),
        ("phi3", {"rope__scaling__type": "longrope"}, None, "no lists of factors"),
        ("qwen2vl", {"rope__dimension_sections": [8, 8, 8, 8]}, None, "expected three numbers, or a fourth that is 0"),
        ("glm4", {"rope__dimension_sections": 8}, None, "expected a list of whole numbers"),
        ("mimo2", WINDOW, None, "expected a list that says for each layer"),
        ("mistral4", {"attention__temperature_scale": 0.1}, None, "no attention.temperature_length"),
    )
    for arch, keys, tensors, words in refused:
        with pytest.raises(ValueError, match=words):
            describe(gguf_file(tmp_path / "r.gguf", arch, tensors, **keys))


def test_other_encodings(tmp_path: Path) -> None:
    encoder, decoder = describe(gguf_file(tmp_path / "t5.gguf", "t5", attention__relative_buckets_count=32))
    assert isinstance(encoder.encoding, T5Bias)
    assert isinstance(decoder.encoding, T5Bias)
    assert (encoder.encoding.direction, decoder.encoding.direction) == ("both", "causal")
    for arch, cls in (("refact", ALiBi), ("starcoder", Learned), ("nemotron_h", NoPE)):
        assert isinstance(describe(gguf_file(tmp_path / f"{arch}.gguf", arch)).groups[0].encoding, cls)
    path = gguf_file(tmp_path / "glm.gguf", "glm4", rope__dimension_sections=[8, 12, 12, 0])
    assert isinstance(describe(path).groups[0].encoding, MRoPE)
    first = describe(gguf_file(tmp_path / "l4.gguf", "llama4", block_count=4)).layer(3)
    assert isinstance(first.encoding, Compose)


def test_the_profiles_of_inkling(tmp_path: Path) -> None:
    """The keys as the converters of Inkling write them: one pattern and two reaches; 0 switches the factor off."""
    keys: dict[str, Any] = {
        **{"block_count": 6, "attention__sliding_window": 8},
        **{"attention__sliding_window_pattern": [True] * 5 + [False], "rope__dimension_count": 0},
        **{"d_rel": 3, "rel_extent": 16, "rel_extent_swa": 8},
    }
    path = gguf_file(tmp_path / "i.gguf", "inkling", **keys, log_scaling_n_floor=128000, log_scaling_alpha=0.1)
    local, whole = describe(path)
    assert (local.label, local.layers, whole.label, whole.layers) == (
        "sliding_attention", (0, 1, 2, 3, 4), "full_attention", (5,)
    )  # fmt: skip
    assert local.encoding.to_dict() == InklingBias(256, 4, rank=3, extent=8).to_dict()
    factor = Temperature("inkling", length=128000, strength=0.1)
    assert whole.encoding.to_dict() == Compose(InklingBias(256, 4, rank=3, extent=16), factor).to_dict()
    path = gguf_file(tmp_path / "j.gguf", "inkling", **keys, log_scaling_n_floor=0, log_scaling_alpha=0.0)
    assert isinstance(describe(path).layer(5).encoding, InklingBias)
    with pytest.raises(ValueError, match="has log_scaling_n_floor and no log_scaling_alpha"):
        describe(gguf_file(tmp_path / "h.gguf", "inkling", **keys, log_scaling_n_floor=128000))
    del keys["rel_extent_swa"]
    with pytest.raises(ValueError, match="has no rel_extent_swa, expected it"):
        describe(gguf_file(tmp_path / "k.gguf", "inkling", **keys))


def test_what_is_not_used_is_named_and_what_is_altered_is_refused(tmp_path: Path) -> None:
    described = describe(gguf_file(tmp_path / "m.gguf", "llama", rope__scaling__yarn_ext_factor=0.5))
    assert described.unread == ("llama.rope.scaling.yarn_ext_factor: not used",)
    for keys, words in (
        ({"rope__freq_base": "much"}, "rope.freq_base is 'much', expected a number"),
        ({"rope__dimension_count": 0}, "rope.dimension_count is 0, expected a whole number above 0"),
        ({"attention__max_alibi_bias": -4.0}, "max_alibi_bias is -4.0, expected a number of at least 0"),
    ):
        arch = "bloom" if "attention__max_alibi_bias" in keys else "llama"
        with pytest.raises(ValueError, match=words):
            describe(gguf_file(tmp_path / "n.gguf", arch, **keys))


def test_the_last_slope_of_a_file_is_its_own(tmp_path: Path) -> None:
    """MPT-7B-StoryWriter; llama.cpp: m0 = 2^(-max_bias / n) where n is the power of two at or below the heads."""
    (group,) = describe(gguf_file(tmp_path / "m.gguf", "mpt", attention__max_alibi_bias=16.0))
    assert isinstance(group.encoding, ALiBi)
    assert group.encoding.max_bias == 16
    assert group.encoding.slopes[-1] == 2.0**-16


@pytest.mark.parametrize(("arch", "pairing"), [("llama", "interleaved"), ("qwen2", "half"), ("phi3", "half")])
def test_the_pairing_of_a_gguf_file_is_that_of_its_architecture(tmp_path: Path, arch: str, pairing: str) -> None:
    (group,) = describe(gguf_file(tmp_path / "m.gguf", arch, rope__freq_base=5e5, rope__dimension_count=32))
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.pairing, group.encoding.rotary_dim, group.encoding.head_dim) == (pairing, 32, 64)
    assert group.encoding.frequencies == Geometric(5e5)
    assert group.layers == (0, 1)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, Geometric(1e4)),
        ({"rope__scaling__type": "linear", "rope__scaling__factor": 2.0}, Linear(2.0)),
        (
            {
                "rope__scaling__type": "yarn",
                "rope__scaling__factor": 4.0,
                "rope__scaling__original_context_length": 2048,
            },
            YaRN(4.0, trained_length=2048),
        ),
    ],
)
def test_the_rule_of_a_gguf_file_is_read(tmp_path: Path, keys: dict[str, Any], expected: Any) -> None:
    (group,) = describe(gguf_file(tmp_path / "m.gguf", "llama", **keys))
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == expected


def test_stored_factors_of_a_gguf_file_are_read(tmp_path: Path) -> None:
    factors = [1.0] * 16 + [8.0] * 16
    (group,) = describe(gguf_file(tmp_path / "m.gguf", "llama", {"rope_freqs.weight": factors}))
    assert isinstance(group.encoding, RoPE)
    assert isinstance(group.encoding.frequencies, Custom)
    np.testing.assert_allclose(group.encoding.frequencies.inv_freq(64) * factors, Geometric().inv_freq(64))
    lists = {"rope_factors_long.weight": factors, "rope_factors_short.weight": [1.0] * 32}
    path = gguf_file(tmp_path / "n.gguf", "phi3", lists, rope__scaling__original_context_length=4096)
    (group,) = describe(path)
    assert isinstance(group.encoding, RoPE)
    expected = {"trained_length": 4096, "factor": 2.0}
    # llama.cpp multiplies cos and sin by what the file stores, and by nothing where it stores nothing.
    assert group.encoding.frequencies == LongRoPE([1.0] * 32, factors, **expected, attention_factor=1.0)  # type: ignore[arg-type]


def test_sections_of_a_gguf_file_are_read(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "m.gguf", "qwen2vl", rope__dimension_sections=[8, 12, 12, 0])
    (group,) = describe(path)
    assert isinstance(group.encoding, MRoPE)
    assert group.encoding.sections == (8, 12, 12)
    console = Console(file=io.StringIO(), width=120)
    assert inspect(path, console=console).model_type == "qwen2vl (GGUF)"


@pytest.mark.parametrize(
    ("arch", "count", "keys", "expected"),
    [
        (
            "gemma3",
            7,
            {**WINDOW, "rope__freq_base": 1e6, "rope__scaling__type": "linear", "rope__scaling__factor": 8.0},
            {1e4: [0, 1, 2, 3, 4, 6], 1e6: [5]},
        ),
        ("gemma3n", 5, {"rope__freq_base": 1e6}, {1e4: [0, 1, 2, 3], 1e6: [4]}),
        ("modern-bert", 4, {**WINDOW, "rope__freq_base": 160000.0}, {160000.0: [0, 3], 1e4: [1, 2]}),
        ("smollm3", 8, {}, {1e4: [0, 1, 2, 4, 5, 6]}),
        ("llama4", 4, {}, {1e4: [0, 1, 2]}),
        ("cohere2", 8, {"attention__sliding_window": 4096}, {1e4: [0, 1, 2, 4, 5, 6]}),
        ("exaone4", 64, WINDOW, {1e4: [i for i in range(64) if i % 4 != 3]}),
        ("exaone4", 4, {}, {1e4: [0, 1, 2, 3]}),
        ("lfm2", 4, {"attention__head_count_kv": [0, 0, 2, 0]}, {1e4: [2]}),
        ("granitehybrid", 4, {"attention__head_count_kv": [0, 2, 0, 0]}, {1e4: [1]}),
        ("qwen3next", 8, {}, {1e4: [3, 7]}),
    ],
)
def test_the_layers_of_a_gguf_file_differ_as_its_architecture_says(
    tmp_path: Path, arch: str, count: int, keys: dict[str, Any], expected: dict[float, list[int]]
) -> None:
    described = describe(gguf_file(tmp_path / "m.gguf", arch, block_count=count, **keys))
    assert rotating(described) == expected
    assert "GGUF" in described.reading


def test_what_a_gguf_file_says_besides(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "m.gguf", "granitehybrid", rope__scaling__finetuned=False)
    assert [type(group.encoding) for group in describe(path)] == [NoPE]
    yarn = {"type": "yarn", "factor": 40.0, "original_context_length": 4096, "yarn_log_multiplier": 0.1}
    keys = {f"rope__scaling__{key}": value for key, value in yarn.items()}
    (group,) = describe(gguf_file(tmp_path / "n.gguf", "deepseek2", rope__dimension_count=32, **keys))
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies.attention_factor == 1.0
    assert group.encoding.frequencies.score_factor == pytest.approx(1.87385, abs=1e-5)
    linear: dict[str, Any] = {**WINDOW, "rope__scaling__type": "linear", "rope__scaling__factor": 8.0}
    local, distant = describe(gguf_file(tmp_path / "g.gguf", "gemma3", block_count=6, **linear))
    assert isinstance(local.encoding, RoPE)
    assert isinstance(distant.encoding, RoPE)
    assert local.encoding.frequencies == Geometric(1e4)
    assert distant.encoding.frequencies == Linear(8.0)


@pytest.mark.parametrize(
    ("arch", "tensors", "keys", "cls"),
    [
        *((arch, None, {}, Learned) for arch in ("bert", "gpt2")),
        *((arch, None, {}, ALiBi) for arch in ("bloom", "jina-bert-v2")),
        *((arch, None, {"attention__max_alibi_bias": 8.0}, ALiBi) for arch in ("mpt", "jais")),
        ("mpt", {"position_embd.weight": [0.0] * 32}, {"attention__max_alibi_bias": 0.0}, Learned),
        *((arch, None, {}, NoPE) for arch in ("mpt", "jais")),  # llama.cpp has no bias of its own for these two
    ],
)
def test_gguf_files_without_rotation_are_read(
    tmp_path: Path, arch: str, tensors: dict[str, Any] | None, keys: dict[str, Any], cls: type
) -> None:
    (group,) = describe(gguf_file(tmp_path / "m.gguf", arch, tensors, **keys))
    assert isinstance(group.encoding, cls)


def test_an_unknown_gguf_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="which posenc does not know"):
        describe(gguf_file(tmp_path / "m.gguf", "something-new"))

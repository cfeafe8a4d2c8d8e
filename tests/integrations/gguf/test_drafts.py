"""GGUF files of DeepSeek V4, of drafts (EAGLE-3, DFlash, Gemma 4's assistant) and of Granite Switch, as llama.cpp reads
them: its files of these models, in words of our own."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.integrations.gguf.test_description import YARN, gguf_file

from posenc import MRoPE, NoPE, RoPE
from posenc.encoding import Encoding
from posenc.frequencies import Geometric, YaRN
from posenc.integrations.gguf import describe

#: DeepSeek V4: a head of 64 channels, the last 16 of which rotate.
SLICE: dict[str, Any] = {"attention__key_length": 64, "rope__dimension_count": 16, "rope__freq_base": 1e4}
V4: dict[str, Any] = {
    **{**SLICE, "attention__sliding_window": 128, "attention__compress_rope_freq_base": 160000.0, **YARN},
    "attention__compress_ratios": [0, 0, 4, 128, 0],
}


def ramped(base: float, dim: int, *, factor: float, trained: int, fast: float = 32.0, slow: float = 1.0) -> np.ndarray:
    """ggml's rope: the rates, blended by the turns of a pair with those divided by the factor. No temperature."""
    pair = np.arange(dim // 2)
    rates = base ** (-2.0 * pair / dim)
    end = [dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (fast, slow)]
    low, high = max(0, math.floor(end[0])), min(dim - 1, math.ceil(end[1]))
    kept = 1 - np.clip((pair - low) / max(0.001, high - low), 0, 1)
    return np.asarray(rates / factor * (1 - kept) + rates * kept)


def turned(x: torch.Tensor, rates: np.ndarray, position: int) -> torch.Tensor:
    """The last channels of a head, in neighbouring pairs, turned by the position."""
    dim = 2 * len(rates)
    last = torch.view_as_complex(x[..., -dim:].unflatten(-1, (-1, 2)).contiguous())
    last = last * torch.from_numpy(np.exp(1j * position * rates))
    return torch.cat((x[..., :-dim], torch.view_as_real(last).flatten(-2)), dim=-1)


def assert_turns(encoding: Encoding, rates: np.ndarray) -> None:
    q = torch.randn(1, 1, 1, 64, dtype=torch.float64)
    torch.testing.assert_close(encoding.on_queries_keys(q, q, torch.tensor([77]))[0], turned(q, rates, 77))


@pytest.mark.parametrize("arch", ["deepseek4", "deepseek41"])
def test_deepseek_4_scales_the_layers_that_compress_alone(arch: str, tmp_path: Path) -> None:
    described = describe(gguf_file(tmp_path / "m.gguf", arch, block_count=4, **V4))
    plain, compressed = described
    assert (plain.layers, compressed.layers) == ((0, 1), (2, 3))
    assert (plain.label, compressed.label) == ("main", "compress")
    assert_turns(plain.encoding, 1e4 ** (-np.arange(0, 16, 2) / 16))
    assert_turns(compressed.encoding, ramped(160000.0, 16, factor=8.0, trained=2048))
    assert isinstance(compressed.encoding, RoPE)
    assert compressed.encoding.frequencies == YaRN(8.0, trained_length=2048, base=160000.0, attention_factor=1.0)
    assert (compressed.trained_length, plain.trained_length) == (2048, 8192)
    assert all(any("values are rotated too" in note for note in group.notes) for group in described)
    assert described.unread == ()


def test_deepseek_4_has_blocks_for_further_tokens_only_where_they_are_stored(tmp_path: Path) -> None:
    """llama.cpp looks for the first tensor of them, and takes all blocks for the model where there is none."""
    keys = {**V4, "block_count": 5, "nextn_predict_layers": 1}
    whole = describe(gguf_file(tmp_path / "m.gguf", "deepseek4", **keys))
    assert [group.layers for group in whole] == [(0, 1, 4), (2, 3)]
    probe = {"blk.4.nextn.eh_proj.weight": [0.0] * 32}
    assert [group.layers for group in describe(gguf_file(tmp_path / "n.gguf", "deepseek4", probe, **keys))] == [
        *((0, 1), (2, 3))
    ]


def test_deepseek_4_says_what_is_missing(tmp_path: Path) -> None:
    for gone, words in (
        ("attention__compress_ratios", "compress_ratios None, expected a number for each block"),
        ("attention__compress_rope_freq_base", "no attention.compress_rope_freq_base"),
    ):
        keys = {key: value for key, value in V4.items() if key != gone}
        with pytest.raises(ValueError, match=words):
            describe(gguf_file(tmp_path / "m.gguf", "deepseek4", block_count=4, **keys))


def test_the_indexer_of_deepseek_3_2_is_noted(tmp_path: Path) -> None:
    keys = {"rope__dimension_count": 16, "rope__freq_base": 10000.0, "attention__kv_lora_rank": 32}
    for arch, noted in (("deepseek32", True), ("deepseek2", False)):
        (group,) = describe(gguf_file(tmp_path / f"{arch}.gguf", arch, **keys, attention__key_length_mla=32))
        assert any("the indexer, which chooses the keys" in note for note in group.notes) == noted


def test_eagle_3_turns_neighbours(tmp_path: Path) -> None:
    described = describe(gguf_file(tmp_path / "m.gguf", "eagle3", block_count=1, rope__freq_base=5e5))
    (group,) = described
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.rotary_dim == 64
    assert_turns(group.encoding, 5e5 ** (-np.arange(0, 64, 2) / 64))


def test_dflash_turns_halves_or_as_deepseek_4(tmp_path: Path) -> None:
    """One rope for layers with and without a window; sections with a time alone are none."""
    keys: dict[str, Any] = {"attention__sliding_window": 2048, "attention__sliding_window_pattern": [1, 0]}
    keys |= {"rope__freq_base": 1e7, "rope__dimension_sections": [32, 0, 0, 0]}
    described = describe(gguf_file(tmp_path / "m.gguf", "dflash", **keys))
    (group,) = described
    assert isinstance(group.encoding, RoPE)
    assert not isinstance(group.encoding, MRoPE)
    assert (group.layers, group.encoding.pairing, group.encoding.frequencies) == ((0, 1), "half", Geometric(1e7))
    assert described.unread == ()
    (stages,) = describe(gguf_file(tmp_path / "n.gguf", "dflash", hyper_connection__count=4, **SLICE, **YARN))
    assert_turns(stages.encoding, 1e4 ** (-np.arange(0, 16, 2) / 16))


def test_the_assistant_of_gemma_4_is_all_of_further_blocks(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"attention__sliding_window": 512, "attention__sliding_window_pattern": [1, 0]}
    described = describe(
        gguf_file(tmp_path / "m.gguf", "gemma4-assistant", rope__freq_base=1e6, nextn_predict_layers=2, **keys)
    )
    rates = {group.layers: group.encoding.frequencies for group in described if isinstance(group.encoding, RoPE)}
    assert rates == {(0,): Geometric(1e4), (1,): Geometric(1e6)}
    assert described.unread == ()


def test_granite_switch_rotates_as_granite(tmp_path: Path) -> None:
    (group,) = describe(gguf_file(tmp_path / "m.gguf", "graniteswitch", rope__freq_base=1e7))
    assert_turns(group.encoding, 1e7 ** (-np.arange(0, 64, 2) / 64))
    (group,) = describe(gguf_file(tmp_path / "n.gguf", "graniteswitch", rope__scaling__finetuned=False))
    assert isinstance(group.encoding, NoPE)


@pytest.mark.parametrize(
    ("arch", "words"), [("mamba2", "recurrent"), ("wavtokenizer-dec", "decoder of sounds"), ("clip", "projector")]
)
def test_an_architecture_without_positions_says_why(tmp_path: Path, arch: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        describe(gguf_file(tmp_path / "m.gguf", arch))


def test_pocket_tts_turns_whole_heads_in_neighbouring_pairs(tmp_path: Path) -> None:
    """Its text side, which makes no tokens: ggml's normal rope over all channels."""
    (group,) = describe(gguf_file(tmp_path / "m.gguf", "pockettts", block_count=6))
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.pairing, group.encoding.rotary_dim) == ("interleaved", group.encoding.head_dim)
    assert len(group.layers) == 6

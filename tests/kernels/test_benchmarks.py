"""The benchmark runs, refuses to show figures while the gate is red, and keeps what it measured."""

import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the peers

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.gate
    import benchmarks.registry
    import benchmarks.run

    before = torch.get_num_threads()
    yield benchmarks
    torch.set_num_threads(before)


def test_the_gate_lets_a_right_rotation_through_and_stops_a_wrong_one(benchmarks: ModuleType) -> None:
    registry, gate = benchmarks.registry, benchmarks.gate
    bench = registry.Bench(registry.Case("small", 5, torch.float32, "in place"))
    errors = gate.check(bench)
    assert 0 < errors["posenc, in place"] <= 1
    assert errors["transformers"] < 100
    wrong = registry.Contestant(lambda: None, ours=True, check=lambda: [(bench.q, bench.q, "half", 128)])
    bench.contestants["wrong"] = wrong
    with pytest.raises(AssertionError, match="gate is red"):
        gate.check(bench)


@pytest.mark.parametrize("mode", ["decode", "decode, module", "in place", "backward", "variants"])
def test_every_contestant_can_be_timed(benchmarks: ModuleType, mode: str) -> None:
    from benchmarks import timing

    bench = benchmarks.registry.Bench(
        benchmarks.registry.Case("small", 1 if "decode" in mode else 7, torch.float32, mode)
    )
    benchmarks.gate.check(bench)
    times = timing.measure(bench, rounds=2, budget=1e-5)
    assert set(times) == set(bench.contestants)
    assert all(t.median > 0 for t in times.values())
    for width in (80, 120):  # nothing is cut in a narrow terminal either
        said = io.StringIO()
        table = benchmarks.run._table(benchmarks.run.Measured(bench, {}, times, {}), spread=width >= 100)
        Console(file=said, width=width).print(table)
        assert "…" not in said.getvalue()
        assert all(name in said.getvalue() for name in times)


@pytest.fixture
def gpu_peers(benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins with the calls of the peers that need a GPU, so that what surrounds those is tested without one."""
    from posenc.kernels.rotate.op import rotate, rotate_

    class LigerRopeFunction:
        @staticmethod
        def apply(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
            half = (t[0, :, : t.shape[-1] // 2].float() for t in (cos, sin))
            q, k = (x.transpose(1, 2) for x in (q, k))
            assert q.is_contiguous()
            rotate_(q, k, *half, token_dim=1)
            return q.transpose(1, 2), k.transpose(1, 2), cos, sin

    def apply_rotary_emb(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotate(x, x[:, :, :0], cos.float(), sin.float(), token_dim=1)[0]

    for name, values in (
        ("liger_kernel.ops.rope", {"LigerRopeFunction": LigerRopeFunction}),
        ("flash_attn.layers.rotary", {"apply_rotary_emb": apply_rotary_emb}),
    ):
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            path = ".".join(parts[:depth])
            module = ModuleType(path)
            module.__spec__ = ModuleSpec(path, None)
            monkeypatch.setitem(sys.modules, path, module)
        vars(sys.modules[name]).update(values)


@pytest.mark.usefixtures("gpu_peers")
def test_every_promise_compares_contestants_that_are_there(benchmarks: ModuleType) -> None:
    registry, gate = benchmarks.registry, benchmarks.gate
    there = {}
    for case in registry.CPU_CASES:
        there[case.name] = registry.Bench(replace(case, tokens=min(case.tokens, 7)))
    for case in registry.GPU_CASES:
        bench = there[case.name] = registry.Bench(replace(case, tokens=7, device="cpu", dtype=torch.float32))
        for contestant in bench.contestants.values():  # the others are tested above
            contestant.check = None
        if case.mode in registry.GPU_PEERS:
            registry.GPU_PEERS[case.mode](bench)
            (error,) = gate.check(bench).values()
            assert error <= 1
    for name, contestant, other, _ in registry.LIMITS:
        assert {contestant, other} <= set(there[name].contestants) | set(there[name].absent)


@pytest.mark.slow
def test_a_run_writes_lines_and_a_picture(benchmarks: ModuleType, tmp_path: Path) -> None:
    said = io.StringIO()
    output = tmp_path / "results.jsonl"
    benchmarks.run.run(rounds=2, threads=1, only="decode", output=output, console=Console(file=said, width=160))
    where, *kept = [json.loads(line) for line in output.read_text().splitlines()]
    assert where["threads"] == 1
    assert {line["case"] for line in kept} == {"decode", "decode through RoPE"}
    in_place = next(line for line in kept if line["contestant"] == "posenc, operator in place")
    assert in_place["peak_bytes"] == 0
    assert in_place["gate_error"] <= 1
    assert output.with_suffix(".svg").read_text().startswith("<?xml")
    assert "Promises" in said.getvalue()


def test_ctrl_c_keeps_the_cases_that_are_done(
    benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed = benchmarks.timing.measure

    def interrupted(bench: Any, **options: Any) -> Any:
        if bench.case.name != "decode":
            raise KeyboardInterrupt
        return timed(bench, **options)

    monkeypatch.setattr(benchmarks.timing, "measure", interrupted)
    output, said = tmp_path / "results.jsonl", io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        benchmarks.run.run(rounds=2, threads=1, only="decode", output=output, console=Console(file=said, width=160))
    _, *kept = [json.loads(line) for line in output.read_text().splitlines()]
    assert {line["case"] for line in kept} == {"decode"}
    assert f"Written to {output}" in said.getvalue()


def test_results_are_written_whole_or_not_at_all(
    benchmarks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, console = tmp_path / "kept.jsonl", Console(file=io.StringIO())
    benchmarks.run.write(output, [{"a": 1}], console)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        benchmarks.run.write(output, [{"a": 2}], console)
    assert [file.name for file in tmp_path.iterdir()] == ["kept.jsonl"]
    assert output.read_text() == '{"a": 1}\n'


def test_a_case_that_is_not_there_is_refused_with_those_that_are(benchmarks: ModuleType) -> None:
    from benchmarks.command import bench

    with pytest.raises(SystemExit, match="no case's name contains 'zzz'; there are: decode; "):
        bench("all", only="zzz")


@pytest.mark.slow
def test_a_whole_model_says_the_same_with_either_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import model

    if missing := model.missing():
        pytest.skip(f"not installed: {', '.join(missing)}")
    gains = model.measure(model.load(), prompt=16, steps=4, rounds=1)
    assert [gain.phase for gain in gains] == ["prefill", "decode"]
    assert all(gain.same_next_tokens and gain.largest_difference < 1e-3 for gain in gains)

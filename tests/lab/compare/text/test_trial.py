"""One encoding with one seed: whatever cuts it off, resuming gives the numbers of an unbroken run."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from posenc.lab.compare.text.config import is_done
from posenc.lab.compare.text.train import Training
from posenc.lab.run import folder as runs

TRIAL = "learned-seed0"


@pytest.fixture
def unbroken(prepare, finish_trial, numbers):
    """Metrics and weights of a trial that nothing interrupted."""
    folder = prepare("learned", name="unbroken") / TRIAL
    assert finish_trial(folder).status == "done"
    return numbers(folder), load_file(folder / runs.MODEL)


def assert_same(folder: Path, unbroken, numbers) -> None:
    expected_rows, expected_weights = unbroken
    assert numbers(folder) == expected_rows
    weights = load_file(folder / runs.MODEL)
    assert weights.keys() == expected_weights.keys()
    for name, value in weights.items():
        assert torch.equal(value, expected_weights[name]), name


def test_a_finished_trial_holds_all_that_a_report_needs(prepare, finish_trial) -> None:
    folder = prepare("learned") / TRIAL
    assert finish_trial(folder).status == "done"
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "model.safetensors",
    }
    rows = runs.Metrics(folder / runs.METRICS).rows()
    assert [row["step"] for row in rows if row["event"] == "train"] == list(range(5, 45, 5))
    scored = [(row["protocol"], row["factor"], "refused" in row) for row in rows if row["event"] == "evaluate"]
    assert scored == [(p, factor, factor > 1) for factor in (1, 2, 4, 8) for p in ("windows", "last")]
    done = rows[-1]
    assert done["event"] == "done"
    assert done["parameters_added"] == 8 * 16
    assert done["parameters"] == sum(value.numel() for value in load_file(folder / runs.MODEL).values())
    config = json.loads((folder / "config.json").read_text())
    assert config["encoding"] == {"name": "Learned", "dim": 16, "length": 8, "std": 0.01}
    assert json.loads((folder / "environment.json").read_text())["torch"] == torch.__version__


def test_a_finished_trial_is_not_run_again(prepare, finish_trial, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare("none") / "none-seed0"
    finish_trial(folder)
    before = (folder / runs.METRICS).read_bytes()
    monkeypatch.setattr(Training, "advance", lambda self: pytest.fail("trained again"))
    assert finish_trial(folder).status == "done"
    assert (folder / runs.METRICS).read_bytes() == before


@pytest.mark.parametrize("at", [1, 7, 10, 23, 39])
def test_a_trial_that_was_told_to_stop_goes_on_with_the_same_numbers(
    prepare, finish_trial, numbers, unbroken, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    folder = prepare("learned") / TRIAL
    stop = folder.parent / runs.STOP
    advance = Training.advance

    def advance_and_stop(self: Training) -> None:
        advance(self)
        if self.step == at:
            stop.touch()

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", advance_and_stop)
        assert finish_trial(folder).status == "stopped"
    assert int(runs.load_tensors(folder / runs.CHECKPOINT)["progress.step"]) == at
    stop.unlink()
    assert finish_trial(folder).status == "done"
    assert_same(folder, unbroken, numbers)


@pytest.mark.parametrize("at", [3, 12, 36, 40])
def test_a_trial_that_died_between_checkpoints_goes_on_with_the_same_numbers(
    prepare, finish_trial, numbers, unbroken, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    folder = prepare("learned") / TRIAL
    advance = Training.advance

    def advance_and_die(self: Training) -> None:
        advance(self)
        if self.step == at:
            raise RuntimeError("lightning")

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", advance_and_die)
        outcome = finish_trial(folder)
    assert (outcome.status, outcome.message) == ("failed", "RuntimeError: lightning")
    with (folder / runs.METRICS).open("a") as file:
        file.write('{"event": "train", "step": 1')  # a row cut off in the middle
    (folder / ".checkpoint.safetensors.1.partial").write_bytes(b"half a checkpoint")
    assert finish_trial(folder).status == "done"
    assert not list(folder.glob("*.partial"))
    assert_same(folder, unbroken, numbers)


def test_a_trial_that_was_stopped_while_it_was_evaluated_goes_on_with_the_same_numbers(
    prepare, finish_trial, numbers, unbroken, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare("learned") / TRIAL
    append = runs.Metrics.append

    def append_and_die(self: runs.Metrics, row) -> None:
        append(self, row)
        if row["event"] == "evaluate" and row["factor"] == 2:
            raise RuntimeError("lightning")

    with monkeypatch.context() as patch:
        patch.setattr(runs.Metrics, "append", append_and_die)
        assert finish_trial(folder).status == "failed"
    assert finish_trial(folder).status == "done"
    assert_same(folder, unbroken, numbers)


def test_a_full_disk_fails_the_trial_with_one_message_and_it_goes_on_when_there_is_room(
    prepare, finish_trial, numbers, unbroken, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare("learned") / TRIAL
    fsync, calls = os.fsync, []

    def full_after_a_while(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_after_a_while)
        outcome = finish_trial(folder)
    assert outcome.status == "failed"
    assert "No space left on device" in outcome.message
    assert "\n" not in outcome.message
    assert finish_trial(folder).status == "done"
    assert_same(folder, unbroken, numbers)


def test_a_class_that_has_changed_since_the_run_began_is_refused(prepare, finish_trial, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("import posenc\nclass Mine(posenc.Encoding): pass\n")
    folder = prepare(f"{mine}:Mine") / "Mine-seed0"
    mine.write_text("import posenc\nclass Mine(posenc.Encoding): relative = True\n")
    outcome = finish_trial(folder)
    assert outcome.status == "failed"
    assert "has changed since this run began" in outcome.message


def test_a_trial_does_not_go_on_with_another_version_of_torch(prepare, finish_trial) -> None:
    folder = prepare("none") / "none-seed0"
    (folder.parent / runs.STOP).touch()
    assert finish_trial(folder).status == "stopped"
    environment = runs.read_json(folder / runs.ENVIRONMENT)
    runs.write_json(folder / runs.ENVIRONMENT, environment | {"torch": "1.0"})
    (folder / runs.CHECKPOINT).touch()
    outcome = finish_trial(folder)
    assert outcome.status == "failed"
    assert "the trial began with torch 1.0" in outcome.message


def test_a_loss_that_is_no_number_fails_the_trial(prepare, finish_trial) -> None:
    folder = prepare("none", train={"learning_rate": 1e30}) / "none-seed0"
    outcome = finish_trial(folder)
    assert outcome.status == "failed"
    assert "start a new run with a smaller --learning-rate" in outcome.message


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing(prepare, finish_trial, numbers) -> None:
    steps = {"steps": 1500, "checkpoint_every": 20}
    expected = prepare("learned", name="unbroken", train=steps) / TRIAL
    assert finish_trial(expected).status == "done"
    folder = prepare("learned", train=steps) / TRIAL
    code = (
        "import sys, os; from posenc.lab.compare.text.trial import run_trial; "
        "print(run_trial(sys.argv[1], device='cpu', parent=0))"
    )
    chance = random.Random(0)
    killed = 0
    while not is_done(folder):
        with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as process:
            before = (folder / runs.METRICS).stat().st_mtime_ns if (folder / runs.METRICS).exists() else 0
            while process.poll() is None and not (
                (folder / runs.METRICS).exists() and (folder / runs.METRICS).stat().st_mtime_ns != before
            ):
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.7))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
    assert killed >= 3
    assert numbers(folder) == numbers(expected)
    weights = load_file(folder / runs.MODEL)
    for name, value in load_file(expected / runs.MODEL).items():
        assert torch.equal(weights[name], value), name

"""What a run shows while it works."""

import io
import itertools
from pathlib import Path

import pytest
import torch
from rich.console import Console

from posenc.lab.compare.text.config import TrainConfig
from posenc.lab.compare.watch import Watch, after
from posenc.lab.run import folder as runs
from posenc.lab.run import progress

CONFIG = TrainConfig(length=10, batch=10, steps=100, learning_rate=0.1)
ROW = {"event": "train", "step": 40, "loss": 1.5, "seconds": 4.0, "tokens_per_second": 1000.0}
BEFORE = progress.Row("rope", "step", 0, 100)


def shown(folders: list[Path], *, terminal: bool, rows: list[dict[str, object]]) -> str:
    """What is printed when the first trial's metrics grow by these rows."""
    console = Console(file=io.StringIO(), width=100, force_terminal=terminal, _environ={})
    metrics = runs.Metrics(folders[0] / runs.METRICS)
    with Watch(folders, CONFIG, console) as watch:
        for row in rows:
            metrics.append(row)
            watch.look()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "rope-seed0", tmp_path / "alibi-seed0"]
    for path in paths:
        path.mkdir()
    return paths


def test_time_left_follows_from_the_steps_and_tokens_that_are_left() -> None:
    events = [
        ROW,
        {**ROW, "step": 100},
        {"event": "evaluate", "factor": 2},
        {"event": "continuation"},
        {"event": "done"},
    ]
    rows = itertools.accumulate(events, lambda row, event: after(row, event, CONFIG), initial=BEFORE)
    # 60 steps of 100 tokens at 1000 tokens/s
    said = ["", "0:06 left", "evaluating", *["evaluating, 2x is done"] * 2, "done"]
    assert [row.left for row in rows] == said
    assert after(BEFORE, {**ROW, "tokens_per_second": 0.0}, CONFIG).left == "training"
    of_a_task = {"event": "train", "step": 90, "loss": 1.5, "steps_per_second": 2.0}
    assert after(BEFORE, of_a_task, CONFIG).left == "0:05 left"


def test_on_a_terminal_there_is_a_bar_for_each_trial(folders: list[Path]) -> None:
    text = shown(folders, terminal=True, rows=[ROW])
    for expected in ("rope", "alibi", "40", "/100", "1.500", "1.0k tokens/s", "0:06 left", "waiting"):
        assert expected in text


def test_elsewhere_there_are_plain_lines_without_control_codes(folders: list[Path]) -> None:
    text = shown(folders, terminal=False, rows=[ROW, {"event": "done"}])
    assert "\x1b" not in text
    first, second = text.splitlines()
    assert first.split() == ["rope", "step", "40/100", "loss", "1.500", "1.0k", "tokens/s", "0:06", "left"]
    assert second.split()[-1] == "done"


def test_what_was_done_before_a_run_was_resumed_is_shown(folders: list[Path]) -> None:
    runs.Metrics(folders[0] / runs.METRICS).keep([ROW, {"event": "done"}])
    text = shown(folders, terminal=True, rows=[])
    assert "1.500" in text
    assert "done" in text


def test_seeds_are_named_where_there_are_several(tmp_path: Path) -> None:
    folders = [tmp_path / "rope-seed0", tmp_path / "rope-seed1"]
    for folder in folders:
        folder.mkdir()
    assert "rope seed 1" in shown(folders, terminal=True, rows=[])


@pytest.mark.parametrize("terminal", [True, False])
def test_stages_show_what_is_done_here_and_the_time_that_is_left(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 60))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    console = Console(file=io.StringIO(), width=100, force_terminal=terminal, _environ={})
    with progress.Stages(console) as stages:
        stage = stages.begin("yarn:2", 100, unit="token")
        stage.at(0)
        stage.at(25, loss=3.5)
        stage.after(40)(10)
        stage.of(3, 4)
        stage.done(loss=3.25)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for word in ("yarn:2", "3.250", "done"):
        assert word in text
    if not terminal:
        assert "token    25/100" in text
        assert "left" in text


@pytest.mark.parametrize(("seconds", "said"), [(59.6, "1:00 left"), (61, "1:01 left"), (3700, "1:01:40 left")])
def test_time_is_said_in_minutes_and_hours(seconds: float, said: str) -> None:
    assert progress.said_time(seconds) == said


def test_a_run_that_goes_on_says_after_which_step(folders: list[Path]) -> None:
    assert "continues" not in shown(folders, terminal=False, rows=[])
    runs.Metrics(folders[0] / runs.METRICS).append({"event": "done"})
    runs.save_tensors(folders[1] / runs.CHECKPOINT, {"progress.step": torch.tensor(40)})
    out = shown(folders, terminal=False, rows=[])
    assert "1 of 2 trials are done; alibi continues after step 40" in out
    (folders[1] / runs.CHECKPOINT).write_bytes(b"damaged")
    assert "1 of 2 trials are done\n" in shown(folders, terminal=False, rows=[])

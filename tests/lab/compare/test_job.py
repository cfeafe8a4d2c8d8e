"""The whole job, as a user runs it."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from posenc.lab.compare import jobs
from posenc.lab.compare.text import job
from posenc.lab.compare.text.config import is_done
from posenc.lab.compare.text.trial import run_trial
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError

MINE = """
import posenc
import torch

class Mine(posenc.ScoreEncoding):
    def __init__(self, num_heads, *, slope=0.5):
        super().__init__()
        self.num_heads, self.slope = num_heads, slope

    def bias(self, q_positions, k_positions):
        distance = (q_positions[..., :, None] - k_positions[..., None, :]).abs()
        return (-self.slope * distance)[..., None, :, :].expand(self.num_heads, -1, -1)
"""


def test_a_run_from_the_command_to_the_report(posenc_command, tiny, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    done = posenc_command("compare", "learned", "mine.py:Mine:slope=0.25", *tiny, "--jobs=2", "--vocabulary=260")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "latest"
    config = json.loads((run / "config.json").read_text())
    assert [entry["label"] for entry in config["encodings"]] == ["learned", "Mine-slope=0.25"]
    assert config["vocabulary"] == {"kind": "bpe", "size": 260}
    assert config["text"]["train"][0]["name"] == "prose.txt"
    for name in ("tokens.safetensors", "tokenizer.json", "speed.json", "results.json", "report.html"):
        assert (run / name).stat().st_size > 0
    assert json.loads((run / "speed.json").read_text()).keys() == {"learned", "Mine-slope=0.25"}
    assert not (run / runs.STOP).exists()
    for expected in ("learned", "Mine-slope=0.25", "done", "Report:"):
        assert expected in done.stdout
    # A run that is done is not done again, and its report is made again from the folder alone.
    before = {path: path.stat().st_mtime_ns for path in run.glob("*/model.safetensors")}
    (run / "report.html").unlink()
    again = posenc_command("compare", "--resume")
    assert again.returncode == 0, again.stderr
    assert (run / "report.html").exists()
    assert {path: path.stat().st_mtime_ns for path in run.glob("*/model.safetensors")} == before


def test_a_folder_in_brackets_is_no_markup(prepare) -> None:
    """``[draft]`` was taken for a style and left out, and ``[/draft]`` ended the run with an error."""
    run, console = prepare("none", name="run[draft]"), Console(file=io.StringIO(), width=200)
    job.finish(run, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{run}   (Ctrl-C stops" in text
    assert f"Report: {run}/report.html" in text


def test_two_processes_do_not_go_on_with_one_run(prepare) -> None:
    """The second would time the first, and unlink the file by which the first tells its trials to stop."""
    run = prepare("none")
    (run / runs.STOP).touch()
    with runs.locked(run), pytest.raises(RunError, match="another process is using this run"):
        job.finish(run, Console(quiet=True))
    assert (run / runs.STOP).exists()
    assert not is_done(run / "none-seed0")


def test_one_trial_that_fails_does_not_take_the_others_with_it(prepare, capsys: pytest.CaptureFixture[str]) -> None:
    run = prepare("none", "rope")
    (run / "none-seed0" / "config.json").write_text("{")
    outcomes = jobs.run_trials(
        [run / "none-seed0", run / "rope-seed0"],
        jobs=1,
        threads=1,
        backend="loky",
        device="cpu",
        look=lambda: None,
        run=run_trial,
    )
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert "damaged" in outcomes[0].message


def test_a_run_that_began_on_a_gpu_is_not_continued_without_one(prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare("none")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(RunError, match="began on a GPU, and this machine has none; continue where it began"):
        jobs.run_trials(
            [run / "none-seed0"], jobs=1, threads=1, backend="loky", device="cuda", look=lambda: None, run=run_trial
        )


def test_dask_that_is_not_there_is_one_sentence(prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare("none")
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(RunError, match="needs Dask; install it"):
        jobs.run_trials(
            [run / "none-seed0"], jobs=1, threads=1, backend="dask", device="cpu", look=lambda: None, run=run_trial
        )


def test_no_trial_outlives_a_command_whose_output_nobody_reads(prepare) -> None:
    """``posenc compare | head``: rich ends the command by SystemExit, from the call that shows the progress."""
    run = prepare("none", "rope")

    def look() -> None:
        raise SystemExit(1)

    before = threading.active_count()
    with pytest.raises(SystemExit):
        jobs.run_trials(
            [run / "none-seed0", run / "rope-seed0"],
            jobs=1, threads=1, backend="loky", device="cpu", look=look, run=run_trial,
        )  # fmt: skip
    assert threading.active_count() == before
    assert not (run / runs.STOP).exists()
    assert not is_done(run / "rope-seed0")


def wait_for(condition, *, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def steps_done(run: Path) -> list[int]:
    rows = [runs.Metrics(path).last() for path in run.glob("*/metrics.jsonl")]
    return [row.get("step", 0) for row in rows if row is not None]


@pytest.fixture
def begin(tmp_path: Path, tiny):
    """Starts a run long enough to be interrupted, in a process group of its own as a terminal would."""
    started = []
    errors = tmp_path / "stderr.txt"

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = (sys.executable, "-m", "posenc.lab", "compare", *arguments)
        with errors.open("w") as file:
            process = subprocess.Popen(
                command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_terminal_that_is_closed_ends_a_run_of_several_jobs_in_one_line(begin, tiny, tmp_path: Path) -> None:
    """SIGHUP ended joblib's resource tracker too; the next one printed a traceback for each name new to it."""
    process = begin("none", "rope", *tiny, "--steps=100000", "--jobs=2", "--threads=1", "--out=run")
    wait_for(lambda: any(step > 0 for step in steps_done(tmp_path / "run")))
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(timeout=60) == 129
    said = "posenc compare: stopped; the finished work is kept; continue with: posenc compare --resume run\n"
    assert (tmp_path / "stderr.txt").read_text() == said


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ctrl-c", "kill -9"])
def test_a_run_that_is_cut_off_and_resumed_has_the_numbers_of_an_unbroken_one(
    begin, posenc_command, prepare, finish_trial, tiny, tmp_path: Path, numbers, how: str
) -> None:
    labels = ("none", "learned", "rope")
    as_the_preset_says = {"steps": 1500, "warmup": 50, "log_every": 10, "checkpoint_every": 200}
    unbroken = prepare(*labels, name="unbroken", train=as_the_preset_says)
    for label in labels:
        assert finish_trial(unbroken / f"{label}-seed0").status == "done"
    run = tmp_path / "run"
    process = begin(*labels, *tiny, "--steps=1500", "--jobs=2", "--out=run")
    wait_for(lambda: any(step > 150 for step in steps_done(run)))
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
        assert process.wait(timeout=300) == 130
        assert (
            (tmp_path / "stderr.txt").read_text()
            == "posenc compare: stopped; the finished work is kept; continue with: posenc compare --resume run\n"
        )
        assert not (run / runs.STOP).exists()
    else:
        process.kill()
        process.wait()
    assert not all(is_done(run / f"{label}-seed0") for label in labels)
    resumed = posenc_command("compare", "--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    for label in labels:
        assert numbers(run / f"{label}-seed0") == numbers(unbroken / f"{label}-seed0"), label


@pytest.mark.slow
def test_workers_stop_when_their_run_is_killed(begin, tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = begin("none", "rope", *tiny, "--steps=100000", "--jobs=2", "--out=run")
    wait_for(lambda: len(steps_done(run)) == 2)
    process.kill()
    process.wait()
    for label in ("none", "rope"):
        with runs.locked(run / f"{label}-seed0", patience=20):
            pass


@pytest.mark.slow
def test_the_numbers_do_not_depend_on_how_many_run_side_by_side(prepare, numbers) -> None:
    found = []
    for count in (1, 2):
        run = prepare("none", "learned", name=f"run{count}")
        folders = [run / "none-seed0", run / "learned-seed0"]
        outcomes = jobs.run_trials(
            folders, jobs=count, threads=1, backend="loky", device="cpu", look=lambda: None, run=run_trial
        )
        assert [outcome.status for outcome in outcomes] == ["done", "done"]
        found.append([numbers(folder) for folder in folders])
    assert found[0] == found[1]


TASK = ("--task=images", "--dim=16", "--heads=2", "--layers=1", "--batch=8", "--dropout=0.1")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.parametrize("backend", ["ray", "dask"])
@pytest.mark.parametrize("task", ["text", "images"])
def test_a_cluster_runs_the_same_command_with_equal_numbers(
    posenc_command, tiny, tmp_path: Path, numbers, backend: str, task: str
) -> None:
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[backend])
    sizes = tiny if task == "text" else (*TASK, "--steps=40")
    for where in ("loky", backend):
        done = posenc_command("compare", "none", "rope", *sizes, "--jobs=2", f"--backend={where}", f"--out={where}")
        assert done.returncode == 0, done.stderr
    for trial in ("none-seed0", "rope-seed0"):
        assert numbers(tmp_path / backend / trial) == numbers(tmp_path / "loky" / trial)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ctrl-c", "kill -9"])
def test_a_task_that_is_cut_off_and_resumed_has_the_numbers_of_an_unbroken_one(
    begin, posenc_command, tmp_path: Path, numbers, how: str
) -> None:
    run, arguments = tmp_path / "run", ("none", "axial", *TASK, "--steps=600", "--jobs=2", "--threads=1")
    done = posenc_command("compare", *arguments, "--out=unbroken")
    assert done.returncode == 0, done.stderr
    process = begin(*arguments, "--out=run")
    wait_for(lambda: any(step > 150 for step in steps_done(run)))
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=300) == 130
        assert "continue with: posenc compare --resume run" in (tmp_path / "stderr.txt").read_text()
    else:
        process.kill()
        process.wait()
    trials = [run / f"{label}-seed0" for label in ("none", "axial")]
    assert not any((trial / runs.RESULTS).exists() for trial in trials)
    assert any((trial / runs.CHECKPOINT).exists() for trial in trials)
    resumed = posenc_command("compare", "--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    for trial in trials:
        unbroken = tmp_path / "unbroken" / trial.name
        assert numbers(trial) == numbers(unbroken)
        assert (trial / runs.MODEL).read_bytes() == (unbroken / runs.MODEL).read_bytes()
    results = [json.loads((tmp_path / name / runs.RESULTS).read_text())["rows"] for name in ("run", "unbroken")]
    assert results[0] == results[1]

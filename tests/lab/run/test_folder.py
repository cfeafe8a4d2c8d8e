"""Run folders: nothing is lost, whatever happens in the middle of a write."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from posenc.lab.compare.text.config import load_config
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    runs.write_json(path, {"a": 1})
    runs.write_json(path, {"a": 2})
    assert runs.read_json(path) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_finite_number_is_null(tmp_path: Path) -> None:
    runs.write_json(tmp_path / "file.json", {"a": [1.5, float("nan")], "b": {"c": float("inf")}})
    found = json.loads((tmp_path / "file.json").read_text(), parse_constant=pytest.fail)
    assert found == {"a": [1.5, None], "b": {"c": None}}


def test_a_folder_is_no_file_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(), tmp_path):
        with pytest.raises(IsADirectoryError):
            runs.write(path, "text")


def test_bytes_of_a_name_that_are_no_text_are_written_as_escapes(tmp_path: Path) -> None:
    """A run in a folder whose name is Latin-1 ended with code 70 at its report."""
    path = tmp_path / "file.json"
    runs.write_json(path, {"folder": "run \udcfc \u00e4"})
    assert runs.read_json(path) == {"folder": "run \udcfc \u00e4"}
    assert b"\\udcfc" in path.read_bytes()


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_whole_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = tmp_path / "model.safetensors"
    runs.save_tensors(path, {"weight": torch.arange(3)})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if fails == "fsync" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        runs.save_tensors(path, {"weight": torch.arange(9)})
    assert caught.value.filename == str(path)
    assert torch.equal(runs.load_tensors(path)["weight"], torch.arange(3))
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_that_is_really_full_is_one_error_with_the_name_of_the_file() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        runs.Metrics(Path("/dev/full")).append({"event": "train"})
    assert caught.value.filename == "/dev/full"


def test_a_row_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    metrics = runs.Metrics(tmp_path / "metrics.jsonl")
    assert metrics.rows() == []
    assert metrics.last() is None
    for step in (1, 2):
        metrics.append({"event": "train", "step": step})
    with metrics.path.open("a") as file:
        file.write('{"event": "train", "st')
    assert [row["step"] for row in metrics.rows()] == [1, 2]
    last = metrics.last()
    assert last is not None
    assert last["step"] == 2


def test_the_last_row_of_a_long_file_is_found(tmp_path: Path) -> None:
    metrics = runs.Metrics(tmp_path / "metrics.jsonl")
    metrics.keep([{"event": "train", "step": step, "loss": 0.5} for step in range(1000)])
    assert metrics.last() == {"event": "train", "step": 999, "loss": 0.5}


def test_a_damaged_row_in_the_middle_is_an_error_and_not_skipped(tmp_path: Path) -> None:
    metrics = runs.Metrics(tmp_path / "metrics.jsonl")
    metrics.path.write_text('{"event": "train"}\n{"ev\n{"event": "train"}\n')
    with pytest.raises(RunError, match="a line is not valid JSON"):
        metrics.rows()


def test_a_number_that_json_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        runs.Metrics(tmp_path / "metrics.jsonl").append({"loss": float("nan")})


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_damaged_json_file_is_one_clear_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(RunError, match="damaged"):
        runs.read_json(path)


def test_damaged_tensors_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    runs.save_tensors(path, {"weight": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(RunError, match="damaged"):
        runs.load_tensors(path)


def test_tensors_come_in_the_order_of_their_names_and_those_below_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    names = ["encoding.table", "a", "encoding.b", "c", "d", "e"]
    runs.save_tensors(path, {name: torch.zeros(1) for name in names})
    assert all(list(runs.load_tensors(path)) == sorted(names) for _ in range(5))
    assert list(runs.load_tensors(path, below="encoding.")) == ["b", "table"]


def test_a_run_of_another_format_is_refused(prepare) -> None:
    run = prepare("none")
    config = json.loads((run / "config.json").read_text())
    assert json.loads(json.dumps(load_config(run).to_dict())) == config
    runs.write_json(run / "config.json", config | {"format": 99, "posenc": "7.0"})
    with pytest.raises(RunError, match=r"got format 99, .*; posenc 7\.0 wrote it"):
        load_config(run)


def test_a_config_that_lacks_something_is_refused(prepare) -> None:
    run = prepare("none")
    config = json.loads((run / "config.json").read_text())
    del config["threads"]
    runs.write_json(run / "config.json", config)
    with pytest.raises(RunError, match="threads is missing"):
        load_config(run)


def test_a_folder_that_holds_a_run_is_not_taken_for_another(prepare) -> None:
    prepare("none")
    with pytest.raises(RunError, match="the folder holds a run already"):
        prepare("none")


def test_one_of_two_processes_makes_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        runs.created(folder, "quick"),
        pytest.raises(RunError, match="another process is using this run"),
        runs.created(folder, "quick"),
    ):
        pytest.fail("both went on")
    with runs.created(folder, "quick"):  # the first made no run of it
        (folder / "config.json").write_text('{"kind": "compare"}')
    with pytest.raises(RunError, match="the folder holds a run already"), runs.created(folder, "quick"):
        pytest.fail("a run was made twice")


@pytest.mark.parametrize("line", ["[1, 2]", "3", "null", '{"step": 1}', "[" * 100_000])
def test_a_row_that_is_no_event_is_named(tmp_path: Path, line: str) -> None:
    metrics = runs.Metrics(tmp_path / "metrics.jsonl")
    metrics.append({"event": "train"})
    with metrics.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(
        RunError, match=r"metrics.jsonl: (line 2 is not a JSON object with the key|a line is not valid JSON)"
    ):
        metrics.rows()
    assert metrics.last() is None


def test_json_that_is_nested_too_deep_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(RunError, match="the file is damaged"):
        runs.read_json(tmp_path / "config.json")


def test_the_latest_run_is_found_by_its_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="name the folder of a run"):
        runs.find(None)
    with runs.created(None, "quick") as first, runs.created(None, "quick") as second:
        pass
    assert first != second
    assert runs.find(None) == second


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with (
        runs.locked(tmp_path),
        pytest.raises(RunError, match="another process is using this run"),
        runs.locked(tmp_path, patience=0.1),
    ):
        pytest.fail("the lock was given twice")
    with runs.locked(tmp_path, patience=0.1):
        pass


def test_a_folder_with_the_config_of_a_model_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with (
        pytest.raises(RunError, match=r"config\.json that posenc did not write; name another folder"),
        runs.created(tmp_path, "quick"),
    ):
        pass

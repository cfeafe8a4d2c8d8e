"""Tasks of ``posenc compare --task``: found by name or in a file, measured as they say, resumed with equal numbers."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.lab.compare.trained import train

from posenc.lab.compare import job, report, results
from posenc.lab.compare.find_task import find, names
from posenc.lab.compare.folder import TaskConfig
from posenc.lab.compare.request import Request
from posenc.lab.compare.results import Cell, Results, Row
from posenc.lab.compare.task import Sizes
from posenc.lab.compare.tasks import images
from posenc.lab.compare.train import Training
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError

OWN = """
import torch
from posenc.lab.compare.task import Example, Measurement, Sizes, Task
from posenc.lab.drawing.plots import Picture

def draw(axes):
    axes.plot([0, 1])

class Mine(Task):
    title, unit, encodings, sizes = "A line", "error", ("none", "rope"), Sizes(dim=4, num_heads=2, steps=3, batch=2)
    more_is_better = False

    def model(self, spec, sizes):
        return torch.nn.Linear(1, 1)

    def loss(self, model, sizes, generator):
        x = torch.from_numpy(generator.random((sizes.batch, 1))).float()
        return ((model(x) - 3 * x) ** 2).mean()

    def measure(self, model, spec, sizes):
        yield Measurement("", "1x", abs(model.weight.item() - 3), trained=True)
        yield Measurement("", "2x", None, note="not run")

    def examples(self, model, spec, sizes):
        return [Example("3 x", "<b>written</b>")]

    def show(self, model, spec, sizes):
        return {"weight": model.weight}

    def pictures(self, shown):
        return [Picture(f"weight {label}", f"Weight of {label}", "", draw) for label in shown]
"""


def ask(sizes: dict[str, Any], folder: Path, *specs: str, **options: Any) -> Request:
    return Request(specs=list(specs), train=sizes, jobs=1, threads=1, folder=folder, **options)


def quiet() -> Console:
    return Console(quiet=True)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "generation")) for n in names()])
def test_a_task_is_one_short_file_and_every_default_encoding_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = find(name)
    monkeypatch.setattr(type(task), "asked", 4, raising=False)
    assert len((Path(images.__file__).parent / f"{name}.py").read_text().splitlines()) <= 200
    sizes = dataclasses.replace(task.sizes, steps=1, batch=2, dim=16, num_heads=2, num_layers=1)
    for spec in task.encodings:
        model = train(task, spec, sizes, 0)
        measured = list(task.measure(model, spec, sizes))
        assert measured[0].trained
        assert {m.unit for m in measured} <= {"", task.unit, *task.other_units}
        assert all(m.note if m.value is None else np.isfinite(m.value) for m in measured)
        assert all(isinstance(value, torch.Tensor) for value in task.show(model, spec, sizes).values())


def test_a_trial_repeats_to_the_bit_and_seeds_differ() -> None:
    task, sizes = find("images"), dataclasses.replace(Images.sizes, steps=2, batch=4, dim=16, num_heads=2)
    first, again, other = (train(task, "axial", sizes, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


Images = images.Images


def test_a_run_of_a_users_task_is_resumed_with_equal_numbers(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    request = Request(task=f"{file}:Mine", seeds=2, jobs=1, threads=1, folder=tmp_path / "run")
    run = job.prepare(request)
    job.finish(run, quiet())
    whole = (run / "results.json").read_text()
    assert [row["row"] for row in json.loads(whole)["rows"]] == ["none", "rope"]
    page = (run / "report.html").read_text()
    assert "&lt;b&gt;written" in page
    assert "less is better" in page
    shutil.copytree(run, tmp_path / "cut")
    (tmp_path / "cut" / "rope-seed1" / "results.json").unlink()  # as kill -9 within the last trial leaves it
    job.finish(tmp_path / "cut", quiet())
    assert (tmp_path / "cut" / "results.json").read_text() == whole
    assert {picture.name for picture in report.figures(run)} == {
        "error",
        "loss",
        "weight none",
        "weight rope",
    }
    errors = [row for row in report.rows(run) if row["measure"] == "error" and row["size"] == "1x"]
    assert [(row["encoding"], row["seed"]) for row in errors] == [("none", 0), ("none", 1), ("rope", 0), ("rope", 1)]
    columns = ["encoding", "way", "trained_length", "seed", "size", "trained", "step", "measure", "unit", "value"]
    assert all(list(row) == columns for row in report.rows(run))
    losses = [row for row in report.rows(run) if row["measure"] == "training loss"]
    assert {(row["encoding"], row["trained_length"]) for row in losses} == {("none", 1), ("rope", 1)}
    assert {"format", "kind", "posenc", "config"} < json.loads(whole).keys()
    (run / "rope-seed1" / "results.json").unlink()
    with pytest.raises(RunError, match=r"1 of 4 trials are not done; continue with: posenc compare --resume"):
        report.write(run)
    file.write_text(OWN + "\n")
    with pytest.raises(Exception, match="has changed since this run began"):
        job.finish(run, quiet())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "imges"}, "got 'imges', expected text, "),
        ({"specs": ["axial", "axial"]}, "names two encodings"),
        ({"specs": ["nothing"]}, "no encoding is called 'nothing'"),
        ({"length": 9}, "expected 8: the images are 8x8"),
        ({"train": {"colour": 9}}, "got colour, expected one of"),
        ({"dropout": 1.0}, r"got dropout 1\.0"),
        ({"seeds": 0}, "--seeds: got 0"),
        ({"preset": "standard", "vocabulary": "bytes"}, "--task images: got --preset, --vocabulary, which only"),
        ({"lengths": "4,4"}, "give each length once"),
        ({"lengths": "4", "length": 4}, "--lengths: got --length too"),
    ],
)
def test_what_cannot_run_is_refused_before_there_is_a_folder(change: dict, message: str, tmp_path: Path) -> None:
    options = {"task": "images", "specs": ["axial"], "folder": tmp_path / "run", **change}
    with pytest.raises(ValueError, match=message):
        job.prepare(Request(**options))
    assert not (tmp_path / "run").exists()


def test_training_goes_on_from_its_state_to_the_bit_with_dropout() -> None:
    task = find("images")
    sizes = dataclasses.replace(task.sizes, steps=6, batch=4, dim=16, num_heads=2, dropout=0.2)
    unbroken, cut, resumed = (Training(task, "learned", sizes, 0) for _ in range(3))
    for _ in range(6):
        unbroken.advance()
    for _ in range(3):
        cut.advance()
    resumed.load({name: value.clone() for name, value in cut.state().items()})
    torch.rand(1)  # what others draw changes nothing
    for _ in range(3):
        resumed.advance()
    for name, value in resumed.state().items():
        assert torch.equal(value, unbroken.state()[name]), name


class Killed(BaseException):
    """As abrupt as a signal can be within one process."""


@pytest.mark.parametrize("how", ["ctrl-c", "kill -9"])
def test_a_trial_that_is_cut_off_in_training_goes_on_from_its_checkpoint_to_the_bit(
    tmp_path: Path, numbers, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    sizes = {"steps": 40, "batch": 4, "dim": 16, "num_heads": 2, "num_layers": 1, "dropout": 0.1}
    cut, unbroken = (
        job.prepare(ask(sizes, tmp_path / name, "learned", task="images")) / "learned-seed0"
        for name in ("cut", "unbroken")
    )

    def run(folder: Path) -> str:
        return job.run_trial(str(folder), device="cpu", parent=os.getpid()).status

    assert run(unbroken) == "done"
    advance, taken = Training.advance, []

    def counted(training: Training) -> None:
        taken.append(training.step)
        if len(taken) == 26:
            if how == "kill -9":
                raise Killed
            (cut.parent / runs.STOP).touch()
        advance(training)

    monkeypatch.setattr(Training, "advance", counted)
    if how == "kill -9":
        with pytest.raises(Killed):
            run(cut)
    else:
        assert run(cut) == "stopped"
        (cut.parent / runs.STOP).unlink()
    assert run(cut) == "done"
    assert taken[26:] == list(range(24 if how == "kill -9" else 26, 40))  # a checkpoint every second step
    assert numbers(cut) == numbers(unbroken)
    assert (cut / runs.MODEL).read_bytes() == (unbroken / runs.MODEL).read_bytes()


def test_only_the_matrices_of_layers_decay() -> None:
    task = find("images")
    training = Training(task, "learned", dataclasses.replace(task.sizes, dim=16, num_heads=2), 0)
    decayed = {id(weight) for weight in training.optimizer.param_groups[0]["params"]}
    names = {name for name, weight in training.model.named_parameters() if id(weight) in decayed}
    assert "head.weight" in names
    assert not any(name.endswith("bias") or "norm" in name or name.startswith("code.") for name in names)


def test_several_lengths_are_several_rows_each_with_its_own_trained_size(tmp_path: Path) -> None:
    sizes = {"steps": 2, "batch": 2, "dim": 16, "num_heads": 2, "num_layers": 1}
    run = job.prepare(ask(sizes, tmp_path / "run", "rope", task="retrieval", lengths="4,8"))
    job.finish(run, quiet())
    written = json.loads((run / "results.json").read_text())
    found = {row["row"]: {size for size, c in row["sizes"].items() if c["trained"]} for row in written["rows"]}
    assert found["rope, length 4"] == {"4 pairs"}
    assert found["rope, length 8"] == {"8 pairs"}


def row(name: str, *values: list[float]) -> Row:
    sizes = {f"{i + 1}x": Cell([*v], trained=i == 0) for i, v in enumerate(values)}
    return Row(name, "% right", name, "", 1, sizes)


def summary(*rows: Row, more: bool = True) -> list[str]:
    seeds = tuple(range(len(rows[0].sizes["1x"].values)))
    config = TaskConfig(
        posenc="", command="", task="", file_sha256=None, encodings={}, seeds=seeds, lengths=(1,), sizes=Sizes(),
        jobs=1, threads=1, backend="loky",
    )  # fmt: skip
    units = {"% right": more}
    return results.summary(
        Results(task="", title="", units=units, expected="", config=config, rows=list(rows), examples={}, losses={})
    )


def test_a_name_with_a_comma_is_quoted_among_others() -> None:
    best, *_ = summary(
        row("axial, raw", [90.0], [80.0]), row("axial, fitted", [90.0], [85.0]), row("none", [50.0], [5.0])
    )
    assert best == (
        "At the trained size \u201caxial, raw\u201d is best: 90.0 % right; \u201caxial, fitted\u201d is not "
        "distinguishable from it."
    )


def test_the_summary_names_what_is_best_and_what_holds() -> None:
    best, past, holds = summary(
        row("a", [98.9, 99.1], [30, 30], [10, 12]), row("b", [95, 95.2], [90, 90.2], [88, 88.2])
    )
    assert best == "At the trained size a is best: 99.0 ± 0.1 % right."
    assert past == "Past it b is best: 89.1 ± 0.1 % right, the mean of its sizes."
    assert holds == "Within a tenth of its value at the trained size at every size: b."


def test_what_the_seeds_do_not_tell_apart_is_said_to_be_so() -> None:
    best, _, none, unclear = summary(row("a", [99, 90], [95, 70]), row("b", [90, 98], [70, 95]))
    assert best == "At the trained size a is best: 94.5 ± 4.5 % right; b is not distinguishable from it."
    assert none == "No row stays within a tenth of its value at the trained size at every size."
    assert unclear == "Within two standard errors of that limit: a and b."
    *_, holds, one = summary(row("a", [2.0], [2.1]), row("b", [1.9], [2.3]), more=False)
    assert (holds[-3:], one) == (" a.", "One seed: small differences may be noise.")


def test_two_processes_do_not_go_on_with_one_run_of_a_task(tmp_path: Path) -> None:
    sizes = {"steps": 1, "batch": 2, "dim": 16, "num_heads": 2, "num_layers": 1}
    run = job.prepare(ask(sizes, tmp_path / "run", "learned", task="images"))
    with runs.locked(run), pytest.raises(RunError, match="another process is using this run"):
        job.finish(run, quiet())
    assert not (run / "learned-seed0" / runs.METRICS).exists()

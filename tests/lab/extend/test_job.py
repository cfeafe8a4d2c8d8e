"""The whole job, on tiny random models: a run, its end, its interruption, and what is refused."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="posenc[transformers] is not installed")

from rich.console import Console

from posenc.lab.extend import config as files
from posenc.lab.extend import job as extend
from posenc.lab.extend import measure as work
from posenc.lab.extend import report
from posenc.lab.extend.config import rule_folder
from posenc.lab.extend.gaps import gap_losses
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import Interrupted, RunError

LENGTH = 640
Begin = Callable[..., Path]


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Makes a run from start to end."""

    def make(model: Path, *, name: str = "run", ending: dict[str, Any] | None = None, **options: Any) -> Path:
        run = tmp_path / name
        request = {"rules": ["yarn:4", "linear:4"], "retrieval": False, "threads": 1, "folder": run}
        request = extend.Request(str(model), LENGTH, **request | options)  # type: ignore[assignment, arg-type]
        extend.extend(request, extend.Ending(**ending or {}), quiet())  # type: ignore[arg-type]
        return run

    return make


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def said(console: Console) -> str:
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def losses(run: Path) -> dict[str, np.ndarray]:
    """All that was measured, without what a clock did."""
    found = {
        str(path.relative_to(run)): runs.load_tensors(path)["nats"].numpy()
        for path in run.rglob("*.safetensors")
        if path.name != runs.TOKENS
    }
    for path in run.rglob("probe.json"):
        found[str(path.relative_to(run))] = np.array(runs.read_json(path)["losses"])
    return found


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# A whole run


def test_a_run_measures_every_rule_and_says_what_to_take(tiny_model, begin: Begin) -> None:
    console = quiet()
    run = begin(tiny_model(template=True), retrieval=True, name="first")
    found = json.loads((run / "results.json").read_text(), parse_constant=pytest.fail)
    assert found["finished"]
    assert [rule["name"] for rule in found["rules"]] == ["none", "yarn:4", "linear:4"]
    for rule in found["rules"]:
        assert len(rule["pass"]["perplexity"]) == len(found["bins"])
        assert rule["probe"]["score"] > 0
    assert found["bins"][0][0] == 0
    assert found["bins"][-1][1] == LENGTH
    asked = {rule["name"] for rule in found["rules"] if rule["retrieval"]}
    assert "none" in asked
    answers = next(rule["retrieval"] for rule in found["rules"] if rule["name"] == "none")
    assert {(a["task"], a["form"], a["length"]) for a in answers} == {
        (task, "chat", length) for task in ("passkey", "needle") for length in (512, LENGTH)
    }
    assert found["verdict"]["kind"] in ("rule", "none needed", "none of them")
    assert set(found["flags"]) == {"vLLM", "llama.cpp"}
    assert (run / "report.html").stat().st_size > 20_000
    report.print_table(run, console)
    for word in ("yarn:4", "cost", "gain", "Retrieval", found["verdict"]["sentence"], "vLLM", "llama.cpp"):
        assert word in " ".join(said(console).split()) or word in said(console)


def test_without_named_rules_all_are_probed_and_the_best_get_the_full_pass(tiny_model, begin: Begin) -> None:
    run = begin(tiny_model(), rules=(), full=1)
    config = runs.read_json(run / runs.CONFIG)
    assert len(config["rules"]) > 5
    assert len(list(run.rglob(files.PROBE))) == len(config["rules"])
    assert len(list(run.rglob(files.PASS))) == 2


def test_the_yardstick_reads_the_same_tokens_in_windows(tiny_model, begin: Begin) -> None:
    run = begin(tiny_model(), rules=["linear:4"])
    windows = runs.load_tensors(run / files.WINDOWS)["nats"].numpy()
    assert windows.shape == (LENGTH - 1 - 256,)
    assert np.isfinite(windows).all()
    from posenc.lab.checkpoint.open import open_checkpoint
    from posenc.lab.extend.passes import full_pass

    model = open_checkpoint(runs.read_json(run / runs.CONFIG)["model"]).model
    read = runs.load_tensors(run / runs.TOKENS)["tokens"]
    for position in (256, 300, 383, 384, 500, LENGTH - 2):  # what a token costs with at least half a window before it
        context = next(
            start for start in work.window_starts(256, LENGTH) if start + 255 > position or start + 256 == LENGTH
        )
        alone = full_pass(model, read[context : position + 2])[-1]
        assert windows[position - 256] == pytest.approx(alone, abs=2e-5)
        assert position - context >= 127


@pytest.mark.parametrize(("length", "starts"), [(257, [1]), (384, [128]), (400, [128, 144]), (512, [128, 256])])
def test_windows_go_on_by_halves_and_end_with_the_text(length: int, starts: list[int]) -> None:
    assert work.window_starts(256, length) == starts


def test_a_learned_table_is_interpolated(tiny_model, begin: Begin) -> None:
    run = begin(tiny_model(learned=True), rules=())
    found = json.loads((run / "results.json").read_text())
    assert [rule["name"] for rule in found["rules"]] == ["none", "interpolate"]
    none, interpolated = (rule["pass"] for rule in found["rules"])
    assert none["perplexity"][-1] is None
    assert interpolated["perplexity"][-1] > 0
    assert none["gain"] is None


def test_a_search_is_seeded_and_its_factors_get_their_pass(tiny_model, begin: Begin) -> None:
    model = tiny_model()
    run = begin(model, search=6)
    again = begin(model, search=6, name="again")
    first, second = (runs.read_json(path / files.SEARCH) for path in (run, again))
    assert first == second
    factors = first["factors"]
    assert factors == sorted(factors)
    assert first["loss"] <= first["start_loss"]
    assert (rule_folder(run, "longrope") / files.PASS).exists()
    assert "The search for LongRoPE factors" in (run / "report.html").read_text()


def test_the_text_of_a_user_is_read_as_it_is(tiny_model, begin: Begin, prose: Path) -> None:
    run = begin(tiny_model(), texts=[prose])
    read = runs.load_tensors(run / runs.TOKENS)["tokens"]
    assert len(read) == LENGTH
    config = runs.read_json(run / runs.CONFIG)
    assert config["text"][0]["name"] == "prose.txt"
    assert f"--text {prose}" in json.loads((run / "results.json").read_text())["command"]


# What is done with the rule


def test_the_saved_model_gives_the_same_losses_in_plain_transformers(tiny_model, begin: Begin, tmp_path: Path) -> None:
    run = begin(tiny_model(), rules=["yarn:4"], ending={"save": tmp_path / "longer"})
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "longer")
    read = runs.load_tensors(run / runs.TOKENS)["tokens"]
    with torch.no_grad():
        logits = model(read[None]).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits, read[1:], reduction="none")
    measured = runs.load_tensors(rule_folder(run, "yarn:4") / files.PASS)["nats"]
    torch.testing.assert_close(measured, expected, atol=1e-4, rtol=1e-4)
    assert model.config.max_position_embeddings == LENGTH


def test_a_finished_run_can_be_saved_later_and_measures_nothing_again(tiny_model, begin: Begin, tmp_path: Path) -> None:
    run = begin(tiny_model(), rules=["yarn:4"])
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    console = quiet()
    extend.resume(run, extend.Ending(save=tmp_path / "longer"), console)
    assert (tmp_path / "longer" / "config.json").exists()
    assert "Saved:" in said(console)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before


def test_training_is_followed_by_a_pass(tiny_model, begin: Begin, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    ending = {"tune": 3, "window": 32, "save": tmp_path / "longer"}
    run = begin(tiny_model(), rules=["linear:4"], ending=ending)
    found = json.loads((run / "results.json").read_text())
    assert found["tuned"]["rule"] == "linear:4"
    assert len(found["tuned"]["report"]["losses"]) == 3
    assert found["tuned"]["lowered"]["beyond"]["nats"] != 0
    assert "Trained with linear:4" in (run / "report.html").read_text()
    assert "fine-tuned" in (tmp_path / "longer" / "README.md").read_text()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return runs.load_tensors(folder / "model.safetensors")


@pytest.mark.slow
def test_what_is_saved_later_is_what_was_trained(tiny_model, begin: Begin, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    model, ending = tiny_model(), {"tune": 3, "window": 32}
    begin(model, rules=["linear:4"], ending={**ending, "save": tmp_path / "at once"}, name="other")
    run = begin(model, rules=["linear:4"], ending=ending)
    extend.resume(run, extend.Ending(save=tmp_path / "later"), quiet())
    at_once, later, before = (weights(folder) for folder in (tmp_path / "at once", tmp_path / "later", model))
    assert all(torch.equal(later[name], weight) for name, weight in at_once.items())
    assert not all(torch.equal(later[name], weight) for name, weight in before.items())
    assert "fine-tuned" in (tmp_path / "later" / "README.md").read_text()


@pytest.mark.slow
def test_half_a_training_is_not_saved(
    tiny_model, begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    from posenc.lab.extend.tuning_steps import Tuning

    real = Tuning.advance
    monkeypatch.setattr(Tuning, "advance", lambda self: real(self) if self.step < 2 else signal.raise_signal(2))
    with pytest.raises(Interrupted):
        begin(tiny_model(), rules=["linear:4"], ending={"tune": 3, "window": 32})
    monkeypatch.undo()
    run, saved = tmp_path / "run", tmp_path / "longer"
    again = f"--save {saved} --tune 3 --positions skipwise --window 32 --batch 2"
    with pytest.raises(ValueError, match=f"and posenc saves no half-trained weights; continue with {again}, or remove"):
        extend.resume(run, extend.Ending(save=saved), quiet())
    assert not saved.exists()
    extend.resume(run, extend.Ending(save=saved, tune=3, window=32), quiet())
    assert "fine-tuned" in (saved / "README.md").read_text()


# Cut off and resumed


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param("probe", marks=pytest.mark.slow),
        "pass",
        pytest.param("windows", marks=pytest.mark.slow),
        "retrieval",
    ],
)
def test_a_run_that_is_cut_off_keeps_what_is_done_and_goes_on(
    tiny_model, begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, piece: str
) -> None:
    model = tiny_model()
    unbroken = begin(model, name="unbroken", retrieval=True)
    function, calls = {
        "probe": ("gap_losses", 2), "pass": ("full_pass", 3), "windows": ("full_pass", 2), "retrieval": ("retrieve", 1)
    }[piece]  # fmt: skip
    real = getattr(work, function)
    seen: list[Any] = []

    def cut(*arguments: Any, **options: Any) -> Any:
        seen.append(None)
        if len(seen) == calls:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **options)

    monkeypatch.setattr(work, function, cut)
    with pytest.raises(Interrupted, match=r"the finished work is kept; continue with: posenc extend --resume .*/run"):
        begin(model, retrieval=True)
    monkeypatch.undo()
    run = tmp_path / "run"
    assert not (run / "results.json").exists()
    kept = losses(run)
    assert {name: value for name, value in losses(unbroken).items() if name in kept}.keys() == kept.keys()
    assert len(kept) < len(losses(unbroken)) or piece == "retrieval"
    report.write(run)
    assert "not finished" in (run / "report.html").read_text() or piece == "retrieval"
    (run / ".half.1.partial").write_text("half")
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    extend.resume(run, extend.Ending(), quiet())
    assert same(losses(run), losses(unbroken))
    assert {path: path.stat().st_mtime_ns for path in times} == times  # nothing is measured twice
    assert not list(run.glob(".*.partial"))
    one, other = (json.loads((path / "results.json").read_text()) for path in (run, unbroken))
    assert one["verdict"] == other["verdict"]


def test_a_run_goes_on_in_another_working_directory(
    tiny_model, begin: Begin, prose: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    tiny_model()
    monkeypatch.chdir(tmp_path)
    run = begin(Path("tiny"), rules=["linear:4"], texts=[Path("prose.txt")])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    extend.resume(run, extend.Ending(save=tmp_path / "longer", tune=1, window=32), quiet())
    assert (tmp_path / "longer" / "config.json").exists()


def test_a_search_that_is_cut_off_goes_on(tiny_model, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny_model(), [0]
    unbroken = begin(model, search=6, rules=["linear:4"], name="unbroken")

    def cut(*arguments: Any, **options: Any) -> Any:
        seen[0] += 1
        if seen[0] == 6:  # after two rules and three lists
            signal.raise_signal(signal.SIGINT)
        return gap_losses(*arguments, **options)

    monkeypatch.setattr(work, "gap_losses", cut)
    with pytest.raises(Interrupted):
        begin(model, search=6, rules=["linear:4"])
    run = unbroken.with_name("run")
    extend.resume(run, extend.Ending(), quiet())
    assert runs.read_json(run / files.SEARCH) == runs.read_json(unbroken / files.SEARCH)
    assert seen[0] == 2 + 6 + 1 + 1  # rules, lists, what was cut off, and the list that was found


def test_a_file_that_is_half_written_is_not_taken_for_a_whole_one(tiny_model, begin: Begin) -> None:
    run = begin(tiny_model())
    path = rule_folder(run, "yarn:4") / files.PASS
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RunError, match="not a safetensors file"):
        extend.resume(run, extend.Ending(), quiet())


@pytest.mark.slow
@pytest.mark.parametrize(("numbers", "code"), [([signal.SIGTERM], 143), ([signal.SIGINT, signal.SIGINT], 130)])
def test_signals_stop_the_command_and_the_second_one_at_once(
    tiny_model, tmp_path: Path, numbers: list[int], code: int
) -> None:
    model = tiny_model(hidden_size=512, intermediate_size=2048, num_hidden_layers=4)
    command = [sys.executable, "-m", "posenc.lab", "extend", str(model), "--to", "6000", "--no-retrieval", "--out=run"]
    errors = tmp_path / "stderr.txt"
    with errors.open("w") as file:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=file)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").rglob(files.PROBE)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for number in numbers:
        os.kill(process.pid, number)
    assert process.wait(timeout=60) == code, errors.read_text()
    assert errors.read_text().count("\n") <= 1
    assert list((tmp_path / "run").rglob(files.PROBE))


# What is refused


def refused(
    model: Path, match: str, *, length: int = LENGTH, ending: dict[str, Any] | None = None, **options: Any
) -> None:
    request = {"retrieval": False, "threads": 1, **options}
    with pytest.raises((ValueError, RunError, OSError), match=match):
        extend.extend(extend.Request(str(model), length, **request), extend.Ending(**ending or {}), quiet())  # type: ignore[arg-type]
    assert not Path("runs").exists()


def test_what_cannot_run_is_refused_before_there_is_a_folder(
    tiny_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prose: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny_model()
    short = tmp_path / "short.txt"
    short.write_text("It was the best of times. " * 10)
    full = tmp_path / "full"
    full.mkdir()
    (full / "config.json").write_text("{}")
    refused(model, r"--to: got 257, expected at least 258: the model was trained with 256 tokens", length=257)
    refused(model, r"--rules: got '', expected one of", rules=[","])
    refused(model, r"--text: the text has 260 bytes, expected at least 640 tokens", texts=[short])
    refused(model, "No such file", texts=[tmp_path / "nowhere.txt"])
    refused(model, r"did you mean 'yarn'", rules=["yarm:2"])
    refused(model, "interpolate", rules=["interpolate"])
    refused(model, "number after the colon", rules=["yarn:two"])
    refused(model, "expected one of auto, float32|float32", dtype="int8")
    refused(model, "posenc overwrites nothing", ending={"save": full})
    refused(model, "--window: got 641, expected at most 640", ending={"tune": 1, "window": 641, "method": "full"})
    prose_alone = {"texts": [prose], "length": 9750}
    refused(
        model,
        r"the text has \d+, expected more than 64",
        ending={"tune": 1, "window": 64, "method": "full"},
        **prose_alone,
    )
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "peft", None)
        refused(model, "tune: LoRA needs peft", ending={"tune": 1})
    refused(
        model,
        "at least 512 for the test of retrieval; give a larger number, or --no-retrieval",
        length=300,
        retrieval=True,
    )
    refused(tmp_path / "nowhere", "there is no such folder or file")
    refused(tmp_path, "there is no config.json")
    refused(tiny_model("table", learned=True), "--search: the search finds factors", search=5)
    partial = tiny_model("partial") / "config.json"
    rule = {"rope_type": "proportional", "rope_theta": 1000.0, "partial_rotary_factor": 0.5}
    runs.write_json(partial, runs.read_json(partial) | {"rope_parameters": rule})
    refused(partial.parent, "--search: the search finds factors", search=5)
    assert full.joinpath("config.json").read_text() == "{}"


def test_a_text_of_too_few_tokens_is_refused(tiny_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny_model()
    from transformers import PreTrainedTokenizerFast

    real = PreTrainedTokenizerFast.__call__
    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", lambda self, text, **o: real(self, text[:100], **o))
    refused(model, r"the text has 100 tokens, expected at least 640 tokens; give more text, or a smaller --to")


def test_a_model_that_changed_within_a_run_is_refused(tiny_model, begin: Begin) -> None:
    model = tiny_model()
    run = begin(model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    with pytest.raises(RunError, match=r"config\.json changed since this run began"):
        extend.resume(run, extend.Ending(), quiet())


def test_a_run_of_another_device_is_refused(tiny_model, begin: Begin) -> None:
    run = begin(tiny_model())
    config = runs.read_json(run / runs.CONFIG)
    runs.write_json(run / runs.CONFIG, config | {"device": "cpu" if config["device"] == "cuda" else "cuda"})
    with pytest.raises(RunError, match=r"began on .* and would continue on .*, which computes other numbers"):
        extend.resume(run, extend.Ending(), quiet())


def test_a_run_of_another_version_is_refused(tiny_model, begin: Begin) -> None:
    run = begin(tiny_model())
    config = runs.read_json(run / runs.CONFIG)
    config["versions"]["transformers"] = "1.0"
    runs.write_json(run / runs.CONFIG, config)
    with pytest.raises(RunError, match=r"began with transformers 1\.0 and would continue with"):
        extend.resume(run, extend.Ending(), quiet())


def test_a_folder_that_has_a_run_is_not_written_over(tiny_model, begin: Begin) -> None:
    model = tiny_model()
    begin(model)
    with pytest.raises(RunError, match="the folder holds a run already"):
        begin(model)


# The command


@pytest.mark.slow
def test_the_command_from_the_model_to_the_report(tiny_model, posenc_command, tmp_path: Path) -> None:
    model = tiny_model()
    done = posenc_command("extend", model, "--to=640", "--rules=yarn:4,ntk", "--no-retrieval", "--threads=1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for word in ("takes tiny from 256 to 640 tokens", "about", "probe", "Report:", "none, in windows"):
        assert word in done.stdout
    (tmp_path / "runs" / "latest" / "report.html").unlink()
    again = posenc_command("report")
    assert again.returncode == 0, again.stderr
    assert "Report:" in again.stdout
    assert (tmp_path / "runs" / "latest" / "report.html").exists()
    resumed = posenc_command("extend", "--resume", "--save=longer")
    assert resumed.returncode == (0 if (tmp_path / "longer").exists() else 1)
    bad = posenc_command("extend", "--resume", "--seed=3")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith("posenc extend: --resume: a run continues with the options that it began with")

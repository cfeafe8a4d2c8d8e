"""Verdicts on numbers that are written here by hand, and results of run folders that are."""

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from posenc.frequencies import NTK, Frequencies, Linear, YaRN
from posenc.lab.extend import config as files
from posenc.lab.extend import report, results, table
from posenc.lab.extend.config import ExtendConfig, load_config, retrieval_file, rule_folder
from posenc.lab.extend.folder import Measured, rule_of
from posenc.lab.extend.verdict import Mean, decide, difference, mean
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError

TRAINED, LENGTH = 1024, 2048
BINS = [(0, 512), (512, 1024), (1024, 1536), (1536, 2048)]
RULES: dict[str, Frequencies] = {
    "yarn:2": YaRN(2, trained_length=TRAINED),
    "ntk:2": NTK(2),
    "linear:2": Linear(2),
}


def text_of(seed: int = 0) -> np.ndarray:
    """What each token costs a model that is at home everywhere."""
    return np.random.default_rng(seed).gamma(2.0, 1.7, LENGTH - 1).astype(np.float32)


def shifted(within: float, beyond: float, *, noise: float = 0.0, seed: int = 1) -> np.ndarray:
    """The same text, dearer by so many nats within and beyond the trained length."""
    rise = np.where(np.arange(LENGTH - 1) < TRAINED, within, beyond)
    random = np.random.default_rng(seed).normal(0, 1, LENGTH - 1) if noise else 0.0
    return (text_of() + rise + noise * random).astype(np.float32)


def verdict(**losses: np.ndarray) -> tuple[str, str]:
    found = decide(
        {name.replace("_", ":"): value for name, value in losses.items()}, text_of(), BINS, trained_length=TRAINED
    )
    return found.kind, found.rule


# The verdict


def test_the_rule_with_the_lowest_loss_of_those_that_hold_is_taken() -> None:
    losses = {
        "none": shifted(0, 2),
        "linear_2": shifted(0.7, 0.7),
        "yarn_2": shifted(0.03, 0.02),
        "ntk_2": shifted(0.05, 0.06),
    }
    assert verdict(**losses) == ("rule", "yarn:2")


def test_none_is_needed_where_the_untouched_model_holds() -> None:
    assert verdict(none=shifted(0, 0.05), yarn_2=shifted(0.0, -0.1)) == ("none needed", "none")


def test_none_of_them_where_no_rule_holds_and_the_closest_is_named() -> None:
    losses = {"none": shifted(0, 2), "linear_2": shifted(0.7, 0.7), "yarn_2": shifted(0.03, 0.4)}
    assert verdict(**losses) == ("none of them", "yarn:2")


def test_a_rule_that_costs_short_texts_too_much_does_not_hold() -> None:
    assert verdict(none=shifted(0, 2), yarn_4=shifted(0.2, 0.0)) == ("none of them", "yarn:4")


def test_one_bin_above_the_limit_is_enough_to_fail() -> None:
    losses = shifted(0, 0.01)
    losses[1536:] += 0.2
    assert verdict(none=shifted(0, 2), yarn_2=losses) == ("none of them", "yarn:2")


@pytest.mark.parametrize(("nats", "kind"), [(math.log(1.099), "rule"), (math.log(1.101), "none of them")])
def test_the_limit_is_ten_per_cent_of_perplexity(nats: float, kind: str) -> None:
    assert verdict(none=shifted(0, 2), yarn_2=shifted(0, nats))[0] == kind


def test_of_rules_that_cannot_be_told_apart_the_one_that_short_texts_pay_least_for() -> None:
    waves = np.where(np.arange(LENGTH - 1) // 64 % 2, 0.08, -0.08)  # no more than noise: the errors are 0.014
    losses = {"none": shifted(0, 2), "yarn_2": shifted(0.03, 0.0) + waves, "ntk_2": shifted(0.01, 0.04)}
    assert verdict(**losses) == ("rule", "ntk:2")


def test_a_learned_table_has_nothing_beyond_and_so_does_not_hold() -> None:
    ends = shifted(0, 0)
    ends[TRAINED:] = math.nan
    assert verdict(none=ends, interpolate=shifted(0.05, 0.05)) == ("rule", "interpolate")
    assert verdict(none=ends, interpolate=shifted(0.5, 0.5)) == ("none of them", "interpolate")
    assert verdict(none=ends) == ("none of them", "none")


def test_losses_that_explode_do_not_hold_and_do_not_stop_the_others() -> None:
    explodes = shifted(0, 0)
    explodes[-1] = math.inf
    assert verdict(none=explodes, yarn_2=shifted(0, 0), ntk_2=explodes) == ("rule", "yarn:2")
    assert difference(explodes, text_of()) == pytest.approx(Mean(math.inf, math.nan), nan_ok=True)


def test_the_standard_error_is_that_of_independent_blocks() -> None:
    values = np.random.default_rng(0).normal(0, 1, 64 * 400)
    found = mean(values)
    assert found is not None
    assert found.error == pytest.approx(1 / math.sqrt(values.size), rel=0.1)
    repeated = mean(np.repeat(values[:400], 64))  # neighbours that say the same are no more evidence
    assert repeated is not None
    assert repeated.error == pytest.approx(1 / 20, rel=0.1)
    assert mean(np.array([])) is None
    assert mean(np.array([1.0, math.nan])) is None


# Results of a folder


def write_run(
    run: Path, losses: dict[str, np.ndarray], *, probed: bool = True, windows: bool = True, **changes: Any
) -> Path:
    """A run folder, written by the contract, without a model."""
    given: dict[str, Any] = {
        "model": "./model",
        "label": "model",
        "files": {},
        "positions": "rotary",
        "trained_length": TRAINED,
        "length": LENGTH,
        "rotary_dim": 64,
        "head_dim": 64,
        "text": ({"name": "emma.txt", "bytes": 1000, "sha256": "ab" * 32},),
        "rules": ("none", *RULES),
        "chosen": True,
        "search": 0,
        "full": 3,
        "retrieval": False,
        "dtype": "auto",
        "threads": 1,
        "seed": 0,
        "device": "cpu",
        "trust_remote_code": False,
        "versions": {},
        "command": "posenc extend ./model --to 2048",
    }
    config = ExtendConfig(**given | changes)
    run.mkdir()
    for name in config.rules:
        folder = rule_folder(run, name)
        folder.mkdir(parents=True)
        rule = RULES[name].to_dict() if name in RULES else "interpolate" if name == "interpolate" else None
        runs.write_json(folder / files.CANDIDATE, {"name": name, "rule": rule})
        if probed:
            rise = {"none": (0.0, 0.3, 2.0), "linear:2": (0.7, 0.7, 0.7)}.get(name, (0.02, 0.2, 0.25))
            cells = [[3.6 + nats, 3.7 + nats] for nats in rise]
            plan = {"gaps": [0, 512, 1536], "block": 256, "scored": 192, "places": 2}
            runs.write_json(folder / files.PROBE, {**plan, "losses": cells, "seconds": 3.0})
        if name in losses:
            found = {"nats": torch.from_numpy(losses[name]), "seconds": torch.tensor(60.0)}
            runs.save_tensors(folder / files.PASS, found)
    if windows:
        found = {"nats": torch.from_numpy(text_of()[TRAINED:]), "seconds": torch.tensor(30.0)}
        runs.save_tensors(run / files.WINDOWS, found)
    runs.write_json(run / runs.CONFIG, config.to_dict())
    return run


ALL = {
    "none": shifted(0, 1.0),
    "yarn:2": shifted(0.03, 0.02, noise=0.02),
    "ntk:2": shifted(0.05, 0.06, noise=0.02),
    "linear:2": shifted(0.7, 0.7),
}


def printed(run: Path, width: int = 180) -> str:
    console = Console(file=io.StringIO(), width=width)
    report.print_table(run, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def measured(run: Path) -> Measured:
    return Measured.read(run, load_config(run))


def test_a_run_gives_its_table_recommendation_and_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ALL)
    report.write(run)
    found = json.loads((run / "results.json").read_text(), parse_constant=pytest.fail)
    assert found["finished"]
    assert found["verdict"]["kind"] == "rule"
    sentence = found["verdict"]["sentence"]
    assert sentence.startswith("yarn:2: perplexity ")
    assert re.search(r" up to 2,048 tokens, and [\d.]+ where the untouched model has [\d.]+; ", sentence)
    assert sentence.endswith("; its cost within the first 1,024 tokens is +0.03 nats per token.")
    yarn = next(rule for rule in found["rules"] if rule["name"] == "yarn:2")["pass"]
    assert yarn["cost"]["nats"] == pytest.approx(0.03, abs=0.01)
    assert yarn["gain"]["nats"] == pytest.approx(0.98, abs=0.01)
    assert yarn["gain"]["error"] == pytest.approx(0.02 / 32, rel=0.6)
    points = found["trust"]["points"]
    assert {(point["rule"], point["gap"]) for point in points} == {
        ("none", 1536), *((rule, gap) for rule in RULES for gap in (0, 512, 1536))
    }  # fmt: skip
    at_end = next(point for point in points if point["rule"] == "none")
    assert at_end["probe"] == pytest.approx(2.0 - 0.3)
    assert at_end["pass"] == pytest.approx(1.0, abs=1e-3)
    assert found["trust"]["agree"] == len(points)
    assert "agree on 10 of 10 cells" in found["summary"][1]
    shown = printed(run)
    for word in ("none", "linear:2", " ±0.001", "yes", "no", "none, in windows", sentence):
        assert word in shown
    page = (run / "report.html").read_text()
    assert page.count("<svg ") == 4
    rows = report.rows(run)
    columns = ["rule", "first", "last", "gap", "task", "length", "depth", "measure", "unit", "value"]
    assert all(list(row) == columns for row in rows)
    windows = [row["value"] for row in rows if row["rule"] == "none, in windows"]
    assert windows == found["windows"]  # as the table prints them
    for word in ("model at 2,048 tokens", "posenc extend ./model --to 2048", "yarn:2", "within the trained length"):
        assert word in page
    assert "not finished" not in page


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_gets_several_tables_and_no_number_is_cut(tmp_path: Path, width: int) -> None:
    run = write_run(tmp_path / "run", ALL)
    narrow = printed(run, width=width)
    assert ("Beyond it" in narrow) == (width == 60)
    assert "Within and beyond 1,024 tokens" in narrow
    assert "\u2026" not in narrow


@pytest.mark.parametrize("kept", [(), ("none",), ("none", "yarn:2")])
def test_an_unfinished_run_shows_what_there_is_and_recommends_nothing(tmp_path: Path, kept: tuple[str, ...]) -> None:
    run = write_run(tmp_path / "run", {name: ALL[name] for name in kept}, probed=bool(kept), windows=False)
    report.write(run)
    found = json.loads((run / "results.json").read_text())
    assert not found["finished"]
    assert found["verdict"]["rule"] is None
    assert "This run is not finished" in (run / "report.html").read_text()
    assert "This run is not finished" in printed(run)


def test_only_the_best_by_the_probe_get_the_full_pass_unless_the_user_named_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {}, chosen=False, full=2)
    assert measured(run).finalists() == ["none", "yarn:2", "ntk:2"]
    named = write_run(tmp_path / "named", {})
    assert measured(named).finalists() == ["none", "yarn:2", "ntk:2", "linear:2"]


def test_what_is_chosen_is_the_only_rule_that_the_user_named_or_the_recommended_one(tmp_path: Path) -> None:
    only = write_run(tmp_path / "only", {}, rules=("none", "linear:2"), windows=False)
    assert measured(only).chosen() == "linear:2"
    run = write_run(tmp_path / "run", ALL)
    assert measured(run).chosen() == "yarn:2"
    assert rule_of(run, "yarn:2") == RULES["yarn:2"]
    assert rule_of(run, "none") is None


@pytest.mark.parametrize("rule", [{"rule": "Yarm"}, {"rule": "Linear", "factor": -1.0}, {"rule": "YaRN", "width": 3}])
def test_a_damaged_rule_is_refused_with_its_file(tmp_path: Path, rule: dict[str, Any]) -> None:
    path = rule_folder(tmp_path, "yarn:2") / files.CANDIDATE
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"rule": rule}))
    with pytest.raises(RunError, match=rf"{re.escape(str(path))}: .*expected.*; the file is damaged"):
        rule_of(tmp_path, "yarn:2")


def test_a_learned_table_says_where_it_ends(tmp_path: Path) -> None:
    ends = shifted(0, 0)
    ends[TRAINED:] = math.nan
    losses = {"none": ends, "interpolate": shifted(0.05, 0.06)}
    run = write_run(tmp_path / "run", losses, positions="learned", rotary_dim=None, rules=("none", "interpolate"))
    report.write(run)
    found = json.loads((run / "results.json").read_text(), parse_constant=pytest.fail)
    assert "where the untouched model has no position past 1,024" in found["verdict"]["sentence"]
    assert "no code" in printed(run)
    assert "the longer table is among its weights" in found["flags"]["vLLM"]


def test_none_of_them_says_how_far_off_the_closest_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"none": ALL["none"], "linear:2": ALL["linear:2"]}, rules=("none", "linear:2"))
    sentence = results.collect(run).verdict.sentence
    assert sentence.startswith("none of them: no rule stays within 10 % of the baseline's perplexity")
    assert "the closest, linear:2, has 2.01 times the baseline" in sentence


def test_none_needed_says_how_near_it_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {**ALL, "none": shifted(0, 0.05)})
    sentence = results.collect(run).verdict.sentence
    assert sentence.startswith("none needed: without a rule, model has a perplexity of ")
    assert "at most 5 % above" in sentence


def test_training_is_reported_by_what_it_lowered(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ALL)
    folder = rule_folder(run, "linear:2") / files.TUNED
    folder.mkdir()
    runs.save_tensors(folder / files.PASS, {"nats": torch.from_numpy(shifted(0.1, 0.2)), "seconds": torch.tensor(1.0)})
    runs.write_json(folder / "tune.json", {"steps": 50})
    found = results.collect(run)
    assert found.tuned is not None
    assert found.tuned.lowered.beyond is not None
    assert found.tuned.lowered.beyond.nats == pytest.approx(0.5, abs=1e-3)
    assert "Training with linear:2 lowered the loss beyond 1,024 tokens by 0.500" in found.summary[-1]
    report.write(run)
    assert "linear:2 tuned" in printed(run)
    assert "Trained with linear:2" in (run / "report.html").read_text()


def test_retrieval_is_shown_even_when_it_is_zero(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ALL)
    answers = [
        {
            "task": "passkey",
            "form": "plain",
            "length": 2048,
            "depth": depth,
            "correct": False,
            "answer": "",
            "expected": "1",
        }
        for depth in (0.1, 0.9)
    ]
    runs.write_json(retrieval_file(run, "none", "passkey"), {"answers": answers, "seconds": 1.0})
    report.write(run)
    assert "Retrieval with none: 0 of 2 answers are right." in printed(run)
    assert "0/2" in printed(run)
    assert "0/2" in (run / "report.html").read_text()


def test_a_rule_whose_losses_are_beyond_all_numbers_is_called_diverged(tmp_path: Path) -> None:
    explodes = shifted(0, 0)
    explodes[1600:] = math.inf
    run = write_run(tmp_path / "run", {**ALL, "ntk:2": explodes})
    report.write(run)
    json.loads((run / "results.json").read_text(), parse_constant=pytest.fail)
    assert "diverged" in printed(run)
    assert "diverged" in (run / "report.html").read_text()


def test_names_of_a_user_cannot_break_the_page(tmp_path: Path) -> None:
    part = {"name": "</dd><b>.txt", "bytes": 1, "sha256": "00", "path": "[red]</dd><b>.txt"}
    run = write_run(tmp_path / "run", ALL, text=(part,), label="<script>x</script>", model="<script>x</script>")
    report.write(run)
    page = (run / "report.html").read_text()
    assert "<b>" not in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "got format 2, expected format 1"),
        ({"kind": "compare"}, "got a run of posenc compare, expected one of posenc extend"),
    ],
)
def test_a_run_of_another_kind_or_version_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run = write_run(tmp_path / "run", ALL)
    runs.write_json(run / runs.CONFIG, runs.read_json(run / runs.CONFIG) | change)
    with pytest.raises(RunError, match=message):
        report.write(run)


@pytest.mark.parametrize(
    ("one", "said"), [((0, 2048), "0-2k"), ((8192, 10240), "8-10k"), ((0, 512), "0-512"), ((1536, 2048), "1536-2048")]
)
def test_bins_are_named_in_thousands_where_they_are_whole(one: tuple[int, int], said: str) -> None:
    assert table.bin_name(one) == said

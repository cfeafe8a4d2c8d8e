"""Reports of runs that are written here by hand: whole, half done, damaged, and with names that attack the page."""

import functools
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from posenc.lab.compare.request import Request
from posenc.lab.compare.text import report, results, table
from posenc.lab.drawing import plots, words
from posenc.lab.extend.request import Ending
from posenc.lab.run.errors import RunError
from posenc.lab.run.options import command_of

LENGTH, STEPS = 16, 40
GROWTH = {"none": 6.0, "integer": 900.0, "sinusoidal": 2.0, "learned": None, "rope": 1.3, "alibi": 0.95}
VOID = {"meta", "br", "link", "img", "input", "hr"}
Fabricate = Callable[..., Path]


def write_run(
    run: Path,
    labels: Sequence[str] = tuple(GROWTH),
    *,
    seeds: Sequence[int] = (0,),
    specs: dict[str, str] | None = None,
    stopped_at: dict[str, int] | None = None,
    **changes: Any,
) -> Path:
    """A run folder, written by the contract, without training anything."""
    run.mkdir()
    part = {"name": "emma.txt", "bytes": 1000, "sha256": "ab" * 32}
    config = {
        "format": 1,
        "kind": "compare",
        "posenc": "0.1.0",
        "preset": "quick",
        "encodings": [{"label": label, "spec": (specs or {}).get(label, label)} for label in labels],
        "seeds": list(seeds),
        "text": {"train": [part], "validation": [part]},
        "command": "posenc compare none integer",
        "vocabulary": {"kind": "bytes", "size": 256},
        "model": {"dim": 16, "num_layers": 1, "num_heads": 2},
        "train": {"length": LENGTH, "batch": 4, "steps": STEPS, "learning_rate": 0.01},
        "evaluate": {"factors": [1, 2, 4, 8], "last": 8, "tokens": 64},
        "threads": 1,
        "jobs": 1,
        "backend": "loky",
    }
    speed = {label: {"seconds_per_step": 0.01, "relative_to_none": 0.97} for label in labels}
    (run / "config.json").write_text(json.dumps(config | changes))
    (run / "speed.json").write_text(json.dumps(speed))
    for at, label in enumerate(labels):
        for seed in seeds:
            steps = (stopped_at or {}).get(label, STEPS)
            if steps:
                write_trial(run / f"{label}-seed{seed}", label, perplexity=10.0 + at + 0.1 * seed, steps=steps)
    return run


def write_trial(folder: Path, label: str, *, perplexity: float, steps: int) -> None:
    folder.mkdir()
    (folder / "environment.json").write_text(json.dumps({"python": "3.11", "cpu": "a <fast> one"}))
    rows: list[dict[str, Any]] = [
        {"event": "train", "step": step, "loss": 3.0 + 1 / step, "seconds": 0.1 * step, "tokens_per_second": 9.0}
        for step in range(10, steps + 1, 10)
    ]
    if steps == STEPS:
        for protocol in ("windows", "last"):
            for factor in (1, 2, 4, 8):
                row = {"event": "evaluate", "protocol": protocol, "length": LENGTH * factor, "factor": factor}
                growth = GROWTH.get(label, 1.0)
                if growth is None and factor > 1:
                    rows.append({**row, "refused": f"past its table of {LENGTH} positions"})
                else:
                    value = perplexity * (growth or 1.0) ** (math.log2(factor) / 3)
                    rows.append({**row, "nats": math.log(value), "perplexity": value, "tokens": 64})
        rows.append({"event": "done", "parameters": 500, "parameters_added": 0, "seconds": 4.0})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text if steps == STEPS else text + '{"event": "tra')


@pytest.fixture
def fabricate(tmp_path: Path) -> Fabricate:
    """Writes a run of its own for a test."""
    return functools.partial(write_run, tmp_path / "run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its report, for all tests that only read."""
    run = write_run(tmp_path_factory.mktemp("finished") / "run")
    report.write(run)
    return run


class Page(HTMLParser):
    """Reads a page strictly: every tag that opens closes, in order; keeps its text, and what it would fetch."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "srcset", "data", "xlink:href") or (name == "href" and tag != "a"):
                self.fetched.append(value or "")
            self.fetched += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["style"]:
            self.fetched += re.findall(r"url\(([^)]*)\)|@import (.*)", data)
        else:
            self.words.append(data)


def printed(run: Path, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    report.print_table(run, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


# The whole report


def test_a_finished_run_gives_one_page_that_fetches_nothing(finished: Path) -> None:
    run, path = finished, finished / "report.html"
    page = Page(path.read_text())
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in page.fetched)
    assert len(page.ids) == len(set(page.ids))  # the pictures do not take each other's clipping paths
    assert "<script" not in path.read_text()
    assert path.read_text().count("<svg ") == 3 + 2 + 3 + 2 + 5 + 2
    assert "not finished" not in page.text
    for said in ("Six positional encodings", "What it does", "Its limit", "posenc compare none integer", "Sees order"):
        assert said in page.text
    assert not list(run.glob(".*"))  # nothing half written is left


def test_the_results_are_strict_json_and_hold_every_number(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text(), parse_constant=pytest.fail)
    rope = next(entry for entry in results["encodings"] if entry["label"] == "rope")
    assert rope["perplexity"]["last"]["8"] == {
        "length": 128,
        "values": [pytest.approx(14 * 1.3)],
        "mean": pytest.approx(14 * 1.3),
        "spread": None,
    }
    assert rope["speed"]["relative_to_none"] == 0.97
    assert rope["seeds"][0]["loss"][0] == [10, 3.1]
    assert results["properties"]["rope"]["linear_map"]["residuals"]["1"] < 1e-11
    assert results["properties"]["none"]["order"] < 1e-14


def test_the_same_folder_gives_the_same_report(fabricate: Fabricate) -> None:
    run = fabricate(("none", "learned"))
    written = []
    for _ in range(2):
        texts = report.write(run).read_text(), (run / "results.json").read_text()
        written.append([re.sub(r"\d(\.\d+)?e-1\d", "0", text) for text in texts])  # what is zero to rounding
    assert written[0] == written[1]


def test_the_summary_says_who_held_who_fell_and_who_refuses(finished: Path) -> None:
    summary = json.loads((finished / "results.json").read_text())["summary"]
    assert "alibi (0.95\u00d7) holds (up to 1.10\u00d7); rope (1.30\u00d7) rises; " in summary[0]
    assert "sinusoidal (2.00\u00d7), none (6.00\u00d7) and integer (900\u00d7) break (from 1.50\u00d7 on)" in summary[0]
    assert summary[1].startswith("learned has no code past the trained length")
    assert "none was best with a perplexity of 10.00 and alibi last with 15.00" in summary[2]
    assert "may be noise" in summary[3]


def test_several_seeds_are_shown_with_their_spread(fabricate: Fabricate) -> None:
    run = fabricate(("none", "alibi"), seeds=(0, 1, 2))
    report.write(run)
    results = json.loads((run / "results.json").read_text())
    cell = results["encodings"][0]["perplexity"]["windows"]["1"]
    assert (cell["mean"], cell["spread"]) == (pytest.approx(10.1), pytest.approx(0.1))
    assert "means over 3 seeds" in results["summary"][-1]
    html = (run / "report.html").read_text()
    assert '<a href="https://arxiv.org/abs/2108.12409">' in html
    page = Page(html)
    assert "\u00b10.10" in page.text
    assert "noise" not in page.text
    assert "10.10 \u00b10.10*" in printed(run)


def test_a_table_past_the_trained_length_is_said_to_end_where_it_does(fabricate: Fabricate) -> None:
    run = fabricate(("none", "learned"))
    path = run / "learned-seed0" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["event"] == "evaluate" and row["factor"] in (2, 4):
            del row["refused"]
            row.update(nats=math.log(20), perplexity=20.0, tokens=64)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report.write(run)
    said = json.loads((run / "results.json").read_text())["summary"]
    assert f"learned has no code past {4 * LENGTH} tokens, 4 times the trained length, and cannot go further." in said


def test_a_limit_that_the_seeds_do_not_tell_is_not_decided(fabricate: Fabricate) -> None:
    run = fabricate(("rope",), seeds=(0, 1))
    for seed, at_the_end in ((0, 9.0), (1, 14.0)):  # of 10: below the limit and above it
        path = run / f"rope-seed{seed}" / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            if row["event"] == "evaluate" and row["factor"] == 8:
                row["perplexity"] = at_the_end
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report.write(run)
    said = json.loads((run / "results.json").read_text())["summary"][0]
    assert re.search(r"the seeds of rope \(.*\) differ too much to tell", said)


def test_the_table_marks_the_best_of_each_column_and_fits_a_narrow_terminal(finished: Path) -> None:
    wide, narrow = printed(finished), printed(finished, width=80)
    assert wide.count("Perplexity, trained on 16 tokens") == 1
    assert narrow.count("Perplexity, trained on 16 tokens") == 2
    for text in (wide, narrow):
        assert "\u2026" not in text  # no number is cut
        assert "no code" in text
    rows = {line.split()[0]: line for line in reversed(wide.splitlines()) if line.split()}
    assert rows["none"].count("*") == 2  # at 1x, by both protocols
    assert rows["learned"].split()[1] == "13.00"


# What is not as it should be


def test_the_legend_says_what_speeds_are_relative_to_and_explains_only_what_is_there(finished: Path) -> None:
    text = printed(finished)
    assert "training speed: steps a second, relative to the encoding none" in text
    cells = [cell for line in text.splitlines() for cell in re.split(r"\s{2,}", line.strip())]
    assert ("- not evaluated" in text) == ("-" in cells)


def test_an_unfinished_run_is_called_so_and_shows_what_there_is(fabricate: Fabricate) -> None:
    run = fabricate(("none", "rope", "alibi"), stopped_at={"rope": 20, "alibi": 0})
    report.write(run)
    results = json.loads((run / "results.json").read_text())
    assert results["finished"] is False
    assert [entry["state"] for entry in results["encodings"]] == ["done", "unfinished", "not started"]
    assert results["encodings"][1]["seeds"][0]["steps"] == 20  # the row that was cut off does not count
    assert results["summary"][0].startswith("This run is not finished: rope and alibi")
    page = Page((run / "report.html").read_text())
    assert "rope unfinished (20 of 40 steps); alibi not started (0 of 40 steps)" in page.text
    assert "rope (unfinished)" in printed(run)


def test_a_run_that_has_only_begun_has_a_report_too(fabricate: Fabricate) -> None:
    run = fabricate(("none", "alibi"), stopped_at={"none": 0, "alibi": 0})
    report.write(run)
    page = Page((run / "report.html").read_text())
    assert "Nothing was evaluated yet" in page.text
    assert "No step was trained yet" in page.text
    assert "alibi (not started)" in printed(run)


def test_names_of_a_user_cannot_break_the_page(fabricate: Fabricate, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import posenc\n\nclass Mine(posenc.EmbeddingEncoding):\n    '''<script>alert(1)</script> & such'''\n\n"
        "    def __init__(self, dim):\n        super().__init__()\n        self.dim = dim\n\n"
        "    def codes(self, positions):\n        return positions.double()[..., None].sin().expand(-1, self.dim)\n"
    )
    run = fabricate(
        ("none", "Mine"),
        specs={"Mine": f"{file}:Mine"},
        text={"train": [{"name": "</dd><b>.txt", "bytes": 1, "sha256": "00"}], "validation": []},
    )
    report.write(run)
    page = Page((run / "report.html").read_text())
    assert "<script>alert(1)</script> & such" in page.text
    assert "</dd><b>.txt" in page.text
    assert "<b>" not in (run / "report.html").read_text()


def test_an_encoding_that_is_gone_is_reported_as_such(fabricate: Fabricate) -> None:
    run = fabricate(("none", "Gone"), specs={"Gone": "gone.py:Gone"})
    report.write(run)
    page = Page((run / "report.html").read_text())
    assert page.text.count("gone.py:Gone cannot be built here") == 2


def test_a_perplexity_beyond_all_numbers_is_called_diverged(fabricate: Fabricate) -> None:
    run = fabricate(("none", "integer"))
    metrics = run / "integer-seed0" / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    for row in rows:
        if row.get("factor") == 8:
            row["perplexity"] = math.inf
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report.write(run)
    assert "integer (diverged) break" in json.loads((run / "results.json").read_text())["summary"][0]
    assert "diverged" in Page((run / "report.html").read_text()).text
    assert "diverged" in printed(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, r"got format 2, expected format 1; posenc 9\.9 wrote it"),
        ({"kind": "extend"}, "got a run of posenc extend, expected one of posenc compare"),
    ],
)
def test_a_run_of_another_version_or_job_is_refused_in_one_sentence(
    fabricate: Fabricate, change: dict[str, Any], message: str
) -> None:
    run = fabricate(("none",), posenc="9.9", **change)
    for use in (report.write, results.collect, printed):
        with pytest.raises(RunError, match=message):
            use(run)
    assert not (run / "report.html").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"config.json: there is no such file; check that .* is the right folder"):
        report.write(tmp_path)


def test_the_command_makes_the_same_run_again() -> None:
    request = Request(
        specs=["none", "rope:frequencies=Geometric(base=5)"], texts=[Path("my book.txt")], seeds=2, learning_rate=1e-3
    )
    assert command_of("compare", request) == (
        "posenc compare none 'rope:frequencies=Geometric(base=5)' --text 'my book.txt' --seeds 2 --learning-rate 0.001"
    )
    assert command_of("compare", Request()) == "posenc compare"
    assert command_of("extend", Ending(save=Path("longer"), tune=5)) == "posenc extend --save longer --tune 5"


# The parts of a picture


def test_labels_are_spread_without_overlap_and_moved_no_further_than_needed() -> None:
    assert plots.spread([0.1, 0.5, 0.9], 0.1) == pytest.approx([0.1, 0.5, 0.9])
    assert plots.spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    assert plots.spread([0.0, 0.01], 0.1) == pytest.approx([0.0, 0.1])
    assert plots.spread([1.0, 0.99], 0.1) == pytest.approx([1.0, 0.9])


def test_an_encoding_has_the_same_hue_in_every_run_and_no_two_share_one() -> None:
    labels = [*GROWTH, "normalized", "binary", "rope-base=500", "Mine", "Other", "Fourth"]
    hues = plots.hues(labels)
    assert len(set(hues.values())) == len(labels)
    assert plots.hues(["rope"])["rope"] == hues["rope"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(8.456, "8.46"), (99.9, "99.90"), (999.9, "1,000"), (12345.6, "12,346"), (3e7, "3.0e+07"), (None, "diverged")],
)
def test_numbers_are_rounded_for_reading(value: float | None, text: str) -> None:
    assert words.number(value, 2) == text
    assert table.cell_text(results.Cell(64, [], mean=math.inf if value is None else value)) == text

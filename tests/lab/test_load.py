"""What a run leaves for others: every number as a tidy table, every figure as a file."""

import csv
import io
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.console import Console

from posenc.lab import load, report_of
from posenc.lab.compare.text import job
from posenc.lab.drawing.files import write_csv, write_plots
from posenc.lab.run import folder as runs


@pytest.fixture
def run(prepare) -> Path:
    folder: Path = prepare("rope", "none")
    job.finish(folder, Console(file=io.StringIO()))
    return folder


def test_a_run_is_a_tidy_table(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed
    rows = load(run)
    kept = [row for row in rows if row["measure"] == "perplexity"]
    assert {row["encoding"] for row in kept} == {"rope", "none"}
    assert {row["length"] for row in kept} == {8, 16, 32, 64}
    results = runs.read_json(run / runs.RESULTS)
    assert results["encodings"]
    assert all(isinstance(row["value"], (int, float)) and row["unit"] is not None for row in kept)
    path = tmp_path / "numbers.csv"
    assert write_csv(report_of(run).rows(run), path) == len(rows)
    with path.open(newline="") as file:
        again = list(csv.DictReader(file))
    assert [float(row["value"]) for row in again] == [row["value"] for row in rows]


def test_with_pandas_it_is_a_data_frame(run: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = load(run)
    assert isinstance(table, pandas.DataFrame)
    assert {"measure", "unit", "value", "encoding", "seed", "length"} <= set(table.columns)


def test_every_figure_is_a_file_in_three_formats(run: Path, tmp_path: Path) -> None:
    figures = report_of(run).figures(run)
    assert figures
    written = write_plots(figures, tmp_path / "figures")
    assert len(written) == 3 * len(figures) == len(set(written))
    starts = {".pdf": b"%PDF", ".png": b"\x89PNG"}
    for path in written:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")
        else:
            assert path.read_bytes().startswith(starts[path.suffix])


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_columns_are_the_same_for_every_run_of_a_kind(prepare, seeds: int) -> None:
    folder = prepare("none", name=f"run{seeds}", seeds=seeds)  # nothing of it is measured yet
    (first, *_) = report_of(folder).rows(folder)
    assert list(first) == [
        *("encoding", "seed", "step", "protocol", "factor", "length", "measure", "unit", "value"),
    ]

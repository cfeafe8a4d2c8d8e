"""The page on images: its first block prints what it says, and its measured table is the stored one."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "howto" / "images.md").read_text(encoding="utf-8")
STORED = json.loads((DOCS / "howto" / "images.json").read_text(encoding="utf-8"))


def test_the_first_block_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    block, said = re.findall(r"```(?:python|text)\n(.*?)```", PAGE, re.DOTALL)[:2]
    exec(block, {})
    assert capsys.readouterr().out == said


def test_the_stored_rows_are_of_the_sizes_and_ways_that_the_script_measures() -> None:
    measured = [(tuple(row["size"]), row["way"]) for row in STORED["rows"]]
    ways = ("bicubic", "bilinear, antialias", "one-dimensional", "no resizing")
    assert len(measured) == len({*measured})
    assert {*measured} == {(size, way) for size in ((288, 288), (384, 384), (320, 224)) for way in ways}
    features = {(tuple(row["size"]), row["way"]): row["image"] for row in STORED["rows"]}
    for size in ((288, 288), (384, 384), (320, 224)):  # what the page says
        bicubic, bilinear, as_a_row, as_it_is = (features[size, way] for way in ways)
        assert abs(bicubic - bilinear) < 0.003
        assert bicubic > as_it_is > as_a_row
    assert all(0 <= row[key] <= 1 for row in STORED["rows"] for key in ("agreement", "image", "patches"))

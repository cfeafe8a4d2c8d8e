"""The README's code runs, and its files are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_code_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert blocks
    for block in blocks:
        exec(block, {})


def test_every_link_leads_to_a_file() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert links
    assert not [link for link in links if not (ROOT / link.partition("#")[0]).exists()]


def test_the_commands_are_in_the_makefile() -> None:
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"\$ make ([\w-]+)", TEXT):
        assert re.search(rf"^{command}:", targets, re.M)


def test_the_figures_of_the_census_are_those_of_its_page_and_of_the_pinned_version() -> None:
    page = (ROOT / "docs" / "census.md").read_text(encoding="utf-8")
    pinned = re.findall(r"^transformers==(.*)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    found = re.search(r"^transformers (.+?), (\d+) model types, \d+ rows: (\d+) agreed, (\d+) differs", page, re.M)
    assert found
    version, types, agreed, differs = found.groups()
    assert [version] == pinned
    assert f"all {types} model types" in TEXT
    assert f"{agreed} encodings agree, {differs} differ" in TEXT

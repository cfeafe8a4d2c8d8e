"""The page on live models says what the tests found, and its code runs."""

import re
from pathlib import Path

import pytest
from tests.integrations import outcomes

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "accelerate.md").read_text(encoding="utf-8")


def test_the_page_has_the_lists_of_the_tests() -> None:
    assert outcomes.markdown() in PAGE


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, scope)

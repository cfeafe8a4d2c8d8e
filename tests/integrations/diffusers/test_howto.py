"""The program of the page runs as it stands."""

import re
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "diffusers.md"


def test_the_blocks_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 3
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), scope)
    assert "rounded to bfloat16" in capsys.readouterr().out

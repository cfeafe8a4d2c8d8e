"""What a file says cannot steer the terminal or be taken for markup."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from posenc.lab import __main__
from posenc.lab.inspect import inspect
from posenc.lab.run.errors import RunError
from posenc.lab.run.printable import escape, printable

HOSTILE = "ll\x1b]0;owned\x07\x1b[2J[/red][bold]\u202e\x9b31m\u2028\r\x00\ud800$\\frac$"
CONFIG = {
    "model_type": HOSTILE,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "rope_theta": 10_000.0,
}


def test_letters_of_all_languages_stay_and_controls_become_their_escapes() -> None:
    assert printable("Qwen-3 \u4f60\u597d \u00e9\n\t") == "Qwen-3 \u4f60\u597d \u00e9\n\t"
    assert printable(HOSTILE).isprintable()
    assert escape("a\nb\t[/red]") == r"a\nb\t\[/red]"
    assert Text.from_markup(escape(HOSTILE)).plain.isprintable()


@pytest.mark.parametrize("part", ["plain", "[/red]"])
def test_a_config_that_is_inspected_prints_no_control_character(tmp_path: Path, part: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {part: {"model_type": HOSTILE, "hidden_size": 3}}))
    console = Console(file=io.StringIO(), width=200)
    inspect(tmp_path, pairing="half", console=console, plot=tmp_path / "picture.svg")
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.replace("\n", "").isprintable()
    assert r"ll\x1b]0;owned" in said


def test_an_error_that_quotes_a_file_prints_no_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    __main__._explain(RunError(f"{HOSTILE}: damaged"))
    said = capsys.readouterr().err
    assert said.strip("\n").isprintable()
    assert "damaged" in said

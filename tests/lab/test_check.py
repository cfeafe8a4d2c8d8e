"""The verb check loads a model from a folder and says whether it rotates as its config says."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from posenc.integrations.transformers import check as check_model
from posenc.lab.check import check
from posenc.lab.checkpoint.open import open_checkpoint
from posenc.lab.cli import app
from posenc.lab.run.errors import RunError

transformers = pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=16
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_sound_folder_has_no_findings(folder: Path) -> None:
    report = check(str(folder))
    assert report.findings == ()
    assert report.exit_code == 0
    assert any("layers 0 to 1 rotate by Geometric" in line for line in report.checked)


def test_the_verb_prints_and_exits_by_the_findings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = CliRunner().invoke(app, ["check", str(folder)])
    assert found.exit_code == 0
    assert "rotates pairs by 'half'" in found.output
    assert "model.rotary_emb: the tables inv_freq" in found.output
    assert found.output.splitlines()[-1] == "llama: 0 differences, 4 agree, 0 not checked"
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    model.model.rotary_emb.inv_freq.mul_(0.5)
    monkeypatch.setattr("posenc.lab.check.check_model", lambda _: check_model(model))
    found = CliRunner().invoke(app, ["check", str(folder)])
    assert found.exit_code == 1
    assert "0.5 times what the config says" in found.output
    assert found.output.splitlines()[-1].startswith("llama: 1 difference, ")


def test_attention_of_a_hub_is_never_loaded_unasked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config may name a kernel of a hub, which is code; with the package kernels installed it would be fetched."""
    asked: list[Any] = []
    fake: Any = types.ModuleType("kernels")
    fake.get_kernel = lambda *args, **options: asked.append(args)
    monkeypatch.setitem(sys.modules, "kernels", fake)
    file = folder / "config.json"
    for key in ("_attn_implementation", "attn_implementation", "experts_implementation"):
        file.write_text(json.dumps({**json.loads(file.read_text()), key: "someone/kernel"}))
        for load in (check, open_checkpoint):
            with pytest.raises(RunError, match=r"asks for code from a hub \(.*: someone/kernel"):
                load(str(folder))
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != key}))
    assert asked == []

"""`posenc extend` and `posenc probe` with a model that brings code of its own, and a type that transformers lacks."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="posenc[transformers] is not installed")

from rich.console import Console
from tests import foreign_code
from transformers import AutoModelForCausalLM

from posenc.frequencies import Geometric, YaRN
from posenc.integrations.transformers import extend as set_rule
from posenc.lab.checkpoint.open import open_checkpoint
from posenc.lab.extend import job as extend
from posenc.lab.extend.probe import probe
from posenc.lab.extend.request import ProbeRequest
from posenc.lab.extend.save import save
from posenc.lab.run import folder as runs
from posenc.lab.run.errors import RunError

pytestmark = pytest.mark.filterwarnings("ignore:.rope_scaling. is deprecated:FutureWarning")
LENGTH = 640


@pytest.fixture
def foreign(tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a folder with code of its own and a tokenizer of bytes."""
    foreign_code.keep_apart(tmp_path / "modules", monkeypatch)

    def make(rotary: str, **options: Any) -> Path:
        folder = foreign_code.write(tmp_path / rotary, rotary, max_position_embeddings=256, **options)
        for file in tiny_model("words").glob("tokenizer*"):
            shutil.copy(file, folder)
        return folder

    return make


def quiet() -> Console:
    return Console(file=io.StringIO(), width=400)


def said(console: Console) -> str:
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def ask(model: Path, run: Path, **options: Any) -> extend.Request:
    return extend.Request(
        str(model), LENGTH, retrieval=False, threads=1, trust_remote_code=True, folder=run, full=1, **options
    )


def test_rules_are_measured_saved_and_loaded(foreign: Callable[..., Path], tmp_path: Path) -> None:
    model, run = foreign("functions"), tmp_path / "run"
    extend.extend(ask(model, run, rules=["yarn:4", "dynamic:2"]), extend.Ending(save=tmp_path / "found"), quiet())
    assert runs.read_json(run / runs.CONFIG)["rules"] == ["none", "yarn:4", "dynamic:2"]
    checkpoint, rule = open_checkpoint(model, trust_remote_code=True), YaRN(4, trained_length=256, base=1000.0)
    save(checkpoint, rule, tmp_path / "longer", length=LENGTH)
    tokens = torch.arange(300)[None]
    with set_rule(checkpoint.model, rule, length=LENGTH), torch.no_grad():
        expected = checkpoint.model(tokens).logits
    for name in ("found", "longer"):
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / name, trust_remote_code=True)
        assert loaded.config.max_position_embeddings >= 256
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, expected)


def test_without_named_rules_those_that_its_code_follows_are_tried(
    foreign: Callable[..., Path], tmp_path: Path
) -> None:
    model, console = foreign("base"), quiet()
    found = probe(ProbeRequest(str(model), length=LENGTH, threads=1, trust_remote_code=True), console)
    assert [rule["name"] for rule in found["rules"]] == ["none", "ntk:2.5", "ntk:4", "base:16000"]
    assert "left out, because the model's own code does not apply them: linear:2.5, dynamic:2, yarn:2.5" in said(
        console
    )
    with pytest.raises(RunError, match=r"--rules: dynamic:2 cannot be set: .* does not rotate by DynamicNTK"):
        extend.prepare(ask(model, tmp_path / "run", rules=["dynamic:2"]), extend.Ending(), quiet())
    with pytest.raises(RunError, match=r"--search: its factors cannot be set: .* its own code computes other rates"):
        extend.prepare(ask(model, tmp_path / "run", search=30), extend.Ending(), quiet())
    assert not (tmp_path / "run").exists()


def test_rates_that_loading_leaves_unset_are_told_and_not_saved(foreign: Callable[..., Path], tmp_path: Path) -> None:
    model, console = foreign("base", fills=False), quiet()
    checkpoint = open_checkpoint(model, trust_remote_code=True)
    assert checkpoint.unset
    assert checkpoint.frequencies == Geometric(1000.0)
    rates = checkpoint.model.model.rotary_emb.inv_freq.numpy()
    assert rates == pytest.approx(Geometric(1000.0).inv_freq(8), rel=1e-6)
    run, saved = tmp_path / "run", tmp_path / "longer"
    with pytest.raises(RunError, match="does not set the rotary rates of this model's own code"):
        extend.extend(ask(model, run, rules=["ntk:4"]), extend.Ending(save=saved), console)
    assert not saved.exists()
    extend.resume(run, extend.Ending(), console)
    assert "posenc set them from the config" in said(console)
    assert runs.read_json(run / "results.json")["finished"]


def test_a_model_that_turns_otherwise_than_its_config_says_is_refused(
    foreign: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = foreign("base", rope_scaling={"rope_type": "linear", "factor": 2.0})
    with pytest.raises(RunError, match="after loading, the model's rates are not those of its config"):
        open_checkpoint(model, trust_remote_code=True)

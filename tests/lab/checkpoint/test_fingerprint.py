"""Whether a model's files are still the same."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from posenc.lab.checkpoint.fingerprint import SAMPLE, check_same, fingerprint
from posenc.lab.run.errors import RunError


def model(folder: Path) -> Any:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4096)
    return SimpleNamespace(gguf=None, folder=folder, source="mine")


def test_files_that_are_the_same_have_the_same_fingerprint(tmp_path: Path) -> None:
    preview = model(tmp_path)
    before = fingerprint(preview)
    assert before.keys() == {"config.json", "model.safetensors"}
    (tmp_path / "notes.txt").write_text("not a part of the model")
    check_same(preview, before)


@pytest.mark.parametrize("at", [0, -1])
def test_a_byte_at_either_end_is_seen(tmp_path: Path, at: int) -> None:
    preview = model(tmp_path)
    before = fingerprint(preview)
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[at] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(RunError, match=r"mine: model\.safetensors changed since this run began"):
        check_same(preview, before)


def test_weights_that_were_trained_on_are_seen_by_any_sample(tmp_path: Path) -> None:
    preview = model(tmp_path)
    before = fingerprint(preview)
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    for at in range(SAMPLE, len(data) - SAMPLE, 2):
        data[at] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(RunError, match="changed"):
        check_same(preview, before)


def test_a_gguf_file_is_all_of_its_model(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    preview: Any = SimpleNamespace(gguf=path, folder=tmp_path, source="mine")
    assert fingerprint(preview).keys() == {"model.gguf"}

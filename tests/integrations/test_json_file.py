"""What is no JSON object is refused in our words by each reader of configs, however it is broken."""

from collections.abc import Callable
from pathlib import Path

import pytest

from posenc.integrations import diffusers
from posenc.integrations.json_file import load_json
from posenc.integrations.transformers import describe
from posenc.lab.checkpoint.read import read
from posenc.lab.run.errors import RunError
from posenc.lab.vectors import verify

BROKEN = {
    "lists in lists": b"[" * 100_000,
    "nested too deeply": b'{"model_type": ' + b'{"a":' * 50_000,
    "cut": b'{"model_type": "lla',
    "no text": b"\xff\xfe\x00",
    "a list": b"[1, 2]",
    "nothing": b"",
}
READERS: dict[str, Callable[[Path], object]] = {
    "load_json": load_json,
    "describe": describe,
    "describe of diffusers": diffusers.describe,
    "what a verb takes": lambda file: read(file.parent),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_no_object_is_refused(tmp_path: Path, reader: str, broken: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(BROKEN[broken])
    with pytest.raises((ValueError, RunError), match=r"config\.json (holds|is not valid JSON) "):
        READERS[reader](file)


def test_vectors_that_are_no_json_are_no_vectors(tmp_path: Path) -> None:
    (tmp_path / "vectors.json").write_bytes(BROKEN["lists in lists"])
    with pytest.raises(RunError, match="holds no vectors"):
        verify(tmp_path, lambda q, k, positions: (q, k))

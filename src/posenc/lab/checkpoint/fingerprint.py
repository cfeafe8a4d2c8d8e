"""Checks that a model's files have not changed since a run began."""

import hashlib
from pathlib import Path
from typing import Any

from posenc.lab.checkpoint.preview import Preview
from posenc.lab.run.errors import RunError

SAMPLES, SAMPLE = 64, 4096
"""Number of samples of a file, spread evenly, and bytes of each: hashing gigabytes in full would take too long."""


def fingerprint(preview: Preview) -> dict[str, dict[str, Any]]:
    """The size and a digest of samples of each file that determines what the model computes."""
    if preview.gguf is not None:
        files = [preview.gguf]
    else:
        patterns = ("*.json", "*.safetensors", "*.model", "*.jinja")
        files = sorted(path for pattern in patterns for path in preview.folder.glob(pattern))
    return {path.name: _of(path) for path in files}


def check_same(preview: Preview, before: dict[str, Any]) -> None:
    """Refuse to continue with changed files: the results would not belong to one model."""
    now = fingerprint(preview)
    changed = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
    if changed:
        raise RunError(
            f"{preview.source}: {', '.join(changed)} changed since this run began; undo the change, or start a new run."
        )


def _of(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for index in range(SAMPLES):
            file.seek(max(0, size - SAMPLE) * index // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
    return {"size": size, "sha256": digest.hexdigest()}

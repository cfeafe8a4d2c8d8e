"""Finished runs of compare and extend with a file that is altered, read by what reads runs."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.reliability import small

Alter = Callable[[bytes], bytes]


def make(folder: Path) -> list[Path]:
    """A run of compare and one of extend."""
    from posenc.lab.compare.text.job import prepare

    folder.mkdir()
    text = small.prose(folder)
    compare, extend = folder / "compare", folder / "extend"
    for work in (lambda: prepare(small.request(compare, text)), lambda: small.finish(compare)):
        if status := small.wait(small.in_a_child(work)):
            raise RuntimeError(f"no run to alter: exit {status}")
    small.checkpoint(folder / "model")
    command = [sys.executable, "-m", "posenc.lab", "extend", str(folder / "model"), "--to", "128", "--no-retrieval"]
    command += ["--text", str(text), "--out", str(extend)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"no run to alter: {made.stderr[-500:]}")
    return [compare, extend]


def altered_and_read(run: Path, alter: Alter, alter_value: Callable[[Any], None]) -> Callable[[], Any]:
    """Alter one file of the run; what reads the run, and then puts the file back."""
    names = [path for path in sorted(run.rglob("*")) if path.suffix in (".json", ".jsonl", ".safetensors")]
    path = random.choice(names)
    whole = path.read_bytes()
    path.write_bytes(_altered(path, whole, alter, alter_value))

    def read() -> None:
        try:
            _read(run, path)
        finally:
            path.write_bytes(whole)

    return read


def _altered(path: Path, whole: bytes, alter: Alter, alter_value: Callable[[Any], None]) -> bytes:
    if path.suffix == ".safetensors" or random.random() < 0.3:
        return alter(whole)
    if path.suffix == ".json":
        data = json.loads(whole)
        alter_value(data)
        return json.dumps(data).encode()
    rows = whole.decode().splitlines()
    if not rows:
        return alter(whole)
    at = random.randrange(len(rows))
    row = json.loads(rows[at])
    alter_value(row)
    rows[at] = json.dumps(row)
    return ("\n".join(rows) + "\n").encode()


def _read(run: Path, altered: Path) -> None:
    from posenc.lab.compare.text import results as compare
    from posenc.lab.compare.text.config import load_trial
    from posenc.lab.extend import results as extend
    from posenc.lab.run.folder import load_tensors

    if altered.suffix == ".safetensors":
        load_tensors(altered)
    elif run.name == "extend":
        extend.collect(run)
    else:
        compare.measured(run)
        for trial in run.glob("*-seed*"):
            load_trial(trial)

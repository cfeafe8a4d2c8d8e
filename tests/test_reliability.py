"""A few of the damaged files that ``python -m tests.reliability`` reads by the thousand."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_damaged_files_are_read_or_refused_in_our_words() -> None:
    pytest.importorskip("gguf", reason="the gguf package is not installed")
    command = [sys.executable, "-m", "tests.reliability", "--files", "60", "--only", "safetensors", "GGUF", "cache"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "60 files from 0 on" in done.stdout
    assert "0 faults" in done.stdout

"""The command that times posenc against other libraries: where it writes, and what is kept when it is stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGHUP))]
)
def test_a_stopped_command_keeps_its_results_where_it_was_started(tmp_path: Path, number: signal.Signals) -> None:
    """A relative FILE was written into the repository, and a child was killed 0.25 s after Ctrl-C."""
    command = [sys.executable, "-m", "posenc", "bench", "rotate", "--only", "decode", "--rounds", "100000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [*command, "--threads", "1", "--out", "kept/here.jsonl"],
            cwd=tmp_path, env=environment, stdout=said, stderr=said,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 120
            while "rotation" not in (tmp_path / "said").read_text() and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(1)
            process.send_signal(number)
            code = process.wait(60)
        finally:
            process.kill()
    text = (tmp_path / "said").read_text()
    assert code == 128 + number, text
    assert text.splitlines()[-1] == "posenc bench: stopped."
    assert "Traceback" not in text
    assert json.loads((tmp_path / "kept" / "here.jsonl").read_text().splitlines()[0])["threads"] == 1

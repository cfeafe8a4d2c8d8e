"""The command that compiles the kernels."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from posenc.kernels import _build


@pytest.mark.skipif(_build.find_compiler() is None, reason="no C++ compiler here")
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), *(pytest.param(*c, marks=pytest.mark.slow) for c in ((1, 129), (2, 130)))],
)
def test_a_build_that_is_stopped_leaves_neither_files_nor_compilers(
    number: int, code: int, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "tmp").mkdir()
    environment = os.environ | {"POSENC_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp")}
    build = subprocess.Popen(
        [sys.executable, "-m", "posenc.lab", "build"], env=environment, stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        time.sleep(0.1)
        if _compilers(tmp_path):
            break
    build.send_signal(number)
    said = build.communicate(timeout=60)[1]
    assert build.returncode == code
    assert said.splitlines()[-1] == "posenc build: stopped."
    assert list((tmp_path / "cache").iterdir()) == []
    for _ in range(50):  # what was ended may take a moment
        if not _compilers(tmp_path):
            break
        time.sleep(0.1)
    assert _compilers(tmp_path) == []


def _compilers(folder: pathlib.Path) -> list[str]:
    """The command lines of processes that write into a folder."""
    listed = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in listed if str(folder) in line and "cc1plus" in line]

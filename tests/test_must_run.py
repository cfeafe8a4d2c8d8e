"""A suite that must run and was skipped fails the run, in one process and in several."""

import subprocess
import sys
from pathlib import Path

import pytest

SUITES = {
    "passed": "def test_it():\n    pass\n",
    "skipped": "import pytest\n\npytest.importorskip('no_such_package_anywhere')\n\n\ndef test_it():\n    pass\n",
    "one_skipped": (
        "import pytest\n\n\ndef test_it():\n    pass\n\n\n"
        "@pytest.mark.skip(reason='Triton is not installed')\ndef test_other():\n    pass\n"
    ),
    "skipped_with_reason": (
        "import pytest\n\n\ndef test_it():\n    pass\n\n\n@pytest.mark.skip(reason='no GPU')\ndef test_gpu(): ...\n"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["0", "1"])
def test_what_must_run_and_was_skipped_fails(tmp_path: Path, processes: str) -> None:
    for name in ("conftest.py", "constraints.txt"):  # the one reads the other
        (tmp_path / name).write_text((Path(__file__).parent.parent / name).read_text())
    for name, text in SUITES.items():
        (tmp_path / f"test_{name}.py").write_text(text)

    def run(*names: str) -> tuple[int, str]:
        options = [f"--must-run=test_{name}.py" for name in names]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", processes, *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout

    assert run()[0] == 0
    code, said = run("passed", "skipped_with_reason", "skipped", "one_skipped")
    assert code == 1
    assert "did not: test_skipped.py: no test of it passed" in said
    assert "did not: test_one_skipped.py::test_other: Skipped: Triton is not installed" in said
    assert "test_passed" not in said
    assert "test_gpu" not in said
    if processes == "0":
        assert run("passed", "skipped_with_reason")[0] == 0

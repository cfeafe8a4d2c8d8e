"""For all tests and doctests: without a GPU, Triton kernels run in its interpreter, which it asks for on import."""

import importlib.util
import os
from collections import Counter

import pytest
import torch

collect_ignore = []
if importlib.util.find_spec("triton") is None:
    collect_ignore += ["src/posenc/kernels/rotate/triton.py"]  # which has doctests collected, and so is imported
elif not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
if importlib.util.find_spec("diffusers") is None:
    collect_ignore += ["src/posenc/integrations/diffusers"]  # whose examples build its models


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--must-run",
        action="append",
        default=[],
        metavar="FILE",
        help="fail if no test of this file passed, or one was skipped because something is not installed",
    )


class _MustRun:
    """Counts what ran of the files that must not be skipped: a skipped suite looks like one that passed."""

    def __init__(self, files: list[str]) -> None:
        self.files = files
        self.passed: Counter[str] = Counter()
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.partition("::")[0]
        if file not in self.files:
            return
        if report.passed and report.when == "call":
            self.passed[file] += 1
        reason = str(report.longrepr[2]) if report.skipped and isinstance(report.longrepr, tuple) else ""
        if any(
            word in reason for word in ("not installed", "could not import", "No module", "compiler", "not to be had")
        ):
            self.skipped.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        missing = [f"{file}: no test of it passed" for file in self.files if not self.passed[file]]
        if (missing or self.skipped) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        for line in (*missing, *self.skipped):
            print(f"\nmust run, and did not: {line}")


def pytest_configure(config: pytest.Config) -> None:
    if (files := config.getoption("--must-run")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_MustRun(files), "must-run")

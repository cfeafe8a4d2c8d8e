"""For all tests and doctests.

Without a GPU, Triton kernels run in its interpreter, which it asks for on import. What Hypothesis draws
may take its time: on a busy machine everything does.
"""

import importlib.util
import os
import re
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("posenc", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("posenc")
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
            word in reason for word in ("not installed", "could not import", "No module", "compiler", "not available")
        ):
            self.skipped.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        missing = [f"{file}: no test of it passed" for file in self.files if not self.passed[file]]
        if (missing or self.skipped) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        for line in (*missing, *self.skipped):
            print(f"\nmust run, and did not: {line}")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "transformers_as_pinned(*cases): older versions have other code, or none, for these cases; by default for all",
    )
    if (files := config.getoption("--must-run")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_MustRun(files), "must-run")


def _older_transformers() -> str:
    """The version of transformers, if it is older than the pinned one; "" if not."""
    pins = (Path(__file__).parent / "constraints.txt").read_text(encoding="utf-8")
    pinned = re.search(r"^transformers==([\d.]+)", pins, re.M)
    try:
        installed = version("transformers")
    except PackageNotFoundError:
        return ""
    numbers = [tuple(map(int, re.findall(r"\d+", text)[:2])) for text in (installed, pinned[1] if pinned else "0")]
    return installed if numbers[0] < numbers[1] else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if installed := _older_transformers():
        for item in items:
            marker = item.get_closest_marker("transformers_as_pinned")
            if marker and (not marker.args or item.name.partition("[")[2][:-1] in marker.args):
                item.add_marker(pytest.mark.skip(reason=f"the code of transformers {installed} is another"))

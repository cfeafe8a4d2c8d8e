"""Records the machine and the versions of a run, so that its numbers can be judged and repeated."""

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posenc.lab.run.errors import RunError


def describe(*, threads: int, device: str) -> dict[str, Any]:
    """Return versions and machine, for environment.json."""
    import numpy as np
    import torch

    import posenc

    described: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "posenc": posenc.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "device": device,
    }
    if device.startswith("cuda"):
        described["gpu"] = torch.cuda.get_device_name(device)
    if commit := _commit():
        described["commit"] = commit
    return described


def check_versions(what: str, before: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse to continue with other versions of the packages in ``here``, because the numbers could differ.

    Raises:
        RunError: a version differs from the one ``before``.
    """
    for package, version in here.items():
        if before.get(package) != version:
            raise RunError(
                f"the {what} began with {package} {before.get(package)} and would continue with {version}, which may "
                "compute other numbers; install that version, or start a new run."
            )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _commit() -> str | None:
    """The commit of posenc's sources, if they are in a git checkout (and not just installed inside one)."""
    here = Path(__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ("git", "-C", str(here.parent), *arguments), capture_output=True, text=True, timeout=5, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    return git("rev-parse", "HEAD")

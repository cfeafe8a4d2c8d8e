"""Other libraries as referees, where they are installed."""

import importlib
import importlib.util
from typing import Any

import pytest

from posenc.lab.checkpoint.timm_library import import_timm


def timm(module: str) -> Any:
    """A module of timm, skipped by name where timm is not installed."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    import_timm()
    return importlib.import_module(f"timm.{module}")

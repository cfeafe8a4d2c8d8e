"""Other libraries as referees, where they are installed."""

import enum
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch


class _Names(types.ModuleType):
    """A module in which every name is a class that does nothing."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "InterpolationMode":
            modes = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
            return enum.Enum(name, {mode.upper(): mode for mode in modes})
        return type(name, (torch.nn.Module,), {})


class _Finder:
    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> Any:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if _is_torchvision(name) else None  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Names(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def _is_torchvision(name: str) -> bool:
    return name.split(".")[0] == "torchvision"


def timm(module: str) -> Any:
    """A module of timm, skipped by name where timm is not installed.

    timm imports torchvision for its data and some models' layers, neither of which is asked here, and torchvision has
    wheels for CUDA alone on some indexes: where it is not installed, its names stand in for it during the import.
    """
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    if importlib.util.find_spec("torchvision") is not None:
        return importlib.import_module(f"timm.{module}")
    finder = _Finder()
    sys.meta_path.append(finder)  # type: ignore[arg-type]
    try:
        return importlib.import_module(f"timm.{module}")
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
        for name in [name for name in sys.modules if _is_torchvision(name)]:
            del sys.modules[name]

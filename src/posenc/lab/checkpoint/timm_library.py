"""Imports timm where no torchvision fits the installed torch: timm's models need only the names of torchvision."""

import enum
import importlib
import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from posenc.integrations.json_file import load_json
from posenc.integrations.timm import describe
from posenc.integrations.timm.library import is_timm
from posenc.integrations.transformers import Description
from posenc.lab.run.errors import RunError

INSTALL = 'pip install "posenc[timm]"'


class _Names(ModuleType):
    """A module in which every name is an empty class."""

    __path__: list[str] = []  # noqa: RUF012 - what makes a module a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "InterpolationMode":
            modes = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
            return enum.Enum(name, {mode.upper(): mode for mode in modes})
        return type(name, (nn.Module,), {})


class _Finder:
    """An import finder for torchvision and its submodules."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: Any) -> ModuleType:
        return _Names(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


def import_timm() -> Any:
    """Import timm, with empty classes in place of torchvision if it is missing or was built for another torch.

    The models then work. Image transforms do not, so use this only in programs that build models.

    Raises:
        ImportError: timm is not installed.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        _forget_torchvision()
    else:
        return importlib.import_module("timm")
    finder: Any = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module("timm")
    finally:
        sys.meta_path.remove(finder)
        _forget_torchvision()


def describe_config(path: Path) -> Description | None:
    """Describe the model of timm that a ``config.json``, or the folder that holds one, is of; None if it is not one.

    Raises:
        RunError: timm is not installed.
        ValueError: timm refuses the config.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        config = load_json(file)
    except ValueError:  # which other code reports
        return None
    if not is_timm(config):
        return None
    if importlib.util.find_spec("timm") is None:
        raise RunError(f"{path}: this is the config of a model of timm, which is not installed; {INSTALL}.")
    import_timm()
    return describe(config)


def describe_name(name: str, *, otherwise: RunError) -> Description:
    """Describe a model of timm by its name.

    Raises:
        RunError: timm has no such model. The message has the earlier error and the nearest names. Or timm is not
            installed: the message has the earlier error, and how to install it.
    """
    if importlib.util.find_spec("timm") is None:
        earlier = str(otherwise).removesuffix(".")
        raise RunError(f"{earlier}; if it is the name of a model of timm, install timm: {INSTALL}.") from otherwise
    import_timm()
    name = re.sub(r"^(hf[-_]hub:)?timm/", "", name)  # where timm's own weights are, under the names of their models
    try:
        return describe(name)
    except ValueError as error:
        if "has no model" not in str(error):
            raise
        raise RunError(f"{otherwise} And {str(error).removeprefix('describe: ')}") from error


def _forget_torchvision() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]

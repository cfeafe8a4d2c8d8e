"""Copies of a model's own functions in which some names mean other functions."""

from collections.abc import Callable, Mapping
from types import CellType, CodeType, FunctionType
from typing import Any

from torch import nn


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, or the ``forward`` of a module, whose signature says what it takes.

    Where the package ``kernels`` is installed, transformers makes modules of some functions.
    """
    return function.forward if isinstance(function, nn.Module) else function


def wrappers_of(function: Any, name: str) -> tuple[FunctionType, ...]:
    """The decorators around a function, the innermost first."""
    found: list[FunctionType] = []
    while hasattr(function, "__wrapped__"):
        held = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
        if not any(value is function.__wrapped__ for value in held):
            raise ValueError(f"{name} is wrapped by a decorator that gives no access to the wrapped function")
        found.insert(0, function)
        function = function.__wrapped__
    return tuple(found)


def around(wrapper: FunctionType, inner: Callable[..., Any], twin: Callable[..., Any]) -> FunctionType:
    """Apply the wrapper of a decorator to another function."""
    cells = tuple(CellType(twin) if cell.cell_contents is inner else cell for cell in wrapper.__closure__ or ())
    made = copied(wrapper, wrapper.__globals__, cells)
    made.__wrapped__ = twin  # type: ignore[attr-defined]
    return made


def names_in(code: CodeType) -> set[str]:
    """The names that the code of a function looks up, and those of functions inside it."""
    inside = [names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inside)


def with_globals(function: FunctionType, names: Mapping[str, Any]) -> FunctionType:
    """The same code with other functions behind some of its global names.

    Without ``__name__`` among them: torch.compile would look the names up in that module, and find the old ones.
    """
    scope = {key: value for key, value in function.__globals__.items() if key != "__name__"} | dict(names)
    return copied(function, scope, function.__closure__)


def copied(
    function: FunctionType,
    scope: dict[str, Any],
    cells: tuple[CellType, ...] | None,
    *,
    code: CodeType | None = None,
) -> FunctionType:
    """The function with other globals, cells or code."""
    twin = FunctionType(code or function.__code__, scope, function.__name__, function.__defaults__, cells)
    twin.__kwdefaults__ = function.__kwdefaults__
    twin.__dict__.update(function.__dict__)
    for key in ("__module__", "__qualname__", "__doc__", "__annotations__"):
        setattr(twin, key, getattr(function, key))
    return twin

"""Where a live model of diffusers rotates: methods of its modules and of their attention processors."""

import builtins
import dis
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

from torch import nn

from posenc.integrations.copied_functions import around, copied, names_in, wrappers_of

#: Names of functions that apply a rotation.
_ROTATES = re.compile(r"^_?apply_\w*(rot|rope)")


@dataclass(frozen=True)
class Site:
    """A method that calls functions which rotate.

    Attributes:
        name: of the module, in the model.
        owner: the module, or the processor of its attention.
        method: its name.
        function: its code.
        wrappers: the decorators around it.
    """

    name: str
    owner: Any
    method: str
    function: FunctionType
    wrappers: tuple[FunctionType, ...]

    def rebuilt(self, made: Callable[[Any, Callable[..., Any]], Any]) -> Callable[..., Any]:
        """The method with ``made(key, function)`` in the place of each function that rotates.

        A function may be a global name, may be defined inside the method, which makes it anew in each call, or may be
        imported there. The key is what tells it from others: the function, or its code.
        """
        function = self.function
        scope = {key: value for key, value in function.__globals__.items() if key != "__name__"}
        code = _with_stubs(function, scope, made)
        for name in code.co_names:
            if _ROTATES.match(name) and callable(scope.get(name)):
                scope[name] = made(scope[name], scope[name])
        if _imported(code):
            scope["__builtins__"] = {**vars(builtins), "__import__": _importing(made)}
        twin, inner = copied(function, scope, function.__closure__, code=code), function
        for wrapper in self.wrappers:
            twin, inner = around(wrapper, inner, twin), wrapper
        return twin


def find_sites(model: nn.Module) -> list[Site]:
    """Every method that calls a function which rotates, or defines or imports one.

    Raises:
        ValueError: there is none, or one that was replaced already.
    """
    found, seen = [], set()
    for name, module in model.named_modules():
        for owner in (module, getattr(module, "processor", None)):
            if owner is None or id(owner) in seen:
                continue
            seen.add(id(owner))
            for method, function, wrappers in _methods(type(owner)):
                if "_posenc" in vars(type(owner)) or method in vars(owner):
                    raise ValueError(f"the {method} of {name} was replaced already by an earlier patch; undo that")
                found.append(Site(name, owner, method, function, wrappers))
    if not found:
        raise ValueError("none of its modules calls a function that rotates queries and keys")
    return found


def _methods(cls: type) -> Iterator[tuple[str, FunctionType, tuple[FunctionType, ...]]]:
    seen: set[str] = set()
    for home in cls.__mro__:
        if home in (nn.Module, object):
            return
        for method, value in vars(home).items():
            if method in seen:
                continue
            seen.add(method)
            inner = inspect.unwrap(value) if isinstance(value, FunctionType) else None
            if isinstance(inner, FunctionType) and _rotates(inner):
                yield method, inner, wrappers_of(value, f"{cls.__name__}.{method}")


def _rotates(function: FunctionType) -> bool:
    code = function.__code__
    named = any(_ROTATES.match(name) and callable(function.__globals__.get(name)) for name in names_in(code))
    return named or bool(_nested(code)) or _imported(code)


def _nested(code: CodeType) -> list[CodeType]:
    """Functions that are defined inside and reach for nothing around them."""
    inside = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return [constant for constant in inside if _ROTATES.match(constant.co_name) and not constant.co_freevars]


def _imported(code: CodeType) -> bool:
    return any(step.opname == "IMPORT_FROM" and _ROTATES.match(step.argval) for step in dis.get_instructions(code))


def _with_stubs(
    function: FunctionType, scope: dict[str, Any], made: Callable[[Any, Callable[..., Any]], Any]
) -> CodeType:
    """The code, in which a function that is defined inside passes its arguments on to another."""
    code = function.__code__
    constants = list(code.co_consts)
    for nested in _nested(code):
        name = f"_posenc_{nested.co_name}"
        scope[name] = made(nested, FunctionType(nested, function.__globals__, nested.co_name))
        constants[constants.index(nested)] = _stub(name).replace(co_name=nested.co_name)
    return code.replace(co_consts=tuple(constants))


def _stub(name: str) -> CodeType:
    module = compile(f"def stub(*args, **options):\n    return {name}(*args, **options)", "<posenc>", "exec")
    return next(constant for constant in module.co_consts if isinstance(constant, CodeType))


def _importing(made: Callable[[Any, Callable[..., Any]], Any]) -> Callable[..., Any]:
    """An ``__import__`` that gives other functions under the names of those that rotate."""

    def importing(name: str, scope: Any = None, inside: Any = None, wanted: Any = (), level: int = 0) -> Any:
        module = builtins.__import__(name, scope, inside, wanted, level)
        if not any(_ROTATES.match(part) for part in wanted or ()):
            return module
        parts = {part: getattr(module, part) for part in wanted}
        return SimpleNamespace(**{part: made(f, f) if _ROTATES.match(part) else f for part, f in parts.items()})

    return importing

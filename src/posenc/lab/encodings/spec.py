"""Parses names of encodings on the command line: ``rope``, ``rope:pairing=interleaved``, ``mine.py:Mine:width=3``."""

import ast
import contextlib
import difflib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from posenc import catalogue

if TYPE_CHECKING:
    from posenc.encoding import Encoding

T = TypeVar("T")
LONGEST_LABEL = 80
"""Characters of a label, which is a part of a folder's name: longer ones end with a digest."""


@dataclass(frozen=True)
class Spec:
    """An encoding by name, or a class in a Python file, with options; nothing is imported before it is built.

    Attributes:
        text: the spec as it was given.
        name: a name in the catalogue, or of a class in ``file``.
        options: constructor arguments other than the sizes of the model.
        file: the Python file that defines the class, or None for the catalogue.
    """

    text: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @property
    def label(self) -> str:
        """A short name for file names and legends: ``rope``, ``rope-pairing=interleaved``, ``Mine-width=3``."""
        _, _, options = _split(self.text)
        kept = "".join(character if character.isalnum() or character in "=._+" else "-" for character in options)
        label = f"{self.name}-{kept}".strip("-")
        if len(label) <= LONGEST_LABEL:
            return label
        return f"{label[:LONGEST_LABEL]}-{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"

    def load(self) -> "type[Encoding]":
        """The class."""
        if self.file is None:
            return catalogue.row(self.name).load()
        from posenc.encoding import Encoding

        return class_in_file(self.file, self.name, Encoding)

    def build(self, *, dim: int, num_heads: int, length: int, causal: bool = True) -> "Encoding":
        """Build the encoding for a model of these sizes, trained at ``length`` tokens.

        A constructor with a parameter ``length`` or ``trained_length`` gets the trained length, unless the spec gives
        one; one with a ``direction``, such as T5's, distinguishes both sides in a model that is not causal.
        """
        cls = self.load()
        options = dict(self.options)
        parameters = inspect.signature(cls).parameters
        for name in ("length", "trained_length"):
            if name in parameters:
                options.setdefault(name, length)
        if "direction" in parameters and not causal:
            options.setdefault("direction", "both")
        return catalogue.build(cls, dim=dim, num_heads=num_heads, **options)


def file_digest(text: str) -> str | None:
    """SHA-256 of the file of ``mine.py:Mine``, with which a resumed run checks that it did not change; None for a name
    of posenc."""
    file, found, _ = text.partition(".py:")
    return hashlib.sha256(Path(f"{file}.py").read_bytes()).hexdigest() if found else None


def parse(text: str) -> Spec:
    """Parse a text into a spec.

    Options are keyword arguments as in Python, except that a bare word is a string, and a call makes an object of
    posenc: ``rope:frequencies=Geometric(base=500000),pairing=interleaved``.

    Raises:
        ValueError: the name is unknown (with the nearest match), or the options are no keyword arguments.
        FileNotFoundError: a Python file that does not exist.

    Example:
        >>> parse("rope:rotary_dim=8,pairing=interleaved").options
        {'rotary_dim': 8, 'pairing': 'interleaved'}
        >>> parse("rope:pairing=interleaved").label
        'rope-pairing=interleaved'
    """
    file, name, options = _split(text)
    parsed = _parse_options(text, options)
    if file is None:
        return Spec(text, catalogue.row(name).name, parsed)
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{text}: there is no file {file}; expected FILE.py:CLASS, such as mine.py:Mine.")
    if not name:
        raise ValueError(
            f"{text}: the name of the class in {file} is missing; expected FILE.py:CLASS, such as {file}:Mine."
        )
    return Spec(text, name, parsed, path)


def _split(text: str) -> tuple[str | None, str, str]:
    """File, name, options."""
    head, _, rest = text.partition(":")
    if not head.endswith(".py"):
        return None, head, rest
    name, _, options = rest.partition(":")
    return head, name, options


def _parse_options(text: str, options: str) -> dict[str, Any]:
    call = None
    with contextlib.suppress(SyntaxError):
        call = ast.parse(f"_({options})", mode="eval").body
    if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError(f"{text}: got options {options!r}, expected NAME=VALUE,NAME=VALUE after the colon.")
    found = {str(keyword.arg): _value(text, keyword.value) for keyword in call.keywords}
    if isinstance(rule := found.get("frequencies"), str):
        found["frequencies"] = _rule(text, rule)
    elif isinstance(rule, tuple):  # one for each coordinate
        found["frequencies"] = tuple(_rule(text, each) if isinstance(each, str) else each for each in rule)
    return found


def _rule(text: str, word: str) -> Any:
    """The frequency rule that a word names, if the rule needs no arguments."""
    from posenc import frequencies

    plain = word.lower().replace("-", "").replace("_", "")
    name = next((name for name in frequencies.RULES if name.lower() == plain), None)
    if name is None:
        near = difflib.get_close_matches(plain, [rule.lower() for rule in frequencies.RULES], n=1)
        hint = next((f"; did you mean {rule}?" for rule in frequencies.RULES if rule.lower() in near), "")
        raise ValueError(f"{text}: there is no rule {word!r}, expected one of {', '.join(frequencies.RULES)}{hint}")
    return _made(text, getattr(frequencies, name), [], {})


def _made(text: str, maker: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
    """The result of a call; if the arguments do not fit, raise an error with the signature."""
    try:
        return maker(*arguments, **options)
    except TypeError as error:
        parameters = inspect.signature(maker).parameters.values()
        needed = [p.name for p in parameters if p.default is inspect.Parameter.empty]
        taken = ", ".join(f"{p.name}=..." if p.name in needed else p.name for p in parameters)
        raise ValueError(
            f"{text}: {maker.__name__} cannot be built from these arguments ({error}), expected "
            f"{maker.__name__}({taken})."
        ) from error


def _value(text: str, node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        import posenc
        from posenc import frequencies

        name = node.func.id
        if name not in posenc.__all__ and name not in frequencies.RULES:
            raise ValueError(f"{text}: posenc has no {name!r}; expected a name such as Geometric.")
        maker = getattr(frequencies if name in frequencies.RULES else posenc, name)
        options = {str(keyword.arg): _value(text, keyword.value) for keyword in node.keywords}
        return _made(text, maker, [_value(text, one) for one in node.args], options)
    if isinstance(node, ast.Tuple) and any(isinstance(one, ast.Call) for one in node.elts):
        return tuple(_value(text, one) for one in node.elts)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        got = ast.unparse(node)
        raise ValueError(
            f"{text}: got the value {got}, expected a number, a word, or a call such as Geometric(base=1e6)."
        ) from error


def classes_of(module: ModuleType, kind: type[T]) -> dict[str, type[T]]:
    """The subclasses of ``kind`` that a module defines, by name."""
    named = {name: value for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, kind)}
    return {name: value for name, value in named.items() if value.__module__ == module.__name__}


def class_in_file(file: Path, name: str, kind: type[T]) -> type[T]:
    """A class of a user's Python file.

    Raises:
        ValueError: the file fails on import, or has no such class (with the nearest match).
        TypeError: the class is not a subclass of the expected one.
    """
    module = import_file(file)
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, kind):
        return found
    if found is not None:
        what = "a class of another kind" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise TypeError(f"{file}:{name} is {what}, expected a subclass of {kind.__module__}.{kind.__name__}.")
    own = list(classes_of(module, kind))
    near = difflib.get_close_matches(name, own, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(
        f"{file} has no class {name!r}; {hint}its subclasses of {kind.__name__} are: {', '.join(own) or 'none'}."
    )


def import_file(file: Path) -> ModuleType:
    """Import a user's Python file as a module.

    Raises:
        ValueError: the file is no Python file, or its code raises an error.
    """
    module_name = f"posenc_user_{file.stem}"
    module_spec = importlib.util.spec_from_file_location(module_name, file)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"{file}: not a Python file.")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module  # dataclasses and pickle find a class's module by name
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(
            f"{file} fails when it is imported: {type(error).__name__}: {error}; correct the file first."
        ) from error
    return module

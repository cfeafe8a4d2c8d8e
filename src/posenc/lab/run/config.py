"""The common parts of all run configurations: file format, reading and writing."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from posenc.lab.run.errors import RunError
from posenc.lab.run.folder import read_json

FORMAT = 1
NO_COMMAND = "(not recorded: an earlier version of posenc wrote this run)"

Device = Literal["cpu", "cuda"]
Backend = Literal["loky", "ray", "dask"]
"""The backend that runs the parts of a run in parallel."""
T = TypeVar("T")
Data = dict[str, Any]
"""The content of a JSON file: results, and parts of them."""


def check_choice(name: str, value: str | None, allowed: Iterable[str]) -> None:
    """Refuse a value that is not among those allowed; None is one that was not given."""
    if value not in (None, *allowed):
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(allowed)}.")


def check_numbers(section: str, config: Any, *, may_be_zero: Collection[str] = ()) -> None:
    """Refuse numbers of a dataclass that are not above 0, and a width that is no multiple of its heads."""
    for name, value in vars(config).items():
        lowest = "0 or more" if name in may_be_zero else "more than 0"
        if isinstance(value, (int, float)) and not (value >= 0 if name in may_be_zero else value > 0):
            raise ValueError(f"{section}: got {name} {value}, expected {lowest}.")
    dim, heads = (getattr(config, name, 1) for name in ("dim", "num_heads"))
    if dim % heads:
        raise ValueError(f"{section}: got dim {dim} for {heads} heads, expected a multiple of {heads}.")


def to_dict(kind: str, config: Any) -> dict[str, Any]:
    """A dataclass or a Struct as plain data, with the format, the kind and the version that wrote it."""
    import posenc

    return {"format": FORMAT, "kind": kind, "posenc": posenc.__version__, **msgspec.to_builtins(config, str_keys=True)}


def converted(data: object, cls: type[T], *, where: str) -> T:
    """Convert the content of a file to a class.

    Raises:
        RunError: a field is missing or has another type; the message names the field and the file.
    """
    try:
        return msgspec.convert(data, cls)
    except msgspec.ValidationError as error:
        raise RunError(f"{where}: {error}; the file is damaged.") from error


def read(path: Path, cls: type[T]) -> T:
    """:func:`converted`, of a JSON file."""
    return converted(read_json(path), cls, where=str(path))


def check_format(path: Path, data: Mapping[str, Any], kind: str) -> None:
    """Refuse a config of another kind of run or another format, or a file that is no config.

    Raises:
        RunError: the config is one of these.
    """
    form, of, version = (data.get(key) for key in ("format", "kind", "posenc"))
    if "format" not in data or "kind" not in data:
        raise RunError(f"{path}: no run of posenc wrote this file; name the folder of a run, such as runs/latest.")
    if of != kind:
        raise RunError(f"{path}: got a run of posenc {of}, expected one of posenc {kind}; name another folder.")
    if form != FORMAT:
        raise RunError(
            f"{path}: got format {form!r}, expected format {FORMAT}; posenc {version or '(unknown)'} wrote it: use "
            "that version, or start a new run."
        )


def read_config(path: Path, cls: type[T], kind: str) -> T:
    """Read the dataclass that :func:`to_dict` wrote into a file.

    Raises:
        RunError: the format or kind differs, or a field is missing or has another type.
    """
    data = read_json(path)
    check_format(path, data, kind)
    fields: Any = dataclasses.fields(cls)  # type: ignore[arg-type]
    required = {field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING}
    if missing := sorted(required - data.keys()):
        raise RunError(f"{path}: {', '.join(missing)} is missing; the file is damaged, start a new run.")
    return converted(data, cls, where=str(path))

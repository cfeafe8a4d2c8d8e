"""Run folders: a crash at any moment, even during a write, loses no finished work."""

import contextlib
import errno
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from posenc.lab.run.errors import RunError

CONFIG = "config.json"
METRICS = "metrics.jsonl"
MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
ENVIRONMENT = "environment.json"
TOKENS = "tokens.safetensors"
TOKENIZER = "tokenizer.json"
SPEED = "speed.json"
RESULTS = "results.json"
STOP = "stop"
LOCK = ".lock"

RUNS = Path("runs")
PICTURES = (".png", ".svg", ".pdf")


def check_suffix(option: str, path: Path, suffixes: tuple[str, ...] = PICTURES) -> None:
    """Refuse the name of a file that ``option`` cannot write; ``.PNG`` is the same as ``.png``."""
    if path.suffix.lower() not in suffixes:
        *first, last = suffixes
        raise ValueError(f"{option}: got {path}, expected a name that ends in {', '.join(first)} or {last}.")


def write(path: Path, data: bytes | str) -> None:
    """Write a file atomically: a reader sees the old or the new content, also after a crash or on a full disk.

    A byte of a file's name that is no text is written as an escape, such as ``\\udcfc``, which JSON reads back.
    """
    if path.is_dir():  # "." too, beside which no file can stand
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode(errors="backslashreplace") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _named(error, path) from error
    with contextlib.suppress(OSError):  # of a folder on some file systems
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    with contextlib.suppress(PermissionError):  # of a folder, where the system does not open one
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def clear_partial_writes(folder: Path) -> None:
    """Remove the temporary files of killed writers; no other process may be writing."""
    for temporary in folder.glob(".*.partial"):
        temporary.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """Data for strict JSON: infinity and NaN become None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    write(path, json.dumps(finite(data), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file; a missing or damaged file raises :class:`RunError`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path}: there is no such file; check that {path.parent} is the right folder.") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or lists in lists in lists
        raise RunError(f"{path}: not valid JSON ({error}); the file is damaged.") from error
    if not isinstance(data, dict):
        raise RunError(f"{path}: got JSON of type {type(data).__name__}, expected an object; the file is damaged.")
    return data


class Metrics:
    """metrics.jsonl: one JSON object a line, appended while a trial runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """All rows; an incomplete last line, left by a crash, is ignored."""
        if not self.path.exists():
            return []
        *lines, _ = self.path.read_bytes().split(b"\n")
        try:
            found = [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise RunError(f"{self.path}: a line is not valid JSON ({error}); the file is damaged.") from error
        if wrong := [number for number, row in enumerate(found, 1) if not isinstance(row, dict) or "event" not in row]:
            raise RunError(
                f'{self.path}: line {wrong[0]} is not a JSON object with the key "event"; the file is damaged.'
            )
        return found

    def last(self) -> dict[str, Any] | None:
        """The last complete row, read from the end of the file: fast enough for several calls a second."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                *lines, _ = file.read().split(b"\n")
            row = json.loads(lines[-1]) if lines else None
        except (OSError, ValueError, RecursionError):
            return None
        return row if isinstance(row, dict) and "event" in row else None

    def keep(self, rows: list[dict[str, Any]]) -> None:
        """Replace the content of the file by these rows."""
        write(self.path, "".join(_line(row) for row in rows))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row in one write."""
        data = _line(row).encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                if file.write(data) != len(data):
                    raise OSError(28, os.strerror(28))  # ENOSPC: only a part was written
        except OSError as error:
            raise _named(error, self.path) from error

    def sync(self) -> None:
        """Wait until all rows are on the disk."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())


def save_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write named torch tensors as safetensors."""
    from safetensors.torch import save

    write(path, save({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}))


def load_tensors(path: Path, *, below: str = "") -> dict[str, Any]:
    """Read the named torch tensors whose names begin with ``below``, without this prefix; a damaged file raises
    :class:`RunError`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise RunError(f"{path}: not a safetensors file ({error}); the file is damaged.") from error
    # Sorted by name, because the order of the library differs from call to call.
    return {name.removeprefix(below): tensors[name] for name in sorted(tensors) if name.startswith(below)}


@contextlib.contextmanager
def created(folder: Path | None, preset: str) -> Iterator[Path]:
    """Make a new run folder, by default runs/<date-time>-<preset>; runs/latest then points to it.

    Only this process uses it until the block ends; by then it must contain its config.
    """
    try:
        if folder is None:
            folder = _new(RUNS / f"{datetime.now():%Y%m%d-%H%M%S}-{preset}")
        else:
            _check_unused(folder)
            folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, patience=0):
            _check_unused(folder)  # again: another process may have come first
            if folder.parent == RUNS:
                temporary = RUNS / f".latest.{os.getpid()}"
                temporary.symlink_to(folder.name, target_is_directory=True)
                temporary.replace(RUNS / "latest")
            yield folder
    except OSError as error:
        raise error if error.filename else _named(error, folder or RUNS) from error


def _check_unused(folder: Path) -> None:
    if (folder / CONFIG).exists():
        if kind(folder) is None:
            raise RunError(f"{folder}: the folder holds a {CONFIG} that posenc did not write; name another folder.")
        raise RunError(
            f"{folder}: the folder holds a run already; continue that run with --resume {folder}, or name another "
            "folder."
        )


def _new(base: Path) -> Path:
    """Make a folder that did not exist: base, or base-2, base-3, ..."""
    for number in itertools.count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    return path


def find(folder: Path | None) -> Path:
    """Find the run folder: the given one, or the latest."""
    if folder is None:
        folder = RUNS / "latest"
        if not folder.exists():
            raise RunError(f"there is no {folder}; name the folder of a run.")
        folder = folder.resolve().relative_to(Path.cwd()) if folder.resolve().is_relative_to(Path.cwd()) else folder
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such run folder.")
    return folder


def of_trial(run: Path, label: str, seed: int) -> Path:
    """The folder of a trial: one encoding with one seed."""
    return run / f"{label}-seed{seed}"


def kind(run: Path) -> str | None:
    """The job of a run, "compare" or "extend"; None if its config does not say."""
    path = run / CONFIG
    found = read_json(path).get("kind") if path.is_file() else None
    return found if isinstance(found, str) else None


@contextlib.contextmanager
def locked(folder: Path, *, patience: float = 30.0) -> Iterator[None]:
    """Lock a trial's folder. The lock ends with its process, in any case. A worker that has outlived a
    killed run releases the lock within a step, so a short wait is enough."""
    import filelock

    try:
        with filelock.FileLock(folder / LOCK, timeout=patience):
            yield
    except filelock.Timeout as error:
        raise RunError(
            f"{folder}: another process is using this run; wait until it has finished, or stop it first."
        ) from error


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _named(error: OSError, path: Path) -> OSError:
    """The same error, with the name of the file."""
    return OSError(error.errno, error.strerror or str(error), str(path))

"""Compiled code: built on first use with the machine's compiler, kept in a cache of the user's own, or built ahead.

A library is loaded from the package itself, if a wheel carries it, or from the cache. Its file name holds a hash of all
that it was made from, so a new source, flag, processor family or torch makes a new file and never meets an old one.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch

#: Oldest torch whose stable ABI has what the sources use; a library built with a newer torch runs on it too.
_TARGET = "0x020a000000000000"
#: No contraction, since a fused multiply-add would make the result depend on the instruction set; and loops alone are
#: vectorised, because GCC 12 makes fused additions out of straight-line code whatever -ffp-contract says.
FLAGS = (
    *("-std=c++17", "-O1", "-ftree-loop-vectorize", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-fvisibility=hidden", "-shared", "-fPIC", f"-DTORCH_TARGET_VERSION={_TARGET}"),
)


@dataclass(frozen=True)
class Library:
    """One source file and what became of it: ``handle`` if it is loaded, else ``reason`` says why not."""

    path: Path | None
    handle: ctypes.CDLL | None
    reason: str


def load(source: Path) -> Library:
    """The library made from ``source``, built first if need be; at most one attempt for each process."""
    library = _loaded.get(source)
    if library is None:
        with _lock:
            library = _loaded.get(source)
            if library is None:
                library = _loaded[source] = _load(source)
    return library


_loaded: dict[Path, Library] = {}
_lock = threading.Lock()


def forget(source: Path) -> None:
    """Let :func:`load` try again: for tests, and after a compiler was installed."""
    _loaded.pop(source, None)


def build(source: Path, directory: Path, *, extra_flags: tuple[str, ...] = (), quiet: bool = False) -> Path:
    """Compile ``source`` into ``directory`` and return the library's path; a file that is there already is kept.

    Raises:
        RuntimeError: no compiler, or one that failed, with what it said.
    """
    path = directory / file_name(source, extra_flags)
    if path.exists():
        return path
    compiler = find_compiler()
    if compiler is None:
        raise RuntimeError("no C++ compiler was found: install g++ or clang++, or name one in CXX")
    root = Path(torch.__file__).parent
    if not quiet:
        print(f"posenc: compiling {source.name} once, about two seconds ...", file=sys.stderr, flush=True)
    started = time.monotonic()
    handle, partial = tempfile.mkstemp(dir=directory, suffix=".partial")
    os.close(handle)
    try:
        command = [compiler, *FLAGS, *extra_flags, "-isystem", str(root / "include"), str(source), "-o", partial]
        command += ["-L", str(root / "lib"), "-ltorch_cpu"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{compiler} could not compile {source.name}: {done.stderr.strip()[-2000:]}")
        os.chmod(partial, 0o700)
        os.replace(partial, path)  # atomic: another process sees all of it or nothing
    finally:
        Path(partial).unlink(missing_ok=True)
    if not quiet:
        print(f"posenc: compiled in {time.monotonic() - started:.1f} s to {path}", file=sys.stderr, flush=True)
    return path


def file_name(source: Path, extra_flags: tuple[str, ...] = ()) -> str:
    """``<source>-<hash>.so``, the hash over the source, the flags, the processor family, the system and torch."""
    parts = (source.read_text(), *FLAGS, *extra_flags, platform.machine(), sys.platform, str(torch.__version__))
    digest = hashlib.sha256("\0".join(parts).encode())
    return f"{source.parent.name}-{source.stem}-{digest.hexdigest()[:16]}.so"


def find_compiler() -> str | None:
    """The C++ compiler: CXX, if that is set, else the first of c++, g++ and clang++."""
    if named := os.environ.get("CXX"):
        return shutil.which(named)
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def cache_directory() -> Path:
    """The user's own cache: ``POSENC_CACHE``, else ``posenc`` in ``XDG_CACHE_HOME`` or ``~/.cache``; made if missing.

    Raises:
        RuntimeError: it belongs to someone else, or someone else may write to it: what lies there would be executed.
    """
    if named := os.environ.get("POSENC_CACHE"):
        directory = Path(named)
    else:
        directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "posenc"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise RuntimeError(f"the cache {directory} cannot be made ({error}); set POSENC_CACHE to one") from error
    _check_own(directory)
    return directory


def prebuilt_directory() -> Path:
    """Where a wheel may carry libraries that were built ahead."""
    return Path(__file__).parent / "prebuilt"


def _check_own(path: Path) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise RuntimeError(f"{path} is a link, expected a file or directory of your own; remove it or set POSENC_CACHE")
    if status.st_uid != os.geteuid():
        raise RuntimeError(f"{path} belongs to user {status.st_uid}, expected {os.geteuid()}; set POSENC_CACHE")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RuntimeError(f"others may write to {path}; run chmod go-w on it, or set POSENC_CACHE")


def _load(source: Path) -> Library:
    if os.name != "posix":
        return Library(None, None, f"compiled code is supported on Linux and macOS, not on {sys.platform}")
    path = prebuilt_directory() / file_name(source, _extra_flags())
    try:
        if not path.exists():
            path = build(source, cache_directory(), extra_flags=_extra_flags())
            _check_own(path)
        torch.ops.load_library(str(path))
        return Library(path, ctypes.CDLL(str(path)), "")
    except (RuntimeError, OSError) as error:
        return Library(None, None, str(error))


@functools.cache
def _extra_flags() -> tuple[str, ...]:
    return tuple(os.environ.get("POSENC_CXXFLAGS", "").split())

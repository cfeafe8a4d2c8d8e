"""Compiled code: from a wheel that carries it, or built on first use with the machine's compiler and kept in a cache.

Each C++ file beside a kernel is one library, and may name parts of it that are compiled at the same time. Its key is a
hash of all that it depends on: its text and the local files that it names, the flags, the oldest version of PyTorch's
stable ABI that it uses, processor family and system. An upgrade of torch is not among them, because the stable ABI is
there to make that needless.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from posenc.kernels import _cache

#: Oldest torch whose stable ABI has what the sources use; a library built with a newer torch runs on it too.
_TARGET = "0x020a000000000000"
#: No contraction, since a fused multiply-add would make the result depend on the instruction set; and loops alone are
#: vectorised, because GCC 12 makes fused additions out of straight-line code whatever -ffp-contract says.
FLAGS = (
    *("-std=c++17", "-O1", "-ftree-loop-vectorize", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-fvisibility=hidden", "-fPIC", f"-DTORCH_TARGET_VERSION={_TARGET}"),
)
_log = logging.getLogger("posenc")


@dataclass(frozen=True)
class Library:
    """One source file and what became of it: ``handle`` if it is loaded, else ``reason`` says why not."""

    path: Path | None
    handle: ctypes.CDLL | None
    reason: str


def sources() -> list[Path]:
    """All C++ files of the package, each of which is one library."""
    return sorted(Path(__file__).parent.glob("*/*.cpp"))


def load(source: Path) -> Library:
    """The library made from ``source``, built first if need be; at most one attempt for each process.

    Without it the plain PyTorch code of the operation runs; a warning of the logger "posenc" says so, once.
    """
    library = _loaded.get(source)
    if library is None:
        with _lock:
            library = _loaded.get(source)
            if library is None:
                library = _loaded[source] = _load(source)
                if library.handle is None:
                    _log.warning(
                        "posenc: the compiled kernel for %s cannot be used: %s. Plain PyTorch code runs instead, "
                        "with the same results but several times slower.",
                        source.parent.name,
                        library.reason,
                    )
    return library


_loaded: dict[Path, Library] = {}
_lock = threading.Lock()


def forget(source: Path) -> None:
    """Let :func:`load` try again: for tests, and after a compiler was installed."""
    _loaded.pop(source, None)


def build(source: Path, directory: Path, *, extra_flags: tuple[str, ...] = (), refused: Collection[Path] = ()) -> Path:
    """Compile ``source`` into ``directory`` and return the library's path; one that is there and whole is kept, unless
    it is among those that the system's loader refused.

    The new library is loaded once by another process before it is put in place, so that one that does not load, or
    crashes as it is loaded, is never kept.

    Raises:
        RuntimeError: no compiler; one that failed, with what it said; a library that does not load.
        OSError: the directory cannot be written to.
    """
    name = key(source, extra_flags)
    with _cache.one_builder(directory):
        for path in _cache.libraries(directory, name):
            if path not in refused:
                return path
        _cache.clear(directory, name)
        return _compile(source, directory, name, extra_flags)


def _compile(source: Path, directory: Path, name: str, extra_flags: tuple[str, ...]) -> Path:
    """Compile, load once in another process, put in place. The caller is the only builder in this directory."""
    compiler = find_compiler()
    if compiler is None:
        named = os.environ.get("CXX")
        what = f"CXX is {named!r}, which is not a command on this machine" if named else "no C++ compiler was found"
        raise RuntimeError(f"{what}: install g++ or clang++, or name one in CXX")
    root = Path(torch.__file__).parent
    _log.warning("posenc: compiling the kernel of %s once, which takes up to some minutes", source.parent.name)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=directory, suffix=".partial", ignore_cleanup_errors=True) as scratch:
        made = Path(scratch) / f"{name}.so"
        flags = [*FLAGS, *_own_flags(source), *extra_flags, "-isystem", str(root / "include")]
        commands, objects = [], list[str]()
        for text, own in (*_parts(source), (source, [])):
            objects.append(f"{scratch}/{len(objects)}.o")
            commands.append([*compiler, *flags, *own, "-x", "c++", "-c", str(text), "-o", objects[-1]])
        _run(commands, source, Path(scratch))
        link = [*compiler, *flags, "-shared", *objects, "-o", str(made), "-L", str(root / "lib"), "-ltorch_cpu"]
        _run([link], source, Path(scratch))
        if not made.exists() or not made.stat().st_size:
            raise RuntimeError(f"{shlex.join(compiler)} made no library of {source.name}; set CXX to a C++ compiler")
        _check_loads(made, root)
        path = _cache.put(made, directory, name)
    _log.info("posenc: compiled in %.1f s to %s", time.monotonic() - started, path)
    return path


def _run(commands: list[list[str]], source: Path, scratch: Path) -> None:
    """Run commands, as many at once as there are cores; one that fails, or Ctrl-C, ends the others."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting, running = commands[::-1], dict[subprocess.Popen[bytes], Path]()
    try:
        while waiting or running:
            while waiting and len(running) < cores:
                said = scratch / f"{len(waiting)}.txt"
                with said.open("wb") as file:
                    running[subprocess.Popen(waiting.pop(), stdout=file, stderr=file, process_group=0)] = said
            time.sleep(0.02)
            for process in [process for process in running if process.poll() is not None]:
                said = running.pop(process)
                if process.returncode:
                    why = said.read_text(errors="replace").strip()[-2000:]
                    raise RuntimeError(f"{commands[0][0]} could not compile {source.name}: {why}")
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):  # the compiler's own children too, which do the work
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


_LOAD = "import sys; sys.path.insert(0, sys.argv[2]); import torch, ctypes; ctypes.CDLL(sys.argv[1])"


def _check_loads(library: Path, root: Path) -> None:
    """Load a library in another process, which may crash."""
    if not sys.executable or getattr(sys, "frozen", False):
        return  # there is no interpreter to start: within another program, or frozen into one
    command = [sys.executable, "-P", "-c", _LOAD, str(library), str(root.parent)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        why = signal.strsignal(-done.returncode) if done.returncode < 0 else said[-1] if said else "no reason given"
        raise RuntimeError(f"the library made from {library.stem} does not load: {why}")


def key(source: Path, extra_flags: tuple[str, ...] = ()) -> str:
    """``<operation>-<source>-<hash>``, the hash over all that the library depends on."""
    texts = [path.read_text() for path in (source, *_local_headers(source, set()))]
    parts = (*texts, *FLAGS, *extra_flags, platform.machine(), sys.platform)
    digest = hashlib.sha256("\0".join(parts).encode())
    return f"{source.parent.name}-{source.stem}-{digest.hexdigest()[:16]}"


def _own_flags(source: Path) -> list[str]:
    """What a source asks for in its line ``// flags:``; it comes after FLAGS, and so prevails."""
    return [flag for line in _asked(source, "flags") for flag in line]


def _parts(source: Path) -> list[tuple[Path, list[str]]]:
    """Files that a source's lines ``// with:`` name, each with flags of its own, for the same library."""
    return [(source.with_name(name), flags) for name, *flags in _asked(source, "with")]


def _asked(source: Path, what: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(rf"^// {what}:(.+)$", source.read_text(), flags=re.MULTILINE)]


def _local_headers(source: Path, seen: set[Path]) -> Iterator[Path]:
    included = re.findall(r'^\s*#\s*include\s*"([^"]+)"', source.read_text(), flags=re.MULTILINE)
    for name in (*included, *(name for name, *_ in _asked(source, "with"))):
        header = (source.parent / name).resolve()
        if header not in seen and header.is_file():
            seen.add(header)
            yield header
            yield from _local_headers(header, seen)


def find_compiler() -> tuple[str, ...] | None:
    """The C++ compiler's command: CXX, split as a shell splits it, if that is set, else c++, g++ or clang++."""
    if named := os.environ.get("CXX"):
        try:
            command, *options = shlex.split(named)
        except ValueError:  # nothing but spaces, or a quotation mark without its twin
            return None
        program = shutil.which(command)
        return None if program is None else (program, *options)
    program = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    return None if program is None else (program,)


def _load(source: Path) -> Library:
    if os.name != "posix":
        return Library(None, None, f"compiled code is supported on Linux and macOS, not on {sys.platform}")
    name = key(source, _extra_flags())
    try:
        for path in _cache.libraries(_cache.prebuilt_directory(), name):
            if library := _open(path):
                return library
        directory = _cache.cache_directory()
        refused = []
        for path in _cache.libraries(directory, name):
            _cache.check_trusted(path)
            if library := _open(path):
                return library
            refused.append(path)  # made on another system, such as a newer one that shares the home
        try:
            path = build(source, directory, extra_flags=_extra_flags(), refused=refused)
        except OSError as error:
            raise RuntimeError(
                f"{directory} cannot be written to ({error.strerror}); set POSENC_CACHE to your own directory"
            ) from error
        return _open(path) or Library(None, None, f"{path} was compiled, but cannot be loaded")
    except (RuntimeError, OSError) as error:
        return Library(None, None, str(error))


def _open(path: Path) -> Library | None:
    """The loaded library, or None where the system's loader refuses it."""
    try:
        torch.ops.load_library(str(path))
        return Library(path, ctypes.CDLL(str(path)), "")
    except OSError as error:
        _log.info("posenc: %s does not load: %s", path, error)
        return None


@functools.cache
def _extra_flags() -> tuple[str, ...]:
    return tuple(shlex.split(os.environ.get("POSENC_CXXFLAGS", "")))

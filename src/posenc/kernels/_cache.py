"""Where compiled libraries lie, and whether what lies there may be executed.

A library is named ``<operation>-<source>-<key>-<digest>.so``. The key is over all that it was made from (_build.py),
the digest is the SHA-256 of its bytes: a file that was truncated or altered no longer has its own name, and one rename
puts library and digest in place together.
"""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path


def cache_directory() -> Path:
    """The cache: ``POSENC_CACHE``, else ``posenc`` in ``XDG_CACHE_HOME`` or ``~/.cache``; made if missing.

    It may belong to the user or to root, and links to it are followed.

    Raises:
        RuntimeError: somebody else owns it or may write to it: what lies there would be executed.
    """
    if named := os.environ.get("POSENC_CACHE"):
        directory = Path(named)
    else:
        directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "posenc"
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)  # readable, so that root can make it for others
        directory = directory.resolve(strict=True)
    except OSError as error:
        raise RuntimeError(f"the cache {directory} cannot be made ({error}); set POSENC_CACHE to another") from error
    check_trusted(directory)
    return directory


def prebuilt_directory() -> Path:
    """Where a wheel carries libraries that were built ahead."""
    return Path(__file__).parent / "prebuilt"


def check_trusted(path: Path) -> None:
    """Whether nobody but the user and root could have written this.

    Raises:
        RuntimeError: somebody else could.
    """
    status = path.stat()
    if status.st_uid not in (0, os.geteuid()):
        raise RuntimeError(
            f"{path} belongs to user {status.st_uid}, expected {os.geteuid()} or root; set POSENC_CACHE to a "
            "directory of your own"
        )
    writable_by_group = status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid)
    if status.st_mode & stat.S_IWOTH or writable_by_group:
        raise RuntimeError(f"others may write to {path}; run chmod go-w on it, or set POSENC_CACHE to another")


def _is_private_group(gid: int) -> bool:
    """Whether a group is the one that many systems make for each user, with nobody else in it."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


def libraries(directory: Path, key: str) -> Iterator[Path]:
    """The libraries of a key whose bytes are still those of their names."""
    for path in sorted(directory.glob(f"{key}-*.so")):
        try:
            if path.name == file_name(key, path.read_bytes()):
                yield path
        except OSError:  # removed meanwhile, or not readable
            continue


def file_name(key: str, data: bytes) -> str:
    return f"{key}-{hashlib.sha256(data).hexdigest()[:32]}.so"


def clear(directory: Path, key: str) -> None:
    """Remove damaged libraries of a key, and what builders that were killed left; nobody else may be building."""
    for path in {*directory.glob(f"{key}-*.so")} - {*libraries(directory, key)}:
        path.unlink(missing_ok=True)
    for left in directory.glob("*.partial"):
        shutil.rmtree(left, ignore_errors=True)


def put(library: Path, directory: Path, key: str) -> Path:
    """Move a finished library to its name, so that a crash at any moment leaves all of it or nothing."""
    path = directory / file_name(key, library.read_bytes())
    library.chmod(0o755)
    with library.open("rb") as file:
        os.fsync(file.fileno())
    library.replace(path)
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return path


@contextlib.contextmanager
def one_builder(directory: Path) -> Iterator[None]:
    """Let one process build at a time. The lock is on the directory itself, and ends with its process."""
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: two may build, and one rename comes last
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

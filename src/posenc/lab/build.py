"""Compile the kernels ahead of time."""

from pathlib import Path

from rich.console import Console

from posenc.kernels import _build, _cache
from posenc.lab.run.errors import RunError


def build(*, into: Path | None = None, console: Console | None = None) -> list[Path]:
    """Compile the CPU kernels with the machine's compiler, and load them to see that they work.

    Each library chooses among instruction sets when it is loaded, so that it serves every processor of the family.

    Args:
        into: where to put them; by default the user's cache, where the first call would have put them. A wheel that is
            built after ``build(into=<package>/kernels/prebuilt)`` carries them.
        console: where to say what was done.

    Raises:
        RunError: no compiler, or one that failed.
    """
    console = console or Console()
    made = []
    for source in _build.sources():
        try:
            directory = _cache.cache_directory() if into is None else into
            directory.mkdir(parents=True, exist_ok=True)
            path = _build.build(source, directory)
        except RuntimeError as error:
            raise RunError(f"posenc build: {error}") from error
        console.print(f"{path}: ready", highlight=False, soft_wrap=True)
        made.append(path)
    return made

"""Compile the kernels ahead of time."""

from pathlib import Path

from rich.console import Console

from posenc.kernels import ahead
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
    try:
        for path in ahead.build_all(into):
            console.print(f"{path}: ready", highlight=False, soft_wrap=True)
            made.append(path)
    except RuntimeError as error:
        raise RunError(f"posenc build: {error}") from error
    return made

"""Compile the kernels ahead of time."""

from pathlib import Path

from rich.console import Console

from posenc.kernels import ahead
from posenc.lab.run.errors import RunError
from posenc.lab.run.printable import escape


def build(*, into: Path | None = None, console: Console | None = None) -> list[Path]:
    """Compile the CPU kernels with the machine's compiler, and load them as a test.

    Each library chooses among instruction sets when it is loaded, so that it serves every processor of the family.

    Args:
        into: the folder for the libraries; by default the user's cache, as at the first call. A wheel that is
            built after ``build(into=<package>/kernels/prebuilt)`` carries them.
        console: where to print what was done.

    Raises:
        RunError: there is no compiler, or the compiler failed.
    """
    console = console or Console(highlight=False)
    made = []
    try:
        for path in ahead.build_all(into):
            console.print(f"{escape(path)}: ready", soft_wrap=True)
            made.append(path)
    except RuntimeError as error:
        raise RunError(f"posenc build: {error}") from error
    return made

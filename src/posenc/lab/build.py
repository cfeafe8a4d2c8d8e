"""Compile the kernels ahead of time."""

import tempfile
from pathlib import Path

from rich.console import Console

from posenc.kernels import _build
from posenc.kernels.rotate import choosing
from posenc.lab.run.errors import RunError


def build(*, into: Path | None = None, console: Console | None = None) -> Path:
    """Compile the CPU kernels with the machine's compiler, and load them to see that they work.

    The library chooses among instruction sets when it is loaded, so that it serves every processor of the family.

    Args:
        into: where to put it; by default the user's cache, where the first call would have put it. A wheel that is
            built after ``build(into=<package>/kernels/prebuilt)`` carries it.
        console: where to say what was done.

    Raises:
        RunError: no compiler, or one that failed.
    """
    console = console or Console()
    try:
        if into is None:
            path = _build.build(choosing.SOURCE, _build.cache_directory())
        else:
            into.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=into) as scratch:  # so that a failure leaves nothing
                path = _build.build(choosing.SOURCE, Path(scratch)).replace(into / _build.file_name(choosing.SOURCE))
    except RuntimeError as error:
        raise RunError(f"posenc build: {error}") from error
    library = _build.load(choosing.SOURCE)
    if library.handle is None:
        raise RunError(f"posenc build: {path} was built but does not load: {library.reason}")
    console.print(f"{path}: ready, uses {choosing.level()} here", highlight=False, soft_wrap=True)
    return path

"""All kernels of the CPU, compiled before their first use."""

from collections.abc import Iterator
from pathlib import Path

from posenc.kernels import _build, _cache


def build_all(into: Path | None = None) -> Iterator[Path]:
    """The compiled libraries, one after another; each is loaded once to see that it works.

    Args:
        into: where to put them; by default the user's cache, where the first call would have put them.

    Raises:
        RuntimeError: no compiler, one that failed, or a cache that is not the user's.
    """
    for source in _build.sources():
        directory = _cache.cache_directory() if into is None else into
        directory.mkdir(parents=True, exist_ok=True)
        yield _build.build(source, directory)

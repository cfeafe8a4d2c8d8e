"""The metadata of a GGUF file by the types that they have to have."""

import math
from typing import Any

from posenc.integrations.gguf.header import Header
from posenc.integrations.transformers.description.config import bears_on_positions


class Values:
    """The metadata of an architecture, by the types that they have to have; what was not asked for is named."""

    def __init__(self, header: Header, arch: str) -> None:
        self.header, self.arch = header, arch
        self.asked: set[str] = set()

    def any(self, key: str, default: Any = None) -> Any:
        self.asked.add(f"{self.arch}.{key}")
        return self.header.get(key, default)

    def number(self, key: str, default: Any = None) -> Any:
        """A number; of a list with one for each layer, the largest."""
        found = self.any(key)
        if isinstance(found, list) and found and all(is_number(each) for each in found):
            found = max(found)
        if found is None:
            return default
        if not is_number(found):
            raise self._wrong(key, found, "a number")
        return found

    def whole(self, key: str, default: int | None = None) -> Any:
        """A whole number above 0, or the default where there is none."""
        found = self.number(key)
        if found is None:
            return default
        if found != int(found) or found < 1:
            raise self._wrong(key, found, "a whole number above 0")
        return int(found)

    def need(self, key: str) -> int:
        found: int | None = self.whole(key)
        if found is None:
            raise ValueError(f"{self.header.path} has no {key}, expected it in its metadata.")
        return found

    def not_read(self) -> tuple[str, ...]:
        """The keys that bear on positions and were not asked for."""
        return tuple(
            f"{key}: not used"
            for key, value in self.header.metadata.items()
            if key.startswith(f"{self.arch}.") and key not in self.asked and bears_on_positions(key) and value
        )

    def _wrong(self, key: str, found: Any, expected: str) -> ValueError:
        shown = repr(found)[:60]
        return ValueError(f"{self.header.path}: {key} is {shown}, expected {expected}; the file was altered.")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

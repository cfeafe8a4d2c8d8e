"""What a reader of one kind of config gives back."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from posenc.encoding import Encoding

#: (kind, layers, encoding, trained length, notes)
Found: TypeAlias = tuple[str, tuple[int, ...], Encoding, int | None, tuple[str, ...]]
Reader: TypeAlias = Callable[[Mapping[str, Any]], list[Found] | None]

"""What the positional encodings of a model of diffusers are."""

from collections.abc import Iterator
from dataclasses import dataclass

from posenc.encoding import Encoding


@dataclass(frozen=True)
class Part:
    """One place in a model that encodes positions.

    Attributes:
        module: its name in the model; "" where the pipeline makes the tables.
        kind: the name of its class.
        encoding: the encoding.
        axes: names of its coordinates.
        positions: what a token's coordinates are, in words.
        ends: the first coordinate that its table has no row for, on each axis; None for no end.
        notes: further remarks.
    """

    module: str
    kind: str
    encoding: Encoding
    axes: tuple[str, ...]
    positions: str
    ends: tuple[int | None, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """The encodings of a model: an iterable of :class:`Part`.

    Attributes:
        cls: the class of the model.
        parts: what encodes positions.
        unread: modules that concern positions and that posenc does not know, in words.
    """

    cls: str
    parts: tuple[Part, ...]
    unread: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

"""The header of a GGUF file: its metadata, and where its tensors lie.

Every count that the file states is compared with the bytes that are left in it before anything is sized by it, so that
a small file costs little, whatever it claims.

The reader of the package gguf cannot stand in: it goes through a list element by element in Python, and through as many
as the file claims, past its end too. A vocabulary of 128 000 tokens takes it 6.2 s of one core, and this one 0.16 s. To
check the counts before it reads is to walk the whole header, which is what is done here.
"""

import os
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MOST_LAYERS = 10_000
"""More blocks than any model has."""
MOST_CHANNELS = 2**24
"""More channels, heads or tokens of a vocabulary than any model has."""

#: GGUF's numbers for types of values; 8 is text and 9 a list.
_FORMATS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_LONGEST = 1024  # of a list that is kept: enough for one value a layer, not for vocabularies
_DEEPEST = 4  # lists in lists
_SIZES = ("embedding_length", "attention.head_count", "attention.key_length", "rope.dimension_count", "vocab_size")
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


@dataclass(frozen=True)
class Stored:
    """A tensor as a header describes it: shape, its file's name of the type, and size in bytes."""

    shape: tuple[int, ...]
    dtype: str
    size: int

    @property
    def count(self) -> int:
        """Elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Header:
    """The metadata of a GGUF file, with lengths in place of long lists, and its tensors."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Stored]
    starts: dict[str, int]  # the byte of the file where each tensor starts

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the architecture: ``get("block_count")`` is ``llama.block_count``."""
        return self.metadata.get(f"{self.metadata.get('general.architecture')}.{key}", default)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The numbers of a tensor that is stored as plain floating point.

        Raises:
            ValueError: a tensor with another dtype.
        """
        tensor = self.tensors[name]
        if tensor.dtype not in _FLOATS:
            raise ValueError(f"{self.path}: {name} is stored as {tensor.dtype}, expected F64, F32 or F16.")
        with self.path.open("rb") as file:
            file.seek(self.starts[name])
            data = file.read(tensor.size)
        return np.frombuffer(data, _FLOATS[tensor.dtype]).astype(np.float64)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read the header of a GGUF file, and check that every tensor lies within the file.

    Raises:
        ImportError: gguf is not installed.
        TypeError: no path.
        ValueError: no such file; not a GGUF file, or a truncated or altered one; impossible sizes.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"describe: got a value of type {type(path).__name__}, expected the path of a GGUF file.")
    path = Path(path)
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError as error:
        raise ImportError(f"{path}: GGUF files need the package gguf; pip install gguf.") from error
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise ValueError(f"{path}: there is {what} of this name, expected a GGUF file; give the path of one.")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(
                f"{path}: the file does not begin with GGUF, so it is another kind of file, or it is damaged; "
                "download it again."
            )
        reader = _Reader(file)
        try:
            if (version := reader.number("I")) not in (2, 3):
                raise ValueError(f"{path}: GGUF version {version}, expected 2 or 3.")
            tensors, pairs = reader.count(24), reader.number("Q")
            reader.expect(pairs, 13)
            metadata: dict[str, Any] = {}
            for _ in range(pairs):
                name = reader.text()
                if name in metadata:
                    raise _Nonsense(f"the header has {name!r} twice")
                metadata[name] = reader.value(reader.number("I"))
            infos = [reader.tensor() for _ in range(tensors)]
        except (_Nonsense, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path}: the header ends too early or is invalid ({error}); the file was truncated or altered."
            ) from error
        data, size = file.tell(), reader.size
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"{path}: general.alignment is {alignment!r}, expected a power of 2; the header was altered.")
    data += -data % alignment
    found: dict[str, Stored] = {}
    starts: dict[str, int] = {}
    for name, shape, kind, offset in infos:
        try:
            block, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: {name} has the type {kind}, which gguf does not know.") from error
        if not shape or shape[0] % block or offset % alignment or name in found:
            raise ValueError(f"{path}: {name} has shape {shape} at offset {offset}; the header was altered.")
        found[name] = Stored(shape, GGMLQuantizationType(kind).name, prod(shape) // block * width)
        starts[name] = data + offset
        if (end := starts[name] + found[name].size) > size:
            raise ValueError(
                f"{path}: {name} ends at byte {end}, and the file ends at byte {size}; the file is truncated."
            )
    last = 0
    for name in sorted(found, key=lambda name: (starts[name], found[name].size)):
        if starts[name] < last:
            raise ValueError(f"{path}: {name} overlaps the tensor before it; the header was altered.")
        last = starts[name] + found[name].size
    header = Header(path, metadata, found, starts)
    _check_sizes(header)
    return header


def read_whole(path: Path) -> Header:
    """As :func:`read_header`, of a whole language model.

    Raises:
        ValueError: as there; one part of several; another number of blocks than its metadata say.
    """
    header = read_header(path)
    parts = header.metadata.get("split.count", 0)
    if not isinstance(parts, int) or parts > 1:
        raise ValueError(f"{path}: this file is one part of several; join them first: llama-gguf-split --merge.")
    # As many blocks as the metadata say: transformers would drop the others without a word.
    there = {name.split(".")[1] for name in header.tensors if name.startswith("blk.")}
    wanted = header.get("block_count", 0)
    if not wanted or there != set(map(str, range(wanted))):
        raise ValueError(
            f"{path}: the metadata says {wanted} blocks, and the file has the tensors of {len(there)}; the file holds "
            "no language model, or it was altered."
        )
    return header


def _check_sizes(header: Header) -> None:
    """Whether the sizes that others are made from are those that a model can have."""
    for key, most in (("block_count", MOST_LAYERS), *((key, MOST_CHANNELS) for key in _SIZES)):
        found = header.get(key)
        for size in found if isinstance(found, list) else [] if found is None else [found]:
            if type(size) is not int or not 0 <= size <= most:
                raise ValueError(
                    f"{header.path}: {key} is {size!r}, expected a whole number from 0 to {most}; the file was altered."
                )


class _Nonsense(Exception):
    """A header that cannot be read."""


class _Reader:
    """Reads values one after the other, and never more than the file has left."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = os.fstat(file.fileno()).st_size

    def expect(self, count: int, width: int) -> None:
        """Refuse a file that ends before ``count`` things of at least ``width`` bytes each."""
        left = self.size - self.file.tell()
        if count * width > left:
            raise _Nonsense(f"{count} times {width} bytes should follow, and {left} are left")

    def number(self, form: str) -> Any:
        form = "<" + form
        data = self.file.read(struct.calcsize(form))
        if len(data) < struct.calcsize(form):
            raise _Nonsense("a number is cut off")
        return struct.unpack(form, data)[0]

    def count(self, width: int) -> int:
        """A number of things to follow, each of at least ``width`` bytes."""
        found: int = self.number("Q")
        self.expect(found, width)
        return found

    def text(self) -> str:
        return self.file.read(self.count(1)).decode("utf-8")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            return self.values(depth + 1)
        if kind not in _FORMATS:
            raise _Nonsense(f"a value has the type {kind}")
        return self.number(_FORMATS[kind])

    def values(self, depth: int) -> Any:
        """A list; of a long one its length."""
        if depth > _DEEPEST:
            raise _Nonsense("lists are nested too deeply")
        kind = self.number("I")
        if kind in _FORMATS:
            width = struct.calcsize("<" + _FORMATS[kind])
            count = self.count(width)
            if count > _LONGEST:
                self.file.seek(count * width, os.SEEK_CUR)
                return count
            return list(struct.unpack(f"<{count}{_FORMATS[kind]}", self.file.read(count * width)))
        count = self.count(8)
        if count <= _LONGEST:
            return [self.value(kind, depth) for _ in range(count)]
        for _ in range(count):
            self.value(kind, depth)
        return count

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type and offset of a tensor."""
        name, dims = self.text(), self.number("I")
        if dims > 8:
            raise _Nonsense(f"{name!r} has {dims} dimensions")
        shape = tuple(self.number("Q") for _ in range(dims))
        return name, shape, self.number("I"), self.number("Q")

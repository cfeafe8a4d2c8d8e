"""Are weight files whole? Their headers are read, and what they promise is compared with what is there."""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from posenc.lab.run.errors import RunError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

#: Bits of an element, by safetensors' name of its type.
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}


@dataclass(frozen=True)
class Stored:
    """A tensor as a header describes it: its file's name of the type, and where its bytes are."""

    shape: tuple[int, ...]
    dtype: str
    start: int
    end: int

    @property
    def count(self) -> int:
        """Elements."""
        return prod(self.shape)


def check_safetensors(folder: Path) -> dict[str, Stored]:
    """All tensors of a Hugging Face folder, after a look at every file's header, length and offsets.

    Raises:
        RunError: no safetensors; a missing, truncated or altered file.
    """
    if not (folder / INDEX).is_file():
        return _read_safetensors(folder / SINGLE)
    index = read_object(folder / INDEX)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise RunError(f"{folder / INDEX}: there is no weight_map of names, expected one; the file is damaged.")
    if missing := sorted(name for name in set(places.values()) if not (folder / name).is_file()):
        raise RunError(f"{folder}: {', '.join(missing)} of {INDEX} is missing; the copy is not complete.")
    found: dict[str, Stored] = {}
    for file in sorted(set(places.values())):
        held = _read_safetensors(folder / file)
        if absent := sorted(name for name, place in places.items() if place == file and name not in held):
            raise RunError(f"{folder / file}: {absent[0]} is not in it, where {INDEX} puts it; the file was altered.")
        found |= held
    return found


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path}: there is no such file.") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise RunError(f"{path}: no JSON ({error}); the file is damaged.") from error
    if not isinstance(data, dict):
        raise RunError(f"{path}: expected a JSON object, got a {type(data).__name__}; the file is damaged.")
    return data


def _read_safetensors(path: Path) -> dict[str, Stored]:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or not 2 <= length <= size - 8:
            raise RunError(f"{path}: {size} bytes with a header of {length}; no safetensors file, or a truncated one.")
        try:
            header = json.loads(file.read(length))
            found = {name: _stored(name, entry) for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{path}: its header cannot be read ({error}); the file was altered.") from error
    end = 0
    for name, tensor in sorted(found.items(), key=lambda item: item[1].start):
        if tensor.start != end:
            raise RunError(f"{path}: {name} starts at byte {tensor.start}, expected {end}; the header was altered.")
        end = tensor.end
    if size != 8 + length + end:
        what = "truncated" if size < 8 + length + end else "altered"
        raise RunError(f"{path}: {size} bytes, expected {8 + length + end} by its header; the file is {what}.")
    return found


def _stored(name: str, entry: Mapping[str, Any]) -> Stored:
    shape, dtype, (start, end) = tuple(entry["shape"]), entry["dtype"], entry["data_offsets"]
    if dtype not in _BITS or not all(isinstance(length, int) and length >= 0 for length in shape):
        raise ValueError(f"{name} has type {dtype} and shape {list(shape)}")
    tensor = Stored(shape, dtype, start, end)
    if (end - start) * 8 != tensor.count * _BITS[dtype]:
        raise ValueError(f"{name} has {end - start} bytes for shape {list(shape)} of {dtype}")
    return tensor


@dataclass(frozen=True)
class GGUF:
    """The metadata of a GGUF file, with lengths in place of long lists, and its tensors."""

    metadata: dict[str, Any]
    tensors: dict[str, Stored]

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the architecture: ``get("block_count")`` is ``llama.block_count``."""
        return self.metadata.get(f"{self.metadata.get('general.architecture')}.{key}", default)


def check_gguf(path: Path) -> GGUF:
    """What a GGUF file holds, after a look at its header and at whether every tensor lies within it.

    Raises:
        RunError: gguf is not installed; no GGUF, a truncated or an altered one, one part of several.
    """
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError as error:
        raise RunError(f"{path}: GGUF files need the package gguf; pip install gguf.") from error
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise RunError(f"{path}: it does not begin with GGUF; no such file, or an altered one.")
        try:
            read = partial(_read, file)
            if (version := read("<I")) not in (2, 3):
                raise RunError(f"{path}: GGUF version {version}, expected 2 or 3.")
            tensors, pairs = read("<Q"), read("<Q")
            metadata = {_text(file): _value(file, read("<I")) for _ in range(pairs)}
            infos = [_info(file) for _ in range(tensors)]
        except (struct.error, UnicodeDecodeError, OverflowError, MemoryError, KeyError) as error:
            raise RunError(f"{path}: its header breaks off or makes no sense; truncated, or altered.") from error
        data = file.tell()
    if metadata.get("split.count", 0) > 1:
        raise RunError(f"{path}: one part of several; join them first: llama-gguf-split --merge.")
    alignment = metadata.get("general.alignment", 32)
    data += -data % alignment
    found: dict[str, Stored] = {}
    for name, shape, kind, offset in infos:
        try:
            block, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError) as error:
            raise RunError(f"{path}: {name} has the type {kind}, which gguf does not know.") from error
        if not shape or shape[0] % block or offset % alignment or name in found:
            raise RunError(f"{path}: {name} has shape {shape} at offset {offset}; the header was altered.")
        end = data + offset + prod(shape) // block * width
        if end > size:
            raise RunError(f"{path}: {name} ends at byte {end} and the file at {size}; the file is truncated.")
        found[name] = Stored(shape, GGMLQuantizationType(kind).name, data + offset, end)
    last = 0
    for name, tensor in sorted(found.items(), key=lambda item: item[1].start):
        if tensor.start < last:
            raise RunError(f"{path}: {name} lies over the tensor before it; the header was altered.")
        last = tensor.end
    header = GGUF(metadata, found)
    _check_blocks(header, path)
    return header


def _check_blocks(header: GGUF, path: Path) -> None:
    """As many blocks as the metadata says: transformers would drop the others without a word."""
    there = {int(name.split(".")[1]) for name in header.tensors if name.startswith("blk.")}
    wanted = set(range(int(header.get("block_count", 0))))
    if not wanted or there != wanted:
        raise RunError(
            f"{path}: the metadata speak of {len(wanted)} blocks and there are tensors of {len(there)}; no language "
            "model, or an altered file."
        )


#: GGUF's numbers for types of values; 8 is text and 9 a list.
_FORMATS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_LONGEST = 1024  # of a list that is kept: enough for one value a layer, not for vocabularies


def _read(file: BinaryIO, form: str) -> Any:
    (value,) = struct.unpack(form, file.read(struct.calcsize(form)))
    return value


def _text(file: BinaryIO) -> str:
    length = _read(file, "<Q")
    data = file.read(min(length, 1 << 26))
    if len(data) < length:
        raise struct.error("a text breaks off")
    return data.decode("utf-8")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == 8:
        return _text(file)
    if kind != 9:
        return _read(file, "<" + _FORMATS[kind])
    inner, count = _read(file, "<I"), _read(file, "<Q")
    if count > 1 << 28:
        raise struct.error("a list of more than any vocabulary")
    kept = list(_elements(file, inner, count))
    return kept if count <= _LONGEST else count


def _elements(file: BinaryIO, kind: int, count: int) -> Iterator[Any]:
    if kind in (8, 9):
        for _ in range(count):
            yield _value(file, kind)
        return
    data = file.read(count * struct.calcsize("<" + _FORMATS[kind]))
    yield from struct.unpack(f"<{count}{_FORMATS[kind]}", data)


def _info(file: BinaryIO) -> tuple[str, tuple[int, ...], int, int]:
    name = _text(file)
    dims = _read(file, "<I")
    if dims > 8:
        raise struct.error("more than eight dimensions")
    shape = tuple(_read(file, "<Q") for _ in range(dims))
    return name, shape, _read(file, "<I"), _read(file, "<Q")

"""A GGUF header is read within bounds: nothing is sized by a number before the file is seen to hold as much."""

import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from posenc.integrations.gguf import describe, read_header

pytest.importorskip("gguf", reason="the gguf package is not installed")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def pair(key: str, kind: int, data: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + data


def header(*pairs: bytes, tensors: int = 0, count: int | None = None) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(pairs) if count is None else count) + b"".join(pairs)


ARCH = pair("general.architecture", 8, text("llama"))
U32, U64 = (lambda n: struct.pack("<I", n)), (lambda n: struct.pack("<Q", n))
SIZES = [pair(f"llama.{key}", 4, U32(n)) for key, n in (("attention.head_count", 4), ("embedding_length", 64))]
NESTED = U32(9) + U64(1)

HOSTILE = {
    "as many blocks as no model has": (header(ARCH, *SIZES, pair("llama.block_count", 4, U32(30_000_000))), "30000000"),
    "channels of which no table can be made": (
        header(ARCH, pair("llama.embedding_length", 10, U64(2**42))),
        "expected",
    ),
    "a size that is a list of text": (
        header(ARCH, pair("llama.block_count", 9, U32(8) + U64(1) + text("two"))),
        "'two', expected a whole number",
    ),
    "a list of 2**28 numbers": (header(pair("a", 9, U32(4) + U64(2**28))), "4 bytes should follow, and 0 are left"),
    "a list of 2**60 texts": (header(pair("a", 9, U32(8) + U64(2**60))), "should follow, and 0 are left"),
    "a text of 2**63 bytes": (header(pair("a", 8, U64(2**63))), "bytes should follow"),
    "2**62 pairs": (header(ARCH, count=2**62), "bytes should follow"),
    "2**62 tensors": (header(ARCH, tensors=2**62), "bytes should follow"),
    "lists in lists": (header(pair("a", 9, NESTED * 50_000)), "too deep"),
    "an alignment of 0": (header(pair("general.alignment", 4, U32(0))), "expected a power of 2"),
    "a key twice": (header(ARCH, ARCH), "twice"),
    "an unknown type": (header(pair("a", 77, b"")), "type 77"),
    "a tensor of no end": (
        header(tensors=1) + text("w") + U32(2) + U64(2**40) + U64(2**40) + U32(0) + U64(0),
        "truncated",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_number_in_a_file_sizes_nothing_before_it_is_checked(name: str, tmp_path: Path) -> None:
    data, words = HOSTILE[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    read_gguf_of_nothing(tmp_path)  # imports
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(ValueError, match=words.replace("*", r"\*")):
            describe(path)
        seconds, peak = time.perf_counter() - started, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert seconds < 1


def read_gguf_of_nothing(folder: Path) -> None:
    (folder / "empty.gguf").write_bytes(header(ARCH))
    assert read_header(folder / "empty.gguf").metadata == {"general.architecture": "llama"}


def test_every_cut_of_a_whole_file_is_refused_in_our_words(tmp_path: Path) -> None:
    pairs = [ARCH, *SIZES, pair("llama.block_count", 4, U32(2)), pair("list", 9, U32(8) + U64(2) + text("a") * 2)]
    data = header(*pairs)
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    assert describe(path).model_type == "llama (GGUF)"
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"begin with GGUF|ends too early|ends at byte|GGUF version"):
            read_header(path)


def test_no_heads_are_refused_and_not_divided_by(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(header(ARCH, pair("llama.attention.head_count", 4, U32(0)), pair("llama.block_count", 4, U32(1))))
    with pytest.raises(ValueError, match=r"attention\.head_count is 0, expected a whole number above 0"):
        describe(path)

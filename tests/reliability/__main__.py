"""Damaged files by the thousand: ``python -m tests.reliability --files 20000 --kills 50 --calls 60000``.

Small good files (configs, safetensors, GGUF, folders of runs, a compiled library's place in the cache) are altered at
random, and read by what reads them in use. Each must be read or refused in posenc's own words, within 5 seconds of the
processor and 500 MB. Besides: jobs that are killed, and calls of the public API.
"""

import argparse
import contextlib
import io
import json
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from tests.reliability import kills, runs

SECONDS, BYTES = 5.0, 500e6
#: After so many files or calls a line says what came of all until then, so that a stop loses little.
BLOCK = 1000
#: What Python says of a mistake in the program, and no message of posenc says.
PYTHONS_OWN = (
    "object is not",
    "not supported between",
    "unsupported operand",
    "has no attribute",
    "unpack",
    "'NoneType' object",
    "type 'NoneType'",
)
EXTREME: tuple[Any, ...] = (
    *(0, -1, 1, 3, 2**31, 10**8, 4 * 10**12, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *(None, True, "", "llama", "\x1b[2J", "[/red]", [], {}, [0], [None], ["full_attention"], {"rope_type": "yarn"}),
)
LLAMA = {
    **{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2},
    **{"num_hidden_layers": 2, "max_position_embeddings": 4096, "intermediate_size": 128, "vocab_size": 16},
    **{"architectures": ["LlamaForCausalLM"], "rope_theta": 1e4},
}
CONFIGS: tuple[dict[str, Any], ...] = (
    LLAMA,
    LLAMA | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}},
    LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}},
    LLAMA | {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    LLAMA
    | {
        "rope_parameters": {
            **{"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0},
            **{"high_freq_factor": 4.0, "original_max_position_embeddings": 1024},
        }
    },
    LLAMA
    | {
        **{"model_type": "phi3", "original_max_position_embeddings": 1024},
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
    },
    LLAMA | {"model_type": "gemma3_text", "layer_types": ["full_attention"] * 2, "head_dim": 16},
    LLAMA | {"model_type": "qwen2_vl", "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}},
    {"model_type": "gpt2", "n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": 64, "vocab_size": 16},
    {
        "model_type": "t5",
        "d_model": 32,
        "num_heads": 2,
        "num_layers": 2,
        "relative_attention_num_buckets": 8,
        "d_kv": 16,
    },
    {"model_type": "bloom", "hidden_size": 64, "n_head": 4, "n_layer": 2},
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument(
        "--seed", type=int, default=0, help="the number of the first file and call; to go on after a stop"
    )
    parser.add_argument("--only", nargs="+", default=("config", "safetensors", "GGUF", "cache", "run"), metavar="KIND")
    parser.add_argument("--kills", type=int, default=0, help="of compare, save and tune, a third each")
    parser.add_argument("--calls", type=int, default=0, help="of the public API, each against a float64 evaluation")
    arguments = parser.parse_args()
    faults = run(arguments.files, arguments.seed, arguments.only) if arguments.files else []
    if arguments.kills:
        with tempfile.TemporaryDirectory() as scratch:
            faults += kills.run(arguments.kills, Path(scratch))
    if arguments.calls:
        faults += calls(arguments.calls, arguments.seed)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def calls(count: int, seed: int) -> list[str]:
    """The draws of tests/conformance/test_any_call.py that came out wrong."""
    from tests.conformance.test_any_call import draw

    outcomes: Counter[str] = Counter()
    faults = []
    for number in range(seed, seed + count):
        try:
            outcomes[draw(number)] += 1
        except Exception as error:
            faults.append(f"call {number}: {error!r}")
        done = number + 1 - seed
        if done == count or done % BLOCK == 0:
            print(f"{done} calls from {seed} on: {dict(outcomes)}, {len(faults)} faults", flush=True)
    return faults


def run(files: int, seed: int, only: Collection[str]) -> list[str]:
    """The faults."""
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    slowest, started = 0.0, time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        kinds = [kind for kind in readers(folder) if kind[0] in only]
        for _, prepare in kinds:
            with contextlib.suppress(Exception):
                prepare(False)()  # what is imported on first use is no cost of a file
        before = peak()
        for index in range(seed, seed + files):
            random.seed(index)
            name, prepare = kinds[index % len(kinds)]
            read = prepare(True)
            begun = time.process_time()  # the clock on the wall also counts what else the machine does
            outcome, fault = outcome_of(read)
            seconds = time.process_time() - begun
            slowest = max(slowest, seconds)
            if seconds > SECONDS:
                fault = f"{seconds:.1f} s"
            if peak() - before > BYTES:
                fault, before = f"{(peak() - before) / 1e6:.0f} MB", peak()
            outcomes[f"{name} {outcome}"] += 1
            if fault:
                faults.append(f"{name}, file {index}: {fault}")
            done = index + 1 - seed
            if done == files or done % BLOCK == 0:
                counts = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
                print(
                    f"{done} files from {seed} on, {time.process_time() - started:.0f} s of the processor: {counts}; "
                    f"slowest {slowest:.2f} s, {(peak() - before) / 1e6:.0f} MB above the start; {len(faults)} faults",
                    flush=True,
                )
    return faults


def outcome_of(read: Callable[[], Any]) -> tuple[str, str]:
    """ "read" or "refused", and what is wrong with how it was refused."""
    from posenc.lab.run.errors import RunError

    signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, 20 * SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            read()
    except (RunError, ValueError, TypeError) as error:
        said = str(error)
        if not isinstance(error, RunError) and any(words in said for words in PYTHONS_OWN):
            return "refused", "".join(traceback.format_exception(error)[-3:])
        return "refused", ""
    except Exception as error:
        return "broke", "".join(traceback.format_exception(error)[-3:])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read", ""


def _too_long(*_: object) -> None:
    raise TimeoutError("over 100 s on the wall")


def peak() -> float:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def readers(folder: Path) -> Iterator[tuple[str, Callable[[bool], Callable[[], Any]]]]:
    """Of each kind of file: its name, and what writes one, altered or not, and gives what reads it."""
    from rich.console import Console

    from posenc.kernels import _cache
    from posenc.lab.checkpoint.preview import look
    from posenc.lab.inspect import inspect

    def config(altered: bool) -> Callable[[], Any]:
        data = json.loads(json.dumps(random.choice(CONFIGS)))
        if altered:
            for _ in range(random.choice((1, 1, 2, 3))):
                alter_value(data)
        text = json.dumps(data).encode()
        (folder / "config.json").write_bytes(alter_bytes(text) if altered and random.random() < 0.2 else text)
        return lambda: inspect(folder, pairing="half", console=Console(file=io.StringIO()))

    def safetensors(altered: bool) -> Callable[[], Any]:
        (folder / "config.json").write_text(json.dumps(LLAMA))
        header = {
            name: {"dtype": "F32", "shape": [4, 4], "data_offsets": [64 * i, 64 * i + 64]}
            for i, name in enumerate(("a.0.weight", "b.1.weight"))
        }
        if altered and random.random() < 0.5:
            alter_value(header)
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + bytes(128)
        (folder / "model.safetensors").write_bytes(alter_bytes(data) if altered and random.random() < 0.7 else data)
        return lambda: look(folder)

    good = gguf(folder / "good.gguf")

    def gguf_file(altered: bool) -> Callable[[], Any]:
        path = folder / "model.gguf"
        path.write_bytes(alter_bytes(good) if altered else good)
        reads: tuple[Callable[[], Any], ...] = (
            lambda: inspect(path, console=Console(file=io.StringIO())),
            lambda: look(path),
        )
        return random.choice(reads)

    def library(altered: bool) -> Callable[[], Any]:
        cache = folder / "cache"
        cache.mkdir(exist_ok=True)
        for old in cache.iterdir():
            old.unlink()
        (folder / "made.so").write_bytes(random.randbytes(2000))
        path = _cache.put(folder / "made.so", cache, "key")
        whole = path.read_bytes()
        data = alter_bytes(whole) if altered else whole
        path.write_bytes(data)

        def read() -> None:
            if [*_cache.libraries(cache, "key")] != ([path] if data == whole else []):
                raise AssertionError("a damaged library was taken, or a whole one was not")

        return read

    runs_to_alter: list[Path] = []

    def run_folder(altered: bool) -> Callable[[], Any]:
        if not runs_to_alter:
            runs_to_alter.extend(runs.make(folder / "runs"))
        if not altered:
            return lambda: None
        return runs.altered_and_read(random.choice(runs_to_alter), alter_bytes, alter_value)

    yield "run", run_folder
    yield "config", config
    yield "safetensors", safetensors
    yield "GGUF", gguf_file
    yield "cache", library


def gguf(path: Path) -> bytes:
    """A small good file, by the package that others make them with."""
    import gguf as package
    import numpy as np

    writer = package.GGUFWriter(path, "llama")
    for key, value in (
        ("block_count", 2),
        ("context_length", 64),
        ("embedding_length", 32),
        ("feed_forward_length", 48),
    ):
        writer.add_uint32(f"llama.{key}", value)
    for key, value in (("attention.head_count", 4), ("attention.head_count_kv", 2), ("rope.dimension_count", 8)):
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.rope.freq_base", 1000.0)
    writer.add_array("tokenizer.ggml.tokens", [chr(97 + i) for i in range(20)])
    writer.add_tensor("rope_freqs.weight", np.ones(4, dtype=np.float32))
    for block in range(2):
        writer.add_tensor(f"blk.{block}.weight", np.ones((4, 8), dtype=np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path.read_bytes()


def alter_bytes(data: bytes) -> bytes:
    """One to three of: a flipped bit, a cut, an overwritten number, a piece taken out or put in."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(changed)) if changed else 0
        kind = random.randrange(6)
        if kind <= 1 and changed:
            changed[at] ^= 1 << random.randrange(8)
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            number = random.choice((0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1, 3 * 10**7))
            changed[at : at + 8] = struct.pack("<Q", number)
        elif kind == 4:
            del changed[at : at + random.randrange(1, 20)]
        else:
            changed[at:at] = random.choice((random.randbytes(9), b"[" * 100_000, b'{"a":' * 50_000, b"\x00" * 64))
    return bytes(changed)


def alter_value(data: Any) -> None:
    """Replace, remove or add one entry somewhere in nested dicts and lists."""
    places = list(_places(data))
    if not places:
        return
    where, key = random.choice(places)
    kind = random.random()
    if kind < 0.75:
        where[key] = random.choice(EXTREME)
    elif kind < 0.9:
        del where[key]
    elif isinstance(where, dict):
        where[random.choice(("[/red]", "head_dim", "rope_scaling", "sliding_window", "layer_types"))] = random.choice(
            EXTREME
        )


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], (dict, list)):
            yield from _places(data[key])


if __name__ == "__main__":
    sys.exit(main())

"""Estimates, before the work starts, whether a pass over a long text fits into memory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from posenc.lab.checkpoint.open import dtype_of
from posenc.lab.checkpoint.preview import Preview
from posenc.lab.run.errors import RunError

PROGRAM = 700 * 2**20
"""Bytes of Python, torch, transformers, a tokenizer and matplotlib: 520 MiB were measured before drawing."""

CONTEXT = 512 * 2**20
"""Bytes of the CUDA context and libraries."""

ROWS = 64
"""Tokens whose logits are in float32 at a time."""

LOGIT_BYTES = 2**28  # bytes of one chunk: what a vocabulary of 131 072 needs for 512 tokens in float32


def chunk_of(tokens: int, vocab_size: int) -> int:
    """Tokens of a chunk: as wanted, or fewer if their logits would take more than 256 MiB."""
    return min(tokens, max(1, LOGIT_BYTES // (4 * vocab_size)))


def needed_memory(preview: Preview, length: int, *, chunk: int, dtype: str = "auto", device: str = "cpu") -> int:
    """Peak bytes of loading a model and reading a text of ``length`` tokens in chunks, a slight overestimate.

    The KV cache grows with the text. So does the attention of a chunk: a CPU without a fused
    kernel for the mask stores all scores. Measured on SmolLM2-135M in float32, in chunks of 512: 1413 MiB at 4096
    tokens and 2004 at 12 288; the estimates are 1649 and 2201.
    """
    return _parts(preview, chunk, dtype, device).needed(length)


def check_memory(preview: Preview, length: int, *, chunk: int, dtype: str = "auto", device: str = "cpu") -> None:
    """Refuse a pass that would not fit into memory.

    Raises:
        RunError: with the memory that is needed, the free memory, and the longest text that would fit. If the system
            does not report its memory, nothing is refused.
    """
    available, parts = available_memory(device), _parts(preview, chunk, dtype, device)
    needed, smallest = parts.needed(length), parts.needed(0)
    if available is None or needed <= available:
        return
    fits = (available - parts.model - parts.chunk) // parts.token if smallest <= available else 0
    advice = [f"choose --to {fits // 256 * 256}"] if fits >= 256 else []
    halved = needed_memory(preview, length, chunk=chunk, dtype="bfloat16", device=device)
    if halved < needed and halved <= available:
        advice.append(f"take --dtype bfloat16, which needs {_giga(halved)}")
    raise RunError(
        f"{preview.source}: {length} tokens need about {_giga(needed)} of memory, and {_giga(available)} are free. "
        + (f"{fits} tokens would fit" if fits else f"Not even the model would fit, which takes {_giga(smallest)}")
        + f"; {', or '.join([*advice, 'free some memory'])}."
    )


def available_memory(device: str = "cpu") -> int | None:
    """Free bytes: of the device, or of the machine within the limits of the process's control group.

    None if the system does not report it.
    """
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [free for free in (_machine(), *_groups()) if free is not None]
    return min(found, default=None)


@dataclass(frozen=True)
class _Parts:
    """Bytes of the program and the weights; extra bytes while loading; bytes of a chunk; bytes per cached token."""

    model: int
    loading: int
    chunk: int
    token: int

    def needed(self, length: int) -> int:
        """Peak bytes for a text of this many tokens."""
        return self.model + max(self.loading, self.chunk + self.token * length)


def _parts(preview: Preview, chunk: int, dtype: str, device: str) -> _Parts:
    kind = dtype_of(dtype, preview.stored, device)
    width, local = kind.itemsize, torch.device(device).type == "cpu"
    # Besides the weights: the file that they are converted from; for a GGUF file, two copies of one unpacked tensor.
    loading = 0 if preview.stored == str(kind).removeprefix("torch.") else preview.weight_bytes
    unpacked = 8 * preview.vocab_size * preview.hidden_size if preview.gguf is not None else 0
    chunk = chunk_of(chunk, preview.vocab_size)
    logits = (chunk * width + 3 * ROWS * 4) * preview.vocab_size
    channels = 10 * preview.hidden_size + 4 * preview.mlp_size + 4 * preview.heads * preview.head_dim
    # The cache, and for one block a second copy of its keys and values: with the new ones, repeated for all heads.
    cached = 2 * preview.kv_heads * preview.head_dim * width
    repeated = 2 * preview.heads * preview.head_dim * width
    return _Parts(
        model=(PROGRAM if local else CONTEXT) + preview.parameters * width,
        loading=loading + unpacked,
        chunk=logits + chunk * channels * width,
        token=cached * (preview.layers + 1) + repeated + chunk * preview.heads * 4,
    )


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):  # not Linux: all that it has, or nothing said
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, AttributeError):
            return None


def _groups(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes that the limits of the process's control group and its parents leave, for cgroup versions 1 and 2."""
    try:
        entries = [line.split(":", 2) for line in proc.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in (entry for entry in entries if len(entry) == 3):
        if controllers == "":
            home, limit, used, cold = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            home, (limit, used, cold) = root / "memory", names
        else:
            continue
        folder = home / path.strip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(home) and (free := _left(group, limit, used, cold)) is not None:
                yield free


def _left(group: Path, limit: str, used: str, cold: str) -> int | None:
    """Bytes up to a limit. The system can reclaim cached pages of files that were not read recently."""
    try:
        most = (group / limit).read_text().strip()
        taken = int((group / used).read_text())
        rows = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if most == "max" else max(0, int(most) - taken + int(rows.get(cold, 0)))


def _giga(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"

"""Random calls of the compiled rotation under AddressSanitizer and UBSan: ``python tests/kernels/fuzz.py``.

Builds the kernel once more with the sanitizers, starts itself again with their runtime preloaded, and makes random
calls: shapes, strides, dtypes, devices, positions, and arguments that are wrong in one or two ways. A report ends the
process with an error. A refused call must leave every tensor as it was; now and then an accepted one is compared with
plain torch, bit for bit.
"""

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import Any

import torch
from torch import Tensor

FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g"
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
HUGE = (-1, 2**31, 2**62, -(2**63), 2**63 - 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if os.environ.get("POSENC_FUZZ") == "1":
        return run(arguments.calls, arguments.seed)
    # libstdc++ with it, or the runtime would start before there is a __cxa_throw for it to wrap.
    runtime = [runtime_library(name) for name in ("libasan.so", "libstdc++.so.6")]
    if None in runtime:
        print("fuzz: gcc has no libasan.so here; install the compiler's sanitizer runtime", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "POSENC_FUZZ": "1",
            "POSENC_CACHE": os.path.join(cache, "posenc"),
            "POSENC_CXXFLAGS": FLAGS,
            "LD_PRELOAD": " ".join(filter(None, runtime)),
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "OMP_NUM_THREADS": "2",
        }
        return subprocess.run([sys.executable, *sys.argv], env=environment).returncode


def runtime_library(name: str) -> str | None:
    said = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return os.path.realpath(said) if os.path.isabs(said) else None


def run(calls: int, seed: int) -> int:
    import posenc.kernels.rotate.op  # noqa: F401  # registers the operators
    from posenc.kernels import _build
    from posenc.kernels.rotate import choosing, eager

    library = _build.load(choosing.SOURCE)
    if library.handle is None:
        print(f"fuzz: {library.reason}", file=sys.stderr)
        return 2
    random.seed(seed)
    torch.manual_seed(seed)
    operators = (torch.ops.posenc._rotate, torch.ops.posenc._rotate_, torch.ops.posenc.rotate, torch.ops.posenc.rotate_)
    outcomes: Counter[str] = Counter()
    started = time.monotonic()
    for call in range(calls):
        library.handle.posenc_rotate_set_level(random.randrange(len(choosing.LEVELS)))
        valid = arguments_of_a_good_call()
        arguments = spoil(valid) if random.random() < 0.5 else valid
        operator = random.choice(operators)
        tensors = [
            x
            for x in arguments
            if isinstance(x, Tensor) and x.is_cpu and x.layout == torch.strided and x.numel() < 2**24
        ]
        before = [x.clone() for x in tensors] if random.random() < 0.2 else None
        try:
            with torch.no_grad():
                result = operator(*arguments)
        except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
            outcomes[f"refused: {type(error).__name__}"] += 1
            if arguments is valid and not may_refuse(operator, error):
                raise AssertionError(f"call {call}: a good call was refused: {error}") from error
            if before is not None:
                check(call, tensors, before, "a refused call wrote")
        else:
            outcomes["accepted"] += 1
            if arguments is valid and result is not None and before is not None:
                check(
                    call,
                    list(result),
                    list(eager.rotate_queries_keys(*arguments)),
                    "the result is not that of plain torch",
                )
                check(call, tensors, before, "an input was written")
    print(f"fuzz: {calls} calls in {time.monotonic() - started:.0f} s, no report; {dict(outcomes)}")
    return 0


def check(call: int, got: list[Tensor], want: list[Tensor], what: str) -> None:
    for a, b in zip(got, want, strict=True):
        if not torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)):
            raise AssertionError(f"call {call}: {what}")


def may_refuse(operator: Any, error: Exception) -> bool:
    """In place, random strides may share memory."""
    return operator._qualified_op_name.endswith("_") and "memory" in str(error)


def arguments_of_a_good_call() -> list[Any]:
    dtype = random.choice(DTYPES)
    batch, tokens, pairs = random.choice((0, 1, 1, 2, 3)), random.choice((0, 1, 1, 2, 5, 33)), random.randrange(0, 40)
    start = random.choice((0, 0, 0, 1, 5))
    head_dim = start + 2 * pairs + random.choice((0, 0, 0, 1, 4))
    if random.random() < 0.02:
        tokens, pairs, start, head_dim = 600, 32, 0, 64  # enough work for several threads
    token_dim = random.choice((1, 2))
    rows = tokens + random.randrange(0, 5)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    table_batch = random.choice(((), (), (), (1,), (batch,)))
    table = torch.randn(*table_batch, rows, pairs + random.choice((0, 3)), dtype=arithmetic)[..., :pairs]
    positions, offset = None, 0
    if random.random() < 0.5 and rows:
        shape = random.choice(((tokens,), (1, tokens), (batch, tokens)))
        positions = strided(torch.randint(rows, shape, dtype=random.choice((torch.int32, torch.int64))))
    else:
        offset = random.randrange(rows - tokens + 1)
    tensors = []
    for _ in range(2):
        sizes = [batch, random.choice((0, 1, 1, 2, 4)), tokens, head_dim]
        if token_dim == 1:
            sizes[1], sizes[2] = sizes[2], sizes[1]
        scale = random.choice((1.0, 1.0, 1.0, 2.0**-126))  # the last makes subnormal numbers
        tensors.append(strided((torch.randn(sizes) * scale).to(dtype)))
    return [
        *tensors,
        table,
        table.clone(),
        positions,
        offset,
        start,
        token_dim,
        random.random() < 0.5,
        random.random() < 0.5,
    ]


def strided(x: Tensor) -> Tensor:
    """The same values with other strides: axes permuted, gaps, an expanded axis, a storage offset, a tight storage."""
    kind = random.randrange(5)
    if kind == 0:
        order = random.sample(range(x.ndim), x.ndim)
        return x.permute(order).contiguous().permute([order.index(axis) for axis in range(x.ndim)])
    if kind == 1:
        room = torch.zeros([2 * size + 1 for size in x.shape], dtype=x.dtype)
        view = room[tuple(slice(1, None, 2) for _ in x.shape)]
        view.copy_(x)
        return view
    if kind == 2 and x.shape[0]:
        return x[:1].expand(x.shape)
    if kind == 3:
        room = torch.zeros(x.numel() + 3, dtype=x.dtype)
        room[3:] = x.reshape(-1)
        return room[3:].view(x.shape)
    return x


def spoil(good: list[Any]) -> list[Any]:
    bad = list(good)
    for _ in range(random.choice((1, 1, 2))):
        which = random.randrange(10)
        value = bad[which]
        if which in (8, 9):
            bad[which] = random.choice((2, None, "half", 1.5))
        elif which in (5, 6, 7):
            bad[which] = random.choice((*HUGE, random.randrange(-3, 60), None, 0.5, True))
        elif which == 4:
            bad[which] = random.choice(
                (
                    torch.tensor([random.choice(HUGE)] * random.randrange(5)),
                    torch.randint(-3, 99, (random.randrange(1, 4), random.randrange(1, 6))),
                    torch.rand(random.randrange(6)),
                    torch.tensor(3),
                    torch.empty(5, dtype=torch.int64, device="meta"),
                    torch.ones(1, 1, 1, dtype=torch.int64),
                    torch.ones(3, dtype=torch.uint8),
                )
            )
        elif (
            isinstance(value, Tensor) and value.numel() < 2**24
        ):  # what was made huge would take for ever to spoil more
            with contextlib.suppress(RuntimeError):  # not every tensor can be spoiled in every way
                bad[which] = spoil_tensor(value)
    return bad


def spoil_tensor(x: Tensor) -> Any:
    kind = random.randrange(12)
    if kind == 0:
        return x.to(random.choice((*DTYPES, torch.int64, torch.complex64, torch.bool)))
    if kind == 1:
        return x.to("meta")
    if kind == 2 and x.ndim:
        axis = random.randrange(x.ndim)
        return x.narrow(axis, 0, max(0, x.shape[axis] - 1))
    if kind == 3:
        return x.unsqueeze(random.randrange(x.ndim + 1))
    if kind == 4 and x.ndim:
        return x.sum(random.randrange(x.ndim))
    if kind == 5 and x.ndim > 1:
        return x.transpose(*random.sample(range(x.ndim), 2))
    if kind == 6:
        return x.expand(random.randrange(1, 4), *x.shape[1:]) if x.ndim and x.shape[0] == 1 else x.reshape(-1)
    if kind == 7:
        return torch.empty(0, dtype=x.dtype)
    if kind == 8:
        return random.choice((None, 1.0, [1.0], "q"))
    if kind == 9 and x.ndim:
        return torch.as_strided(x, (0, *x.shape[1:]), [2**40] * x.ndim)
    if kind == 10:
        huge = torch.empty((), dtype=x.dtype).expand((2**20, 2**20, 2**21, 2))
        return huge if random.random() < 0.5 else x.to_sparse()
    if kind == 11 and x.ndim:
        return torch.cat((x, x), dim=random.randrange(x.ndim))
    return x[..., ::2] if x.ndim else x


if __name__ == "__main__":
    sys.exit(main())

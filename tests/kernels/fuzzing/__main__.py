"""Random calls of the compiled kernels under AddressSanitizer and UBSan: ``python -m tests.kernels.fuzzing``.

Builds a kernel once more with the sanitizers, starts itself again with their runtime preloaded, and makes random
calls: shapes, strides, dtypes, devices, positions, and arguments that are wrong in one or two ways. A report ends the
process with an error. A refused call must leave every tensor as it was; now and then an accepted one is compared with
plain torch: the rotation bit for bit, the attention and its gradients with the formula in float64.
"""

import argparse
import importlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

FLAGS = "-O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g"
#: So that the attention's 16 lanes are tried where there is no AVX-512 too.
FLAGS += " -DPOSENC_EMULATE_AVX512"
KERNELS = ("rotation", "attention")
#: After so many calls a line says what came of all until then, so that a stop loses little.
BLOCK = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="of each kernel")
    parser.add_argument("--seed", type=int, default=0, help="the number of the first call; to go on after a stop")
    parser.add_argument("--cache", type=Path, help="keeps what is built, which takes a minute of the processor")
    parser.add_argument("--only", choices=KERNELS, nargs="+", default=KERNELS)
    arguments = parser.parse_args()
    if os.environ.get("POSENC_FUZZ") == "1":
        return max(run(kernel, arguments.calls, arguments.seed) for kernel in arguments.only)
    # libstdc++ with it, or the runtime would start before there is a __cxa_throw for it to wrap.
    runtime = [runtime_library(name) for name in ("libasan.so", "libstdc++.so.6")]
    if None in runtime:
        print("fuzz: gcc has no libasan.so here; install the compiler's sanitizer runtime", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "POSENC_FUZZ": "1",
            "POSENC_CACHE": os.path.join(arguments.cache or cache, "posenc"),
            "POSENC_CXXFLAGS": FLAGS,
            "LD_PRELOAD": " ".join(filter(None, runtime)),
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "OMP_NUM_THREADS": "2",
        }
        command = [sys.executable, "-m", "tests.kernels.fuzzing", *sys.argv[1:]]
        return subprocess.run(command, env=environment).returncode


def runtime_library(name: str) -> str | None:
    said = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return os.path.realpath(said) if os.path.isabs(said) else None


def run(kernel: str, calls: int, seed: int) -> int:
    from posenc.kernels import _build

    fuzzed = importlib.import_module(f"tests.kernels.fuzzing.{kernel}")
    library = _build.load(fuzzed.SOURCE)
    if library.handle is None:
        print(f"fuzz: {library.reason}", file=sys.stderr)
        return 2
    outcomes: Counter[str] = Counter()
    started = time.process_time()
    for call in range(seed, seed + calls):
        random.seed(call)
        torch.manual_seed(call)
        getattr(library.handle, fuzzed.SET_LEVEL)(random.randrange(fuzzed.LEVELS))
        operator, valid = fuzzed.good_call()
        arguments = fuzzed.spoil(valid) if random.random() < 0.5 else valid
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
            if arguments is valid and not fuzzed.may_refuse(operator, error):
                raise AssertionError(f"{kernel}, call {call}: a good call was refused: {error}") from error
            if before is not None and not same(tensors, before):
                raise AssertionError(f"{kernel}, call {call}: a refused call wrote") from None
        else:
            outcomes["accepted"] += 1
            if arguments is valid and result is not None and before is not None:
                outcomes["compared"] += 1
                if (said := fuzzed.difference(operator, arguments, result)) is not None:
                    raise AssertionError(f"{kernel}, call {call}: {said}")
                if not same(tensors, before):
                    raise AssertionError(f"{kernel}, call {call}: an input was written")
        done = call + 1 - seed
        if done == calls or done % BLOCK == 0:
            spent = f"{time.process_time() - started:.0f} s of the processor"
            print(f"fuzz: {kernel}: {done} calls from {seed} on, {spent}, no report; {dict(outcomes)}", flush=True)
    return 0


def same(tensors: list[Tensor], before: list[Tensor]) -> bool:
    return all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in zip(tensors, before, strict=True))


if __name__ == "__main__":
    sys.exit(main())

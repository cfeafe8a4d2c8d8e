"""Which implementation of the rotation a call takes, and why."""

import os
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from posenc.kernels import _build
from posenc.kernels.choice import Implementation
from posenc.kernels.precision import compute_dtype, may_keep

SOURCE = Path(__file__).with_name("cpu.cpp")
LEVELS = ("the portable instruction set", "AVX2", "AVX-512", "AVX-512 with BF16")

_TABLE_DTYPES = {x: compute_dtype(x) for x in (torch.float32, torch.float64, torch.float16, torch.bfloat16)}
_cpu_is_loaded = False


def level() -> str:
    """The instruction set that the compiled kernel uses here, or "" if there is no compiled kernel."""
    library = _build.load(SOURCE)
    return "" if library.handle is None else LEVELS[library.handle.posenc_rotate_level()]


def is_plain(q: Tensor, k: Tensor) -> bool:
    """Whether "auto" is compiled code for q, k and tables of their dtype, below autograd: the common call of decoding.

    One question in place of those that :func:`choose`, autograd and what is kept from call to call ask one by one.
    """
    return (
        _cpu_is_loaded
        and type(q) is Tensor
        and type(k) is Tensor
        and q.is_cpu
        and not (torch.is_grad_enabled() and (q.requires_grad or k.requires_grad))
        and may_keep()
    )


def choose(q: Tensor, k: Tensor, cos: Tensor, implementation: Implementation) -> str:
    """The choice alone, the common answer first: this runs in every call."""
    if (
        _cpu_is_loaded
        and implementation == "auto"
        and q.is_cpu
        and not torch.compiler.is_compiling()
        and (dtype := q.dtype) is k.dtype
        and cos.dtype is _TABLE_DTYPES.get(dtype)
        and not _is_special(q, k, cos)
    ):
        return "cpu"
    return choose_and_say(q, k, cos, implementation)[0]


def _is_special(q: Tensor, k: Tensor, cos: Tensor) -> bool:
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    if type(q) is Tensor and type(k) is Tensor and type(cos) is Tensor:
        return False
    return any(type(x) not in (Tensor, torch.nn.Parameter) for x in (q, k, cos))


def choose_and_say(q: Tensor, k: Tensor, cos: Tensor, implementation: Implementation) -> tuple[str, str]:
    """The choice and its reason."""
    if implementation not in get_args(Implementation):
        raise ValueError(f"rotate: got implementation {implementation!r}, expected one of {get_args(Implementation)}.")
    if torch.compiler.is_compiling():
        return "eager", "torch.compile fuses the plain expression with its neighbours"
    if implementation == "eager":
        return "eager", 'implementation="eager" asks for it'
    device = q.device.type
    wanted = implementation if implementation != "auto" else {"cpu": "cpu", "cuda": "triton"}.get(device, "eager")
    if wanted == "eager":
        return "eager", f"there is no kernel for device {device}"
    obstacle = _obstacle(q, k, cos, wanted)
    if obstacle is None:
        return wanted, f"the tensors are on {device}" + (f", compiled code uses {level()}" if wanted == "cpu" else "")
    if implementation != "auto":
        raise ValueError(f'rotate: got implementation="{implementation}", but {obstacle}; use "auto" or "eager".')
    return "eager", obstacle


def _obstacle(q: Tensor, k: Tensor, cos: Tensor, wanted: str) -> str | None:
    """Why ``wanted`` cannot be taken, or None if it can."""
    device = {"cpu": "cpu", "triton": "cuda"}[wanted]
    if _is_special(q, k, cos):
        return "transforms of torch.func, forward-mode derivatives and subclasses of Tensor need plain torch"
    if q.device.type != device and not (wanted == "triton" and _triton_interprets()):
        return f"the tensors are on {q.device.type}, not on {device}"
    if cos.dtype is not _TABLE_DTYPES.get(q.dtype):
        return f"tables of {cos.dtype} for tensors of {q.dtype} need another order of rounding than the kernels have"
    if q.dtype is not k.dtype:
        return f"q is {q.dtype} and k is {k.dtype}"
    return cpu_obstacle() if wanted == "cpu" else _triton_obstacle()


def cpu_obstacle() -> str | None:
    global _cpu_is_loaded
    library = _build.load(SOURCE)
    _cpu_is_loaded = library.handle is not None
    return None if _cpu_is_loaded else f"the compiled kernel is not available: {library.reason}"


def _triton_obstacle() -> str | None:
    try:
        import triton  # noqa: F401
    except ImportError:
        return "Triton is not installed: pip install triton"
    return None


def _triton_interprets() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"

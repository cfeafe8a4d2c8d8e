"""The numerics of the house: angles in float64, one rounding to the dtype of the arithmetic, one on the way out."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which tensors of ``dtype`` are computed: float64 for float64, float32 for all narrower ones."""
    return torch.float64 if dtype == torch.float64 else torch.float32


#: Kinds of devices that have no float64: Apple's, and Ascend's.
WITHOUT_FLOAT64 = {"mps", "npu"}


def float64_device(device: torch.device | str | None) -> torch.device | None:
    """Where numbers for ``device`` are worked out in float64: there, or on the CPU if it has none; None for None."""
    if device is None:
        return None
    device = torch.device(device)
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def sent(x: Tensor, device: torch.device | str) -> Tensor:
    """``x`` on ``device``, and if it is float64 and the device has none, in float32."""
    device = torch.device(device)
    if x.dtype == torch.float64 and device.type in WITHOUT_FLOAT64:
        return x.to(torch.float32).to(device)
    return x.to(device)


def as_float64(x: Tensor) -> Tensor:
    """Numbers in float64, on the CPU where their device has none. For positions use :func:`exact_positions`."""
    return x.to(float64_device(x.device)).to(torch.float64)


_POSITIONS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.float64, torch.float32)


def check_positions(positions: object, name: str = "positions", *, other_forms: str = "") -> Tensor:
    """Positions that are a tensor of a dtype that can hold them: the one place that decides it.

    Args:
        positions: what was given.
        name: what an error calls it.
        other_forms: what the caller takes instead of a tensor, for the error: "None, or ".

    Raises:
        TypeError: anything else. bfloat16 cannot represent 257, nor float16 2049.
    """
    if isinstance(positions, Tensor) and positions.dtype in _POSITIONS:
        return positions
    got, advice = f"a value of type {type(positions).__name__}", "" if other_forms else ", such as torch.arange(16)"
    if isinstance(positions, Tensor):
        got, advice = f"a {positions.dtype} tensor", ""
        if positions.dtype in (torch.bfloat16, torch.float16):
            last = 256 if positions.dtype == torch.bfloat16 else 2048
            advice = (
                f"; {positions.dtype} skips whole numbers above {last}: keep positions in int64, or call .float() on "
                "fractions before anything casts them"
            )
    raise TypeError(f"{name}: got {got}, expected {other_forms}a tensor of whole numbers, float32 or float64{advice}.")


def exact_positions(positions: Tensor) -> Tensor:
    """Positions in float64, on the CPU where their device has none.

    Raises:
        TypeError: what is no tensor, or of a dtype that cannot hold positions, as in :func:`check_positions`.
    """
    return as_float64(check_positions(positions))


def angles(positions: Tensor, inv_freq: Sequence[float]) -> Tensor:
    """positions x inv_freq in radians, float64, shape ``(*positions, len(inv_freq))``.

    ``inv_freq`` is a plain sequence, no tensor, so that nothing a module does to its tensors (a cast to bfloat16, a
    move from the meta device) can spoil it.
    """
    exact = exact_positions(positions)
    return exact[..., None] * torch.tensor(inv_freq, dtype=torch.float64, device=exact.device)


def may_keep() -> bool:
    """Whether tensors made now may serve a later call: not those of a trace, of a transform or of a fake mode."""
    return not (
        torch.compiler.is_compiling()
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Arithmetic in the dtypes that it is written in; a device without autocast, such as meta, needs nothing for it."""
    if device_type == "meta":
        return nullcontext()
    # PyTorch 2.10 cannot compile the questions.
    if not torch.compiler.is_compiling() and not (
        torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
    ):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def may_look(x: Tensor) -> bool:
    """Whether the values of ``x`` may be read: the one place that decides it.

    Not off the CPU, where a look would stall the device; not while something traces; and not where there are no plain
    values: a fake or meta tensor, a subclass, the wrapper of a transform of torch.func or of forward-mode derivatives.
    """
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.is_cpu
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None  # torch.jit.trace
        and torch._C._len_torch_dispatch_stack() == 0
        and not (torch._C._are_functorch_transforms_active() and torch._C._functorch.is_functorch_wrapped_tensor(x))
    )

"""The numerics of the house: angles in float64, one rounding to the dtype of the arithmetic, one on the way out."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

T = TypeVar("T")


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which tensors of ``dtype`` are worked on: float64 for itself, float32 for all narrower ones."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def as_float64(positions: Tensor) -> Tensor:
    """Positions in float64, on the CPU where the device has none (MPS)."""
    if positions.device.type == "mps":
        positions = positions.cpu()
    return positions.to(torch.float64)


def angles(positions: Tensor, inv_freq: Sequence[float]) -> Tensor:
    """positions x inv_freq in radians, float64, shape ``(*positions, len(inv_freq))``.

    ``inv_freq`` is a plain sequence, no tensor, so that nothing a module does to its tensors (a cast to bfloat16, a
    move from the meta device) can spoil it.
    """
    exact = as_float64(positions)
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
    if not torch.amp.is_autocast_available(device_type):
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
        and torch._C._len_torch_dispatch_stack() == 0
        and not (torch._C._are_functorch_transforms_active() and torch._C._functorch.is_functorch_wrapped_tensor(x))
    )


class LastResult:
    """Keeps the last result for the last positions, so that all layers of one forward share one computation.

    Never part of a state dict, a copy or a pickle.
    """

    def __init__(self) -> None:
        self._entry: tuple[Any, Tensor | int | None, int, Any] | None = None

    def get(self, positions: Tensor | int | None, key: Any, make: Callable[[], T]) -> T:
        """``make()``, or what it gave last time if positions and key are still the same."""
        if not may_keep() or not _can_be_kept(positions):
            return make()
        entry = self._entry
        if entry is not None and entry[0] == key and _same(entry[1], entry[2], positions):
            kept_result: T = entry[3]
            return kept_result
        with torch.inference_mode(False), torch.no_grad():  # so that a later forward may train with it
            result = make()
        kept = positions.clone() if isinstance(positions, Tensor) and positions.device.type == "cpu" else positions
        version = positions._version if isinstance(positions, Tensor) and kept is positions else 0
        self._entry = (key, kept, version, result)
        return result

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (LastResult, ())


def _can_be_kept(positions: Tensor | int | None) -> bool:
    if not isinstance(positions, Tensor):
        return True
    if type(positions) is not Tensor or positions.requires_grad or positions.device.type == "meta":
        return False
    # Off the CPU, sameness is judged by identity and version, and inference tensors have no version.
    return positions.device.type == "cpu" or not positions.is_inference()


def _same(kept: Tensor | int | None, version: int, positions: Tensor | int | None) -> bool:
    if not isinstance(kept, Tensor) or not isinstance(positions, Tensor):
        return kept is positions or (type(kept) is type(positions) and kept == positions)  # True is no 1
    if kept.device.type == "cpu":
        return kept.dtype == positions.dtype and torch.equal(kept, positions)
    return kept is positions and positions._version == version

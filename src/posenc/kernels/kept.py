"""What is kept from call to call, in one place with one bound: tables of rotations, last results, rows of biases."""

import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from posenc.kernels.precision import may_keep

#: All that is kept in this process together; what has not been used for longest goes first.
MAX_BYTES = 256 << 20

T = TypeVar("T")
R = TypeVar("R", bound=tuple[Any, ...])


class Slot(Generic[T]):
    """A place for one value, which is taken away when all slots together hold more than ``MAX_BYTES``.

    The newest value stays, however large it is. Never part of a state dict, a copy or a pickle.
    """

    def __init__(self) -> None:
        self._value: T | None = None
        self.nbytes = 0
        self.used = 0

    def get(self) -> T | None:
        """The value, or None if there is none, or none any more."""
        self.used = _puts
        return self._value

    def put(self, value: T, *tensors: Tensor) -> None:
        """Keep a value, which holds these tensors."""
        global _puts
        with _lock:
            self._value, self.nbytes, self.used = value, sum(x.nbytes for x in tensors), _puts
            _filled.add(self)
            _puts += 1
            others = sorted((slot for slot in _filled if slot is not self), key=lambda slot: slot.used)
            total = self.nbytes + sum(slot.nbytes for slot in others)
            for slot in others:
                if total <= MAX_BYTES:
                    break
                total -= slot.nbytes
                slot._value, slot.nbytes = None, 0
                _filled.discard(slot)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Slot, ())


_filled: weakref.WeakSet[Slot[Any]] = weakref.WeakSet()
_lock = threading.Lock()
_puts = 0  # so many values were kept: a clock that stands still while nothing is made


class LastResult:
    """Keeps the last result for the last positions, so that all layers of one forward share one computation."""

    def __init__(self) -> None:
        self._slot: Slot[tuple[Any, Tensor | int | None, int, Any]] = Slot()

    def get(self, positions: Tensor | int | None, key: Any, make: Callable[[], R]) -> R:
        """``make()``, or what it gave last time if positions and key are still the same."""
        if not may_keep() or not _can_be_kept(positions):
            return make()
        entry = self._slot.get()
        if entry is not None and entry[0] == key and _same(entry[1], entry[2], positions):
            last: R = entry[3]
            return last
        with torch.inference_mode(False), torch.no_grad():  # so that a later forward may train with it
            result = make()
        kept = positions.clone() if isinstance(positions, Tensor) and positions.device.type == "cpu" else positions
        version = positions._version if isinstance(positions, Tensor) and kept is positions else 0
        self._slot.put((key, kept, version, result), *(x for x in (*result, kept) if isinstance(x, Tensor)))
        return result


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

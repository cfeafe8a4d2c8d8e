"""What an encoding keeps from call to call, by what its parameters and settings were: rows of distances.

Of an encoding that promises that nothing else decides it (``bias_is_pure``), and for more distances than are needed
at once, so that a step of decoding finds what the step before it made.
"""

import math
from collections.abc import Callable
from ctypes import c_char
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeVar

import torch
from torch import Tensor

from posenc.kernels.inputs import PLAIN
from posenc.kernels.kept import Slot

T = TypeVar("T")

_MOST_PARAMETERS = 4096  # whose values are compared before something kept is used


def are_learned(tensors: list[Tensor]) -> bool:
    """Whether their gradient may be asked for."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def by_distance(
    encoding: Any,
    tensors: list[Tensor],
    slot: str,
    heads: int,
    low: int,
    high: int,
    below: Callable[[], float],
    make: Callable[[int, int], T],
) -> tuple[T, int]:
    """``make(low, high)`` for these distances or more, and the lowest of them.

    Args:
        tensors: those of the encoding.
        slot: the name of the attribute that keeps it.
        heads: of the call: a class of your own may give one bias to any number.
        below: gives the distance below which it can be made, asked for when it is made.
        make: gives a tensor or a tuple of tensors and numbers, from the parameters and settings of the encoding alone.
    """
    kept = known(encoding, tensors, slot, heads, low, high)
    if kept is None:
        low, high = _rounded(low, high, below())
        values = [_Values.of(x) for x in tensors]
        with torch.inference_mode(False), torch.no_grad():
            made = make(low, high)
        readable = [x for x in values if x is not None]
        kept = keep(encoding, slot, made, low, high, readable if len(readable) == len(values) else None, heads)
    return kept.made, kept.low


def known(encoding: Any, tensors: list[Tensor], slot: str, heads: int, low: int, high: int) -> "Kept | None":
    """What is kept there, if it reaches over these distances and the encoding is still as it was."""
    kept = find(encoding, slot)
    if kept is None or heads != kept.heads or low < kept.low or high > kept.high or not hold(tensors, kept.values):
        return None
    return kept


@dataclass
class Kept:
    made: Any  # a tensor, or a tuple of them and of numbers
    low: int
    high: int
    values: list["_Values"] | None  # of the parameters that it was made of
    read: Callable[[dict[str, Any]], Any]  # takes the public attributes, on which a bias may depend, out of all of them
    settings: Any  # what they were
    attributes: int  # so many there were, private ones too
    heads: int  # 0 where it is for any number of them


def find(encoding: Any, name: str) -> Kept | None:
    """What is kept there, if the encoding's settings are still those that it was made of. This runs in every call."""
    attributes = vars(encoding)
    slot = attributes.get(name)
    kept: Kept | None = None if slot is None else slot.get()
    if kept is None or len(attributes) != kept.attributes:
        return None
    try:
        return kept if kept.read(attributes) == kept.settings else None
    except (
        KeyError,
        RuntimeError,
        ValueError,
    ):  # one is gone, or an array, which is not the same or another as a whole
        return None


def keep(
    encoding: Any, name: str, made: Any, low: int, high: int, values: list["_Values"] | None, heads: int = 0
) -> Kept:
    """Keep it under a name that is private, and a slot: no part of a state dict, a copy or a pickle."""
    attributes = vars(encoding)
    slot = attributes.setdefault(name, Slot())
    read = itemgetter(*(each for each in attributes if each[0] != "_"))  # "training" at least
    kept = Kept(made, low, high, values, read, read(attributes), len(attributes), heads)
    slot.put(kept, *(x for x in (made if isinstance(made, tuple) else (made,)) if isinstance(x, Tensor)))
    return kept


def tensors_of(module: torch.nn.Module) -> list[Tensor]:
    """Parameters and buffers, those of submodules too, by a walk that takes a tenth of ``parameters()``'s time."""
    tensors = [x for x in (*module._parameters.values(), *module._buffers.values()) if x is not None]
    for child in module._modules.values():
        if child is not None:
            tensors += tensors_of(child)
    return tensors


@dataclass
class _Values:
    """What a parameter held. Its bits are read from memory, which takes a tenth of torch.equal's time; a version would
    not count what is done to ``.data``."""

    dtype: torch.dtype
    start: int  # where its bits lie
    memory: Any  # an array of bytes there, to be read only if the parameter still lies there
    bits: bytearray  # which compares itself with any memory, and copies none

    @classmethod
    def of(cls, x: Tensor) -> "_Values | None":
        """None for a parameter that is large, or not plain numbers side by side."""
        if type(x) not in PLAIN or not x.is_cpu or not x.is_contiguous() or x.numel() > _MOST_PARAMETERS:
            return None
        start = x.data_ptr()
        if not start:  # nothing in it, or a storage that was given back
            return None
        memory = (c_char * x.nbytes).from_address(start)
        return cls(x.dtype, start, memory, bytearray(memory))

    def are_those_of(self, x: Tensor) -> bool:
        return (
            type(x) in PLAIN
            and x.data_ptr() == self.start
            and x.nbytes == len(self.bits)
            and x.dtype is self.dtype
            and x.is_contiguous()
            and self.bits == self.memory
        )


def hold(tensors: list[Tensor], values: list[_Values] | None) -> bool:
    """Whether these tensors hold these values; None, where they are not known, is never what they hold."""
    return values is not None and len(tensors) == len(values) and all(map(_Values.are_those_of, values, tensors))


def _rounded(low: int, high: int, below: float) -> tuple[int, int]:
    """Distances of the next power of two, so that a sequence may grow, if those are decided by distance still."""
    further = max(1 << max(high, 63).bit_length(), 64) - 1
    if further >= below:
        further = math.ceil(below) - 1
    return (min(low, 0) if low >= 0 else -(1 << (-low).bit_length())), further

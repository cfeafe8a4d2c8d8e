"""A relative bias over consecutive positions as one row of numbers for each head: its value at each distance.

The row of an encoding that promises it (``bias_is_pure``) is kept from call to call, for more distances than are needed
at once, so that a step of decoding finds the row of the step before it.
"""

from ctypes import string_at
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posenc.kernels.biased_attention.problem import Problem
from posenc.kernels.kept import Slot

_MOST_PARAMETERS = 4096  # whose values are compared before a kept row is used
_PLAIN = frozenset((Tensor, torch.nn.Parameter))

Values = tuple[torch.dtype, bytes]


def suits(problem: Problem) -> bool:
    """Whether the bias is a function of the distance and the positions of queries and keys are consecutive."""
    if problem.contextual or not problem.encoding.relative:
        return False
    return problem.starts is not None


def make(problem: Problem) -> tuple[Tensor | None, int]:
    """``(row, zero)``: entry ``zero + n`` of the row ``(heads, distances)`` is for a key n tokens before the query.

    None and 0 if nothing is added. The row may reach further than the call does.
    """
    encoding = problem.encoding
    starts = None if encoding is None else problem.starts
    if starts is None:
        return None, 0
    q_len, k_len = problem.q_len, problem.k_len
    shift = starts[0] - starts[1] - (k_len - q_len)  # positions besides tokens
    low, high = (0 if problem.causal else 1 - q_len), k_len - 1
    if problem.window is not None:
        low, high = max(low, 1 - problem.window), min(high, problem.window - 1)
    low, high = low + shift, high + shift
    if not getattr(encoding, "bias_is_pure", False):
        return _row(encoding.bias(*_positions(encoding, low, high))), shift - low
    if _learns(encoding):
        return _learned(encoding, low, high), shift - low
    kept = _kept(encoding, _SLOT)
    if kept is None or low < kept.low or high > kept.high or [_values(x) for x in _tensors(encoding)] != kept.values:
        low, high = _rounded(low, high)
        values = [_values(x) for x in _tensors(encoding)]
        with torch.inference_mode(False), torch.no_grad():
            row = _row(encoding.bias(*_positions(encoding, low, high)))
        kept = _keep(encoding, _SLOT, row, low, high, None if None in values else values)
    return kept.made, shift - kept.low


def _learned(encoding: Any, low: int, high: int) -> Tensor:
    """The row with its gradient, from what positions alone decide, if the encoding tells that apart.

    One that does defines ``of_positions(q_positions, k_positions)``, which reads no parameter, and ``bias_from`` of it.
    """
    kept = _kept(encoding, _SLOT_OF_POSITIONS)
    if kept is None or (low, high) != (kept.low, kept.high) or kept.made.device != _tensors(encoding)[0].device:
        positions = _positions(encoding, low, high)
        if not _tells_apart(type(encoding)):
            return _row(encoding.bias(*positions))
        kept = _keep(encoding, _SLOT_OF_POSITIONS, encoding.of_positions(*positions), low, high, [])
    return _row(encoding.bias_from(kept.made))


def _tells_apart(cls: type) -> bool:
    """Whether ``bias`` stands in the class that has the two parts, or in a base of it.

    A subclass with a ``bias`` of its own has inherited parts that give another one.
    """

    def home(name: str) -> int:
        return next((at for at, each in enumerate(cls.__mro__) if name in vars(each)), len(cls.__mro__))

    return max(home("of_positions"), home("bias_from")) <= home("bias") < len(cls.__mro__)


@dataclass
class _Kept:
    made: Tensor
    low: int
    high: int
    values: list[Values | None] | None  # of the parameters that it was made of
    settings: dict[str, Any]
    attributes: int  # so many there were, private ones too


def _kept(encoding: Any, name: str) -> _Kept | None:
    """What is kept there, if the encoding's settings are still those that it was made of. This runs in every call."""
    attributes = vars(encoding)
    slot = attributes.get(name)
    kept: _Kept | None = None if slot is None else slot.get()
    if kept is None or len(attributes) != kept.attributes:
        return None
    for setting, value in kept.settings.items():
        now = attributes.get(setting, kept)
        if now is not value and now != value:
            return None
    return kept


def _keep(encoding: Any, name: str, made: Tensor, low: int, high: int, values: list[Values | None] | None) -> _Kept:
    slot = vars(encoding).setdefault(name, Slot())
    settings = {name: value for name, value in vars(encoding).items() if name[0] != "_"}  # those a bias may depend on
    kept = _Kept(made, low, high, values, settings, len(vars(encoding)))
    slot.put(kept, made)
    return kept


# Private, slots, and so no part of a state dict, a copy or a pickle.
_SLOT = "_row_by_distance"
_SLOT_OF_POSITIONS = "_of_distances"


def _learns(encoding: Any) -> bool:
    if not torch.is_grad_enabled():
        return False
    return any(x.requires_grad for x in _tensors(encoding))


def _tensors(encoding: Any) -> list[Tensor]:
    """Parameters and buffers. Without submodules they are at hand: this runs in every step of decoding."""
    if encoding._modules:
        return [*encoding.parameters(), *encoding.buffers()]
    return [x for x in (*encoding._parameters.values(), *encoding._buffers.values()) if x is not None]


def _values(x: Tensor) -> Values | None:
    """What a parameter holds, to be compared later; None for one that is large, or not plain numbers side by side.

    The bits are read from memory, which takes a fifth of torch.equal's time; a version would not count what is done
    to ``.data``.
    """
    if type(x) not in _PLAIN or not x.is_cpu or not x.is_contiguous() or x.numel() > _MOST_PARAMETERS:
        return None
    start = x.data_ptr()
    if not start:  # nothing in it, or a storage that was given back
        return None
    return x.dtype, string_at(start, x.nbytes)


def _rounded(low: int, high: int) -> tuple[int, int]:
    """Distances of the next power of two, so that a sequence may grow."""
    further = max(1 << max(high, 63).bit_length(), 64) - 1
    return (min(low, 0) if low >= 0 else -(1 << (-low).bit_length())), further


def _positions(encoding: Any, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Positions of queries and of one key whose differences are the distances low ... high."""
    device = next((x.device for x in encoding.parameters()), None)
    key = max(-low, 0)
    return torch.arange(low + key, high + key + 1, device=device), torch.full((1,), key, device=device)


def _row(bias: Tensor) -> Tensor:
    """``(heads, distances, 1)`` as the kernel reads it."""
    return bias.squeeze(-1).float().contiguous()

"""A bias over consecutive positions as one row of numbers for each head: its value at each distance.

There is such a row for a relative bias, for one that is relative below a position (``relative_below``) if all queries
stand there, and for the bias of a single query, whatever it depends on.

The row of an encoding that promises it (``bias_is_pure``) is kept from call to call, for more distances than are needed
at once, so that a step of decoding finds the row of the step before it.
"""

import math
from collections.abc import Callable
from ctypes import c_char
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from posenc.kernels.biased_attention.problem import Problem
from posenc.kernels.biased_attention.toeplitz import of_heads
from posenc.kernels.kept import Slot

_MOST_PARAMETERS = 4096  # whose values are compared before a kept row is used
_PLAIN = frozenset((Tensor, torch.nn.Parameter))


def suits(problem: Problem) -> bool:
    """Whether a row holds the bias: positions are consecutive, and distances decide or there is a single query."""
    encoding = problem.encoding
    if problem.contextual or not (problem.q_len == 1 or encoding.relative_below() > 0):
        return False
    starts = problem.starts
    return starts is not None and (problem.q_len == 1 or _is_relative(problem, starts[0]))


def _is_relative(problem: Problem, start: int) -> bool:
    """Whether the bias of the queries, the first of which stands there, is a function of the distance."""
    below: float = problem.encoding.relative_below()
    return start + problem.q_len <= below


def make(problem: Problem) -> tuple[Tensor | None, int]:
    """``(row, zero)``: entry ``zero + n`` of the row ``(heads, distances)`` is for a key n tokens before the query.

    None and 0 if nothing is added. The row may reach further than the call does.
    """
    encoding = problem.encoding
    starts = None if encoding is None or problem.contextual else problem.starts
    if starts is None:
        return None, 0
    heads = problem.q.shape[1]
    if not _is_relative(problem, starts[0]):  # a single query: its bias, from its own key backwards
        return _row(encoding.bias(*problem.positions), heads).flip(-1), 0
    q_len, k_len = problem.q_len, problem.k_len
    shift = starts[0] - starts[1] - (k_len - q_len)  # positions besides tokens
    low, high = (0 if problem.causal else 1 - q_len), k_len - 1
    if problem.window is not None:
        low, high = max(low, 1 - problem.window), min(high, problem.window - 1)
    low, high = low + shift, high + shift
    if not getattr(encoding, "bias_is_pure", False):
        return _row(encoding.bias(*_positions(encoding, low, high)), heads), shift - low
    tensors = _tensors(encoding)
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return _learned(encoding, tensors, low, high, heads), shift - low
    kept = _kept(encoding, _SLOT)
    if kept is None or low < kept.low or high > kept.high or not _hold(tensors, kept.values):
        low, high = _rounded(low, high, encoding.relative_below())
        values = [_Values.of(x) for x in tensors]
        with torch.inference_mode(False), torch.no_grad():
            row = _row(encoding.bias(*_positions(encoding, low, high)), heads)
        known = [x for x in values if x is not None]
        kept = _keep(encoding, _SLOT, row, low, high, known if len(known) == len(values) else None)
    return kept.made, shift - kept.low


def _learned(encoding: Any, tensors: list[Tensor], low: int, high: int, heads: int) -> Tensor:
    """The row with its gradient, from what positions alone decide, if the encoding tells that apart.

    One that does defines ``of_positions(q_positions, k_positions)``, which reads no parameter, and ``bias_from`` of it.
    """
    kept = _kept(encoding, _SLOT_OF_POSITIONS)
    if kept is None or (low, high) != (kept.low, kept.high) or kept.made.device != tensors[0].device:
        positions = _positions(encoding, low, high)
        if not _tells_apart(type(encoding)):
            return _row(encoding.bias(*positions), heads)
        kept = _keep(encoding, _SLOT_OF_POSITIONS, encoding.of_positions(*positions), low, high, [])
    return _row(encoding.bias_from(kept.made), heads)


def _tells_apart(cls: type) -> bool:
    """Whether ``bias`` stands in the class that has the two parts, or in a base of it.

    A subclass with a ``bias`` of its own has inherited parts that give another one.
    """

    return max(home(cls, "of_positions"), home(cls, "bias_from")) <= home(cls, "bias") < len(cls.__mro__)


def home(cls: type, name: str) -> int:
    """How far up the bases of a class an attribute stands: 0 in the class itself, past the last for nowhere."""
    return next((at for at, each in enumerate(cls.__mro__) if name in vars(each)), len(cls.__mro__))


@dataclass
class _Kept:
    made: Tensor
    low: int
    high: int
    values: list["_Values"] | None  # of the parameters that it was made of
    read: Callable[[dict[str, Any]], Any]  # takes the public attributes, on which a bias may depend, out of all of them
    settings: Any  # what they were
    attributes: int  # so many there were, private ones too


def _kept(encoding: Any, name: str) -> _Kept | None:
    """What is kept there, if the encoding's settings are still those that it was made of. This runs in every call."""
    attributes = vars(encoding)
    slot = attributes.get(name)
    kept: _Kept | None = None if slot is None else slot.get()
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


def _keep(encoding: Any, name: str, made: Tensor, low: int, high: int, values: list["_Values"] | None) -> _Kept:
    attributes = vars(encoding)
    slot = attributes.setdefault(name, Slot())
    read = itemgetter(*(each for each in attributes if each[0] != "_"))  # "training" at least
    kept = _Kept(made, low, high, values, read, read(attributes), len(attributes))
    slot.put(kept, made)
    return kept


# Private, slots, and so no part of a state dict, a copy or a pickle.
_SLOT = "_row_by_distance"
_SLOT_OF_POSITIONS = "_of_distances"


def _tensors(module: torch.nn.Module) -> list[Tensor]:
    """Parameters and buffers, those of submodules too, by a walk that takes a tenth of ``parameters()``'s time."""
    tensors = [x for x in (*module._parameters.values(), *module._buffers.values()) if x is not None]
    for child in module._modules.values():
        if child is not None:
            tensors += _tensors(child)
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
        if type(x) not in _PLAIN or not x.is_cpu or not x.is_contiguous() or x.numel() > _MOST_PARAMETERS:
            return None
        start = x.data_ptr()
        if not start:  # nothing in it, or a storage that was given back
            return None
        memory = (c_char * x.nbytes).from_address(start)
        return cls(x.dtype, start, memory, bytearray(memory))

    def are_those_of(self, x: Tensor) -> bool:
        return (
            type(x) in _PLAIN
            and x.data_ptr() == self.start
            and x.nbytes == len(self.bits)
            and x.dtype is self.dtype
            and x.is_contiguous()
            and self.bits == self.memory
        )


def _hold(tensors: list[Tensor], values: list[_Values] | None) -> bool:
    """Whether these tensors hold these values; None, where they are not known, is never what they hold."""
    return values is not None and len(tensors) == len(values) and all(map(_Values.are_those_of, values, tensors))


def _rounded(low: int, high: int, below: float) -> tuple[int, int]:
    """Distances of the next power of two, so that a sequence may grow, if those are decided by distance still."""
    further = max(1 << max(high, 63).bit_length(), 64) - 1
    if further >= below:
        further = math.ceil(below) - 1
    return (min(low, 0) if low >= 0 else -(1 << (-low).bit_length())), further


def _positions(encoding: Any, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Positions of one query and of keys whose differences are the distances low ... high."""
    device = next((x.device for x in encoding.parameters()), None)
    query = max(high, 0)
    return torch.full((1,), query, device=device), torch.arange(query - low, query - high - 1, -1, device=device)


def _row(bias: Tensor, heads: int) -> Tensor:
    """The bias of one query as the kernel reads it, ``(heads, distances)``."""
    return of_heads(bias, heads).squeeze(-2).float().contiguous()

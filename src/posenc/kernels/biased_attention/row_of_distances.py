"""A bias over consecutive positions as one row of numbers for each head: its value at each distance.

There is such a row for a relative bias, for one that is relative below a position (``relative_below``) if all queries
stand there, and for the bias of a single query, whatever it depends on.

A bias may also be made from a row of other numbers, as in shares.py.
"""

from typing import Any

import torch
from torch import Tensor

from posenc.kernels.biased_attention import keeping
from posenc.kernels.biased_attention.problem import Problem
from posenc.kernels.biased_attention.toeplitz import of_heads

_SLOT = "_row_by_distance"
_SLOT_OF_POSITIONS = "_of_distances"


def suits(problem: Problem) -> bool:
    """Whether a row holds the bias: positions are consecutive, and distances decide or there is a single query."""
    encoding = problem.encoding
    if problem.contextual or not (problem.q_len == 1 or encoding.relative_below() > 0):
        return False
    starts = problem.starts
    return starts is not None and (problem.q_len == 1 or is_relative(problem, starts[0]))


def is_relative(problem: Problem, start: int) -> bool:
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
    if not is_relative(problem, starts[0]):  # a single query: its bias, from its own key backwards
        return as_row(encoding.bias(*problem.positions), heads).flip(-1), 0
    low, high, zero = distances(problem, starts)

    def row(low: int, high: int) -> Tensor:
        return as_row(encoding.bias(*positions(encoding, low, high)), heads)

    if not getattr(encoding, "bias_is_pure", False):
        return row(low, high), zero - low
    tensors = keeping.tensors_of(encoding)
    if keeping.are_learned(tensors):
        return _learned(encoding, tensors, low, high, heads), zero - low
    kept, first = keeping.by_distance(encoding, tensors, _SLOT, low, high, encoding.relative_below(), row)
    return kept, zero - first


def distances(problem: Problem, starts: tuple[int, int]) -> tuple[int, int, int]:
    """The lowest and highest difference of positions that the call reads, and the difference of a token to itself."""
    q_len, k_len = problem.q_len, problem.k_len
    shift = starts[0] - starts[1] - (k_len - q_len)  # positions besides tokens
    low, high = (0 if problem.causal else 1 - q_len), k_len - 1
    if problem.window is not None:
        low, high = max(low, 1 - problem.window), min(high, problem.window - 1)
    return low + shift, high + shift, shift


def _learned(encoding: Any, tensors: list[Tensor], low: int, high: int, heads: int) -> Tensor:
    """The row with its gradient, from what positions alone decide, if the encoding tells that apart.

    One that does defines ``of_positions(q_positions, k_positions)``, which reads no parameter, and ``bias_from`` of it.
    """
    kept = keeping.find(encoding, _SLOT_OF_POSITIONS)
    if kept is None or (low, high) != (kept.low, kept.high) or kept.made.device != tensors[0].device:
        apart = positions(encoding, low, high)
        if not _tells_apart(type(encoding)):
            return as_row(encoding.bias(*apart), heads)
        kept = keeping.keep(encoding, _SLOT_OF_POSITIONS, encoding.of_positions(*apart), low, high, [])
    return as_row(encoding.bias_from(kept.made), heads)


def _tells_apart(cls: type) -> bool:
    """Whether ``bias`` stands in the class that has the two parts, or in a base of it.

    A subclass with a ``bias`` of its own has inherited parts that give another one.
    """

    return max(home(cls, "of_positions"), home(cls, "bias_from")) <= home(cls, "bias") < len(cls.__mro__)


def home(cls: type, name: str) -> int:
    """How far up the bases of a class an attribute stands: 0 in the class itself, past the last for nowhere."""
    return next((at for at, each in enumerate(cls.__mro__) if name in vars(each)), len(cls.__mro__))


def positions(encoding: Any, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Positions of one query and of keys whose differences are the distances low ... high."""
    device, query = device_of(encoding), max(high, 0)
    return torch.full((1,), query, device=device), torch.arange(query - low, query - high - 1, -1, device=device)


def device_of(encoding: Any) -> torch.device | None:
    return next((x.device for x in encoding.parameters()), None)


def as_row(bias: Tensor, heads: int) -> Tensor:
    """The bias of one query as the kernel reads it, ``(heads, distances)``."""
    return of_heads(bias, heads).squeeze(-2).float().contiguous()

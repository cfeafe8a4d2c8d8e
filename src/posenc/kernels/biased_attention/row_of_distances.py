"""A bias over consecutive positions as one row of numbers for each head: its value at each distance.

There is such a row for a relative bias, for one that is relative below a position (``relative_below``) if all queries
stand there, and for the bias of a single query, whatever it depends on.

A bias may also be made from a row of other numbers, as in shares.py.
"""

from typing import Any

import torch
from torch import Tensor

from posenc.kernels.biased_attention import keeping
from posenc.kernels.biased_attention.added import Added
from posenc.kernels.biased_attention.problem import Problem
from posenc.kernels.biased_attention.toeplitz import of_heads

_SLOT = "_row_by_distance"
_SLOT_OF_POSITIONS = "_of_distances"


def refusal(problem: Problem) -> str | None:
    """Why no row holds what is added, or None if one does."""
    if problem.encoding is None or problem.is_relative or (problem.q_len == 1 and problem.starts is not None):
        return None
    return f"{problem.name} gives no bias of the distance alone over consecutive positions"


def make(problem: Problem) -> Added:
    """The row ``(heads, distances)``, which may reach further than the call does, or nothing without an encoding."""
    encoding = problem.encoding
    if encoding is None:
        return Added()
    heads = problem.q.shape[1]
    if not problem.is_relative:  # a single query: its bias, from its own key backwards
        return Added(as_row(encoding.bias(*problem.positions), heads).flip(-1))
    low, high, zero = distances(problem)

    def row(low: int, high: int) -> Tensor:
        return as_row(encoding.bias(*positions(encoding, low, high)), heads)

    if not getattr(encoding, "bias_is_pure", False):
        return Added(row(low, high), zero - low)
    tensors = keeping.tensors_of(encoding)
    if keeping.are_learned(tensors):
        return Added(_learned(encoding, tensors, low, high, heads), zero - low)
    kept, first = keeping.by_distance(encoding, tensors, _SLOT, heads, low, high, encoding.relative_below, row)
    return Added(kept, zero - first)


def known(encoding: Any, tensors: list[Tensor], heads: int, k_len: int, window: int | None) -> keeping.Kept | None:
    """The row that ``make`` would find kept for a causal call, with positions in the order of the keys."""
    kept = keeping.known(encoding, tensors, _SLOT, heads, 0, (k_len if window is None else min(k_len, window)) - 1)
    if kept is None or (kept.high < k_len - 1 and k_len > encoding.relative_below()):
        return None
    return kept


def learned(encoding: Any, tensors: list[Tensor], heads: int, k_len: int, window: int | None) -> Tensor | None:
    """The row with its gradient that ``make`` would give a causal call, with positions in the order of the keys."""
    if hasattr(type(encoding), "contextual_bias") or not getattr(encoding, "bias_is_pure", False):
        return None
    if k_len > encoding.relative_below():
        return None
    if getattr(encoding, "num_heads", heads) != heads:  # one head would be broadcast
        return None
    return _learned(encoding, tensors, 0, (k_len if window is None else min(k_len, window)) - 1, heads)


def starts(problem: Problem) -> tuple[int, int]:
    """The positions of the first query and the first key."""
    if problem.starts is None:
        raise ValueError("attention: a row of distances needs positions that go up by one.")
    return problem.starts


def distances(problem: Problem) -> tuple[int, int, int]:
    """The lowest and highest difference of positions that the call reads, and the difference of a token to itself."""
    q_len, k_len = problem.q_len, problem.k_len
    q_start, k_start = starts(problem)
    shift = q_start - k_start - (k_len - q_len)  # positions besides tokens
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


def device_of(encoding: Any) -> torch.device:
    """Where its parameters are. The CPU where it has none, whatever the default device."""
    return next((x.device for x in encoding.parameters()), torch.device("cpu"))


def as_row(bias: Tensor, heads: int) -> Tensor:
    """The bias of one query as the kernel reads it, ``(heads, distances)``."""
    return of_heads(bias, heads).squeeze(-2).float().contiguous()

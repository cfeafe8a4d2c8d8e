"""A relative bias over consecutive positions as one row of numbers for each head: its value at each distance.

The row of an encoding that promises it (``bias_is_pure``) is kept from call to call, for more distances than are needed
at once, so that a step of decoding finds the row of the step before it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posenc.kernels.biased_attention.problem import Problem
from posenc.kernels.kept import Slot
from posenc.kernels.precision import may_keep

_MOST_PARAMETERS = 4096  # whose values are compared before a kept row is used


def suits(problem: Problem) -> bool:
    """Whether the bias is a function of the distance and the positions of queries and keys are consecutive."""
    if problem.contextual or not problem.encoding.relative:
        return False
    return problem.starts is not None


def make(problem: Problem) -> tuple[Tensor | None, int]:
    """``(row, zero)``: entry ``zero + n`` of the row ``(heads, distances)`` is for a key n tokens before the query.

    None and 0 if nothing is added. The row may reach further than the call does.
    """
    if problem.encoding is None or problem.starts is None:
        return None, 0
    q_start, k_start = problem.starts
    shift = q_start - k_start - problem.offset  # positions besides tokens
    low, high = (0 if problem.causal else 1 - problem.q_len), problem.k_len - 1
    if problem.window is not None:
        low, high = max(low, 1 - problem.window), min(high, problem.window - 1)
    low, high = low + shift, high + shift
    encoding = problem.encoding
    if not getattr(encoding, "bias_is_pure", False) or not may_keep() or _learns(encoding):
        return _row(encoding, low, high), shift - low
    slot = vars(encoding).get(_SLOT)
    kept = None if slot is None else slot.get()
    if kept is None or low < kept.low or high > kept.high or not kept.still_holds(encoding):
        wide_low, wide_high = _rounded(low, high)
        with torch.inference_mode(False), torch.no_grad():
            row = _row(encoding, wide_low, wide_high)
        slot = vars(encoding).setdefault(_SLOT, Slot())
        kept = _Kept(row, wide_low, wide_high, _values(encoding), _settings(encoding), len(vars(encoding)))
        slot.put(kept, row, *kept.values)
    return kept.row, shift - kept.low


@dataclass
class _Kept:
    row: Tensor
    low: int
    high: int
    values: list[Tensor]
    settings: dict[str, Any]
    attributes: int  # so many there were, private ones too

    def still_holds(self, encoding: Any) -> bool:
        """Whether all that the row was made of is still the same. This runs in every call, so it is written out."""
        attributes = vars(encoding)
        if len(attributes) != self.attributes:
            return False
        for name, value in self.settings.items():
            now = attributes.get(name, self)
            if now is not value and now != value:
                return False
        tensors = _tensors(encoding)
        if len(tensors) != len(self.values):
            return False
        for x, y in zip(tensors, self.values, strict=True):
            if x.dtype is not y.dtype or x.device != y.device or x.numel() > _MOST_PARAMETERS or not torch.equal(x, y):
                return False
        return True


_SLOT = "_row_by_distance"  # private, a slot, and so no part of a state dict, a copy or a pickle


def _learns(encoding: Any) -> bool:
    if not torch.is_grad_enabled():
        return False
    return any(x.requires_grad for x in _tensors(encoding))


def _tensors(encoding: Any) -> list[Tensor]:
    """Parameters and buffers. Without submodules they are at hand: this runs in every step of decoding."""
    if encoding._modules:
        return [*encoding.parameters(), *encoding.buffers()]
    return [x for x in (*encoding._parameters.values(), *encoding._buffers.values()) if x is not None]


def _values(encoding: Any) -> list[Tensor]:
    return [x.detach().clone() for x in _tensors(encoding)]


def _settings(encoding: Any) -> dict[str, Any]:
    """The public attributes, which the bias may depend on."""
    return {name: value for name, value in vars(encoding).items() if name[0] != "_"}


def _rounded(low: int, high: int) -> tuple[int, int]:
    """Distances of the next power of two, so that a sequence may grow."""
    further = max(1 << max(high, 63).bit_length(), 64) - 1
    return (min(low, 0) if low >= 0 else -(1 << (-low).bit_length())), further


def _row(encoding: Any, low: int, high: int) -> Tensor:
    """The bias at the distances low ... high."""
    device = next(encoding.parameters(), torch.empty(0)).device
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    parts = []
    if low < 0:
        ahead = torch.arange(-min(high, -1), -low + 1, device=device)  # of keys after the query
        parts.append(encoding.bias(zero, ahead)[..., 0, :].flip(-1))
    if high >= 0:
        parts.append(encoding.bias(torch.arange(max(low, 0), high + 1, device=device), zero)[..., :, 0])
    row: Tensor = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)).float()
    return row.contiguous()

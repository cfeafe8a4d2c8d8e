"""A bias that a small network makes of a share: a number of the distance, over a number of the query.

An encoding that has one defines ``stretched(i, j)``, the number of the distance; ``longest(i)``, that of the query; and
``units()``, ``(heads, num_units, 3)``: the bias is the sum of ``out * relu(into * stretched / longest + at)`` over the
units' ``(into, at, out)``. Within a block of the compiled kernel few units go on or off. All others are one line
together, so the bias costs little more than a table of distances.
"""

import math
from typing import Any

import torch
from torch import Tensor

from posenc.kernels.biased_attention import keeping, row_of_distances
from posenc.kernels.biased_attention.added import Added
from posenc.kernels.biased_attention.problem import Problem

MOST_UNITS = 128  # as in problem.h
_SLOT = "_row_stretched"


def suits(problem: Problem) -> bool:
    """Whether the bias is one of shares, over consecutive positions, and no row of distances holds all of it."""
    encoding = problem.encoding
    cls = type(encoding)  # an attribute that a module does not have is slow to ask for
    if not hasattr(cls, "units") or problem.contextual or problem.is_relative or problem.starts is None:
        return False
    return _are_of_its_bias(cls) and bool(encoding.num_units <= MOST_UNITS)


def refusal(problem: Problem) -> str | None:
    """Nothing more: ``suits`` has asked all of it."""
    return None


def _are_of_its_bias(cls: type) -> bool:
    """Whether the parts stand in the class of ``bias``, or below it: a later one may give another bias."""
    home = row_of_distances.home
    return max(home(cls, name) for name in ("stretched", "longest", "units")) <= home(cls, "bias")


def make(problem: Problem) -> Added:
    """The row of the distances, 1 / longest of each query, and the units, in float32."""
    encoding, heads = problem.encoding, problem.q.shape[1]
    low, high, zero = row_of_distances.distances(problem)
    first = row_of_distances.starts(problem)[0]

    def factors(first: int, stop: int) -> Tensor:
        where = row_of_distances.device_of(encoding)
        longest: Tensor = encoding.longest(torch.arange(first, stop, device=where))
        return longest.reciprocal().float().contiguous()

    def row_and_units(low: int, high: int) -> tuple[Tensor, Tensor]:
        row = row_of_distances.as_row(encoding.stretched(*row_of_distances.positions(encoding, low, high)), heads)
        return row, encoding.units().float().contiguous()

    def all_of_it(low: int, high: int) -> tuple[Tensor, Tensor, Tensor, float]:
        return *row_and_units(low, high), factors(0, high + 1), encoding.relative_below()

    tensors = keeping.tensors_of(encoding)
    if not getattr(encoding, "bias_is_pure", False) or keeping.are_learned(tensors):
        row, units = row_and_units(low, high)
        return Added(row, zero - low, factors=factors(first, first + problem.q_len), units=units)
    further = max(high, problem.k_len - 1)  # in a window too, so that all queries' factors are kept
    (row, units, kept, _), lowest = keeping.by_distance(
        encoding, tensors, _SLOT, heads, low, further, lambda: math.inf, all_of_it
    )
    if first + problem.q_len <= len(kept):  # as it is where keys begin at 0
        return Added(row, zero - lowest, factors=kept[first : first + problem.q_len], units=units)
    return Added(row, zero - lowest, factors=factors(first, first + problem.q_len), units=units)


def known(encoding: Any, tensors: list[Tensor], heads: int, k_len: int) -> keeping.Kept | None:
    """What ``make`` would find kept for a causal call past the distances of one row."""
    kept = keeping.known(encoding, tensors, _SLOT, heads, 0, k_len - 1)  # row, units, all factors, threshold
    return None if kept is None or k_len <= kept.made[3] else kept


def bias(row: Tensor, factors: Tensor, units: Tensor) -> Tensor:
    """The bias ``(heads, q_len, k_len)`` of what the table says for each query and key."""
    share = row * factors[:, None]
    into, at, out = (x[:, None, None, :] for x in units.unbind(-1))
    return torch.relu(share[..., None] * into + at).mul(out).sum(dim=-1)


def gradient_of_units(units: Tensor, alone: Tensor, times: Tensor) -> Tensor:
    """From the sums over all pairs where a unit is on: of the gradient of the scores, alone and times the share."""
    into, at, out = units.double().unbind(-1)
    return torch.stack((out * times, out * alone, into * times + at * alone), dim=-1).float()

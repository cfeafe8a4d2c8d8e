"""A bias that a query reads from a row of its own, at a count of the keys that matter to it.

An encoding that has one defines ``by_count(q, scale)``, which gives the rows, and ``length``, their number of entries.
If the rows are products of the scaled queries with a table, ``count_table`` may name it: where nothing is learned, the
kernel makes them as it reads them.
A key's count is the sum of the gates from it to the query, which the compiled kernel takes as it makes the scores, from
the nearest keys to the furthest. Past the end of the row, where most keys are, there is nothing left to count.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from posenc.kernels.biased_attention.added import Added
from posenc.kernels.biased_attention.content import Content
from posenc.kernels.biased_attention.problem import Problem
from posenc.kernels.biased_attention.row_of_distances import home
from posenc.kernels.inputs import PLAIN
from posenc.kernels.precision import without_autocast

MOST = 2**28  # entries of all rows, 1 GiB, and as many of their gradient


def counts(cls: type) -> bool:
    """Whether ``by_count`` stands in the class of ``contextual_bias``, or below it: a later one may add another."""
    if "by_count" in vars(cls):  # at once: this is asked several times in every call
        return True
    return hasattr(cls, "by_count") and home(cls, "by_count") <= min(
        home(cls, "contextual_bias"), home(cls, "on_values")
    )


def refusal(problem: Problem) -> str | None:
    """Why the kernel does not take this call of an encoding that counts, or None if it does."""
    if not problem.causal:
        return f"{problem.name} counts the keys up to the query, which it does only in causal calls"
    entries = problem.q.shape[:3].numel() * problem.encoding.length
    if entries > MOST and problem.encoding.length > 4 * problem.q.shape[3]:
        return f"the products of all queries with all counts of {problem.name} take {entries * 4 / 2**30:.1f} GiB"
    return None


def table(encoding: Any, head_dim: int) -> Tensor | None:
    """What ``by_count`` multiplies the scaled queries by, if the encoding names it, as ``count_table``.

    None if its gradient may be asked for, which the kernel does not give.
    """
    cls = type(encoding)
    own = vars(cls)
    if not ("count_table" in own and "by_count" in own) and home(cls, "count_table") > home(cls, "by_count"):
        return None  # a later by_count gives something else
    by_count: Tensor = encoding.count_table
    if by_count.requires_grad and torch.is_grad_enabled():
        return None
    plain = type(by_count) in PLAIN and by_count.dtype is torch.float32 and by_count.is_cpu and by_count.is_contiguous()
    return by_count if plain and by_count.shape == (encoding.length, head_dim) else None


def make(problem: Problem) -> Added:
    return of_queries(problem.encoding, problem.q, problem.scale)


def of_queries(encoding: Any, q: Tensor, scale: float) -> Added:
    """The rows of all queries, ``(batch, heads, q_len, counts)``, as the kernel reads them."""
    q = q if q.dtype is torch.float32 else q.float()
    with without_autocast("cpu"):
        rows: Tensor = encoding.by_count(q, scale)
    if rows.dtype is torch.float32 and rows.shape[:3] == q.shape[:3] and rows.is_contiguous():
        return Added(counted=rows)
    return Added(counted=rows.float().expand(*q.shape[:3], -1).contiguous())


def bias(rows: Tensor, gates: Tensor) -> Tensor:
    """What each query reads in its row at the counts of some keys, ``(batch, heads, q_len, k_len)``.

    Between two whole counts the row is interpolated. ``gates`` are 0 for keys that do not count.
    """
    counts = gates.flip(-1).cumsum(dim=-1).flip(-1).clamp(max=rows.shape[-1] - 1)
    lower = counts.detach().nan_to_num(0.0).long()
    step = F.pad(rows.diff(dim=-1), (0, 1))  # to the next whole count; there is none after the last
    return torch.addcmul(rows.gather(-1, lower), counts - lower, step.gather(-1, lower))


class Rows:
    """Rows that are there already, as the encoding of the reference: the second derivative goes through it."""

    reads_positions = False

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def contextual_bias(self, content: Content) -> Tensor:
        return bias(self.rows, content.scores.sigmoid())

    def on_values(self, weights: Tensor, q_positions: Tensor, k_positions: Tensor) -> None:
        return None

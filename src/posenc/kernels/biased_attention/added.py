"""What the compiled kernel adds to the scores."""

from typing import NamedTuple

from torch import Tensor


class Added(NamedTuple):
    """What the kernel reads. Each of row_of_distances, shares, fading and counting makes a part of it.

    Attributes:
        table: ``(heads, distances)`` float32.
        zero: where it begins: entry ``zero + n`` is for keys n tokens before the query, and is added.
        fades: ``(batch, heads, k_len)`` float64, of which min(fades[the query's own key] - fades[key], 0) is added.
        factors: ``(q_len,)`` float32, of the query.
        units: ``(heads, units, 3)`` float32, of a network of the table's entry times the query's factor, which is added
            instead of the entry.
        counted: ``(batch, heads, q_len, counts)`` float32: each query adds what lies at the count of a key.
    """

    table: Tensor | None = None
    zero: int = 0
    fades: Tensor | None = None
    factors: Tensor | None = None
    units: Tensor | None = None
    counted: Tensor | None = None

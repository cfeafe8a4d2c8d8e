"""A causal call that may differ from an earlier one in its queries, keys and values alone, as a step of decoding does.

The earlier call has found the compiled kernel, and kept what positions and parameters decide of what is added. This
looks at all that could have changed since, and at nothing else: it takes half of the time of the whole way (plan.py).
A row of distances that is learned is made anew, as there.
"""

from typing import Any

import torch
from torch import Tensor

from posenc.kernels.biased_attention import counting, fused, keeping, row_of_distances, shares
from posenc.kernels.biased_attention.added import Added
from posenc.kernels.inputs import PLAIN


def run(q: Tensor, k: Tensor, v: Tensor, encoding: Any, window: int | None = None) -> Tensor | None:
    """What the compiled kernel gives, or None if the call has to go the whole way, where it may be refused in words."""
    if torch.compiler.is_compiling() or not fused.is_loaded() or fused.is_transformed():
        return None
    if not (type(q) in PLAIN and type(k) in PLAIN and type(v) in PLAIN and q.is_cpu and q.dtype in fused.DTYPES):
        return None
    if encoding is not None and encoding.scales_scores:
        return None
    learns = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    try:  # the kernel compares shapes, dtypes and devices, so they are not read twice
        return _run(q, k, v, encoding, window, learns=learns)
    except (ValueError, RuntimeError):
        return None


def _run(q: Tensor, k: Tensor, v: Tensor, encoding: Any, window: int | None, *, learns: bool) -> Tensor | None:
    _, heads, q_len, head_dim = q.shape
    if q_len == 0 or head_dim == 0:
        return None
    part: Any = None if encoding is None else encoding.at("scores")
    scale = head_dim**-0.5 if encoding is None else encoding.softmax_scale(head_dim)
    if scale <= 0 or (part is None and q_len == 1 and learns):
        return None
    if part is None:
        return fused.of_row(q, k, v, scale, None, 0, window or 0, learns)
    tensors, k_len = keeping.tensors_of(part), k.shape[2]
    if keeping.are_learned(tensors):
        learned = row_of_distances.learned(part, tensors, heads, k_len, window)
        return None if learned is None else fused.of_row(q, k, v, scale, learned, 0, window or 0, True)
    row = row_of_distances.known(part, tensors, heads, k_len, window)
    if row is not None:
        return fused.of_row(q, k, v, scale, row.made, -row.low, window or 0, learns)
    if counting.counts(type(part)):
        return _of_counts(part, q, k, v, scale, window or 0, learns)
    kept = shares.known(part, tensors, heads, k_len)
    return None if kept is None else _of_shares(kept, q, k, v, scale, window or 0, learns)


def _of_counts(part: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int, learns: bool) -> Tensor | None:
    _, heads, _, head_dim = q.shape
    if getattr(part, "num_heads", heads) != heads or part.value_dim is not None:
        return None
    if not learns and (table := counting.table(part, head_dim)) is not None:
        return fused.of_counts(q, k, v, scale, table, window)
    if q.shape[:3].numel() * part.length > counting.MOST:
        return None
    added = counting.of_queries(part, q, scale)  # its tensors need not be parameters, so they are asked here
    learns = learns or (added.counted is not None and added.counted.requires_grad)
    return fused.at_once(q, k, v, scale, window, added, learns)


def _of_shares(kept: keeping.Kept, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int, learns: bool) -> Tensor:
    row, units, factors, _ = kept.made
    if not learns:
        return fused.of_shares(q, k, v, scale, row, -kept.low, window, factors, units)
    factors = factors[k.shape[2] - q.shape[2] : k.shape[2]]
    return fused.at_once(q, k, v, scale, window, Added(row, -kept.low, factors=factors, units=units), learns)

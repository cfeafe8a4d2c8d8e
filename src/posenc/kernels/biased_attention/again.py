"""A causal call that may differ from an earlier one in its queries, keys and values alone, as a step of decoding does.

The earlier call has found the compiled kernel, and kept what positions and parameters decide of what is added. This
looks at all that could have changed since, and at nothing else: it takes half of the time of the whole way (plan.py).
"""

from typing import Any

import torch
from torch import Tensor

from posenc.kernels.biased_attention import counting, fused, keeping, row_of_distances, shares
from posenc.kernels.biased_attention.added import Added
from posenc.kernels.biased_attention.shapes import checked_shapes
from posenc.kernels.inputs import dtype_of_plain

_NOTHING = Added()


def run(q: Tensor, k: Tensor, v: Tensor, encoding: Any, window: int | None = None) -> Tensor | None:
    """What the compiled kernel gives, or None if the call has to go the whole way.

    Raises:
        ValueError: shapes that do not fit, in the words of the whole way.
    """
    if torch.compiler.is_compiling() or not fused.is_loaded() or fused.is_transformed():
        return None
    if dtype_of_plain(q, k, v) not in fused.DTYPES or (encoding is not None and encoding.scales_scores):
        return None
    learns = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    part: Any = None if encoding is None else encoding.at("scores")
    heads, q_len, head_dim, k_len = checked_shapes(q, k, v, causal=True)
    scale = head_dim**-0.5 if encoding is None else encoding.softmax_scale(head_dim)
    if q_len == 0 or scale <= 0 or (part is None and q_len == 1 and learns):
        return None
    added = _NOTHING if part is None else _added(part, q, scale, heads, q_len, k_len, window)
    return None if added is None else fused.at_once(q, k, v, scale, window or 0, added, learns=learns)


def _added(part: Any, q: Tensor, scale: float, heads: int, q_len: int, k_len: int, window: int | None) -> Added | None:
    """What the whole way would add, if it has kept all that takes long to make and learns nothing."""
    tensors = keeping.tensors_of(part)
    if keeping.are_learned(tensors):
        return None
    if not counting.counts(type(part)):
        known = row_of_distances.known(part, tensors, heads, k_len, window)
        return known or shares.known(part, tensors, heads, q_len, k_len)
    entries = q.shape[0] * heads * q_len * part.length
    if getattr(part, "num_heads", heads) != heads or part.value_dim is not None or entries > counting.MOST:
        return None
    return counting.of_queries(part, q, scale)

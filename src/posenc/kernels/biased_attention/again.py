"""A causal call that may differ from an earlier one in its queries, keys and values alone: a step of decoding.

The earlier call has found the compiled kernel, and kept the row of distances of what is added, if anything is. This
looks at all that could have changed since, and at nothing else: it takes half of the time of the whole way (plan.py).
"""

from typing import Any

import torch
from torch import Tensor

from posenc.kernels.biased_attention import fused, keeping, row_of_distances
from posenc.kernels.biased_attention.shapes import checked_shapes
from posenc.kernels.inputs import dtype_of_plain


def run(q: Tensor, k: Tensor, v: Tensor, encoding: Any) -> Tensor | None:
    """What the compiled kernel gives, or None if the call has to go the whole way.

    Raises:
        ValueError: shapes that do not fit, in the words of the whole way.
    """
    if torch.compiler.is_compiling() or not fused.is_loaded() or fused.is_transformed():
        return None
    if dtype_of_plain(q, k, v) not in fused.DTYPES or (encoding is not None and encoding.scales_scores):
        return None
    learns = torch.is_grad_enabled()
    if learns and (q.requires_grad or k.requires_grad or v.requires_grad):
        return None
    part: Any = None if encoding is None else encoding.at("scores")
    kept = None if part is None else keeping.find(part, row_of_distances.SLOT)
    if part is not None and kept is None:
        return None
    heads, q_len, head_dim, k_len = checked_shapes(q, k, v, causal=True)
    scale = head_dim**-0.5 if encoding is None else encoding.softmax_scale(head_dim)
    if q_len == 0 or scale <= 0:
        return None
    if kept is None:
        return fused.with_row(q, k, v, scale, None, 0)
    if kept.heads != heads or kept.low > 0 or kept.high < k_len - 1:
        return None
    tensors = keeping.tensors_of(part)
    if (learns and any(x.requires_grad for x in tensors)) or not keeping.hold(tensors, kept.values):
        return None
    return fused.with_row(q, k, v, scale, kept.made, -kept.low)

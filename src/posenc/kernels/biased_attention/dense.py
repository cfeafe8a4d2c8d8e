"""The reference: all scores at once, and autograd over them."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from posenc.kernels.biased_attention.problem import Problem, attend


def run(problem: Problem) -> Tensor:
    """Attention as written, with the matrix of scores in memory."""
    rows, keys = slice(0, problem.q_len), slice(0, problem.k_len)
    block = problem.block(rows, keys)
    return attend(problem, block, problem.q, problem.k, problem.v, sinks=problem.sinks, state=problem.state)


def sdpa(problem: Problem) -> Tensor:
    """PyTorch's own attention, for what it knows itself: causal order, a mask, dropout."""
    q, k, v = problem.q, problem.k, problem.v
    options: dict[str, Any] = {
        "dropout_p": problem.dropout_p,
        "scale": problem.scale,
        "enable_gqa": False,
    }
    if q.shape[1] != k.shape[1]:  # a branch: where the number of heads is open, the comparison is no bool
        options["enable_gqa"] = True
    if problem.mask is None and problem.window is None and problem.documents is None:
        # One query sees all keys, so a step of decoding needs no mask.
        if not problem.causal or problem.q_len == 1:
            return F.scaled_dot_product_attention(q, k, v, **options)
        if problem.q_len == problem.k_len:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, **options)
    hidden = problem.hidden(slice(0, problem.q_len), slice(0, problem.k_len))
    if problem.mask is None or problem.mask.dtype == torch.bool:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if hidden is None else ~hidden, **options)
    mask = problem.mask.to(q.dtype)
    if hidden is not None:
        mask = mask.masked_fill(hidden, float("-inf"))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)

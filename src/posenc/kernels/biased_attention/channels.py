"""A bias that separates rides as extra channels of q and k, through any attention kernel whatsoever."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from posenc.kernels.biased_attention.dense import sdpa
from posenc.kernels.biased_attention.problem import Problem
from posenc.kernels.precision import may_look


def refusal(problem: Problem) -> str | None:
    """Why extra channels cannot take this call, or None if they can."""
    if problem.sinks is not None:
        return "the plain kernels do not support attention sinks"
    if not getattr(problem.encoding, "factors_are_causal", False):
        return None
    if not problem.causal:
        return "its factors hold for keys at or before the query, and causal is not set"
    looked_at = (problem.q_positions, problem.k_positions, problem.documents)
    if problem.given_starts is None and not all(may_look(x) for x in looked_at if x is not None):
        return (
            "its factors hold for keys at or before the query, and posenc does not read the values of positions that "
            "are on a GPU or traced"
        )
    return (
        "a key before its query has a higher position, for which its factors are not valid" if _falls(problem) else None
    )


def _falls(problem: Problem) -> bool:
    """Whether a key has a lower position than one before it in its document, or a query than its own key."""
    if problem.given_starts is not None:
        i_start, j_start = problem.given_starts
        return i_start < j_start + problem.offset
    i, j = problem.positions
    falls = j.diff(dim=-1) < 0
    if problem.documents is not None:
        falls = falls & (problem.documents.diff(dim=-1) == 0)
    return bool(falls.any()) or bool((i < j[..., problem.offset :]).any())


def run(problem: Problem) -> Tensor:
    """Plain attention over ``[q, left / scale]`` and ``[k, right]``, where left · right is the bias."""
    factors = problem.encoding.factors(*problem.positions)
    if factors is None:
        raise ValueError(
            f'attention: implementation="channels" got {problem.name}, expected an encoding whose '
            'bias separates into a function of i times a function of j; use implementation="blocks".'
        )
    left, right = (factor.to(problem.q.dtype) for factor in factors)
    batch, heads = problem.q.shape[:2]
    k, v = problem.k, problem.v
    if k.shape[1] != heads:  # each head has channels of its own, so keys are no longer shared
        k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    q = torch.cat((problem.q, (left / problem.scale).expand(batch, heads, *left.shape[-2:])), dim=-1)
    k = torch.cat((k, right.expand(batch, heads, *right.shape[-2:])), dim=-1)
    value_dim = v.shape[-1]
    if value_dim < q.shape[-1]:  # the fused kernels want one width for all three
        v = F.pad(v, (0, q.shape[-1] - value_dim))
    return sdpa(replace(problem, q=q, k=k, v=v))[..., :value_dim]

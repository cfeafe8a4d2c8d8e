"""Which implementation takes a call, and why."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from posenc.kernels.biased_attention import blocks, channels, counting, dense, fading, flex, fused, shares
from posenc.kernels.biased_attention.problem import Problem
from posenc.kernels.inputs import is_distributed

Implementation = Literal["auto", "cpu", "sdpa", "blocks", "flex", "channels", "dense"]

_SMALL = 2**22  # scores: 16 MiB in float32, less than what one layer's activations take


_CALLS: dict[str, Callable[[Problem], Tensor]] = {
    "cpu": fused.run,
    "sdpa": dense.sdpa,
    "blocks": blocks.run,
    "flex": flex.run,
    "channels": channels.run,
    "dense": dense.run,
}

Reason = str | Callable[[Problem], str]  # put into words where somebody asks for it, which a step of decoding does not


def run(implementation: str, problem: Problem) -> Tensor:
    """The call, taken by that implementation."""
    return _CALLS[implementation](problem)


def choose(problem: Problem, implementation: Implementation) -> tuple[str, Reason]:
    """The implementation that takes the call, and the reason for it.

    Raises:
        ValueError: an implementation that was asked for by name and cannot take the call. Nothing falls back.
    """
    if implementation == "auto":
        return _choose(problem)
    if implementation not in _CALLS:
        raise ValueError(
            f"attention: got implementation {implementation!r}, expected one of {', '.join(get_args(Implementation))}."
        )
    if (reason := _refusal(implementation, problem)) is not None:
        raise ValueError(
            f'attention: implementation="{implementation}" cannot take this call: {reason}; use implementation="auto", '
            "which picks one that can."
        )
    return implementation, f'implementation="{implementation}" asks for it'


def _refusal(implementation: str, problem: Problem) -> str | None:
    if implementation == "cpu":
        return fused.refusal(problem)
    if implementation != "dense" and forward_ad._current_level >= 0:
        return "forward-mode derivatives work only with plain torch operations"
    if implementation == "sdpa":
        if problem.encoding is not None:
            return f"{problem.name} adds to the scores"
        return "it does not support attention sinks" if problem.sinks is not None else None
    if implementation == "flex":
        return flex.refusal(problem)
    if implementation == "channels":
        if problem.encoding is None or problem.contextual:
            return "there is no bias that depends only on positions"
        return channels.refusal(problem)
    if implementation == "blocks":
        if problem.mask is not None and problem.mask.requires_grad:
            return "this implementation has no gradient for the mask"
        if torch.compiler.is_compiling():
            return "torch.compile cannot see through its backward"
        if torch._C._are_functorch_transforms_active():
            return "the transforms of torch.func cannot see through its backward"
    return None


def _choose(problem: Problem) -> tuple[str, Reason]:
    if is_distributed(problem.q):
        return "dense", "only a DTensor's own operators know which process holds which part"
    if forward_ad._current_level >= 0:
        return "dense", "forward-mode derivatives work only with plain torch operations"
    adds_nothing = problem.encoding is None and problem.sinks is None
    ordered_only = problem.documents is None and problem.window is None
    if adds_nothing and ordered_only and (problem.mask is not None or not problem.q.is_cpu):
        return "sdpa", "nothing is added to the scores"
    if adds_nothing and ordered_only and problem.q_len == 1 and fused.needs_gradients(problem):
        return "sdpa", "nothing is added to the scores, and its backward pass has the lowest fixed cost for one query"
    obstacle = fused.refusal(problem) if problem.q.is_cpu else "the tensors are not on the CPU"
    if obstacle is None:
        return "cpu", _why_fused
    if adds_nothing and ordered_only:
        return "sdpa", "nothing is added to the scores"
    scores = problem.q.shape[0] * problem.q.shape[1] * problem.q_len * problem.k_len
    if torch.compiler.is_compiling():
        if problem.q.device.type == "cuda" and _suits_flex(problem):
            return "flex", "the bias is a function of the distance, which FlexAttention fuses"
        return "dense", "under torch.compile the compiler decides how to compute the matrix of scores"
    if fused.is_transformed():
        return "dense", "transforms of torch.func and tracers work only with plain torch operations"
    if scores <= _SMALL:
        return "dense", f"{scores} scores fit in {scores * problem.q.element_size() / 2**20:.1f} MiB"
    if problem.q_len == 1:  # FlexAttention would compile anew at each step of decoding
        return "dense", "there is one query for each head, whose scores take less memory than the keys"
    if problem.mask is not None and problem.mask.requires_grad:
        return "dense", "the mask itself is learned"
    if problem.q.device.type == "cuda" and _suits_flex(problem):
        return "flex", "the bias is a function of the distance, which FlexAttention fuses"
    if problem.encoding is not None and getattr(problem.encoding, "factors_are_exact", False) and problem.sinks is None:
        return (
            "channels",
            "the bias is a product of a query part and a key part, which are appended to q and k as extra channels",
        )
    return "blocks", _why_blocks


def _why_fused(problem: Problem) -> str:
    if problem.encoding is None:
        return "nothing but the order of tokens, sinks or a mask is added to the scores"
    way = fused.way(problem)
    if way is counting:
        return "the gates are summed while the scores are computed, and keys beyond the largest count need no sum"
    if way is fading:
        return "the bias is a difference of two numbers, one of each token, and blocks that have faded are skipped"
    if way is shares:
        return "the bias is a small network of the relative distance, which is almost linear within a block"
    if problem.q_len == 1 and not problem.encoding.relative:
        return "there is one query, so one row of numbers holds all of its bias"
    return "the bias depends only on the distance, so one row of numbers holds all of it"


def _suits_flex(problem: Problem) -> bool:
    linear = problem.encoding is None or problem.encoding.relative
    return linear and flex.refusal(problem) is None


def _why_blocks(problem: Problem) -> str:
    if problem.encoding is None or problem.contextual:
        return "with one block of queries at a time, memory grows linearly with the length"
    if blocks.knows_distances(problem):
        return "the bias depends only on the distance, so the bias of each block is a view of one row of numbers"
    return (
        "the bias is computed for one block at a time, and again in the backward pass, so memory grows linearly with "
        "the length"
    )

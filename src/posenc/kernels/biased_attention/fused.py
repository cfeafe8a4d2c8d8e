"""The compiled kernel (cpu.cpp): biases of the distance and masks are added as the scores are made.

Three operators of the dispatcher::

    posenc::_attention             y
    posenc::_attention_and_sums    y, and the logarithms of the sums of the softmax, which the backward reads
    posenc::_attention_backward    gradients of q, k, v, channels rounded up to whole vectors; of the table; of fades or
                                   counted; of factors; and sums for each unit

Arguments: ``table (heads, distances)`` float32, entry ``zero + n`` for keys n tokens before the query; ``window`` 0 for
none; ``mask`` of 4 dimensions, bool (True where a query may see a key) or float32 (added); ``documents (batch or 1,
k_len)`` int64; ``sinks (heads,)``; ``skip`` whether to leave out keys whose weights are proved to be 0; ``fades (batch,
heads, k_len)`` float64, of which min(fades[the query's own key] - fades[key], 0) is added; ``units (heads, units, 3)``
of a network of the table's entry times the query's of ``factors (q_len,)``, which is added instead of the entry;
``counted (batch, heads, q_len, counts)`` float32, of which each query adds what lies at the count of a key
(counting.py), in causal calls and with none of the others. What most calls do not have comes last and has a default,
because the dispatcher takes 0.2 to 0.3 us for each argument that it is given.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from posenc.kernels import _build
from posenc.kernels.biased_attention import counting, fading, row_of_distances, shares
from posenc.kernels.biased_attention.problem import Block, Problem, attend

SOURCE = Path(__file__).with_name("cpu.cpp")
LEVELS = ("the portable instruction set", "AVX2", "AVX-512")

_ARGUMENTS = (
    "Tensor q, Tensor k, Tensor v, float scale, Tensor? table=None, int zero=0, {}bool causal=True, int window=0, "
    "Tensor? mask=None, Tensor? documents=None, {}bool skip=True, Tensor? fades=None, {}Tensor? factors=None, "
    "Tensor? units=None, Tensor? counted=None{}"
)
_FORWARD = _ARGUMENTS.format("", "Tensor? sinks=None, ", "", "")
_BACKWARD = "Tensor gradient, Tensor y, Tensor lse, " + _ARGUMENTS.format(
    "bool learns_table=False, ", "", "bool learns_fades=False, ", ", bool learns_counted=False"
)
torch.library.define("posenc::_attention", f"({_FORWARD}) -> Tensor")
torch.library.define("posenc::_attention_and_sums", f"({_FORWARD}) -> (Tensor, Tensor)")
torch.library.define("posenc::_attention_backward", f"({_BACKWARD}) -> ({', '.join(['Tensor'] * 7)})")
# What OpOverload.__call__ calls: two Python frames less in every call.
_operator: Callable[..., Any] = torch.ops.posenc._attention.default._op
_operator_and_sums: Callable[..., Any] = torch.ops.posenc._attention_and_sums.default._op
_backward_operator: Callable[..., Any] = torch.ops.posenc._attention_backward.default._op

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_TRANSFORMED = "transforms of torch.func, forward-mode derivatives and subclasses of Tensor need plain torch"
_is_loaded = False


def level() -> str:
    """The instruction set that the compiled kernel uses here, or "" if there is no compiled kernel."""
    library = _build.load(SOURCE)
    return "" if library.handle is None else LEVELS[library.handle.posenc_attention_level()]


def refusal(problem: Problem) -> str | None:
    """Why the compiled kernel cannot take this call, or None if it can."""
    if problem.plain_dtype not in _DTYPES:
        return _not_plain(problem.q, problem.k, problem.v)
    if problem.dropout_p:
        return "it has no dropout"
    if torch.compiler.is_compiling():
        return "torch.compile cannot see through it"
    if is_transformed():
        return _TRANSFORMED
    if problem.mask is not None and problem.mask.requires_grad:
        return "its mask has no gradient there"
    if problem.contextual:
        refused = counting.refusal if counting.counts(type(problem.encoding)) else fading.refusal
        if (reason := refused(problem)) is not None:
            return reason
    elif problem.encoding is not None and not (row_of_distances.suits(problem) or shares.suits(problem)):
        return f"{problem.name} gives no bias of the distance alone over consecutive positions"
    return _not_loaded()


def _not_plain(q: Tensor, k: Tensor, v: Tensor) -> str:
    """What is wrong with tensors that are not all on the CPU, of one dtype that it takes, and of no subclass."""
    if not (q.is_cpu and k.is_cpu and v.is_cpu):
        return f"the tensors are on {q.device.type}"
    if q.dtype not in _DTYPES or k.dtype is not q.dtype or v.dtype is not q.dtype:
        return f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}, and it takes one of float32, float16 and bfloat16"
    return _TRANSFORMED


def is_transformed() -> bool:
    """Whether a transform, a forward-mode derivative or a dispatch mode is at work, which a kernel does not see."""
    if torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack() > 0:
        return True
    return forward_ad._current_level >= 0


def needs_gradients(problem: Problem) -> bool:
    """Whether autograd will ask for the gradient of q, k or v."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in (problem.q, problem.k, problem.v))


def _not_loaded() -> str | None:
    global _is_loaded
    if _is_loaded:
        return None
    library = _build.load(SOURCE)
    _is_loaded = library.handle is not None
    return None if _is_loaded else f"the compiled kernel is not available: {library.reason}"


def run(problem: Problem, *, skip: bool = True) -> Tensor:
    """Attention in memory linear in the length, forward and backward.

    Args:
        skip: leave out blocks of keys whose weights are proved to be 0, which changes no bit of the result.
    """
    if shares.suits(problem):
        bias: tuple[Tensor | None, int, Tensor | None, Tensor | None] = shares.make(problem)
    else:
        bias = (*row_of_distances.make(problem), None, None)
    table, zero, factors, units = bias
    fades = counted = None
    if problem.contextual:
        if counting.counts(type(problem.encoding)):
            counted = counting.make(problem)
        else:
            fades = fading.make(problem)
    sinks = None if problem.sinks is None else problem.sinks.float()
    q, k, v = problem.q, problem.k, problem.v
    if torch.is_grad_enabled() and (
        q.requires_grad
        or k.requires_grad
        or v.requires_grad
        or (table is not None and table.requires_grad)
        or (sinks is not None and sinks.requires_grad)
        or (fades is not None and fades.requires_grad)
        or (units is not None and (units.requires_grad or (factors is not None and factors.requires_grad)))
        or (counted is not None and counted.requires_grad)
    ):
        y: Tensor = _Attention.apply(problem, q, k, v, table, zero, sinks, fades, skip, factors, units, counted)
    else:
        y = _operator(q, k, v, problem.scale, table, zero, *_rest(problem, sinks, skip, fades, factors, units, counted))
    return y


def _rest(problem: Problem, sinks: Tensor | None, skip: bool, *bias: Tensor | None) -> tuple[Any, ...]:
    """What the operators take after the table, or nothing where all of it is as it is by default."""
    mask, documents = problem.mask, problem.documents
    ordered_only = problem.causal and problem.window is None and mask is None and documents is None
    while bias and bias[-1] is None:
        bias = bias[:-1]
    if ordered_only and sinks is None and skip and not bias:
        return ()
    return problem.causal, problem.window or 0, _mask(problem), _documents(problem), sinks, skip, *bias


def _mask(problem: Problem) -> Tensor | None:
    mask = problem.mask
    if mask is None:
        return None
    mask = mask if mask.dtype == torch.bool else mask.float()
    return mask.detach().reshape((1,) * (4 - mask.ndim) + mask.shape)


def _documents(problem: Problem) -> Tensor | None:
    if problem.documents is None:
        return None
    return problem.documents.to(torch.int64).reshape(-1, problem.k_len).contiguous()


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        problem: Problem,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        table: Tensor | None,
        zero: int,
        sinks: Tensor | None,
        fades: Tensor | None,
        skip: bool,
        factors: Tensor | None,
        units: Tensor | None,
        counted: Tensor | None,
    ) -> Tensor:
        rest = _rest(problem, sinks, skip, fades, factors, units, counted)
        y, lse = _operator_and_sums(q, k, v, problem.scale, table, zero, *rest)
        _, _, mask, documents, *_ = rest or (None,) * 4
        ctx.save_for_backward(q, k, v, table, sinks, fades, factors, units, counted, y, lse, mask, documents)
        ctx.scale, ctx.zero, ctx.causal, ctx.window, ctx.skip = (
            problem.scale,
            zero,
            problem.causal,
            problem.window,
            skip,
        )
        result: Tensor = y
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, table, sinks, fades, factors, units, counted, y, lse, mask, documents = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            learned = (q, k, v, table, sinks, fades, factors, units, counted)
            return _differentiable_backward(ctx, gradient, learned, mask, documents)
        wanted = ctx.needs_input_grad
        gradients = _backward_operator(
            *(gradient, y, lse, q, k, v, ctx.scale, table, ctx.zero, wanted[4]),
            *(ctx.causal, ctx.window or 0, mask, documents, ctx.skip),
            *(() if fades is None and units is None and counted is None else (fades, wanted[7], factors, units)),
            *(() if counted is None else (counted, wanted[11])),
        )
        dq, dk, dv = (_like(x, each) for x, each in zip(gradients[:3], (q, k, v), strict=True))
        dtable = gradients[3].sum(dim=0) if wanted[4] else None
        dsinks = None
        if wanted[6]:
            share, delta = (sinks[:, None] - lse).exp(), (y.float() * gradient.float()).sum(dim=-1)
            dsinks = -(share * delta).sum(dim=(0, 2))
        dfades = gradients[4] if wanted[7] else None
        dcounted = gradients[4] if wanted[11] else None
        dfactors = gradients[5].sum(dim=(0, 1)) if wanted[9] else None
        dunits = shares.gradient_of_units(units, *gradients[6].sum(dim=0).unbind(-1)) if wanted[10] else None
        return None, dq, dk, dv, dtable, None, dsinks, dfades, None, dfactors, dunits, dcounted


def _like(gradient: Tensor, like: Tensor) -> Tensor:
    """Gradients for each head of the queries, summed over those that share keys, without the channels rounded up."""
    if gradient.shape != like.shape:
        gradient = gradient[..., : like.shape[-1]]
        if gradient.shape[1] != like.shape[1]:
            gradient = gradient.unflatten(1, (like.shape[1], -1)).sum(dim=2)
    return gradient if like.dtype == torch.float32 else gradient.to(like.dtype)


def _differentiable_backward(
    ctx: Any, gradient: Tensor, learned: tuple[Any, ...], mask: Tensor | None, documents: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Gradients that can be differentiated again: by autograd over the whole matrix of scores."""
    # Views, because counted was made of q: a gradient of q itself would have that of counted in it.
    learned = tuple(None if x is None else x.view_as(x) for x in learned)
    q, k, v, table, sinks, fades, factors, units, counted = learned
    problem = Problem(q, k, v, ctx.scale, causal=ctx.causal, window=ctx.window, documents=documents, mask=mask)
    rows, keys = slice(0, problem.q_len), slice(0, problem.k_len)
    bias = None
    if table is not None:
        t = torch.arange(problem.q_len)[:, None] + problem.offset
        distances = ctx.zero + t - torch.arange(problem.k_len)
        bias = table[:, distances.clamp(0, table.shape[1] - 1)]  # those outside are hidden
        bias = bias if units is None else shares.bias(bias, factors, units)
    if fades is not None:
        bias = fading.bias(fades, problem.offset)
    if counted is not None:
        problem.encoding, problem.contextual = counting.Rows(counted), True
    block = Block((0, problem.q_len), (0, problem.k_len), bias, problem.hidden(rows, keys))
    with torch.autocast("cpu", enabled=False):
        y = attend(problem, block, q.float(), k.float(), v.float(), sinks=sinks, state=None).to(q.dtype)
    wanted = [ctx.needs_input_grad[i] for i in (1, 2, 3, 4, 6, 7, 9, 10, 11)]
    chosen = [x for x, needed in zip(learned, wanted, strict=True) if needed and x is not None]
    grads = iter(torch.autograd.grad(y, chosen, gradient, create_graph=True, allow_unused=True))
    dq, dk, dv, dtable, dsinks, dfades, *more = (next(grads) if needed else None for needed in wanted)
    return None, dq, dk, dv, dtable, None, dsinks, dfades, None, *more

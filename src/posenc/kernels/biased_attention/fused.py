"""The compiled kernel (cpu.cpp): biases of the distance and masks are added as the scores are made.

Five operators of the dispatcher::

    posenc::_attention             y
    posenc::_attention_of_row      y of a causal call with a table and a window at most, or with units and the factors
                                   of all tokens
    posenc::_attention_of_counts   y of a causal call that counts, and makes ``counted`` of the queries and a table
    posenc::_attention_and_sums    y, and the logarithms of the sums of the softmax, which the backward reads
    posenc::_attention_backward    gradients of q, k, v, channels rounded up to whole vectors; of the table; of fades or
                                   counted; of factors; and sums for each unit

Arguments: ``table``, ``zero``, ``fades``, ``factors``, ``units`` and ``counted`` as in added.py, the last in causal
calls and with none of the others; ``window`` 0 for none; ``mask`` of 4 dimensions, bool (True where a query may see a
key) or float32 (added); ``documents (batch or 1, k_len)`` int64; ``sinks (heads,)``; ``skip`` whether to leave out keys
whose weights are proved to be 0. What most calls do not have comes last and has a default, because the dispatcher takes
0.2 to 0.3 us for each argument that it is given, and some 0.1 us for each other.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from posenc.kernels import _build
from posenc.kernels.biased_attention import counting, fading, row_of_distances, shares
from posenc.kernels.biased_attention.added import Added
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
torch.library.define(
    "posenc::_attention_of_row",
    "(Tensor q, Tensor k, Tensor v, float scale, Tensor? table=None, int zero=0, int window=0, Tensor? factors=None, "
    "Tensor? units=None) -> Tensor",
)
torch.library.define(
    "posenc::_attention_of_counts",
    "(Tensor q, Tensor k, Tensor v, float scale, Tensor by_count, int window=0) -> Tensor",
)
torch.library.define("posenc::_attention_and_sums", f"({_FORWARD}) -> (Tensor, Tensor)")
torch.library.define("posenc::_attention_backward", f"({_BACKWARD}) -> ({', '.join(['Tensor'] * 7)})")
# What OpOverload.__call__ calls: two Python frames less in every call.
_operator: Callable[..., Any] = torch.ops.posenc._attention.default._op
_operator_of_row: Callable[..., Any] = torch.ops.posenc._attention_of_row.default._op
_operator_of_counts: Callable[..., Any] = torch.ops.posenc._attention_of_counts.default._op
_operator_and_sums: Callable[..., Any] = torch.ops.posenc._attention_and_sums.default._op
_backward_operator: Callable[..., Any] = torch.ops.posenc._attention_backward.default._op

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_TRANSFORMED = "transforms of torch.func, forward-mode derivatives and subclasses of Tensor need plain torch"
_is_loaded = False


def level() -> str:
    """The instruction set that the compiled kernel uses here, or "" if there is no compiled kernel."""
    library = _build.load(SOURCE)
    return "" if library.handle is None else LEVELS[library.handle.posenc_attention_level()]


def refusal(problem: Problem) -> str | None:
    """Why the compiled kernel cannot take this call, or None if it can."""
    if problem.plain_dtype not in DTYPES:
        return _not_plain(problem.q, problem.k, problem.v)
    if problem.dropout_p:
        return "it has no dropout"
    if not problem.q.numel():
        return "there are no queries"
    if torch.compiler.is_compiling():
        return "torch.compile cannot see through it"
    if is_transformed():
        return _TRANSFORMED
    if problem.mask is not None and problem.mask.requires_grad:
        return "this implementation has no gradient for the mask"
    reason: str | None = way(problem).refusal(problem)
    return _not_loaded() if reason is None else reason


def way(problem: Problem) -> ModuleType:
    """The module that makes what is added, or says why none can."""
    if problem.contextual:
        return counting if counting.counts(type(problem.encoding)) else fading
    return shares if shares.suits(problem) else row_of_distances


def _not_plain(q: Tensor, k: Tensor, v: Tensor) -> str:
    """What is wrong with tensors that are not all on the CPU, of one dtype that it takes, and of no subclass."""
    if not (q.is_cpu and k.is_cpu and v.is_cpu):
        return f"the tensors are on {q.device.type}"
    if q.dtype not in DTYPES or k.dtype is not q.dtype or v.dtype is not q.dtype:
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


def is_loaded() -> bool:
    """Whether a call has found the compiled kernel already."""
    return _is_loaded


def of_row(
    q: Tensor, k: Tensor, v: Tensor, scale: float, table: Tensor | None, zero: int, window: int, learns: bool
) -> Tensor:
    """Causal attention with a row and a window at most. ``learns`` says whether anything asks for a gradient."""
    y: Tensor
    if learns:
        y = _OfRow.apply(q, k, v, table, scale, zero, window)
    else:
        y = _operator_of_row(q, k, v, scale, table, zero, window)
    return y


def of_shares(
    q: Tensor, k: Tensor, v: Tensor, scale: float, table: Tensor, zero: int, window: int, factors: Tensor, units: Tensor
) -> Tensor:
    """Causal attention with shares of a row, with a window at most. Nothing asks for a gradient."""
    y: Tensor = _operator_of_row(q, k, v, scale, table, zero, window, factors, units)
    return y


def of_counts(q: Tensor, k: Tensor, v: Tensor, scale: float, table: Tensor, window: int) -> Tensor:
    """Causal attention that counts, with a window at most. Nothing asks for a gradient."""
    y: Tensor = _operator_of_counts(q, k, v, scale, table, window)
    return y


def at_once(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int, added: Added, learns: bool) -> Tensor:
    """Causal attention with a window at most and what is added, which asks for no gradient itself."""
    inputs = _Inputs(q, k, v, None, added.table, *added[2:])
    return _of_all(scale, added.zero, _Order(window=window), inputs, learns)


def run(problem: Problem, *, skip: bool = True) -> Tensor:
    """Attention in memory linear in the length, forward and backward.

    Args:
        skip: leave out blocks of keys whose weights are proved to be 0, which changes no bit of the result.
    """
    q, k, v, window = problem.q, problem.k, problem.v, problem.window or 0
    hides = problem.mask is not None or problem.documents is not None or problem.sinks is not None
    plain = problem.causal and skip and not hides
    if plain and way(problem) is counting and not needs_gradients(problem):
        by_count = counting.table(problem.encoding, q.shape[3])
        if by_count is not None:
            return of_counts(q, k, v, problem.scale, by_count, window)
    added: Added = way(problem).make(problem)
    inputs = _Inputs(q, k, v, problem.sinks, added.table, *added[2:])
    learns = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    if plain and all(x is None for x in added[2:]):
        return of_row(q, k, v, problem.scale, added.table, added.zero, window, learns)
    order = _Order(problem.causal, window, _mask(problem), _documents(problem), skip)
    sinks = None if problem.sinks is None else problem.sinks.float()
    return _of_all(problem.scale, added.zero, order, inputs._replace(sinks=sinks), learns)


def _of_all(scale: float, zero: int, order: "_Order", inputs: "_Inputs", learns: bool) -> Tensor:
    y: Tensor
    if learns:
        y = _Attention.apply(scale, zero, order, *inputs)
    else:
        y = _operator(*inputs[:3], scale, inputs.table, zero, *_rest(order, inputs))
    return y


class _Inputs(NamedTuple):
    """What may ask for a gradient."""

    q: Any
    k: Any
    v: Any
    sinks: Any = None
    table: Any = None
    fades: Any = None
    factors: Any = None
    units: Any = None
    counted: Any = None


class _Order(NamedTuple):
    """What may see what, as the operators take it. By default it is what they take by default."""

    causal: bool = True
    window: int = 0
    mask: Tensor | None = None
    documents: Tensor | None = None
    skip: bool = True


def _rest(order: _Order, inputs: _Inputs) -> tuple[Any, ...]:
    """What the forward takes after the table."""
    return *order[:4], inputs.sinks, order.skip, *inputs[5:]


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


class _OfRow(torch.autograd.Function):
    """Apart from all other calls, because autograd takes its time for each argument and tensor that is kept."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, table: Tensor | None, scale: float, zero: int, window: int
    ) -> Tensor:
        y: Tensor
        y, lse = _operator_and_sums(q, k, v, scale, table, zero, True, window)
        ctx.save_for_backward(q, k, v, table, y, lse)
        ctx.call = scale, zero, window
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, table, y, lse = ctx.saved_tensors
        scale, zero, window = ctx.call
        of_q, of_k, of_v, of_table = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():  # create_graph=True
            inputs, wanted = _Inputs(q, k, v, table=table), _Inputs(of_q, of_k, of_v, table=of_table)
            found = _differentiable_backward(scale, zero, _Order(window=window), gradient, inputs, wanted)
            return *found[:3], found.table, None, None, None
        found = _backward_operator(gradient, y, lse, q, k, v, scale, table, zero, of_table, True, window)
        table_gradient = found[3].sum(dim=0) if of_table else None
        return _like(found[0], q), _like(found[1], k), _like(found[2], v), table_gradient, None, None, None


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scale: float, zero: int, order: _Order, *tensors: Tensor | None) -> Tensor:
        inputs = _Inputs(*tensors)
        y, lse = _operator_and_sums(*inputs[:3], scale, inputs.table, zero, *_rest(order, inputs))
        ctx.save_for_backward(*inputs, order.mask, order.documents, y, lse)
        ctx.call = scale, zero, order._replace(mask=None, documents=None)
        result: Tensor = y
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, mask, documents, y, lse = ctx.saved_tensors
        scale, zero, order = ctx.call
        order = order._replace(mask=mask, documents=documents)
        inputs, wanted = _Inputs(*tensors), _Inputs(*ctx.needs_input_grad[3:])
        if torch.is_grad_enabled():  # create_graph=True
            return None, None, None, *_differentiable_backward(scale, zero, order, gradient, inputs, wanted)
        q, k, v, _, table, fades, factors, units, counted = inputs
        found = _backward_operator(
            *(gradient, y, lse, q, k, v, scale, table, zero, wanted.table, *order),
            *(fades, wanted.fades, factors, units, counted, wanted.counted),
        )
        sinks = None
        if wanted.sinks:
            share, delta = (inputs.sinks[:, None] - lse).exp(), (y.float() * gradient.float()).sum(dim=-1)
            sinks = -(share * delta).sum(dim=(0, 2))
        return (
            None,
            None,
            None,
            *_Inputs(
                *(_like(found[0], q), _like(found[1], k), _like(found[2], v), sinks),
                table=found[3].sum(dim=0) if wanted.table else None,
                fades=found[4] if wanted.fades else None,
                factors=found[5].sum(dim=(0, 1)) if wanted.factors else None,
                units=shares.gradient_of_units(units, *found[6].sum(dim=0).unbind(-1)) if wanted.units else None,
                counted=found[4] if wanted.counted else None,
            ),
        )


def _like(gradient: Tensor, like: Tensor) -> Tensor:
    """Gradients for each head of the queries, summed over those that share keys, without the channels rounded up."""
    if gradient.shape != like.shape:
        gradient = gradient[..., : like.shape[-1]]
        if gradient.shape[1] != like.shape[1]:
            gradient = gradient.unflatten(1, (like.shape[1], -1)).sum(dim=2)
    return gradient if like.dtype == torch.float32 else gradient.to(like.dtype)


def _differentiable_backward(
    scale: float, zero: int, order: _Order, gradient: Tensor, inputs: _Inputs, wanted: _Inputs
) -> _Inputs:
    """Gradients that can be differentiated again: by autograd over the whole matrix of scores."""
    # Views, because counted was made of q: a gradient of q itself would have that of counted in it.
    inputs = _Inputs(*(None if x is None else x.view_as(x) for x in inputs))
    q, k, v, sinks, table, fades, factors, units, counted = inputs
    causal, window, mask, documents, _ = order
    problem = Problem(q, k, v, scale, causal=causal, window=window or None, documents=documents, mask=mask)
    rows, keys = slice(0, problem.q_len), slice(0, problem.k_len)
    bias = None
    if table is not None:
        t = torch.arange(problem.q_len, device=q.device)[:, None] + problem.offset
        distances = zero + t - torch.arange(problem.k_len, device=q.device)
        bias = table[:, distances.clamp(0, table.shape[1] - 1)]  # those outside are hidden
        bias = bias if units is None else shares.bias(bias, factors, units)
    if fades is not None:
        bias = fading.bias(fades, problem.offset)
    if counted is not None:
        problem.encoding, problem.contextual = counting.Rows(counted), True
    block = Block((0, problem.q_len), (0, problem.k_len), bias, problem.hidden(rows, keys))
    with torch.autocast("cpu", enabled=False):
        y = attend(problem, block, q.float(), k.float(), v.float(), sinks=sinks, state=None).to(q.dtype)
    chosen = [x for x, needed in zip(inputs, wanted, strict=True) if needed]
    grads = iter(torch.autograd.grad(y, chosen, gradient, create_graph=True, allow_unused=True))
    return _Inputs(*(next(grads) if needed else None for needed in wanted))

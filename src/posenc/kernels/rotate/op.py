"""Rotate queries and keys in one call: the contract of the operation, its operators and their gradients.

:func:`rotate` and :func:`rotate_` are what encodings call. Below them lie four operators of the dispatcher::

    posenc::rotate    posenc::rotate_     differentiable
    posenc::_rotate   posenc::_rotate_    the same below autograd: what a backend implements

Only a call that needs gradients pays for autograd: the others go to the lower pair, which is one dispatch away from
C++ (cpu.cpp) or Triton (triton.py). Where neither is available, under torch.compile and under the transforms of
torch.func, the plain expression of eager.py runs.
"""

from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor

from posenc.kernels.choice import Choice, Implementation
from posenc.kernels.rotate import eager, standard
from posenc.kernels.rotate.checks import check, check_distinct, check_writable
from posenc.kernels.rotate.choosing import choose, choose_and_say
from posenc.kernels.rotate.eager import Pairing, fresh, split_pairs

_NO_TABLE_GRADIENTS = (
    "rotate_: got tables that require gradients, expected fixed ones, because the rotation overwrites the values from "
    "which their gradient is computed; use rotate."
)


def rotate(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    positions: Tensor | None = None,
    offset: int = 0,
    start: int = 0,
    token_dim: int = 2,
    pairing: Pairing = "half",
    inverse: bool = False,
    implementation: Implementation = "auto",
) -> tuple[Tensor, Tensor]:
    """``(q, k)`` with each pair (a, b) of a slice of the channels turned into (a cos - b sin, a sin + b cos).

    Args:
        q, k: ``(batch, heads, seq, head_dim)``, any strides, any number of heads each; one dtype, batch and seq. To
            rotate one tensor give ``x[:, :0]`` as the other.
        cos, sin: ``(rows, pairs)``, or ``(batch, rows, pairs)`` for tables of each row of the batch; float64 for
            float64, float32 for all other dtypes. A number on both, such as YaRN's attention factor, scales the result.
        positions: the row of the table for each token, ``(seq,)`` or ``(batch, seq)``, int64 or int32. By default token
            t has row ``offset + t``.
        offset: the row of the first token, if positions are not given.
        start: the first channel of the slice, which has 2 * pairs channels; the others pass through.
        token_dim: which axis counts tokens: 2, or 1 for ``(batch, seq, heads, head_dim)``.
        pairing: "half" pairs channel c of the slice with c + pairs, "interleaved" pairs 2c with 2c + 1.
        inverse: turn back, by -angle.
        implementation: "auto" takes the fastest there is; another is taken or refused, never replaced in silence.
            Under torch.compile it is always the plain expression, which the compiler fuses with its neighbours.

    Gradients: with respect to q and k by the inverse rotation, and to cos and sin where they require it (in plain
    torch, not fused); of any order.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit; positions outside the table; an implementation that is
            not available here. Nothing has been read or written then. (On a GPU positions are not looked at, because
            that would stall it: a token whose position lies outside the table becomes NaN.)
    """
    arguments = (q, k, cos, sin, positions, offset, start, token_dim, _is_interleaved(pairing), inverse)
    chosen = choose(q, k, cos, implementation)
    if chosen == "eager":
        if torch.compiler.is_compiling() and standard.suits(q, k):
            return standard.rotate_queries_keys(*arguments)
        return eager.rotate_queries_keys(*arguments)
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or cos.requires_grad or sin.requires_grad):
        return _Rotate.apply(*arguments, chosen, implementation)  # type: ignore[no-any-return]
    return _kernel(chosen)(*arguments)  # type: ignore[no-any-return]


def rotate_(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    positions: Tensor | None = None,
    offset: int = 0,
    start: int = 0,
    token_dim: int = 2,
    pairing: Pairing = "half",
    inverse: bool = False,
    implementation: Implementation = "auto",
) -> tuple[Tensor, Tensor]:
    """:func:`rotate` in place: q and k are overwritten, and returned.

    Raises:
        ValueError: as :func:`rotate`; elements of q or k that share memory, as in an expanded tensor; tables that
            require gradients, for which the values before the rotation would be needed.
    """
    arguments = (q, k, cos, sin, positions, offset, start, token_dim, _is_interleaved(pairing), inverse)
    gradients = torch.is_grad_enabled()
    _check_fixed(cos, sin)
    chosen = choose(q, k, cos, implementation)
    check_writable(q, k)
    if chosen == "eager":
        turned_q, turned_k = eager.rotate_queries_keys(*arguments)
        return q.copy_(turned_q), k.copy_(turned_k)
    if gradients and (q.requires_grad or k.requires_grad):
        others = (*arguments[2:], chosen, implementation)
        return _RotateInPlace.apply(q, *others), _RotateInPlace.apply(k, *others)
    return _overwritten(_kernel_(chosen), *arguments)


def rotate_plain_(q: Tensor, k: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    """:func:`rotate_` by compiled code of what :func:`is_plain` is true of; the arguments are the operator's."""
    check_writable(q, k)
    return _overwritten(compiled_, q, k, *arguments)


def _overwritten(kernel: Callable[..., None], q: Tensor, k: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    kernel(q, k, *arguments)
    if not q.is_inference() and not k.is_inference():
        torch.autograd.graph.increment_version((q, k))
    return q, k


def explain(q: Tensor, k: Tensor, cos: Tensor, *, implementation: Implementation = "auto") -> Choice:
    """Which implementation :func:`rotate` takes for these tensors, and why."""
    return Choice("rotate", *choose_and_say(q, k, cos, implementation))


def explain_(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    offset: int,
    start: int,
    token_dim: int,
    *,
    implementation: Implementation = "auto",
) -> Choice:
    """The same of :func:`rotate_`, which refuses more."""
    _check_fixed(cos, sin)
    check(q, k, cos, sin, positions, offset, start, token_dim)
    check_writable(q, k)
    return explain(q, k, cos, implementation=implementation)


def _check_fixed(cos: Tensor, sin: Tensor) -> None:
    if torch.is_grad_enabled() and (cos.requires_grad or sin.requires_grad):
        raise ValueError(_NO_TABLE_GRADIENTS)


def _is_interleaved(pairing: Pairing) -> bool:
    if pairing == "half":
        return False
    if pairing == "interleaved":
        return True
    raise ValueError(f"rotate: got pairing {pairing!r}, expected one of {get_args(Pairing)}.")


# ----------------------------------------------------------------------------------------------------------------------
# Gradients.


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        arguments, chosen = _keep(ctx, inputs)
        return _kernel(chosen)(*arguments)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return _backward(ctx, *gradients, needs=ctx.needs_input_grad[:4])


class _RotateInPlace(torch.autograd.Function):
    """One tensor at a time: q and k are mostly views, and autograd takes no more of those that are written to."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *inputs: Any) -> Tensor:
        arguments, chosen = _keep(ctx, (x, x[:, :0], *inputs))
        ctx.mark_dirty(x)
        _kernel_(chosen)(*arguments)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        of_x, _, *others = _backward(ctx, gradients[0], gradients[0][:, :0], needs=(True, False, False, False))
        return (of_x, *others)


def _keep(ctx: Any, inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], str]:
    *arguments, chosen, ctx.implementation = inputs
    q, k, cos, sin, positions, *ctx.options = arguments
    # The inverse rotation needs no activations; the gradient of the tables does.
    activations = (q, k) if cos.requires_grad or sin.requires_grad else (None, None)
    ctx.save_for_backward(cos, sin, positions, *activations)
    return tuple(arguments), chosen


def _backward(
    ctx: Any, q_gradient: Tensor, k_gradient: Tensor, *, needs: tuple[bool, bool, bool, bool]
) -> tuple[Any, ...]:
    cos, sin, positions, q, k = ctx.saved_tensors
    offset, start, token_dim, interleaved, inverse = ctx.options
    pairing: Pairing = "interleaved" if interleaved else "half"
    needs_q, needs_k, needs_cos, needs_sin = needs
    turned_q, turned_k = rotate(
        q_gradient if needs_q else q_gradient[:, :0],
        k_gradient if needs_k else k_gradient[:, :0],
        cos,
        sin,
        positions=positions,
        offset=offset,
        start=start,
        token_dim=token_dim,
        pairing=pairing,
        inverse=not inverse,
        implementation=ctx.implementation,
    )
    of_cos = of_sin = None
    if needs_cos or needs_sin:
        heads, end = 3 - token_dim, start + 2 * cos.shape[-1]
        sums = []
        for x, gradient in ((q, q_gradient), (k, k_gradient)):
            a, b = split_pairs(x[..., start:end].to(cos.dtype), pairing)
            da, db = split_pairs(gradient[..., start:end].to(cos.dtype), pairing)
            sums.append(((da * a + db * b).sum(heads), (db * a - da * b).sum(heads)))
        of_cos = _to_rows(sums[0][0] + sums[1][0], cos, positions, offset)
        of_sin = _to_rows(sums[0][1] + sums[1][1], sin, positions, offset)
        of_sin = -of_sin if inverse else of_sin
    return (turned_q if needs_q else None, turned_k if needs_k else None, of_cos, of_sin, *[None] * 8)


def _to_rows(gradient: Tensor, table: Tensor, positions: Tensor | None, offset: int) -> Tensor:
    """The gradient of a table from those of its rows as they were used, ``(batch, seq, pairs)``."""
    batch, tokens, pairs = gradient.shape
    if positions is None:
        positions = torch.arange(offset, offset + tokens, device=gradient.device)
    index = positions.long().expand(batch, tokens)
    if table.ndim == 2:
        return gradient.new_zeros(table.shape).index_add(0, index.reshape(-1), gradient.reshape(-1, pairs))
    scattered = gradient.new_zeros(batch, *table.shape[1:]).scatter_add(
        1, index[..., None].expand_as(gradient), gradient
    )
    return scattered.sum_to_size(table.shape)


# ----------------------------------------------------------------------------------------------------------------------
# The operators.

_library = torch.library.Library("posenc", "DEF")
_SIGNATURE = (
    "({q}, {k}, Tensor cos, Tensor sin, Tensor? positions, int offset, int start, int token_dim, bool interleaved, "
    "bool inverse) -> {result}"
)
_FUNCTIONAL = _SIGNATURE.format(q="Tensor q", k="Tensor k", result="(Tensor, Tensor)")
_MUTATING = _SIGNATURE.format(q="Tensor(a!) q", k="Tensor(b!) k", result="()")


def _plain(q: Tensor, k: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    turned = eager.rotate_queries_keys(q, k, *options)
    return fresh(q).copy_(turned[0]), fresh(k).copy_(turned[1])


def _plain_(q: Tensor, k: Tensor, *options: Any) -> None:
    results = eager.rotate_queries_keys(q, k, *options)
    check_distinct(q, k)
    for x, turned in zip((q, k), results, strict=True):
        x.copy_(turned)


def _learns(x: Tensor | None) -> bool:
    return x is not None and x.requires_grad  # the dispatcher lets None through; the kernel refuses it


def _differentiable(*arguments: Any) -> Any:
    if torch.is_grad_enabled() and any(_learns(x) for x in arguments[:4]):
        return _Rotate.apply(*arguments, "operator", "auto")
    return _kernel("operator")(*arguments)


def _differentiable_(*arguments: Any) -> None:
    if torch.is_grad_enabled() and any(_learns(x) for x in arguments[:4]):
        if any(_learns(table) for table in arguments[2:4]):
            raise ValueError(_NO_TABLE_GRADIENTS)
        check_writable(*arguments[:2])
        for x in arguments[:2]:
            _RotateInPlace.apply(x, *arguments[2:], "operator", "auto")
    else:
        _kernel_("operator")(*arguments)
        torch.autograd.graph.increment_version(arguments[:2])


def _on_gpu(*arguments: Any) -> tuple[Tensor, Tensor]:
    from posenc.kernels.rotate.triton import rotate as on_gpu

    return on_gpu(*arguments)


def _on_gpu_(*arguments: Any) -> None:
    from posenc.kernels.rotate.triton import rotate_ as on_gpu_

    on_gpu_(*arguments)


def _fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    check(*arguments[:8])
    return fresh(arguments[0]), fresh(arguments[1])


def _fake_(*arguments: Any) -> None:
    check(*arguments[:8])


for _suffix, _schema, _forms in (
    ("", _FUNCTIONAL, (_plain, _on_gpu, _fake, _differentiable)),
    ("_", _MUTATING, (_plain_, _on_gpu_, _fake_, _differentiable_)),
):
    for _name in ("rotate" + _suffix, "_rotate" + _suffix):
        _library.define(_name + _schema)
        _library.impl(_name, _forms[0], "CompositeExplicitAutograd")
        torch.library.register_fake(f"posenc::{_name}", _forms[2], lib=_library)
    _library.impl("_rotate" + _suffix, _forms[1], "CUDA")
    _library.impl("_rotate" + _suffix, torch.library.fallthrough_kernel, "Autograd")
    _library.impl("rotate" + _suffix, _forms[3], "Autograd")

# What OpOverload.__call__ calls: a Python frame less in every call.
compiled: Callable[..., Any] = torch.ops.posenc._rotate.default._op
compiled_: Callable[..., Any] = torch.ops.posenc._rotate_.default._op


def _kernel(chosen: str) -> Callable[..., Any]:
    # Triton on CPU tensors is its interpreter: the dispatcher would take them to C++.
    return _on_gpu if chosen == "triton" else compiled


def _kernel_(chosen: str) -> Callable[..., Any]:
    return _on_gpu_ if chosen == "triton" else compiled_

"""Rotate queries and keys in one call: the contract of the operation and the choice among its implementations.

:func:`rotate` and :func:`rotate_` are what encodings call. Below them lie four operators of the dispatcher::

    posenc::rotate    posenc::rotate_     differentiable
    posenc::_rotate   posenc::_rotate_    the same below autograd: what a backend implements

Only a call that needs gradients pays for autograd: the others go to the lower pair, which is one dispatch away from
C++ (cpu.cpp) or Triton (triton.py). Where neither is to be had, under torch.compile and under the transforms of
torch.func, the plain expression of eager.py runs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from posenc.kernels import _build
from posenc.kernels.choice import Choice, Implementation
from posenc.kernels.precision import compute_dtype
from posenc.kernels.rotate import eager
from posenc.kernels.rotate.eager import Pairing, split_pairs

SOURCE = Path(__file__).with_name("cpu.cpp")

_NO_TABLE_GRADIENTS = (
    "rotate_: got tables that require gradients, expected fixed ones, because the rotation overwrites what their "
    "gradient is made of; use rotate."
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
            not to be had here. Nothing has been read or written then. (On a GPU positions are not looked at, because
            that would stall it: a token whose position lies outside the table becomes NaN.)
    """
    arguments = (q, k, cos, sin, positions, offset, start, token_dim, _is_interleaved(pairing), inverse)
    chosen = _implementation(q, k, cos, implementation)
    if chosen == "eager":
        return _eager(*arguments)
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
    if gradients and (cos.requires_grad or sin.requires_grad):
        raise ValueError(_NO_TABLE_GRADIENTS)
    chosen = _implementation(q, k, cos, implementation)
    if chosen == "eager":
        check_distinct(q, k)
        turned_q, turned_k = _eager(*arguments)
        return q.copy_(turned_q), k.copy_(turned_k)
    if gradients and (q.requires_grad or k.requires_grad):
        others = (*arguments[2:], chosen, implementation)
        return _RotateInPlace.apply(q, *others), _RotateInPlace.apply(k, *others)
    _kernel_(chosen)(*arguments)
    torch.autograd.graph.increment_version((q, k))
    return q, k


def explain(q: Tensor, k: Tensor, cos: Tensor, *, implementation: Implementation = "auto") -> Choice:
    """Which implementation :func:`rotate` takes for these tensors, and why."""
    return Choice("rotate", *_choose(q, k, cos, implementation))


def level() -> str:
    """The instruction set that the compiled kernel uses here, or "" if there is no compiled kernel."""
    library = _build.load(SOURCE)
    return "" if library.handle is None else _LEVELS[library.handle.posenc_rotate_level()]


_LEVELS = ("the portable instruction set", "AVX2", "AVX-512", "AVX-512 with BF16")


# ----------------------------------------------------------------------------------------------------------------------
# The choice.

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _implementation(q: Tensor, k: Tensor, cos: Tensor, implementation: Implementation) -> str:
    """The choice alone, the common answer first: this runs in every call."""
    if (
        _cpu_is_loaded
        and implementation == "auto"
        and q.is_cpu
        and not torch.compiler.is_compiling()
        and (dtype := q.dtype) is k.dtype
        and cos.dtype is _TABLE_DTYPES.get(dtype)
        and not _is_special(q, k, cos)
    ):
        return "cpu"
    return _choose(q, k, cos, implementation)[0]


_TABLE_DTYPES = {dtype: compute_dtype(dtype) for dtype in _DTYPES}
_cpu_is_loaded = False


def _is_special(q: Tensor, k: Tensor, cos: Tensor) -> bool:
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    if type(q) is Tensor and type(k) is Tensor and type(cos) is Tensor:
        return False
    return any(type(x) not in (Tensor, torch.nn.Parameter) for x in (q, k, cos))


def _choose(q: Tensor, k: Tensor, cos: Tensor, implementation: Implementation) -> tuple[str, str]:
    if implementation not in get_args(Implementation):
        raise ValueError(f"rotate: got implementation {implementation!r}, expected one of {get_args(Implementation)}.")
    if torch.compiler.is_compiling():
        return "eager", "torch.compile fuses the plain expression with its neighbours"
    if implementation == "eager":
        return "eager", 'implementation="eager" asks for it'
    device = q.device.type
    wanted = implementation if implementation != "auto" else {"cpu": "cpu", "cuda": "triton"}.get(device, "eager")
    if wanted == "eager":
        return "eager", f"there is no kernel for device {device}"
    obstacle = _obstacle(q, k, cos, wanted)
    if obstacle is None:
        return wanted, f"the tensors are on {device}" + (f", compiled code uses {level()}" if wanted == "cpu" else "")
    if implementation != "auto":
        raise ValueError(f'rotate: got implementation="{implementation}", but {obstacle}; use "auto" or "eager".')
    return "eager", obstacle


def _obstacle(q: Tensor, k: Tensor, cos: Tensor, wanted: str) -> str | None:
    """Why ``wanted`` cannot be taken, or None if it can."""
    device = {"cpu": "cpu", "triton": "cuda"}[wanted]
    if _is_special(q, k, cos):
        return "transforms of torch.func, forward-mode derivatives and subclasses of Tensor need plain torch"
    if q.device.type != device and not (wanted == "triton" and _triton_interprets()):
        return f"the tensors are on {q.device.type}, not on {device}"
    if cos.dtype is not _TABLE_DTYPES.get(q.dtype):
        return f"tables of {cos.dtype} for tensors of {q.dtype} are rounded in another order than the kernels do"
    if q.dtype is not k.dtype:
        return f"q is {q.dtype} and k is {k.dtype}"
    return _cpu_obstacle() if wanted == "cpu" else _triton_obstacle()


def _cpu_obstacle() -> str | None:
    global _cpu_is_loaded
    library = _build.load(SOURCE)
    _cpu_is_loaded = library.handle is not None
    return None if _cpu_is_loaded else f"the compiled kernel is not to be had: {library.reason}"


def _triton_obstacle() -> str | None:
    try:
        import triton  # noqa: F401
    except ImportError:
        return "Triton is not installed: pip install triton"
    return None


def _triton_interprets() -> bool:
    import os

    return os.environ.get("TRITON_INTERPRET") == "1"


def _is_interleaved(pairing: Pairing) -> bool:
    if pairing == "half":
        return False
    if pairing == "interleaved":
        return True
    raise ValueError(f"rotate: got pairing {pairing!r}, expected one of {get_args(Pairing)}.")


# ----------------------------------------------------------------------------------------------------------------------
# The plain expression.


def _eager(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    offset: int,
    start: int,
    token_dim: int,
    interleaved: bool,
    inverse: bool,
) -> tuple[Tensor, Tensor]:
    check(q, k, cos, sin, positions, offset, start, token_dim)
    pairing: Pairing = "interleaved" if interleaved else "half"
    cos, sin = (_rows(table, positions, offset, q.shape[token_dim]) for table in (cos, sin))
    if token_dim == 1:  # every head has the same rows
        cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    elif cos.ndim == 3:
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    if inverse:
        sin = -sin
    return (
        eager.rotate(q, cos, sin, pairing=pairing, start=start),
        eager.rotate(k, cos, sin, pairing=pairing, start=start),
    )


def _rows(table: Tensor, positions: Tensor | None, offset: int, tokens: int) -> Tensor:
    """The rows of the tokens, ``(seq, pairs)`` or ``(batch, seq, pairs)``."""
    if positions is None:
        return table if offset == 0 and table.shape[-2] == tokens else table.narrow(-2, offset, tokens)
    if table.ndim == 2:
        return table[positions]
    if positions.ndim == 1:
        return table[:, positions]
    batch = positions.shape[0] if table.shape[0] == 1 else table.shape[0]
    index = positions.long()[..., None].expand(batch, tokens, table.shape[-1])
    return table.expand(batch, -1, -1).gather(1, index)


def check(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    offset: int,
    start: int,
    token_dim: int,
) -> None:
    """What cpu.cpp checks, for the implementations that do not check by themselves."""
    for name, x in (("q", q), ("k", k), ("cos", cos), ("sin", sin)):
        if not isinstance(x, Tensor):  # the dispatcher lets None through
            raise TypeError(f"rotate: got {x!r} for {name}, expected a tensor.")
    if token_dim not in (1, 2):
        raise ValueError(f"rotate: got token_dim {token_dim}, expected 1 or 2.")
    shapes = f"q of shape {tuple(q.shape)} and k of shape {tuple(k.shape)}"
    if q.ndim != 4 or k.ndim != 4:
        raise ValueError(f"rotate: got {shapes}, expected 4 dimensions.")
    if not (q.is_floating_point() and k.is_floating_point()):
        raise ValueError(f"rotate: got q of {q.dtype} and k of {k.dtype}, expected floating point.")
    batch, tokens = q.shape[0], q.shape[token_dim]
    if k.shape[0] != batch or k.shape[token_dim] != tokens:
        raise ValueError(f"rotate: got {shapes}, expected the same batch and number of tokens; rotate them one by one.")
    if cos.ndim not in (2, 3) or cos.shape != sin.shape or (cos.ndim == 3 and cos.shape[0] not in (1, batch)):
        raise ValueError(
            f"rotate: got cos of shape {tuple(cos.shape)} and sin of shape {tuple(sin.shape)}, expected the same, "
            f"(rows, pairs) or ({batch}, rows, pairs)."
        )
    rows, pairs = cos.shape[-2:]
    if start < 0 or any(start + 2 * pairs > x.shape[3] for x in (q, k)):
        raise ValueError(
            f"rotate: got {pairs} pairs of channels from channel {start} on, expected them to fit into {shapes}."
        )
    if any(x.device != q.device for x in (k, cos, sin) + (() if positions is None else (positions,))):
        raise ValueError("rotate: got tensors on several devices, expected all tensors on one.")
    if positions is None:
        if offset < 0 or offset + tokens > rows:
            raise ValueError(
                f"rotate: got {tokens} tokens from row {offset} on of a table of {rows} rows, expected rows within it; "
                "make a longer table."
            )
        return
    if offset != 0:
        raise ValueError(f"rotate: got positions and offset {offset}, expected one of the two; add the offset.")
    if positions.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"rotate: got positions of {positions.dtype}, expected int64 or int32.")
    if tuple(positions.shape) not in ((tokens,), (1, tokens), (batch, tokens)):
        raise ValueError(
            f"rotate: got positions of shape {tuple(positions.shape)}, expected ({tokens},) or ({batch}, {tokens})."
        )
    if positions.is_cpu and positions.numel() and not torch.compiler.is_compiling() and type(positions) is Tensor:
        low, high = (int(bound) for bound in torch.aminmax(positions))
        if low < 0 or high >= rows:
            raise ValueError(
                f"rotate: got positions from {low} to {high}, expected 0 to {rows - 1}, the rows of the table; make a "
                "longer table."
            )


def check_distinct(q: Tensor, k: Tensor) -> None:
    """Refuse to write in place where elements share memory."""
    for name, x in (("q", q), ("k", k)):
        if any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)) and x.numel():
            raise ValueError(
                f"rotate_: got {name} with elements that share memory (was it expanded?), expected distinct ones to "
                "write in place; clone() it."
            )


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
    turned = _eager(q, k, *options)
    return fresh(q).copy_(turned[0]), fresh(k).copy_(turned[1])


def _plain_(q: Tensor, k: Tensor, *options: Any) -> None:
    results = _eager(q, k, *options)
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


def fresh(x: Tensor) -> Tensor:
    """Dense and of x's shape, its axes in memory order (0, 1, 2, 3) or (0, 2, 1, 3), whichever x is in."""
    batch, first, second, channels = x.shape
    if x.stride(1) < x.stride(2):
        return x.new_empty(batch, second, first, channels).transpose(1, 2)
    return x.new_empty(x.shape)


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
_operator: Callable[..., Any] = torch.ops.posenc._rotate.default._op
_operator_: Callable[..., Any] = torch.ops.posenc._rotate_.default._op


def _kernel(chosen: str) -> Callable[..., Any]:
    # Triton on CPU tensors is its interpreter: the dispatcher would take them to C++.
    return _on_gpu if chosen == "triton" else _operator


def _kernel_(chosen: str) -> Callable[..., Any]:
    return _on_gpu_ if chosen == "triton" else _operator_

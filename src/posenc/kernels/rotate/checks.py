"""What the rotation refuses, for the implementations that do not check by themselves as cpu.cpp does."""

import torch
from torch import Tensor

from posenc.kernels.precision import may_look


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
    """The checks of cpu.cpp, in its words."""
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
        raise ValueError(
            f"rotate: got {shapes}, expected the same batch size and number of tokens; rotate q and k in two calls."
        )
    if cos.ndim not in (2, 3) or cos.shape != sin.shape or (cos.ndim == 3 and cos.shape[0] not in (1, batch)):
        raise ValueError(
            f"rotate: got cos of shape {tuple(cos.shape)} and sin of shape {tuple(sin.shape)}, expected one shape for "
            f"both, (rows, pairs) or ({batch}, rows, pairs)."
        )
    rows, pairs = cos.shape[-2:]
    if start < 0 or any(start + 2 * pairs > x.shape[3] for x in (q, k)):
        raise ValueError(
            f"rotate: got {pairs} pairs of channels from channel {start} on, expected pairs that fit into the heads "
            f"of {shapes}."
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
            f"rotate: got positions of shape {tuple(positions.shape)}, expected ({tokens},) or ({batch}, {tokens})"
            + _of_several(positions.ndim)
        )
    if positions.numel() and may_look(positions):
        low, high = (int(bound) for bound in torch.aminmax(positions))
        if low < 0:
            raise ValueError(
                f"rotate: got position {low}, expected 0 or above; shift all positions by {-low} (only differences "
                "matter), and give padding any position of 0 or above."
            )
        if high >= rows:
            raise ValueError(
                f"rotate: got positions from {low} to {high}, expected 0 to {rows - 1}, the rows of the table; make a "
                "longer table."
            )


def check_writable(q: Tensor, k: Tensor) -> None:
    """Refuse, before anything is written, what cannot be overwritten: by autograd's rules, or because memory is shared.

    Raises:
        ValueError: a leaf that requires a gradient, or a view of one; an inference tensor outside inference mode;
            elements of q or k that share memory, within one of them or between the two.
    """
    for name, x in (("q", q), ("k", k)):
        if x.requires_grad and torch.is_grad_enabled() and (x.is_leaf or (x._base is not None and x._base.is_leaf)):
            raise ValueError(
                f"rotate_: got {name} that is a leaf which requires a gradient, or a view of one, expected the result "
                "of a computation, which rotate_ may overwrite; use rotate (on_queries_keys), or torch.no_grad()."
            )
        if x.is_inference() and not torch.is_inference_mode_enabled():
            raise ValueError(
                f"rotate_: got {name} made under torch.inference_mode() and called outside of it, expected a tensor "
                "that may be written to; use rotate (on_queries_keys), or stay in inference mode."
            )
    check_distinct(q, k)


def check_distinct(q: Tensor, k: Tensor) -> None:
    """Refuse to write in place where elements share memory."""
    for name, x in (("q", q), ("k", k)):
        if not x.is_contiguous() and x.numel() and _overlaps_itself(x):
            raise ValueError(
                f"rotate_: got {name} with elements that share memory (was it expanded?), expected a tensor whose "
                "elements have separate memory, because rotate_ writes in place; clone() it."
            )
    if not (_has_memory(q) and _has_memory(k)) or not q.numel() or not k.numel():
        return
    if q.untyped_storage().data_ptr() == k.untyped_storage().data_ptr() and q.dtype is k.dtype:
        difference = int(k.storage_offset() - q.storage_offset())
        if _meet(difference, _axes(q), _axes(k)):
            raise ValueError(
                "rotate_: got q and k with elements in common, which would be rotated twice, expected tensors that "
                "share no memory; clone() one of them."
            )


def _has_memory(x: Tensor) -> bool:
    return type(x) in (Tensor, torch.nn.Parameter) and x.device.type != "meta" and not torch.compiler.is_compiling()


def _axes(x: Tensor) -> list[tuple[int, int]]:
    """(stride, size) of the axes with more than one entry, the largest stride first."""
    return sorted(((s, n) for s, n in zip(x.stride(), x.shape, strict=True) if n > 1), reverse=True)


def _overlaps_itself(x: Tensor) -> bool:
    inner = 0  # the span of the axes inside
    for stride, size in reversed(_axes(x)):
        if stride <= inner:
            break
        inner += stride * (size - 1)
    else:
        return False
    if 0 in (stride for stride, _ in _axes(x)):
        return True
    places = torch.zeros((), dtype=torch.int64, device="cpu")  # strides that interleave: settled by counting
    for stride, size in _axes(x):
        places = places[..., None] + stride * torch.arange(size, device="cpu")
    return bool(places.unique().numel() < places.numel())


def _meet(difference: int, q: list[tuple[int, int]], k: list[tuple[int, int]]) -> bool:
    """Whether an element of q is one of k, which begins ``difference`` elements after q; both by their axes."""
    q_span, k_span = (sum(stride * (size - 1) for stride, size in axes) for axes in (q, k))
    if difference > q_span or difference < -k_span:
        return False
    if not q and not k:
        return True
    if q and k and q[0][0] == k[0][0]:  # the same outer axis: only by how much its index differs matters
        (stride, q_size), k_size = q[0], k[0][1]
        q_inner, k_inner = q_span - stride * (q_size - 1), k_span - stride * (k_size - 1)
        first = max(-(k_size - 1), -((q_inner - difference) // stride))
        last = min(q_size - 1, (difference + k_inner) // stride)
        return any(_meet(difference - t * stride, q[1:], k[1:]) for t in range(first, last + 1))
    if not k or (q and q[0][0] > k[0][0]):
        stride, size = q[0]
        inner = q_span - stride * (size - 1)
        first = max(0, -((inner - difference) // stride))
        last = min(size - 1, (difference + k_span) // stride)
        return any(_meet(difference - t * stride, q[1:], k) for t in range(first, last + 1))
    return _meet(-difference, k, q)


def _of_several(dims: int) -> str:
    """What takes positions of rows and columns; this rotation does not."""
    return "; for rows and columns take AxialRoPE, MRoPE or MixedRoPE." if dims == 3 else "."

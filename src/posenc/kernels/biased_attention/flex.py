"""FlexAttention: the bias as a function of two indices, fused into the kernel."""

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from posenc.kernels.biased_attention.content import ScoreMod
from posenc.kernels.biased_attention.problem import Problem

# Each has a graph of its own, which takes some ten seconds and stays in memory. torch.compile itself gives up after
# eight, and from then on makes the whole matrix of scores.
_MOST_SHAPES = 64
_MANY_SHAPES = 8
_shapes: set[tuple[Any, ...]] = set()
_log = logging.getLogger("posenc")


def run(problem: Problem) -> Tensor:
    """FlexAttention, compiled. On the CPU it has no backward."""
    q, k, v = problem.q, problem.k, problem.v
    options: dict[str, Any] = {
        "score_mod": _score_mod(problem),
        "block_mask": _block_mask(problem),
        "scale": problem.scale,
        "enable_gqa": q.shape[1] != k.shape[1],
    }
    call: Any = flex_attention if torch.compiler.is_compiling() else _compiled
    if call is _compiled and (shape := _shape(problem)) not in _shapes:
        _shapes.add(shape)
        if len(_shapes) == _MANY_SHAPES:
            _log.warning(
                "posenc: FlexAttention is compiled for the %dth shape, and each takes some ten seconds; pad the "
                'lengths to a few, or pass implementation="blocks" to posenc.attention',
                _MANY_SHAPES,
            )
    if problem.sinks is None:
        y: Tensor = call(q, k, v, **options)
        return y
    y, aux = call(q, k, v, return_aux=AuxRequest(lse=True), **options)
    # One more key of score s that gives nothing: exp(lse) grows by exp(s), so the output shrinks by their ratio.
    share = torch.sigmoid(aux.lse - problem.sinks.to(aux.lse.dtype)[:, None])
    return y * share[..., None].to(y.dtype)


def refusal(problem: Problem) -> str | None:
    """Why FlexAttention cannot take this call, or None if it can."""
    if problem.contextual:
        return f"{problem.name} reads queries and keys, which a score_mod cannot read"
    if problem.dropout_p:
        return "FlexAttention has no dropout"
    if problem.sinks is not None and problem.q.device.type == "cpu":
        return "FlexAttention does not return the sum of its weights on the CPU, which sinks need"
    if problem.mask is not None and problem.mask.dtype != torch.bool:
        return "posenc gives FlexAttention only boolean masks, and this mask is added to the scores"
    learns = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (problem.q, problem.k, problem.v, problem.sinks, *_learned(problem))
    )
    if problem.q.device.type == "cpu" and learns:
        return "FlexAttention has no backward on the CPU"
    if problem.q.device.type == "cpu" and problem.q.dtype == torch.float64:
        return "FlexAttention takes no float64 on the CPU"
    if problem.q.device.type == "cpu" and problem.k_len % 16 == 8 and problem.q.shape[-1] < 32:
        # 40 to 60 calls of 60 with PyTorch 2.13 and AVX2; it reads memory that nothing has written.
        return "PyTorch's FlexAttention gives wrong numbers on CPUs for heads this narrow and this number of keys"
    if len(_shapes) >= _MOST_SHAPES and not torch.compiler.is_compiling() and _shape(problem) not in _shapes:
        return f"FlexAttention was compiled for {_MOST_SHAPES} shapes already, the limit of this process"
    return None


def _learned(problem: Problem) -> list[Tensor]:
    return [] if problem.encoding is None else list(problem.encoding.parameters())


def _shape(problem: Problem) -> tuple[Any, ...]:
    """What a graph is compiled for."""
    q, k, v, i = problem.q, problem.k, problem.v, problem.q_positions
    given = (x is None for x in (problem.encoding, problem.mask, problem.documents, problem.sinks, i))
    starts = problem.given_starts
    order = problem.causal, problem.window, starts and starts[0] - starts[1]  # the distances of its table
    return (q.shape, k.shape, v.shape, q.dtype, q.device, problem.scale, *order, *given, torch.is_grad_enabled())


@lru_cache(maxsize=1)
def _one_for_each_shape() -> Callable[..., Any]:
    # Shapes that are left open cost speed in the kernel, and on the CPU do not compile.
    compiled: Callable[..., Any] = torch.compile(flex_attention, dynamic=False)
    return compiled


def _compiled(*tensors: Tensor, **options: Any) -> Any:
    config: Any = torch._dynamo.config
    with config.patch(recompile_limit=max(config.recompile_limit, 4 * _MOST_SHAPES)):
        return _one_for_each_shape()(*tensors, **options)


def _score_mod(problem: Problem) -> ScoreMod | None:
    if problem.encoding is None:
        return None
    mod: ScoreMod = problem.encoding.score_mod(*problem.positions)
    return mod


def _block_mask(problem: Problem) -> BlockMask | None:
    masks = problem.mask is not None or problem.documents is not None
    if not (masks or problem.causal or problem.window is not None):
        return None
    if not masks:
        return _mask_of_order(problem.q_len, problem.k_len, problem.causal, problem.window, str(problem.q.device))
    batch = problem.q.shape[0]
    order = _in_order(problem.offset, problem.causal, problem.window)
    documents = None if problem.documents is None else problem.documents.reshape(-1, problem.k_len).expand(batch, -1)
    mask = None
    heads = None
    if problem.mask is not None:
        mask = problem.mask.reshape((1,) * (4 - problem.mask.ndim) + problem.mask.shape)
        heads = None if mask.shape[1] == 1 else mask.shape[1]
        mask = mask.expand(batch, -1, problem.q_len, problem.k_len)
        mask = mask if heads else mask[:, 0]
    offset = problem.offset

    def visible(b: Tensor, h: Tensor, t: Tensor, u: Tensor) -> Tensor:
        seen = order(b, h, t, u)
        if documents is not None:
            seen = seen & (documents[b, t + offset] == documents[b, u])
        if mask is not None:
            seen = seen & (mask[b, h, t, u] if heads else mask[b, t, u])
        return seen

    return create_block_mask(visible, batch, heads, problem.q_len, problem.k_len, device=str(problem.q.device))


@lru_cache(maxsize=64)
def _mask_of_order(q_len: int, k_len: int, causal: bool, window: int | None, device: str) -> BlockMask:
    return create_block_mask(_in_order(k_len - q_len, causal, window), None, None, q_len, k_len, device=device)


def _in_order(offset: int, causal: bool, window: int | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    def visible(b: Tensor, h: Tensor, t: Tensor, u: Tensor) -> Tensor:
        back = t + offset - u
        seen = back >= 0 if causal else back == back
        if window is not None:
            seen = seen & (back < window) & (back > -window)
        return seen

    return visible

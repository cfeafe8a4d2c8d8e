"""Random calls of the compiled attention, forward and backward."""

import math
import random
from typing import Any

import torch
from tests.kernels.fuzzing.tensors import HUGE, spoiled, strided
from torch import Tensor

from posenc.kernels.biased_attention import counting, fused, shares

SOURCE, LEVELS, SET_LEVEL = fused.SOURCE, len(fused.LEVELS), "posenc_attention_set_level"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TOLERANCE = {torch.float32: 2e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
Q = 0  # of the arguments of a forward
FORWARDS = (torch.ops.posenc._attention, torch.ops.posenc._attention_and_sums)
OF_ROW = torch.ops.posenc._attention_of_row
OF_COUNTS = torch.ops.posenc._attention_of_counts


def good_call() -> tuple[Any, list[Any]]:
    """An operator and arguments that it must take."""
    forward = good_arguments()
    if forward[6] and random.random() < 0.5:  # causal
        if random.random() < 0.3:
            q, k, v, scale = forward[:4]
            counts = random.choice((1, 2, 3, 20, 64, 300))
            step = torch.randn(1, q.shape[3]) * random.choice((1e-3, 0.01, 0.1))
            by_count = torch.arange(counts)[:, None] * step + 1e-4 * torch.randn(counts, q.shape[3])
            return OF_COUNTS, [q, k, v, scale, by_count, forward[7]]
        factors, units = forward[13:15]
        if factors is not None:  # of all tokens
            before = torch.rand(forward[1].shape[2] - forward[Q].shape[2])
            factors = torch.cat((before, factors, torch.rand(random.choice((0, 3)))))
        return OF_ROW, [*forward[:6], forward[7], factors, units]
    if random.random() < 0.5:
        return random.choice(FORWARDS), forward
    q, k, v, scale, table, zero, causal, window, mask, documents, _, skip, fades, factors, units, counted = forward
    with torch.no_grad():
        y, lse = torch.ops.posenc._attention_and_sums(*forward)
    gradient = strided(torch.randn(y.shape).to(y.dtype))
    learns = table is not None and random.random() < 0.5
    return torch.ops.posenc._attention_backward, [
        *(gradient, strided(y), lse, q, k, v, scale, table, zero, learns, causal, window, mask, documents, skip),
        *(fades, fades is not None and random.random() < 0.7, factors, units),
        *(counted, counted is not None and random.random() < 0.7),
    ]


def good_arguments() -> list[Any]:
    dtype = random.choice(DTYPES)
    batch, kv_heads, groups = random.choice((0, 1, 1, 2)), random.choice((1, 1, 2)), random.choice((1, 1, 2, 3))
    heads = kv_heads * groups
    k_len = random.choice((0, 1, 2, 3, 5, 17, 64, 127, 128, 129, 130, 200))
    q_len = random.choice((k_len, k_len, 1, 2, 4, 5, 63, 64, 65))
    causal = random.random() < 0.5
    by_order = causal or random.random() < 0.5
    if by_order:
        q_len = min(q_len, k_len)
    head_dim, value_dim = (random.choice((1, 3, 8, 15, 16, 17, 32, 40)) for _ in range(2))
    if random.random() < 0.02:
        batch, k_len, head_dim = 2, 600, 64  # enough work for several threads
        q_len = min(q_len, k_len)
    window = random.choice((0, 0, 1, 2, 5, 64, 100, 10**9)) if q_len <= k_len else 0
    low, high = (0 if causal else 1 - q_len), max(k_len, 1) - 1
    if not causal:
        low = min(low, k_len - q_len - max(k_len, 1) + 1)
    if window:
        low, high = max(low, 1 - window), min(high, window - 1)
    table, zero = None, 0
    if random.random() < 0.6:
        before, after = random.randrange(4), random.randrange(4)
        zero = max(0, -low) + before
        steep = random.choice((0.01, 1.0, 30.0))  # the last makes weights that are 0, and tiles that are left out
        away = (torch.arange(zero + high + after + 1) - zero).abs().clamp(max=500).float()
        table = random.choice((-steep, 0.1, 0.0)) * away + torch.randn(heads, away.numel())
        if random.random() < 0.3:
            table = torch.cat((table, table), 1)[:, : table.shape[1]]  # rows with a gap between them
    shape = [random.choice((1, size)) for size in (batch, heads, q_len, k_len)]
    mask = random.choice((None, None, torch.rand(shape) > 0.3, torch.randn(shape)))
    documents = None
    if q_len <= k_len and random.random() < 0.3:
        documents = torch.randint(0, 3, (random.choice((1, batch)), k_len)).sort(-1).values
    fades = None
    factors = units = None
    if table is not None and random.random() < 0.5:
        # Shares of at most 1: scores of many thousands, and their sums, keep no place after the point in float32.
        factors = random.choice((1.0, 0.01, -1.0)) * torch.rand(q_len) / table.abs().max().clamp(min=1.0)
        units = torch.randn(heads, random.choice((1, 2, 33, 128)), 3)
    elif q_len <= k_len and random.random() < 0.3:
        steps = random.choice((0.01, 1.0, 30.0)) * torch.rand(batch, heads, k_len, dtype=torch.float64)
        fades = -steps.cumsum(-1) if random.random() < 0.8 else steps  # the last rise too
        fades = random.choice(
            (fades, fades.transpose(0, 1).contiguous().transpose(0, 1), fades[:, :1].expand_as(fades))
        )
    counted = None
    if causal and table is None and fades is None and random.random() < 0.6:
        counts = random.choice((1, 2, 3, 20, 64, 300))
        rows = torch.randn(batch, heads, q_len, 1) * torch.arange(counts) * random.choice((1e-3, 0.1, 1.0))
        counted = rows + 1e-3 * torch.randn(rows.shape)  # a larger turn at whole counts would show their last bits
    k, v = (torch.randn(batch, kv_heads, k_len, dim).to(dtype) for dim in (head_dim, value_dim))
    if k_len and random.random() < 0.1:  # what a query may not see must not reach it
        random.choice((k, v))[:, :, random.randrange(k_len)] = random.choice((math.nan, math.inf, -math.inf))
    return [
        strided(torch.randn(batch, heads, q_len, head_dim).to(dtype)),
        strided(k),
        strided(v),
        random.choice((head_dim**-0.5, 1.0, 1e-3)),
        table,
        zero,
        causal,
        window,
        None if mask is None else strided(mask),
        documents,
        torch.randn(heads) if random.random() < 0.2 else None,
        random.random() < 0.7,
        fades,
        factors,
        units,
        counted,
    ]


def may_refuse(operator: Any, error: Exception) -> bool:
    return False


def difference(operator: Any, arguments: list[Any], result: Any) -> str | None:
    """What is wrong with the result of a good call, against the formula in float64; gradients by autograd."""
    if operator is OF_ROW:
        *first, window, factors, units = arguments
        if factors is not None:
            factors = factors[first[1].shape[2] - first[Q].shape[2] :][: first[Q].shape[2]]
        rest = [None, None, None, True, None, factors, units, None]
        return difference(torch.ops.posenc._attention, [*first, True, window, *rest], result)
    if operator is OF_COUNTS:
        *first, by_count, window = arguments
        counted = first[3] * arguments[Q].float() @ by_count.mT
        options = [None, 0, True, window, None, None, None, True, None, None, None, counted]
        return difference(torch.ops.posenc._attention, [*first, *options], result)
    if operator in FORWARDS:
        y = result[0] if operator is torch.ops.posenc._attention_and_sums else result
        q, k, v = (x.double().nan_to_num(0.0, 0.0, 0.0) for x in arguments[:3])
        want = dense(q, k, v, *arguments[3:11], *arguments[12:])
        reached = _reached_by_what_is_not_finite(arguments)
        return _far(y[~reached], want[~reached], "y", arguments[Q].dtype)
    gradient, y, lse, q, k, v, scale, table, zero, learns, causal, window, mask, documents, _ = arguments[:15]
    fades, learns_fades, factors, units, counted, learns_counted = arguments[15:]
    if not k.shape[2] or not q.numel() or not v.numel() or not all(bool(x.isfinite().all()) for x in (k, v)):
        return None
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v)]
    learned = None if table is None else table.double().requires_grad_()
    faded = None if fades is None else fades.detach().requires_grad_()
    rows = None if counted is None else counted.double().requires_grad_()
    network = [None if x is None else x.double().requires_grad_() for x in (factors, units)]
    # y and lse were made with or without sinks: their share is known from the sum of the weights without them
    with torch.enable_grad():
        z = scores(*leaves[:2], scale, learned, zero, causal, window, mask, documents, faded, *network, rows)
        weights = (z - lse.double()[..., None]).exp().nan_to_num(0.0)
        pulled = (gradient.double() @ leaves[2].repeat_interleave(q.shape[1] // k.shape[1], 1).mT).detach()
        delta = (y.double() * gradient.double()).sum(-1, keepdim=True)
        of_z = weights.detach() * (pulled - delta)
        seen = z.isfinite()
        (z.masked_fill(~seen, 0.0) * of_z.masked_fill(~seen, 0.0)).sum().backward()
    of_v = weights.detach().mT @ gradient.double()
    groups = q.shape[1] // k.shape[1]
    got_k, got_v = (result[i][..., : x.shape[-1]].unflatten(1, (-1, groups)).sum(2) for i, x in ((1, k), (2, v)))
    wanted = [
        ("dq", result[0][..., : q.shape[-1]], leaves[0].grad),
        ("dk", got_k, leaves[1].grad),
        ("dv", got_v, of_v.unflatten(1, (-1, groups)).sum(2)),
    ]
    if learns and learned is not None and learned.grad is not None:
        wanted.append(("dtable", result[3].sum(0), learned.grad))
    if learns_fades and faded is not None:
        wanted.append(("dfades", result[4], faded.grad))
    if learns_counted and rows is not None:
        wanted.append(("dcounted", result[4], rows.grad))
    if units is not None:
        size = float(table.abs().max().clamp(min=1.0))  # what the rounding of a score is multiplied by
        got_units = shares.gradient_of_units(units, *result[6].sum(0).unbind(-1))
        wanted += [
            ("dfactors", result[5].sum((0, 1)) / size, network[0].grad / size),
            ("dunits", got_units, network[1].grad),
        ]
    return next((said for name, got, want in wanted if (said := _far(got, want, name, q.dtype)) is not None), None)


def _reached_by_what_is_not_finite(arguments: list[Any]) -> Tensor:
    """Whether each query may see a key that is not finite, or whose value is not: ``(batch, heads, q_len)``."""
    q, k, v = arguments[:3]
    bad = ~(k.isfinite().all(-1) & v.isfinite().all(-1)).repeat_interleave(q.shape[1] // k.shape[1], 1)
    if not bool(bad.any()):
        return torch.zeros(q.shape[:3], dtype=torch.bool)
    z = scores(q.double(), k.double().nan_to_num(0.0, 0.0, 0.0), *arguments[3:10], *arguments[12:])
    return (z.isfinite() & bad[:, :, None]).any(-1)


def _far(got: Tensor, want: Tensor | None, name: str, dtype: torch.dtype) -> str | None:
    if want is None or not want.numel():
        return None
    unit = max(1.0, float(want.abs().max()))
    error = float((got.double() - want).abs().max()) / unit
    return None if error <= TOLERANCE[dtype] else f"{name} is off by {error:.2e} of {unit:.2e}"


def scores(
    q: Tensor,
    k: Tensor,
    scale: float,
    table: Tensor | None,
    zero: int,
    causal: bool,
    window: int,
    mask: Tensor | None,
    documents: Tensor | None,
    fades: Tensor | None,
    factors: Tensor | None,
    units: Tensor | None,
    counted: Tensor | None,
) -> Tensor:
    """The scores of all pairs, minus infinity where a query may not see a key."""
    q_len, k_len = q.shape[2], k.shape[2]
    z: Tensor = scale * q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT
    t, u = torch.arange(q_len)[:, None] + k_len - q_len, torch.arange(k_len)[None]
    if table is not None:
        added = table[:, (zero + t - u).clamp(0, table.shape[1] - 1)]
        z = z + (added if factors is None or units is None else shares.bias(added, factors, units))
    if fades is not None:
        z = z + (fades[..., k_len - q_len :, None] - fades[..., None, :]).clamp(max=0)
    seen = torch.ones_like(z, dtype=torch.bool)
    if causal:
        seen = seen & (u <= t)
    if window:
        seen = seen & ((t - u).abs() < window)
    if documents is not None:
        own = documents[:, k_len - q_len :]
        seen = seen & (own[:, None, :, None] == documents[:, None, None])
    if mask is not None and mask.dtype == torch.bool:
        seen = seen & mask
    if counted is not None:
        z = z + counting.bias(counted, z.masked_fill(~seen, -math.inf).sigmoid())
    if mask is not None and mask.dtype != torch.bool:
        z = z + mask
    return z.masked_fill(~seen, -math.inf)


def dense(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    table: Tensor | None,
    zero: int,
    causal: bool,
    window: int,
    mask: Tensor | None,
    documents: Tensor | None,
    sinks: Tensor | None,
    fades: Tensor | None,
    factors: Tensor | None,
    units: Tensor | None,
    counted: Tensor | None,
) -> Tensor:
    """Attention as the formula has it; zeros for a query that sees nothing."""
    z = scores(q, k, scale, table, zero, causal, window, mask, documents, fades, factors, units, counted)
    if sinks is not None:
        z = torch.cat((z, sinks.double()[:, None, None].expand(*z.shape[:3], 1)), -1)
    weights = z.softmax(-1)[..., : k.shape[2]].nan_to_num(0.0)
    y: Tensor = weights @ v.repeat_interleave(q.shape[1] // k.shape[1], 1)
    return y


def spoil(good: list[Any]) -> list[Any]:
    """The arguments with one or two that are wrong."""
    bad = list(good)
    for _ in range(random.choice((1, 1, 2))):
        which = random.randrange(len(bad))
        value = bad[which]
        if isinstance(value, bool):
            bad[which] = random.choice((2, None, "yes", 1.5, not value))
        elif isinstance(value, int):
            bad[which] = random.choice((*HUGE, random.randrange(-3, 300), None, 0.5, True))
        elif isinstance(value, float):
            bad[which] = random.choice((0.0, -1.0, math.nan, math.inf, 1e308, None, "1", 3))
        elif value is None:
            bad[which] = random.choice(
                (torch.ones(1, 1, 1, 1), torch.zeros(3, 5), torch.ones(2), torch.zeros(1, 4, dtype=torch.int64), 1.0)
            )
        else:
            bad[which] = spoiled(value)
    return bad

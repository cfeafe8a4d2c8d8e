# mypy: disable-error-code="no-untyped-def, attr-defined, untyped-decorator"
"""The rotation on GPU: one launch for q and k, in Triton. Imported only when it is called.

The backward pass is the same kernel with ``INVERSE``. A program takes a few tokens of one row of the batch and walks
over the heads of q and then of k, so cos and sin are read once and stay in registers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _turn(
    x,
    y,
    x_head,
    x_token,
    x_channel,
    y_head,
    y_token,
    y_channel,
    first_head,
    heads,
    channels,
    tokens,
    first_token,
    pairs,
    start,
    cos,
    sin,
    INTERLEAVED: tl.constexpr,
    IN_PLACE: tl.constexpr,
    TOKENS: tl.constexpr,
    PAIRS: tl.constexpr,
    REST: tl.constexpr,
    HEADS: tl.constexpr,
):
    """Heads ``first_head`` to ``first_head + HEADS`` of one tensor: rotate the slice, copy what lies outside it."""
    token = first_token + tl.arange(0, TOKENS)[:, None].to(tl.int64)
    pair = tl.arange(0, PAIRS)[None, :].to(tl.int64)
    mask = (token < tokens) & (pair < pairs)
    if INTERLEAVED:
        a_channel = start + 2 * pair
        b_channel = a_channel + 1
    else:
        a_channel = start + pair
        b_channel = a_channel + pairs
    other = tl.arange(0, REST if REST > 0 else 1)[None, :].to(tl.int64)
    channel = tl.where(other < start, other, other + 2 * pairs)  # the channels outside the slice
    outside = (token < tokens) & (channel < channels)
    for i in tl.static_range(HEADS):
        head = (first_head + i).to(tl.int64)
        if head < heads:
            x_row = x + head * x_head + token * x_token
            y_row = y + head * y_head + token * y_token
            a = tl.load(x_row + a_channel * x_channel, mask=mask, other=0.0)
            b = tl.load(x_row + b_channel * x_channel, mask=mask, other=0.0)
            out_a = a.to(cos.dtype) * cos - b.to(cos.dtype) * sin
            out_b = a.to(cos.dtype) * sin + b.to(cos.dtype) * cos
            tl.store(y_row + a_channel * y_channel, out_a.to(a.dtype), mask=mask)
            tl.store(y_row + b_channel * y_channel, out_b.to(b.dtype), mask=mask)
            if not IN_PLACE and REST > 0:
                value = tl.load(x_row + channel * x_channel, mask=outside, other=0.0)
                tl.store(y_row + channel * y_channel, value, mask=outside)


@triton.jit
def _rotate_kernel(
    q,
    k,
    q_out,
    k_out,
    cos,
    sin,
    positions,
    q_batch,
    q_head,
    q_token,
    q_channel,
    k_batch,
    k_head,
    k_token,
    k_channel,
    qo_batch,
    qo_head,
    qo_token,
    qo_channel,
    ko_batch,
    ko_head,
    ko_token,
    ko_channel,
    cos_batch,
    cos_row,
    sin_batch,
    sin_row,
    positions_batch,
    positions_token,
    offset,
    rows,
    tokens,
    token_blocks,
    q_heads,
    k_heads,
    q_channels,
    k_channels,
    pairs,
    start,
    HAS_POSITIONS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    INVERSE: tl.constexpr,
    IN_PLACE: tl.constexpr,
    TOKENS: tl.constexpr,
    PAIRS: tl.constexpr,
    Q_REST: tl.constexpr,
    K_REST: tl.constexpr,
    HEADS: tl.constexpr,
):
    program = tl.program_id(0)
    group = tl.program_id(1)  # a group of HEADS heads, those of q first, then those of k
    batch = (program // token_blocks).to(tl.int64)
    first_token = (program % token_blocks) * TOKENS
    token = first_token + tl.arange(0, TOKENS).to(tl.int64)
    if HAS_POSITIONS:
        at = positions + batch * positions_batch + token * positions_token
        row = tl.load(at, mask=token < tokens, other=0).to(tl.int64)
    else:
        row = offset + token
    inside = (row >= 0) & (row < rows)
    pair = tl.arange(0, PAIRS)[None, :].to(tl.int64)
    mask = inside[:, None] & (token < tokens)[:, None] & (pair < pairs)
    # A position outside the table is never read; NaN says so, where an angle of 0 would go unnoticed.
    cosine = tl.load(cos + batch * cos_batch + row[:, None] * cos_row + pair, mask=mask, other=float("nan"))
    sine = tl.load(sin + batch * sin_batch + row[:, None] * sin_row + pair, mask=mask, other=float("nan"))
    if INVERSE:
        sine = -sine
    q_groups = tl.cdiv(q_heads, HEADS)
    if group < q_groups:
        _turn(
            q + batch * q_batch,
            q_out + batch * qo_batch,
            q_head,
            q_token,
            q_channel,
            qo_head,
            qo_token,
            qo_channel,
            group * HEADS,
            q_heads,
            q_channels,
            tokens,
            first_token,
            pairs,
            start,
            cosine,
            sine,
            INTERLEAVED,
            IN_PLACE,
            TOKENS,
            PAIRS,
            Q_REST,
            HEADS,
        )
    else:
        _turn(
            k + batch * k_batch,
            k_out + batch * ko_batch,
            k_head,
            k_token,
            k_channel,
            ko_head,
            ko_token,
            ko_channel,
            (group - q_groups) * HEADS,
            k_heads,
            k_channels,
            tokens,
            first_token,
            pairs,
            start,
            cosine,
            sine,
            INTERLEAVED,
            IN_PLACE,
            TOKENS,
            PAIRS,
            K_REST,
            HEADS,
        )


def rotate(q: Tensor, k: Tensor, *options: object) -> tuple[Tensor, Tensor]:
    """``posenc::_rotate`` on GPU; the arguments are those of the operator."""
    from posenc.kernels.rotate.eager import fresh

    q_out, k_out = fresh(q), fresh(k)
    _launch(q, k, q_out, k_out, *options)  # type: ignore[arg-type]
    return q_out, k_out


def rotate_(q: Tensor, k: Tensor, *options: object) -> None:
    """``posenc::_rotate_`` on GPU."""
    _launch(q, k, q, k, *options)  # type: ignore[arg-type]


def _launch(
    q: Tensor,
    k: Tensor,
    q_out: Tensor,
    k_out: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    offset: int,
    start: int,
    token_dim: int,
    interleaved: bool,
    inverse: bool,
) -> None:
    from posenc.kernels.rotate.checks import check, check_distinct

    check(q, k, cos, sin, positions, offset, start, token_dim)
    if q_out is q:
        check_distinct(q, k)
    batch, tokens, pairs = q.shape[0], q.shape[token_dim], cos.shape[-1]
    if q.numel() + k.numel() == 0:
        return
    cos, sin = (table if table.stride(-1) == 1 else table.contiguous() for table in (cos, sin))
    padded = triton.next_power_of_2(max(pairs, 1))
    block = max(1, min(triton.next_power_of_2(tokens), 1024 // padded))
    heads, head_dim = 4, 3 - token_dim
    token_blocks = triton.cdiv(tokens, block)
    rest = [triton.next_power_of_2(n) if (n := x.shape[3] - 2 * pairs) else 0 for x in (q, k)]
    groups = triton.cdiv(q.shape[head_dim], heads) + triton.cdiv(k.shape[head_dim], heads)
    grid = (batch * token_blocks, groups)
    strides = (
        s for x in (q, k, q_out, k_out) for s in (x.stride(0), x.stride(head_dim), x.stride(token_dim), x.stride(3))
    )
    tables = (s for x in (cos, sin) for s in (x.stride(0) if x.ndim == 3 and x.shape[0] > 1 else 0, x.stride(-2)))
    if positions is None:
        position_strides = (0, 0)
    else:
        position_strides = (
            positions.stride(0) if positions.ndim == 2 and positions.shape[0] > 1 else 0,
            positions.stride(-1),
        )
    with torch.cuda.device(q.device) if q.is_cuda else torch.no_grad():
        _rotate_kernel[grid](
            q,
            k,
            q_out,
            k_out,
            cos,
            sin,
            q if positions is None else positions,
            *strides,
            *tables,
            *position_strides,
            offset,
            cos.shape[-2],
            tokens,
            token_blocks,
            q.shape[head_dim],
            k.shape[head_dim],
            q.shape[3],
            k.shape[3],
            pairs,
            start,
            HAS_POSITIONS=positions is not None,
            INTERLEAVED=interleaved,
            INVERSE=inverse,
            IN_PLACE=q_out is q,
            TOKENS=block,
            PAIRS=padded,
            Q_REST=rest[0],
            K_REST=rest[1],
            HEADS=heads,
        )

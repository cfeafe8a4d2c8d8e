"""Softmax attention that honours an encoding."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from posenc.encoding import Encoding
from posenc.kernels.precision import compute_dtype
from posenc.positions import Positions, resolve


def attention(
    q: Float[Tensor, "batch heads q_len head_dim"],
    k: Float[Tensor, "batch kv_heads k_len head_dim"],
    v: Float[Tensor, "batch kv_heads k_len value_dim"],
    encoding: Encoding | None = None,
    *,
    q_positions: Positions = None,
    k_positions: Positions = None,
    causal: bool = False,
    mask: Bool[Tensor, "..."] | Float[Tensor, "..."] | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
) -> Float[Tensor, "batch heads q_len value_dim"]:
    r"""Scaled dot-product attention with the encoding's bias on the scores.

    .. math::  y_i = \sum_j \mathrm{softmax}_j\big(s\, q_i \cdot k_j + b_h(i, j) + \mathrm{mask}_{ij}\big)\, v_j

    Place 3 of an encoding is honoured here; places 1 and 2 are the model's to call, before the first block and before
    the KV cache. Grouped heads: k and v may have fewer heads, if their number divides that of q.

    Args:
        q: queries.
        k: keys, in as many heads as q or fewer.
        v: a value for each key.
        encoding: whose bias to add; None adds nothing.
        q_positions: None, an int offset, ``(seq,)`` or ``(batch, seq)``. By default the queries are the last q_len of the
            keys, as in decoding with a cache.
        k_positions: the same; by default they start from 0.
        causal: query t of q_len sees the keys up to k_len - q_len + t: by order in the sequence, aligned at the end.
        mask: what may be attended to besides, broadcast to ``(batch, heads, q_len, k_len)``: True where it may
            (bool), or added to the scores (float).
        scale: :math:`s`; 1 / sqrt(head_dim) by default. The bias is not scaled.
        dropout_p: dropout on the weights; pass 0.0 outside training.

    Returns:
        ``(batch, heads, q_len, value_dim)``, in the dtype of q. A query that may see nothing gets zeros.

    Precision: exact for float64 and float32; with a bias, half precision inputs are worked on in float32, because a
    bias of some hundreds has no fraction left in bfloat16.

    Raises:
        ValueError: heads, lengths or positions that do not fit; more queries than keys with ``causal``.

    Example:
        >>> import posenc
        >>> q = k = v = torch.randn(1, 4, 6, 8)
        >>> posenc.attention(q, k, v, posenc.ALiBi(num_heads=4), causal=True).shape
        torch.Size([1, 4, 6, 8])
    """
    _check_shapes(q, k, v, causal=causal)
    q_len, k_len = q.shape[-2], k.shape[-2]
    bias = None
    if encoding is not None and "scores" in encoding.places:
        resolved_k = resolve(k_positions, k_len, device=k.device, name="k_positions", batch=k.shape[0])
        if q_positions is None:
            if q_len > k_len:
                raise ValueError(
                    f"attention: got {q_len} queries for {k_len} keys and no q_positions; say which they have."
                )
            resolved_q = resolved_k[..., k_len - q_len :]
        else:
            resolved_q = resolve(q_positions, q_len, device=q.device, name="q_positions", batch=q.shape[0])
        bias = encoding.bias(resolved_q, resolved_k)
        if bias is not None and bias.shape[-3] != q.shape[1]:
            raise ValueError(
                f"attention: q has {q.shape[1]} heads but {type(encoding).__name__} gives a bias for {bias.shape[-3]}; "
                f"build it with num_heads={q.shape[1]}."
            )
    if bias is None and mask is None and causal and q_len == k_len:
        return _sdpa(q, k, v, is_causal=True, dropout_p=dropout_p, scale=scale)
    # One query sees all keys, so a step of decoding needs no mask.
    allowed = causal_mask(q_len, k_len, device=q.device) if causal and q_len > 1 else None
    if mask is not None and mask.dtype == torch.bool:
        allowed = mask if allowed is None else allowed & mask
    elif mask is not None:
        bias = mask if bias is None else bias + mask
    if bias is None:
        return _sdpa(q, k, v, attn_mask=allowed, dropout_p=dropout_p, scale=scale)
    dtype = compute_dtype(q.dtype)
    bias = bias.to(dtype)
    if allowed is not None:
        bias = bias.masked_fill(~allowed, float("-inf"))
    y = _sdpa(q.to(dtype), k.to(dtype), v.to(dtype), attn_mask=bias, dropout_p=dropout_p, scale=scale)
    return y.to(q.dtype)


def causal_mask(q_len: int, k_len: int, *, device: torch.device) -> Bool[Tensor, "q_len k_len"]:
    """True where a query may look: at keys up to its own, the last query being that of the last key."""
    return torch.ones(q_len, k_len, dtype=torch.bool, device=device).tril(k_len - q_len)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1], **options)


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> None:
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.ndim != 4 or k.ndim != 4 or v.ndim != 4:
        raise ValueError(
            f"attention: got {shapes}, expected (batch, heads, seq, head_dim) for each; unsqueeze what is missing."
        )
    if q.shape[-1] != k.shape[-1] or k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0]:
        raise ValueError(
            f"attention: got {shapes}, expected one batch size, q and k of the same head_dim, and a value for each key."
        )
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(
            f"attention: got {q.shape[1]} query heads for {k.shape[1]} key heads, expected a multiple of them."
        )
    if causal and q.shape[-2] > k.shape[-2]:
        raise ValueError(
            f"attention: got {q.shape[-2]} queries for {k.shape[-2]} keys with causal=True, expected no more queries "
            "than keys; concatenate the cached keys before the new ones."
        )

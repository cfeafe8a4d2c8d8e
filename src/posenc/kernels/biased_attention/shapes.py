"""Shapes of queries, keys and values that fit together, or words that say which do not."""

from torch import Tensor

OTHER_ORDER = (
    "; if q, k and v are (batch, seq, heads, head_dim), transpose(1, 2) each: this takes (batch, heads, seq, head_dim)."
)


def checked_shapes(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[int, int, int, int]:
    """Heads, queries, channels of a head, and keys. Shapes are read once: each reading is a hundredth of a step."""
    of_q, of_k, of_v = tuple(q.shape), tuple(k.shape), tuple(v.shape)  # Python is quicker with plain tuples
    if not len(of_q) == len(of_k) == len(of_v) == 4:
        raise ValueError(
            f"attention: got {_shapes(q, k, v)}, expected (batch, heads, seq, head_dim) for each; unsqueeze what is "
            "missing."
        )
    batch, heads, q_len, head_dim = of_q
    k_batch, kv_heads, k_len, k_dim = of_k
    if k_dim != head_dim or k_batch != batch or (of_v != of_k and of_v[:3] != of_k[:3]):
        raise ValueError(
            f"attention: got {_shapes(q, k, v)}, expected one batch size for all three, one head_dim for q and k, and "
            "one value for each key."
        )
    if head_dim == 0:
        raise ValueError(f"attention: got {_shapes(q, k, v)}, expected at least one channel in each head.")
    if kv_heads == 0 or heads % kv_heads:
        expected = f"a multiple of {kv_heads}" if kv_heads else "at least one key head"
        raise ValueError(f"attention: got {heads} query heads for {kv_heads} key heads, expected {expected}.")
    if causal and q_len > k_len:
        raise ValueError(
            f"attention: got {q_len} queries for {k_len} keys with causal=True, expected no more queries than "
            "keys; concatenate the cached keys before the new ones"
            + (OTHER_ORDER if heads == kv_heads and k_len and q_len % k_len == 0 else ".")
        )
    return heads, q_len, head_dim, k_len


def _shapes(q: Tensor, k: Tensor, v: Tensor) -> str:
    return f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"

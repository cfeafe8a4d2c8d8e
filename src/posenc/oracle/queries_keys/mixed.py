"""RoPE-Mixed: each pair turns along a direction of the image that is learned."""

import numpy as np
import numpy.typing as npt


def rotate(
    x: npt.ArrayLike, coordinates: npt.ArrayLike, *, rates: npt.ArrayLike, pairing: str = "interleaved"
) -> npt.NDArray[np.float64]:
    """Queries or keys, the pairs of a head turned by both coordinates of the token at once.

        angle(head, pair) = u theta(0, head, pair) + v theta(1, head, pair)      (u, v) = coordinates of the token

    `x` is (batch, heads, seq, head_dim), `coordinates` is (seq, 2), and theta = `rates` is (2, kv_heads, pairs); head h
    takes the rates of key-value head h // (heads / kv_heads).

    Reference: Heo et al., arXiv 2403.13298, section 3.3, equation 8.
    """
    x = np.asarray(x, dtype=np.float64)
    where = np.asarray(coordinates, dtype=np.float64)
    theta = np.asarray(rates, dtype=np.float64)
    _, kv_heads, n = theta.shape
    y = x.copy()
    for head in range(x.shape[1]):
        kv_head = head // (x.shape[1] // kv_heads)
        for pair in range(n):
            a, b = {"half": (pair, pair + n), "interleaved": (2 * pair, 2 * pair + 1)}[pairing]
            angle = where[..., 0] * theta[0, kv_head, pair] + where[..., 1] * theta[1, kv_head, pair]
            y[:, head, :, a] = x[:, head, :, a] * np.cos(angle) - x[:, head, :, b] * np.sin(angle)
            y[:, head, :, b] = x[:, head, :, a] * np.sin(angle) + x[:, head, :, b] * np.cos(angle)
    return y

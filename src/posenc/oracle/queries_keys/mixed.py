"""RoPE-Mixed: each pair turns along a direction of the image that is learned."""

import numpy as np
import numpy.typing as npt


def rotate(
    x: npt.ArrayLike, coordinates: npt.ArrayLike, *, rates: npt.ArrayLike, pairing: str = "interleaved"
) -> npt.NDArray[np.float64]:
    """Queries or keys, the pairs of a head turned by all coordinates of the token at once.

        angle(head, pair) = u(0) theta(0, head, pair) + u(1) theta(1, head, pair) + ...

    u = the coordinates of the token. `x` is (batch, heads, seq, head_dim), `coordinates` is (seq, axes), and theta =
    `rates` is (axes, kv_heads, pairs); head h takes the rates of key-value head h // (heads / kv_heads).

    Reference: Heo et al., arXiv 2403.13298, section 3.3, equation 8, for two coordinates; Genmo's Mochi has three.
    """
    x = np.asarray(x, dtype=np.float64)
    where = np.asarray(coordinates, dtype=np.float64)
    theta = np.asarray(rates, dtype=np.float64)
    axes, kv_heads, n = theta.shape
    y = x.copy()
    for head in range(x.shape[1]):
        kv_head = head // (x.shape[1] // kv_heads)
        for pair in range(n):
            a, b = {"half": (pair, pair + n), "interleaved": (2 * pair, 2 * pair + 1)}[pairing]
            angle = sum(where[..., axis] * theta[axis, kv_head, pair] for axis in range(axes))
            y[:, head, :, a] = x[:, head, :, a] * np.cos(angle) - x[:, head, :, b] * np.sin(angle)
            y[:, head, :, b] = x[:, head, :, a] * np.sin(angle) + x[:, head, :, b] * np.cos(angle)
    return y

"""M-RoPE: each pair keeps its rate and is turned by one of three coordinates: time, height or width."""

import numpy as np
import numpy.typing as npt


def axis_of_pair(pair: int, *, sections: tuple[int, ...], layout: str = "chunked") -> int:
    """Which coordinate turns a pair: 0 for time, 1 for height, 2 for width; (T, H, W) = `sections`.

        chunked         t t ... t h h ... h w w ... w              T, H and W of them: Qwen2-VL
        interleaved     t h w t h w ... t h w t t ... t            h below pair 3 H, w below pair 3 W: Qwen3-VL
        time_last       h w h w ... h w t t ... t                  H + W of the first, then T: VideoRoPE, Ernie 4.5 VL

    Reference: Wang et al., arXiv 2409.12191, section 2.1; Huang et al., arXiv 2510.23095; Wei et al., arXiv 2502.05173.
    """
    time, height, width = sections
    if layout == "chunked":
        return 0 if pair < time else 1 if pair < time + height else 2
    if layout == "interleaved":
        if pair % 3 == 1 and pair < 3 * height:
            return 1
        if pair % 3 == 2 and pair < 3 * width:
            return 2
        return 0
    if layout == "time_last":
        return 1 + pair % 2 if pair < height + width else 0
    raise ValueError(f"mrope: layout is {layout!r}, expected 'chunked', 'interleaved' or 'time_last'")


def axis_of_head(head: int, *, heads: int, sections: tuple[int, ...], kv_heads: int | None = None) -> int | None:
    """MHRoPE: which coordinate turns all pairs of a head. `sections` are key heads, and `heads` are those of `x`.

    Query head h goes by the coordinate of its key head, h // (heads / kv_heads). Key heads beyond the sections go by
    none and are not rotated.

    Reference: Huang et al., arXiv 2510.23095; JJJYmmm/Multimodal-RoPEs, freq_allocation/mhrope.py.
    """
    kv_head = head // (heads // (kv_heads or sum(sections)))
    axis = int(np.searchsorted(np.cumsum(sections), kv_head, side="right"))
    return axis if axis < len(sections) else None


def rotate(
    x: npt.ArrayLike,
    coordinates: npt.ArrayLike,
    *,
    inv_freq: npt.ArrayLike,
    sections: tuple[int, ...],
    layout: str = "chunked",
    pairing: str = "half",
    kv_heads: int | None = None,
) -> npt.NDArray[np.float64]:
    """Queries or keys, each pair turned by one coordinate of the token.

        angle(pair) = coordinate(axis_of_pair(pair)) w(pair)       w = `inv_freq` in radians per step

    `x` is (..., seq, head_dim) and `coordinates` is (seq, 3): time, height, width. In a text the three are equal, and
    this is RoPE. With layout "heads", `x` is (batch, heads, seq, head_dim), and each head goes by one coordinate.

    Reference: as above.
    """
    x = np.asarray(x, dtype=np.float64)
    if layout == "heads":
        heads = x.shape[1]
        turned = []
        for head in range(heads):
            axis = axis_of_head(head, heads=heads, sections=sections, kv_heads=kv_heads)
            alone = tuple(len(np.asarray(inv_freq)) * (axis == other) for other in range(3))
            one = x[:, head]
            if axis is not None:
                one = rotate(one, coordinates, inv_freq=inv_freq, sections=alone, pairing=pairing)
            turned.append(one)
        return np.stack(turned, axis=1)
    where = np.asarray(coordinates, dtype=np.float64)
    w = np.asarray(inv_freq, dtype=np.float64)
    n = len(w)
    y = x.copy()
    for pair in range(n):
        a, b = {"half": (pair, pair + n), "interleaved": (2 * pair, 2 * pair + 1)}[pairing]
        angle = where[..., axis_of_pair(pair, sections=sections, layout=layout)] * w[pair]
        y[..., a] = x[..., a] * np.cos(angle) - x[..., b] * np.sin(angle)
        y[..., b] = x[..., a] * np.sin(angle) + x[..., b] * np.cos(angle)
    return y

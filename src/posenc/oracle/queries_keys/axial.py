"""Axial RoPE: on a grid, each coordinate turns pairs of its own."""

import numpy as np
import numpy.typing as npt


def rotate(
    x: npt.ArrayLike,
    coordinates: npt.ArrayLike,
    *,
    base: float | tuple[float, ...] = 10_000,
    layout: str = "half",
    widths: tuple[int, ...] | None = None,
) -> npt.NDArray[np.float64]:
    """Rotate by several coordinates: coordinate `axis` of a token turns n(axis) pairs, each of them at its own rate.

        angle(axis, t) = coordinate(axis) w(axis, t)
        w(axis, t) = base(axis)^(-t / n(axis))                     each axis has rates of its own
        w(axis, t) = base(axis)^(-(axes t + axis) / (axes n))      "dealt": the axes take one series of rates in turn

    `x` is (..., seq, head_dim) and `coordinates` is (seq, axes). n(axis) is half of `widths[axis]`, or the same for all
    axes. With N = n(0) + n(1) + ... pairs in all, S(axis) = n(0) + ... + n(axis - 1) of them before an axis, and
    `layout` naming the channels (a, b) of pair t of an axis:

        half                      c = S(axis) + t                  (c, c + N)        Qwen2-VL: [h w | h w]
        half_per_axis             c = 2 S(axis) + t                (c, c + n)        Gemma 4:  [h | h] [w | w]
        interleaved               c = S(axis) + t                  (2 c, 2 c + 1)    SAM 2, Flux: h h h h w w w w
        half_alternating          c = axes t + axis                (c, c + N)        Kimi K2.5: [h w h w | h w h w]
        interleaved_alternating   c = axes t + axis                (2 c, 2 c + 1)    RoPE-ViT: h h w w h h w w
        dealt_half                as half, dealt                                     Pixtral
        dealt_half_alternating    as half_alternating, dealt                         NeoMME

    Reference: Heo et al., arXiv 2403.13298, section 3.2, equations 5 and 6; for widths that differ, Black Forest Labs,
    flux, EmbedND.
    """
    x = np.asarray(x, dtype=np.float64)
    where = np.asarray(coordinates, dtype=np.float64)
    axes = where.shape[-1]
    pairs = x.shape[-1] // 2
    of_axis = [pairs // axes] * axes if widths is None else [width // 2 for width in widths]
    bases = base if isinstance(base, tuple) else (base,) * axes
    y = x.copy()
    for axis in range(axes):
        n, before = of_axis[axis], sum(of_axis[:axis])
        for t in range(n):
            if layout.startswith("dealt"):
                w = bases[axis] ** (-(axes * t + axis) / (axes * n))
            else:
                w = bases[axis] ** (-t / n)
            c = axes * t + axis if layout.endswith("alternating") else before + t
            if layout == "half_per_axis":
                a = 2 * before + t
                b = a + n
            elif layout.startswith("interleaved"):
                a, b = 2 * c, 2 * c + 1
            else:
                a, b = c, c + pairs
            angle = where[..., axis] * w
            y[..., a] = x[..., a] * np.cos(angle) - x[..., b] * np.sin(angle)
            y[..., b] = x[..., a] * np.sin(angle) + x[..., b] * np.cos(angle)
    return y


def rotate_across_heads(
    x: npt.ArrayLike, coordinates: npt.ArrayLike, *, base: float = 10_000
) -> npt.NDArray[np.float64]:
    """Queries or keys whose heads differ: each axis has one series of rates, which runs over the pairs of all heads.

        angle(pair) = coordinate(c mod axes) base^(-(c div axes) / n)      c = pair - (pairs - axes n)

    `x` is (batch, heads, seq, head_dim). Pairs are counted over all heads, n = pairs div axes, and the first pairs -
    axes n stand still. Pair p is in head p div (head_dim / 2), on its channels p mod (head_dim / 2) and that plus
    head_dim / 2.

    Reference: diffusers, transformer_ltx2.py, LTX2AudioVideoRotaryPosEmbed, rope_type "split".
    """
    x = np.asarray(x, dtype=np.float64)
    where = np.asarray(coordinates, dtype=np.float64)
    heads, half, axes = x.shape[1], x.shape[-1] // 2, where.shape[-1]
    n, over = divmod(heads * half, axes)
    y = x.copy()
    for pair in range(over, heads * half):
        head, a = divmod(pair, half)
        t, axis = divmod(pair - over, axes)
        angle = where[..., axis] * base ** (-t / n)
        first, second = x[:, head, :, a], x[:, head, :, a + half]
        y[:, head, :, a] = first * np.cos(angle) - second * np.sin(angle)
        y[:, head, :, a + half] = first * np.sin(angle) + second * np.cos(angle)
    return y

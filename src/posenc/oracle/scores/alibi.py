"""ALiBi: a penalty on the scores that grows with the distance, with one slope per head."""

import numpy as np
import numpy.typing as npt


def slopes(
    num_heads: int, *, rule: str | tuple[float, ...] = "authors", max_bias: float = 8.0, strength: float = 1.0
) -> npt.NDArray[np.float64]:
    """How much a score loses per token of distance, for each head.

        m(h) = c 2^(-B h / n)                               h = 1 .. n, n = `num_heads` a power of two,
                                                            B = `max_bias`, c = `strength`; 8 and 1 in the paper

    `rule` may also be the numbers themselves, which are multiplied by c: m(h) = c rule[h].

    The paper stops there. For any other n there are three rules, and a model keeps the one it was trained with:

        "authors"    the slopes of the largest power of two n' below n, then every other slope of 2 n' heads
        "mpt"        with n'' the smallest power of two above n: its slopes 2, 4, 6 ..., then 1, 3, 5 ..., cut at n
        "geometric"  m(h) = c 2^(-B h / n) all the same

    Reference: Press et al., arXiv 2108.12409, section 3; get_slopes in the authors' repository;
    build_mpt_alibi_tensor in Hugging Face's MPT.
    """

    def of(n: int) -> list[float]:
        return [strength * 2.0 ** (-max_bias * h / n) for h in range(1, n + 1)]

    power = 1
    while 2 * power <= num_heads:
        power = 2 * power
    if not isinstance(rule, str):
        m = [strength * slope for slope in rule]
    elif rule == "geometric" or power == num_heads:
        m = of(num_heads)
    elif rule == "authors":
        m = of(power) + of(2 * power)[0::2]
    elif rule == "mpt":
        finer = of(2 * power)
        m = finer[1::2] + finer[0::2]
    else:
        raise ValueError(f"alibi: rule is {rule!r}, expected 'authors', 'mpt' or 'geometric'")
    return np.array(m[:num_heads])


def bias(
    q_positions: npt.ArrayLike,
    k_positions: npt.ArrayLike,
    *,
    num_heads: int,
    rule: str | tuple[float, ...] = "authors",
    max_bias: float = 8.0,
    strength: float = 1.0,
) -> npt.NDArray[np.float64]:
    """The penalty of each head on each query and key, to be added to the scaled scores.

        b(h, i, j) = -m(h) |i - j|                          i in `q_positions`, j in `k_positions`, m as in `slopes`

    The result is (heads, q_len, k_len), or (batch, heads, q_len, k_len) for positions of shape (batch, seq).
    The paper has keys at or before the query only, where |i - j| is i - j; for later keys this is its mirror image.

    Reference: Press et al., arXiv 2108.12409, section 3 and figure 3.
    """
    i = np.asarray(q_positions, dtype=np.float64)[..., :, None]
    j = np.asarray(k_positions, dtype=np.float64)[..., None, :]
    distance = np.abs(i - j)
    m = slopes(num_heads, rule=rule, max_bias=max_bias, strength=strength)
    b = np.empty((*distance.shape[:-2], num_heads, *distance.shape[-2:]))
    for h in range(num_heads):
        b[..., h, :, :] = -m[h] * distance
    return b

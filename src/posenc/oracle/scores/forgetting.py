"""The forgetting transformer: each token says how much of what came before it is to be kept."""

import numpy as np
import numpy.typing as npt


def log_gates(x: npt.ArrayLike, *, weight: npt.ArrayLike, offset: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """ln f(h, t) for each head and token, (batch, heads, seq).

        f(h, t) = sigmoid( <w(h), x(t)> + c(h) )            `weight` is (heads, dim), `offset` is (heads,)

    Reference: Lin et al., arXiv 2503.02130, section 3.
    """
    logits = np.asarray(x, dtype=np.float64) @ np.asarray(weight, dtype=np.float64).T + np.asarray(offset)
    return np.swapaxes(-np.logaddexp(0, -logits), -1, -2)


def bias(log_f: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """What is added to the scaled scores of token i and an earlier token j; 0 for later ones.

        b(h, i, j) = sum over l from j + 1 to i of ln f(h, l)

    `log_f` is (batch, heads, seq) as `log_gates` gives it.

    Reference: Lin et al., arXiv 2503.02130, equations 3 to 5.
    """
    log_f = np.asarray(log_f, dtype=np.float64)
    length = log_f.shape[-1]
    b = np.zeros((*log_f.shape, length))
    for i in range(length):
        for j in range(i):
            b[..., i, j] = log_f[..., j + 1 : i + 1].sum(axis=-1)
    return b

"""CoPE: a query counts those tokens that matter to it, and the count is the position."""

import numpy as np
import numpy.typing as npt


def bias(q: npt.ArrayLike, scores: npt.ArrayLike, *, table: npt.ArrayLike, scale: float) -> npt.NDArray[np.float64]:
    """What is added to the scaled scores.

        g(i, k) = sigmoid(score(i, k)), and 0 for a key that i does not see
        p(i, j) = min( sum over k from j to i of g(i, k), P - 1 )
        b(i, j) = scale ( (1 - f) <q(i), e[n]> + f <q(i), e[n + 1]> )           n = floor p(i, j), f = p(i, j) - n

    The last query stands at the last key. `table` is e, (P, head_dim); `scores` are scale <q, k>, minus infinity where
    a query does not see a key.

    Reference: Golovneva et al., arXiv 2405.18719, equations 3 to 6; scores scaled as in the authors' code.
    """
    q, s, e = (np.asarray(x, dtype=np.float64) for x in (q, scores, table))
    b = np.empty(s.shape)
    for at in np.ndindex(*s.shape[:-1]):
        fixed = e @ q[at]
        total = 0.0
        i = at[-1] + s.shape[-1] - s.shape[-2]
        for j in reversed(range(s.shape[-1])):
            total += 1 / (1 + np.exp(-s[(*at, j)])) if j <= i and s[(*at, j)] > -np.inf else 0.0
            p = min(total, len(e) - 1)
            n = int(np.floor(p))
            b[(*at, j)] = scale * ((1 - (p - n)) * fixed[n] + (p - n) * fixed[min(n + 1, len(e) - 1)])
    return b

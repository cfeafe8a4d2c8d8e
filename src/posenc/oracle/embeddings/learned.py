"""One learned row per position."""

import numpy as np
import numpy.typing as npt


def codes(positions: npt.ArrayLike, *, table: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The row of the table that the position names.

        code(p) = table[p]          p in `positions`, one of 0 .. len(table) - 1

    Reference: Gehring et al., arXiv 1705.03122, section 3.1; Devlin et al., arXiv 1810.04805, section 3.
    """
    p = np.asarray(positions, dtype=np.float64)
    rows = np.asarray(table, dtype=np.float64)
    code = np.empty((*p.shape, rows.shape[1]))
    for index, position in np.ndenumerate(p):
        if not (position.is_integer() and 0 <= position < len(rows)):
            raise ValueError(f"learned: position {position} has no row in a table of {len(rows)} rows")
        code[index] = rows[int(position)]
    return code


def resized(table: npt.ArrayLike, length: int) -> npt.NDArray[np.float64]:
    """The table stretched to another number of rows by linear interpolation, both ends kept.

        x = r (n - 1) / (length - 1)                        where new row r lies among the n old rows of `table`
        new[r] = (1 - t) table[floor x] + t table[floor x + 1]          t = x - floor x

    The first new row is the first old row and the last new row is the last old row; a single new row is the first.

    Reference: Dosovitskiy et al., arXiv 2010.11929, section 3.2, which interpolates a trained table for larger images.
    """
    old = np.asarray(table, dtype=np.float64)
    n = len(old)
    new = np.empty((length, old.shape[1]))
    for r in range(length):
        x = r * (n - 1) / (length - 1) if length > 1 else 0.0
        below = int(x)
        above = min(below + 1, n - 1)
        t = x - below
        new[r] = (1 - t) * old[below] + t * old[above]
    return new

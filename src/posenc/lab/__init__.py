"""The ``posenc`` command, which compares encodings by measurement.

``__main__`` starts it, ``cli`` declares the verbs, ``compare`` and ``extend`` are the jobs. :func:`load` reads a run.
"""

import os
from pathlib import Path
from typing import Any


def load(run: str | os.PathLike[str]) -> Any:
    """Return every number of a run of ``posenc compare`` or ``posenc extend`` as a tidy table, one number in each row.

    Args:
        run: the folder of the run, such as "runs/latest".

    Returns:
        A pandas DataFrame if pandas is installed, otherwise a list of dicts with the same columns. The column
        "measure" names the quantity, "unit" is its unit, and "value" is the number. The other columns say what was
        measured (encoding or rule, seed, length, position, ...), and are None where they do not apply. Every run of
        the same kind has the same columns.

    Raises:
        RunError, ValueError: the folder does not exist, or this version cannot read the run.

    Example:
        >>> table = load("runs/latest")  # doctest: +SKIP
        >>> table[table.measure == "perplexity"].pivot_table("value", "encoding", "length")  # doctest: +SKIP
    """
    from posenc.lab.run import folder as runs

    folder = runs.find(Path(run))
    rows = report_of(folder).rows(folder)
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows)


def report_of(run: Path) -> Any:
    """The module that writes the report of a run: its functions are write, print_table, figures and rows."""
    from posenc.lab.run import folder as runs

    report: Any
    if runs.kind(run) == "extend":
        from posenc.lab.extend import report
    elif runs.kind(run) == "task":
        from posenc.lab.compare import report
    else:
        from posenc.lab.compare.text import report
    return report

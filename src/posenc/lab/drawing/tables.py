"""Tables for the terminal in which no number is cut: a table that is too wide is split into several."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def tidy(rows: Iterable[Mapping[str, Any]], about: Sequence[str]) -> list[dict[str, Any]]:
    """Rows with the same columns in the same order, whatever the run has measured: ``about``, which say what a number
    is of, then measure, unit and value. What does not apply is None."""
    columns = (*about, "measure", "unit", "value")
    return [{name: row.get(name) for name in columns} for row in rows]


def table(title: str) -> Table:
    """An empty table in the style of all reports."""
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left", title=title)


def print_first_that_fits(console: Console, ways: Sequence[Sequence[Table]]) -> None:
    """Print the first of several layouts of the same numbers whose tables fit into the width of the terminal.

    If none fits, the last layout is printed, wider than the terminal: the terminal breaks the lines, and cuts
    nothing.
    """
    wide = console.options.update(max_width=1000)

    def width(shown: Table) -> int:
        return Measurement.get(console, wide, shown).maximum

    fitting = (way for way in ways if all(width(shown) <= console.width for shown in way))
    before = console.width
    for shown in next(fitting, ways[-1]):
        console.width = max(before, width(shown))
        console.print(shown)
        console.width = before

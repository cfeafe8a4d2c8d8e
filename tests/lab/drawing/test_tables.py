"""Tables for the terminal."""

import io

import pytest
from rich.console import Console

from posenc.lab.drawing.tables import print_first_that_fits, table


@pytest.mark.parametrize(("width", "tables"), [(80, 1), (30, 2), (10, 4)])
def test_what_is_too_wide_for_one_table_goes_into_several_and_no_number_is_cut(width: int, tables: int) -> None:
    numbers = ["12345.678", "2345.6789", "345.67890", "45.678901"]
    ways = []
    for columns in (4, 2, 1):
        way = []
        for first in range(0, 4, columns):
            shown = table("numbers")
            for number in numbers[first : first + columns]:
                shown.add_column(number[:4], no_wrap=True)
            shown.add_row(*numbers[first : first + columns])
            way.append(shown)
        ways.append(way)
    file = io.StringIO()
    print_first_that_fits(Console(file=file, width=width), ways)
    out = file.getvalue()
    assert out.count("numbers") == tables
    assert all(number in out for number in numbers)

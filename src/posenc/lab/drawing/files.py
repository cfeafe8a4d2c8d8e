"""Writes the figures and the numbers of a run to files."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posenc.lab.drawing.plots import Picture, save
from posenc.lab.run import folder as runs


def write_plots(pictures: Sequence[Picture], folder: Path) -> list[Path]:
    """Write each picture in each format, as ``folder/<name>.<suffix>``."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for picture in pictures:
        name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in picture.name).strip("-")
        for suffix in runs.PICTURES:
            path = folder / f"{name}{suffix}"
            save([picture], path, heading="")
            written.append(path)
    return written


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> int:
    """Write a tidy table: one number a row, in the column "value". Return the number of rows."""
    columns = list(rows[0]) if rows else []
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.write(path, out.getvalue())
    return len(rows)

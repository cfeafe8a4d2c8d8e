"""Lists the encodings, frequency rules and position schemes."""

from collections.abc import Mapping, Sequence
from typing import Any

from posenc.lab.run.config import check_choice

HEADINGS = {"encodings": "Encodings", "rules": "Frequency rules", "positions": "Position schemes"}
NARROW = 60
"""Minimum terminal columns for a table; in a narrower one each summary stands below its name."""
_TEMPERATURES = ("temperature", "ssmax")
_SCHEMES = (
    "sequential", "from_lengths", "from_documents", "from_mask", "grid", "augmented", "multimodal", "hunyuan_vl",
    "shifted", "skipwise", "randomized", "grouped", "dual_chunk", "digits", "shard",
)  # fmt: skip


def lists(which: str | None = None) -> dict[str, list[dict[str, str]]]:
    """Return all lists, or the one of this name: for each entry its name, its place and one line.

    Raises:
        ValueError: there is no list of this name.
    """
    check_choice("list", which, HEADINGS)
    from posenc import frequencies, positions
    from posenc.catalogue import CATALOGUE

    places = {row.name: row.place.replace("_", " and ") for row in CATALOGUE} | dict.fromkeys(_TEMPERATURES, "softmax")
    found = {
        "encodings": [{"name": row.name, "place": places[row.name], "summary": row.summary} for row in CATALOGUE],
        "rules": [_entry(frequencies, name, "frequencies") for name in frequencies.RULES],
        "positions": [_entry(positions, name, "positions") for name in _SCHEMES],
    }
    return found if which is None else {which: found[which]}


def _entry(module: Any, name: str, place: str) -> dict[str, str]:
    doc = (getattr(module, name).__doc__ or "").strip().splitlines()
    return {"name": name, "place": place, "summary": doc[0] if doc else ""}


def show(found: Mapping[str, Sequence[Mapping[str, str]]], console: Any) -> None:
    """Print the lists."""
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    for name, entries in found.items():
        console.print(f"[bold]{HEADINGS[name]}[/]")
        if console.width < NARROW:  # columns would be too narrow for their words
            for entry in entries:
                where = f"  {escape(entry['place'])}" if name == "encodings" else ""
                console.print(f"  [bold]{escape(entry['name'])}[/]{where}")
                console.print(Padding(escape(entry["summary"]), (0, 0, 0, 4)))
            console.print()
            continue
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, min_width=max(len(entry["name"]) for entry in entries) + 2)
        for entry in entries:
            place = [escape(entry["place"])] if name == "encodings" else []  # the others differ in no place
            grid.add_row(f"  [bold]{escape(entry['name'])}[/]", *place, escape(entry["summary"]))
        console.print(grid)
        console.print()

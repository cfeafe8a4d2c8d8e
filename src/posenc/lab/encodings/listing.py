"""What there is to choose from: encodings, frequency rules, position schemes."""

from collections.abc import Mapping, Sequence
from typing import Any

LISTS = ("encodings", "rules", "positions")
PLACES = {
    "none": "none",
    "embeddings": "embeddings",
    "queries_keys": "queries and keys",
    "scores": "scores",
}
_TEMPERATURES = ("temperature", "ssmax")
_SCHEMES = (
    "sequential", "from_lengths", "from_documents", "from_mask", "grid", "augmented", "multimodal", "hunyuan_vl",
    "shifted", "skipwise", "randomized", "grouped", "dual_chunk", "digits", "shard",
)  # fmt: skip


def lists(which: str | None = None) -> dict[str, list[dict[str, str]]]:
    """The lists, or the one of this name: for each entry its name, its place and one line.

    Raises:
        ValueError: an unknown name of a list.
    """
    if which is not None and which not in LISTS:
        raise ValueError(f"list: got {which!r}, expected one of {', '.join(LISTS)}.")
    makers = {"encodings": _encodings, "rules": _rules, "positions": _positions}
    return {name: make() for name, make in makers.items() if which in (None, name)}


def show(found: Mapping[str, Sequence[Mapping[str, str]]], console: Any) -> None:
    """Print the lists."""
    from rich.markup import escape
    from rich.table import Table

    headings = {"encodings": "Encodings", "rules": "Frequency rules", "positions": "Position schemes"}
    for name, entries in found.items():
        console.print(f"[bold]{headings[name]}[/]", highlight=False)
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, min_width=max(len(entry["name"]) for entry in entries) + 2)
        for entry in entries:
            # Only encodings differ in their place.
            shown = [key for key in entry if key in ("name", "summary") or name == "encodings"]
            grid.add_row(
                *(f"  [bold]{escape(entry[key])}[/]" if key == "name" else escape(entry[key]) for key in shown)
            )
        console.print(grid, highlight=False)
        console.print()


def _encodings() -> list[dict[str, str]]:
    from posenc.catalogue import CATALOGUE

    return [
        {
            "name": row.name,
            "place": "softmax" if row.name in _TEMPERATURES else PLACES[row.place],
            "summary": row.summary,
        }
        for row in CATALOGUE
    ]


def _rules() -> list[dict[str, str]]:
    from posenc import frequencies

    return [_entry(frequencies, name, "frequencies") for name in frequencies.RULES]


def _positions() -> list[dict[str, str]]:
    from posenc import positions

    return [_entry(positions, name, "positions") for name in _SCHEMES]


def _entry(module: Any, name: str, place: str) -> dict[str, str]:
    doc = (getattr(module, name).__doc__ or "").strip().splitlines()
    return {"name": name, "place": place, "summary": doc[0] if doc else ""}

"""The table of a run for the terminal."""

from typing import TYPE_CHECKING

from rich.table import Table

from posenc.lab.compare.results import PROTOCOLS, factors
from posenc.lab.drawing.tables import print_first_that_fits
from posenc.lab.drawing.tables import table as empty
from posenc.lab.drawing.words import number
from posenc.lab.run.config import Data
from posenc.lab.run.printable import escape

if TYPE_CHECKING:
    from rich.console import Console


def heading(protocol: str, results: Data) -> str:
    """What a protocol is called in a table."""
    return "windows" if protocol == "windows" else f"last {results['config']['evaluate'].get('last', 'k')}"


def best(results: Data) -> dict[tuple[str, str], str]:
    """The label with the lowest mean perplexity, for each protocol and factor that two or more encodings have."""
    found: dict[tuple[str, str], str] = {}
    for protocol in PROTOCOLS:
        for factor in map(str, factors(results)):
            cells = {e["label"]: e["perplexity"][protocol].get(factor, {}).get("mean") for e in results["encodings"]}
            known = sorted((mean, label) for label, mean in cells.items() if mean is not None)
            if len(known) > 1:
                found[protocol, factor] = known[0][1]
    return found


def print_results(results: Data, console: "Console") -> None:
    """Perplexity by both protocols, speed and parameters: one table, or two in a narrow terminal."""
    together = _table(results, PROTOCOLS, costs=True)
    apart = [_table(results, (protocol,), costs=protocol == PROTOCOLS[0]) for protocol in PROTOCOLS]
    print_first_that_fits(console, ([together], apart))
    console.print("* best of its column   - not evaluated")
    for sentence in results["summary"]:
        console.print(sentence, markup=False, highlight=False)


def _table(results: Data, protocols: tuple[str, ...], *, costs: bool) -> Table:
    length = results["config"]["train"]["length"]
    table = empty(f"Perplexity, trained on {length} tokens")
    table.add_column("encoding", no_wrap=True)
    for protocol in protocols:
        for factor in factors(results):
            table.add_column(f"{heading(protocol, results)}\n{factor}x", justify="right", no_wrap=True)
    if costs:
        table.add_column("training\nspeed", justify="right", no_wrap=True)
        table.add_column("params\nadded", justify="right", no_wrap=True)
    winners = best(results)
    for entry in results["encodings"]:
        state = "" if entry["state"] == "done" else f" ({entry['state']})"
        row = [escape(entry["label"] + state)]
        for protocol in protocols:
            for factor in factors(results):
                text = cell_text(entry["perplexity"][protocol].get(str(factor)))
                won = winners.get((protocol, str(factor))) == entry["label"]
                row.append(f"[bold green]{text}*[/]" if won else f"{text} ")
        if costs:
            speed, added = entry["speed"], entry["parameters_added"]
            row += [f"{speed['relative_to_none']:.2f}" if speed else "-", "-" if added is None else f"{added:,}"]
        table.add_row(*row)
    return table


def cell_text(cell: Data | None) -> str:
    """One number of the table, with its spread if there is one."""
    if not cell:
        return "-"
    if "refused" in cell:
        return "no code"
    spread = f" ±{number(cell['spread'])}" if cell.get("spread") is not None else ""
    return number(cell["mean"]) + spread if "mean" in cell else "-"

"""The table of a run for the terminal."""

from msgspec import UNSET
from rich.console import Console
from rich.table import Table

from posenc.lab.compare.text.folder import PROTOCOLS, Protocol
from posenc.lab.compare.text.results import Cell, Results, ranked
from posenc.lab.drawing.tables import print_first_that_fits
from posenc.lab.drawing.tables import table as empty
from posenc.lab.drawing.words import number
from posenc.lab.run.printable import escape


def heading(protocol: Protocol, results: Results) -> str:
    """The name of a protocol in a table."""
    return "windows" if protocol == "windows" else f"last {results.config.evaluate.last or 'k'}"


def best(results: Results) -> dict[tuple[Protocol, int], str]:
    """The label with the lowest mean perplexity, for each protocol and factor with two or more encodings."""
    means = {(protocol, f): ranked(results, protocol, f) for protocol in PROTOCOLS for f in results.factors}
    return {at: known[0][1] for at, known in means.items() if len(known) > 1}


def print_results(results: Results, console: Console) -> None:
    """Print perplexity with both protocols, speed and parameters, in one table, or two in a narrow terminal."""
    together = _table(results, PROTOCOLS, costs=True)
    apart = [_table(results, (protocol,), costs=protocol == PROTOCOLS[0]) for protocol in PROTOCOLS]
    print_first_that_fits(console, ([together], apart))
    unknown = any(cell.strip() == "-" for column in together.columns for cell in map(str, column.cells))
    console.print("* best of its column" + ("   - not evaluated" if unknown else ""))
    last = heading("last", results)
    console.print(
        "training speed: steps a second, relative to the encoding none; 1x, 2x, ...: times the trained length; "
        f"windows: all tokens of windows of that length; {last}: the same tokens, at the end of windows of every "
        "length",
        style="dim",
        soft_wrap=not console.is_terminal,
    )
    for sentence in results.summary:
        console.print(sentence, markup=False)


def _table(results: Results, protocols: tuple[Protocol, ...], *, costs: bool) -> Table:
    table = empty(f"Perplexity, trained on {results.config.train.length} tokens")
    table.add_column("encoding", no_wrap=True)
    for protocol in protocols:
        for factor in results.factors:
            table.add_column(f"{heading(protocol, results)}\n{factor}x", justify="right", no_wrap=True)
    if costs:
        table.add_column("training\nspeed", justify="right", no_wrap=True)
        table.add_column("params\nadded", justify="right", no_wrap=True)
    winners = best(results)
    for entry in results.encodings:
        state = "" if entry.state == "done" else f" ({entry.state})"
        row = [escape(entry.label + state)]
        for protocol in protocols:
            for factor in results.factors:
                text = cell_text(entry.perplexity[protocol].get(factor))
                won = winners.get((protocol, factor)) == entry.label
                row.append(f"[bold green]{text}*[/]" if won else f"{text} ")
        if costs:
            speed, added = entry.speed, entry.parameters_added
            row += [f"{speed.relative_to_none:.2f}" if speed else "-", "-" if added is None else f"{added:,}"]
        table.add_row(*row)
    return table


def cell_text(cell: Cell | None) -> str:
    """One number of the table, with its spread over seeds if there are several."""
    if cell is not None and cell.refused:
        return "no code"
    if cell is None or cell.mean is UNSET:
        return "-"
    return number(cell.mean, 2) + (f" ±{number(cell.spread, 2)}" if isinstance(cell.spread, float) else "")

"""The tables of a run of ``posenc extend`` for the terminal."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from posenc.lab.drawing.tables import print_first_that_fits
from posenc.lab.drawing.tables import table as empty
from posenc.lab.drawing.words import BROKE, HELD, number
from posenc.lab.extend.folder import Probed
from posenc.lab.extend.results import Results
from posenc.lab.extend.retrieval import Form, Task
from posenc.lab.extend.verdict import Mean, perplexity
from posenc.lab.run.printable import escape

if TYPE_CHECKING:
    from rich.console import Console


def print_results(results: Results, console: "Console") -> None:
    """Print perplexity by position, cost and gain, retrieval, the recommendation and the flags."""
    if results.rows:
        print_first_that_fits(console, _ways(results))
        console.print(
            "* lowest of its column   cost, gain: nats a token, paired on the same tokens, ± standard error\n"
        )
        _print_curves(results, console)
    elif results.probe:
        print_probe(results.probed, console)
    if any(rule.retrieval for rule in results.rules):
        console.print(_retrieval_table(results))
    for at, sentence in enumerate(results.summary):
        console.print(sentence, markup=False, style="" if at else "bold")
    for program, flags in (results.flags or {}).items():
        console.print(f"[dim]{program:<10}[/] {escape(flags)}", soft_wrap=True)


def print_probe(probed: Probed, console: "Console") -> None:
    """Print the heatmap in the terminal: perplexity by rule and gap, coloured by its excess over the baseline."""
    plan, baseline = probed.plan, probed.baseline()
    console.print(
        f"Perplexity of {plan.scored} tokens that see {plan.block} others, by the gap of positions between the two"
    )
    table = Table(box=None, padding=(0, 0))
    table.add_column("rule  ", no_wrap=True)
    for gap in plan.gaps:
        table.add_column(f" {gap:,} ", justify="right", no_wrap=True)
    for name, probe in probed.ranked():
        cells = [_coloured(nats, home) for nats, home in zip(probe.mean, baseline, strict=True)]
        table.add_row(f"{escape(name)}  ", *cells)
    console.print(table)
    console.print(
        f"[black on green] no mark [/] up to {HELD:g} times the untouched model within its trained length   "
        f"[black on yellow] ~ [/] up to {BROKE:g}   [white on red] ! [/] more"
    )


def _coloured(nats: float | None, baseline: float | None) -> str:
    """A perplexity, with its excess over the baseline as a mark and, in a terminal with colours, as a colour."""
    if nats is None:
        return " - "
    said = f" {number(perplexity(nats), 1)}"
    if baseline is None:
        return f"{said} "
    above = nats - baseline
    if above <= math.log(HELD):
        return f"[black on green]{said} [/]"
    if above < math.log(BROKE):
        return f"[black on yellow]{said}~[/]"
    return f"[white on red]{said}![/]"


def bin_name(one: Sequence[int]) -> str:
    """A short name of a range of positions: 8-10k for multiples of 1024, else the numbers."""
    first, last = one
    if last >= 1024 and first % 1024 == 0 and last % 1024 == 0:
        return f"{first // 1024}-{last // 1024}k"
    return f"{first}-{last}"


def for_card(results: Results) -> dict[str, dict[str, float]]:
    """The table as plain numbers: the known perplexities by rule and range of positions."""
    names = [bin_name(one) for one in results.bins]
    return {
        rule: {
            name: value
            for name, value in zip(names, one.perplexity, strict=True)
            if value is not None and math.isfinite(value)
        }
        for rule, one in results.rows.items()
    }


def lowest(results: Results) -> list[str | None]:
    """The rule with the lowest perplexity of each bin, if two or more have one."""
    numbers, found = for_card(results), list[str | None]()
    for name in map(bin_name, results.bins):
        known = [(values[name], rule) for rule, values in numbers.items() if name in values]
        found.append(min(known)[1] if len(known) > 1 else None)
    return found


def value_text(results: Results, name: str, at: int, value: float | None) -> str:
    """A perplexity of the table, or the reason why there is none."""
    if value is None and name == "none" and results.config.positions == "learned":
        return "no code" if results.bins[at][0] >= results.config.trained_length else "-"
    return number(value, 1)


def nats_text(found: Mean | None) -> str:
    """A mean with its standard error, in nats."""
    if found is None:
        return "-"
    if not math.isfinite(found.nats):
        return "diverged"
    error = f" ±{found.error:.3f}" if math.isfinite(found.error) else ""
    return f"{found.nats:+.3f}{error}"


_LEVELS = "▁▂▃▄▅▆▇█"


def _print_curves(results: Results, console: "Console") -> None:
    """Print a rough plot of perplexity by position: a line of blocks for each rule, divided at the trained length."""
    curves = results.curves
    known = [value for values in curves.rules.values() for value in values if value is not None]
    if not known:
        return
    low = min(known)
    high = min(max(known), low + math.log(60))  # one very large value must not flatten all other lines
    cut = sum(1 for position in curves.positions if position < results.config.trained_length)
    ends = " to ".join(number(perplexity(nats), 1) for nats in (low, high))
    console.print(f"Perplexity by position, from {ends}; | is the trained length")
    for name, values in curves.rules.items():
        blocks = [_block(value, low, high) for value in values]
        line = "".join(blocks[:cut]) + "[dim]|[/]" + "".join(blocks[cut:])
        console.print(f"  {escape(name):<18}{line}", no_wrap=True, crop=False)


def _block(nats: float | None, low: float, high: float) -> str:
    if nats is None:
        return " "
    share = (nats - low) / (high - low or 1.0)
    return _LEVELS[min(len(_LEVELS) - 1, max(0, int(share * len(_LEVELS))))]


def _ways(results: Results) -> list[list[Table]]:
    """The layouts: one table, or two or three tables for a narrow terminal."""
    trained = results.config.trained_length
    everything = range(len(results.bins))
    within = [at for at in everything if results.bins[at][0] < trained]
    beyond = [at for at in everything if at not in within]
    title, costs = f"Perplexity by position, trained on {trained:,} tokens", f"Within and beyond {trained:,} tokens"
    return [
        [_table(results, title, everything, costs=True)],
        [_table(results, title, everything, costs=False), _table(results, costs, (), costs=True)],
        [
            _table(results, title, within, costs=False),
            _table(results, "Beyond it", beyond, costs=False),
            _table(results, costs, (), costs=True),
        ],
    ]


def _table(results: Results, title: str, bins: Sequence[int], *, costs: bool) -> Table:
    table = empty(title)
    table.add_column("rule", no_wrap=True)
    for at in bins:
        name = bin_name(results.bins[at])
        table.add_column(name if name.endswith("k") else name.replace("-", "-\n"), justify="right", no_wrap=True)
    if costs:
        for heading in ("cost\nwithin", "gain\nbeyond", "holds"):
            table.add_column(heading, justify="right", no_wrap=True)
    best = lowest(results)
    for name, one in results.rows.items():
        row = [escape(name)]
        for at in bins:
            said = value_text(results, name, at, one.perplexity[at])
            row.append(f"[green]{said}*[/]" if best[at] == name else f"{said} ")
        if costs:
            row += [nats_text(one.cost), nats_text(one.gain), {True: "yes", False: "no", None: "-"}[one.holds]]
        table.add_row(*row)
    if bins and results.windows:
        table.add_row("[dim]none, in windows[/]", *[f"[dim]{number(results.windows[at], 1)} [/]" for at in bins])
    return table


def retrieval_rows(results: Results) -> tuple[list[int], list[tuple[Task, Form, str, list[str]]]]:
    """The lengths; and for each task, form and rule the number of depths with a correct answer at each length."""
    asked = {rule.name: rule.retrieval for rule in results.rules if rule.retrieval}
    everything = [answer for answers in asked.values() for answer in answers]
    lengths = sorted({answer.length for answer in everything})
    found = []
    for task, form in dict.fromkeys((answer.task, answer.form) for answer in everything):
        for name, answers in asked.items():
            mine = [answer for answer in answers if (answer.task, answer.form) == (task, form)]
            right = [[answer.correct for answer in mine if answer.length == length] for length in lengths]
            found.append((task, form, name, [f"{sum(one)}/{len(one)}" if one else "-" for one in right]))
    return lengths, found


def _retrieval_table(results: Results) -> Table:
    lengths, found = retrieval_rows(results)
    table = empty("Retrieval: right answers by length")
    for heading in ("task", "form", "rule"):
        table.add_column(heading, no_wrap=True)
    for length in lengths:
        table.add_column(f"{length:,}", justify="right", no_wrap=True)
    for task, form, name, cells in found:
        table.add_row(task, form, escape(name), *cells)
    return table

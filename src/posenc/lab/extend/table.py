"""The tables of a run of ``posenc extend`` for the terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from posenc.lab.drawing.tables import print_first_that_fits
from posenc.lab.drawing.tables import table as empty
from posenc.lab.drawing.words import BROKE
from posenc.lab.extend.verdict import HELD
from posenc.lab.run.config import Data
from posenc.lab.run.printable import escape

if TYPE_CHECKING:
    from rich.console import Console


def print_results(results: Data, console: "Console") -> None:
    """Perplexity by position, cost and gain, retrieval, the recommendation, the flags."""
    if any(rule["pass"] for rule in results["rules"]):
        print_first_that_fits(console, _ways(results))
        console.print(
            "* lowest of its column   cost, gain: nats a token, paired on the same tokens, ± standard error\n"
        )
        _print_curves(results, console)
    elif results["probe"]:
        print_probe(results, console)
    if any(rule["retrieval"] for rule in results["rules"]):
        console.print(_retrieval_table(results))
    for sentence in results["summary"]:
        console.print(
            sentence, markup=False, highlight=False, style="bold" if sentence == results["summary"][0] else ""
        )
    for program, flags in (results["flags"] or {}).items():
        console.print(f"[dim]{program:<10}[/] {escape(flags)}", highlight=False, soft_wrap=True)


def print_probe(results: Data, console: "Console") -> None:
    """The heatmap in the terminal: perplexity by rule and gap, coloured by how far it is above the baseline."""
    plan = results["probe"]
    console.print(
        f"Perplexity of {plan['scored']} tokens that see {plan['block']} others across a gap of so many positions"
    )
    table = Table(box=None, padding=(0, 0))
    table.add_column("rule  ", no_wrap=True)
    for gap in plan["gaps"]:
        table.add_column(f" {gap:,} ", justify="right", no_wrap=True)
    home = probe_home(results)
    for rule in by_probe(results):
        cells = [_coloured(value, at, home) for at, value in enumerate(rule["probe"]["mean"])]
        table.add_row(f"{escape(rule['name'])}  ", *cells)
    console.print(table)
    console.print(
        f"[on green] [/] up to {HELD:g} times the untouched model within its trained length   [on yellow] [/] up to "
        f"{BROKE:g}   [on red] [/] more",
        highlight=False,
    )


def by_probe(results: Data) -> list[Data]:
    """The rules that were probed: "none", then from the best by the probe."""
    probed = [rule for rule in results["rules"] if rule["probe"]]

    def place(rule: Data) -> tuple[bool, float]:
        score = rule["probe"]["score"]
        return rule["name"] != "none", math.inf if score is None else score

    return sorted(probed, key=place)


def probe_home(results: Data) -> list[float | None]:
    """The baseline of each gap: the loss of the untouched model at that gap, or at the largest within its length."""
    plan, trained = results["probe"], results["config"]["trained_length"]
    untouched = next(
        (rule["probe"]["mean"] for rule in results["rules"] if rule["name"] == "none" and rule["probe"]), None
    )
    if untouched is None:
        return [None] * len(plan["gaps"])
    within = max((at for at, gap in enumerate(plan["gaps"]) if gap + 2 * plan["block"] <= trained), default=0)
    return [untouched[min(at, within)] for at in range(len(plan["gaps"]))]


def level(nats: float | None, home: float | None) -> str:
    """Whether a loss is "held", "rose" or "broke" against another; "" where one is missing."""
    if nats is None or home is None:
        return ""
    above = nats - home
    return "held" if above <= math.log(HELD) else "rose" if above < math.log(BROKE) else "broke"


_COLOURS = {"held": "black on green", "rose": "black on yellow", "broke": "white on red", "": ""}


def _coloured(nats: float | None, at: int, home: Sequence[float | None]) -> str:
    said = f" {_perplexity(nats)} "
    colour = _COLOURS[level(nats, home[at])]
    return f"[{colour}]{said}[/]" if colour else said


def _perplexity(nats: float | None) -> str:
    return "-" if nats is None else short(math.exp(min(nats, 700.0)))


def short(value: float | None) -> str:
    """A perplexity in three digits."""
    if value is None or not math.isfinite(value):
        return "diverged"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}" if value < 1e6 else f"{value:.0e}"


def bin_name(one: Sequence[int]) -> str:
    """A range of positions, short: 8-10k where they are whole thousands of 1024, else the numbers."""
    first, last = one
    if last >= 1024 and first % 1024 == 0 and last % 1024 == 0:
        return f"{first // 1024}-{last // 1024}k"
    return f"{first}-{last}"


def rows(results: Data) -> list[tuple[str, Data]]:
    """The rules that had the full pass, and the one that was trained with: name, and what is known of it."""
    found = [(rule["name"], rule["pass"]) for rule in results["rules"] if rule["pass"]]
    if (tuned := results["tuned"]) is not None:
        found.append((f"{tuned['rule']} tuned", tuned))
    return found


def for_card(results: Data) -> dict[str, dict[str, float]]:
    """The table as plain numbers: perplexity by rule and range of positions, where there is one."""
    names = [bin_name(one) for one in results["bins"]]
    return {
        rule: {name: value for name, value in zip(names, one["perplexity"], strict=True) if value is not None}
        for rule, one in rows(results)
    }


def lowest(results: Data) -> list[str | None]:
    """Who has the lowest perplexity of each bin."""
    found: list[str | None] = []
    for at in range(len(results["bins"])):
        known = [(one["perplexity"][at], name) for name, one in rows(results) if one["perplexity"][at] is not None]
        found.append(min(known)[1] if len(known) > 1 else None)
    return found


def value_text(results: Data, name: str, at: int, value: float | None) -> str:
    """A perplexity of the table, or why there is none."""
    if value is None and name == "none" and results["config"]["positions"] == "learned":
        return "no code" if results["bins"][at][0] >= results["config"]["trained_length"] else "-"
    return short(value)


def nats_text(found: Mapping[str, Any] | None) -> str:
    """A mean with its standard error, in nats."""
    if found is None:
        return "-"
    if found["nats"] is None:
        return "diverged"
    known = found["error"] is not None and math.isfinite(found["error"])
    error = f" ±{found['error']:.3f}" if known else ""
    return f"{found['nats']:+.3f}{error}"


_LEVELS = "▁▂▃▄▅▆▇█"


def _print_curves(results: Data, console: "Console") -> None:
    """Perplexity by position, roughly: a line of blocks for each rule, cut at the trained length."""
    curves, trained = results["curves"], results["config"]["trained_length"]
    known = [value for values in curves["rules"].values() for value in values if value is not None]
    if not known:
        return
    low = min(known)
    high = min(max(known), low + math.log(60))  # one that explodes shall not flatten all others
    cut = sum(1 for position in curves["positions"] if position < trained)
    console.print(
        f"Perplexity by position, from {short(math.exp(low))} to {short(math.exp(high))}; | is the trained length"
    )
    for name, values in curves["rules"].items():
        blocks = [_block(value, low, high) for value in values]
        line = "".join(blocks[:cut]) + "[dim]|[/]" + "".join(blocks[cut:])
        console.print(f"  {escape(name):<18}{line}", highlight=False, no_wrap=True, crop=False)


def _block(nats: float | None, low: float, high: float) -> str:
    if nats is None:
        return " "
    share = (nats - low) / (high - low or 1.0)
    return _LEVELS[min(len(_LEVELS) - 1, max(0, int(share * len(_LEVELS))))]


def _ways(results: Data) -> list[list[Table]]:
    """Everything in one table, or in two or three for a narrow terminal."""
    trained = results["config"]["trained_length"]
    everything = range(len(results["bins"]))
    within = [at for at in everything if results["bins"][at][0] < trained]
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


def _table(results: Data, title: str, bins: Sequence[int], *, costs: bool) -> Table:
    table = empty(title)
    table.add_column("rule", no_wrap=True)
    for at in bins:
        name = bin_name(results["bins"][at])
        table.add_column(name if name.endswith("k") else name.replace("-", "-\n"), justify="right", no_wrap=True)
    if costs:
        for heading in ("cost\nwithin", "gain\nbeyond", "holds"):
            table.add_column(heading, justify="right", no_wrap=True)
    best = lowest(results)
    for name, one in rows(results):
        row = [escape(name)]
        for at in bins:
            said = value_text(results, name, at, one["perplexity"][at])
            row.append(f"[green]{said}*[/]" if best[at] == name else f"{said} ")
        if costs:
            row += [nats_text(one["cost"]), nats_text(one["gain"]), {True: "yes", False: "no", None: "-"}[one["holds"]]]
        table.add_row(*row)
    if bins and results["windows"]:
        table.add_row("[dim]none, in windows[/]", *[f"[dim]{short(results['windows'][at])} [/]" for at in bins])
    return table


def retrieval_rows(results: Data) -> tuple[list[int], list[tuple[str, str, str, list[str]]]]:
    """Lengths; and for each rule, task and form how many of the depths were answered rightly at each length."""
    asked = [rule for rule in results["rules"] if rule["retrieval"]]
    lengths = sorted({answer["length"] for rule in asked for answer in rule["retrieval"]})
    found = []
    kinds = dict.fromkeys((answer["task"], answer["form"]) for rule in asked for answer in rule["retrieval"])
    for task, form in kinds:
        for rule in asked:
            mine = [answer for answer in rule["retrieval"] if (answer["task"], answer["form"]) == (task, form)]
            right = [[answer["correct"] for answer in mine if answer["length"] == length] for length in lengths]
            found.append((task, form, rule["name"], [f"{sum(one)}/{len(one)}" if one else "-" for one in right]))
    return lengths, found


def _retrieval_table(results: Data) -> Table:
    lengths, found = retrieval_rows(results)
    table = empty("Retrieval: right answers by length")
    for heading in ("task", "form", "rule"):
        table.add_column(heading, no_wrap=True)
    for length in lengths:
        table.add_column(f"{length:,}", justify="right", no_wrap=True)
    for task, form, name, cells in found:
        table.add_row(task, form, escape(name), *cells)
    return table

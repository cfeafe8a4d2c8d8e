"""The report of a run of ``posenc extend`` as one page that needs nothing else."""

from pathlib import Path
from typing import Any

from posenc.lab.drawing import html as shell
from posenc.lab.drawing.html import text
from posenc.lab.extend import pictures
from posenc.lab.extend.table import bin_name, lowest, nats_text, retrieval_rows, rows, short, value_text
from posenc.lab.extend.verdict import BLOCK, HELD

Data = dict[str, Any]


def page(results: Data) -> str:
    """The page, from what is in ``results.json``."""
    config = results["config"]
    passes = [pictures.by_position(results), pictures.above_home(results)] if rows(results) else []
    probes = [pictures.heatmap(results), pictures.trust(results)]
    return shell.page(
        Path(__file__).with_name("page.html"),
        title=f"{config['label']} at {config['length']:,} tokens",
        subtitle=text(_subtitle(results)),
        warning="" if results["finished"] else f'<p class="warning">{text(_unfinished(results))}</p>',
        verdict=text(results["summary"][0]),
        summary=text(" ".join(results["summary"][1:])),
        flags=_flags(results),
        perplexity_table=_perplexity_table(results) if rows(results) else "<p>No rule has had its full pass yet.</p>",
        perplexity_note=text(_how_to_read(results)),
        perplexity_figures="\n".join(shell.figure(picture) for picture in passes if picture is not None),
        probe_note=text(_PROBE) if results["probe"] else "Nothing was probed yet.",
        probe_figures="\n".join(shell.figure(picture) for picture in probes if picture is not None),
        more=_retrieval(results) + _tuned(results) + _search(results),
        command=text(results["command"]),
        facts=_facts(results),
    )


def _subtitle(results: Data) -> str:
    config = results["config"]
    files = ", ".join(part["name"] for part in config["text"])
    return f"trained on {config['trained_length']:,} tokens; read: {files}; run {results['run']}"


def _unfinished(results: Data) -> str:
    measured = [name for name, _ in rows(results)]
    return (
        "This run is not finished. What is shown is what there is so far: the full pass of "
        f"{', '.join(measured) if measured else 'no rule'}."
    )


def _flags(results: Data) -> str:
    if not results["flags"]:
        return ""
    items = "".join(
        f"<dt>{text(name)}</dt><dd><code>{text(said)}</code></dd>" for name, said in results["flags"].items()
    )
    rule = text(results["verdict"]["rule"])
    return f'<p class="note">The same elsewhere, with {rule}:</p><dl class="facts">{items}</dl>'


def _perplexity_table(results: Data) -> str:
    trained, bins = results["config"]["trained_length"], results["bins"]
    palette, best = pictures.hues(results), lowest(results)
    inside = sum(1 for one in bins if one[0] < trained)
    head = (
        f'<th rowspan="2">rule</th><th class="group" colspan="{inside}">within the trained length</th>'
        f'<th class="group" colspan="{len(bins) - inside}">beyond</th>'
        '<th class="group" rowspan="2">cost within<br>in nats</th><th rowspan="2">gain beyond<br>in nats</th>'
        '<th rowspan="2">holds</th>'
    )
    again = "".join(
        f"<th{' class=group' if at in (0, inside) else ''}>{bin_name(one)}</th>" for at, one in enumerate(bins)
    )
    lines = []
    for name, one in rows(results):
        cells = []
        for at, value in enumerate(one["perplexity"]):
            classes = " ".join(["group"] * (at in (0, inside)) + ["best"] * (best[at] == name))
            cells.append(f'<td class="{classes}">{text(value_text(results, name, at, value))}</td>')
        cells.append(f'<td class="group">{_nats(one["cost"])}</td><td>{_nats(one["gain"])}</td>')
        cells.append(f"<td>{shell.mark(one['holds'])}</td>")
        swatch = shell.swatch(palette[name]) if name in palette else ""
        lines.append(f"<tr><th>{swatch}{text(name)}</th>{''.join(cells)}</tr>")
    if results["windows"] is not None:
        cells = [
            f'<td class="{"group" if at in (0, inside) else ""}">{short(value)}</td>'
            for at, value in enumerate(results["windows"])
        ]
        lines.append(f'<tr><th>none, in windows</th>{"".join(cells)}<td class="group"></td><td></td><td></td></tr>')
    return (
        f'<div class="box"><table><thead><tr>{head}</tr><tr>{again}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
        "</div>"
    )


def _nats(found: Data | None) -> str:
    value, _, error = nats_text(found).partition(" ±")
    return text(value) + (f"<br><small>±{text(error)}</small>" if error else "")


def _how_to_read(results: Data) -> str:
    trained = results["config"]["trained_length"]
    return (
        "Lower is better; the lowest of a column is marked. Cost: what a rule adds to the loss of the first "
        f"{trained:,} tokens; gain: what it takes off beyond them; both against the untouched model, paired on the "
        f"same tokens, ± one standard error from means of {BLOCK} neighbouring tokens. None, in windows: the untouched "
        f"model on the same tokens, beyond the trained length in windows of {trained:,} that leave each token at least "
        f"half of that as context. A rule holds if no bin is above {HELD:g} times that perplexity."
    )


_PROBE = (
    "Two short blocks of text with a gap of positions between them stand for a long context: a rule that breaks at a "
    "distance breaks here too, in a second instead of minutes. The best by the mean of a row get the full pass."
)


def _retrieval(results: Data) -> str:
    lengths, found = retrieval_rows(results)
    if not found:
        return ""
    palette = pictures.hues(results)
    head = '<th>task</th><th class="text">form</th><th class="text">rule</th>' + "".join(
        f"<th>{length:,}</th>" for length in lengths
    )
    lines = "".join(
        f'<tr><th>{text(task)}</th><td class="text">{text(form)}</td><td class="text">'
        f"{shell.swatch(palette[name]) if name in palette else ''}{text(name)}</td>"
        + "".join(f"<td>{text(cell)}</td>" for cell in cells)
        + "</tr>"
        for task, form, name, cells in found
    )
    return (
        '<h2 id="retrieval">Retrieval: right answers of those asked</h2>'
        f'<div class="box"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
        '<p class="note">A key, or a sentence, is hidden at several depths of a text of so many tokens and asked for '
        "at its end; chat: in the model's own template. Small models often fail at it for reasons of their own, so "
        "that it is shown and not weighed.</p>"
    )


def _tuned(results: Data) -> str:
    found = results["tuned"]
    if found is None:
        return ""
    settings = {key: shell.flat(value) for key, value in (found["report"] or {}).items() if key != "history"}
    lowered = {where: nats_text(value) for where, value in found["lowered"].items()}
    return (
        f'<h2 id="tuned">Trained with {text(found["rule"])}</h2><p>By the full pass, training took '
        f"{text(lowered['beyond'])} nats a token off the loss beyond the trained length, and {text(lowered['within'])} "
        f'within it.</p><dl class="facts">{shell.facts(settings)}</dl>'
    )


def _search(results: Data) -> str:
    found = results["search"]
    if found is None:
        return ""
    factors = ", ".join(f"{value:.3g}" for value in found["factors"])
    return (
        f'<h2 id="search">The search for LongRoPE factors</h2><p>{found["evaluations"]:,} lists were probed, with seed '
        f"{results['config']['seed']}; the best has a loss of {found['loss']:.4f} nats by the probe, where the best "
        f"start has {found['start_loss']:.4f}.</p><pre>{text(factors)}</pre>"
    )


def _facts(results: Data) -> str:
    config = results["config"]
    shown: dict[str, object] = {"posenc": results["posenc"]}
    left_out = ("format", "kind", "posenc", "text")
    shown |= {key: shell.flat(value) for key, value in config.items() if key not in left_out}
    shown["text"] = shell.files(config["text"])
    for key, value in results["environment"].items():
        shown.setdefault(key, shell.flat(value))
    return shell.facts(shown)

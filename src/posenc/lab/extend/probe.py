"""`posenc probe`: shows in a minute at which distance each rule fails, with two blocks of text and a gap between."""

import time
from typing import Any

import torch
from rich.console import Console

import posenc
from posenc.lab.checkpoint.memory import check_memory
from posenc.lab.extend.announce import UNSET, duration
from posenc.lab.extend.candidates import plain
from posenc.lab.extend.costs import measure
from posenc.lab.extend.folder import Probe, Probed
from posenc.lab.extend.gaps import Gaps, plan
from posenc.lab.extend.measure import probed
from posenc.lab.extend.model import candidates_for, device_here, looked_at, opened, those_that_can_be_set
from posenc.lab.extend.passage import check_long_enough, documents, tokens
from posenc.lab.extend.request import ProbeRequest
from posenc.lab.extend.table import print_probe
from posenc.lab.run import folder as runs
from posenc.lab.run.config import to_dict
from posenc.lab.run.printable import escape
from posenc.lab.run.progress import Stages
from posenc.lab.run.signals import cores

READ = 32_768
"""Tokens that the probe reads beyond those that its gaps need, if the text has them."""


def probe(request: ProbeRequest, console: Console | None = None) -> dict[str, Any]:
    """Print a heatmap of rules and distances, and write it to ``output`` if given.

    Returns:
        The data that a .json file gets.

    Raises:
        RunError: no model, or a damaged one.
        ValueError: another suffix, an unknown rule, a length within the trained one, a text too short.
    """
    output = request.output
    console = console or Console(highlight=False)
    if output is not None:
        runs.check_suffix("probe --out", output, (*runs.PICTURES, ".json"))
    preview = looked_at("probe", request)
    trained = preview.trained_length
    length = 2 * trained if request.length is None else request.length
    wanted = candidates_for(preview, length, request.rules)
    gaps = _plan(trained, length, quick=request.quick)
    texts, described = documents(request.texts)
    check_long_enough(texts, gaps.tokens)
    check_memory(preview, 2 * gaps.block, chunk=2 * gaps.block, dtype=request.dtype, device=device_here())
    torch.set_num_threads(request.threads or cores())
    checkpoint = opened(preview.source, request.dtype, request.trust_remote_code)
    tried = those_that_can_be_set(checkpoint, wanted, length, console, named=bool(request.rules))
    read = tokens(texts, checkpoint.tokenizer, gaps.tokens, more=READ)
    console.print(
        f"[bold]posenc {posenc.__version__}[/] probes {len(tried)} rules for {escape(preview.label)}, trained on "
        f"{trained:,} tokens, up to {length:,}.",
        soft_wrap=True,
    )
    if checkpoint.unset:
        console.print(f"[dim]note: {UNSET}[/]", soft_wrap=True)
    seconds = len(tried) * measure(checkpoint, read).probe(gaps)
    console.print(f"[dim]about {duration(seconds)}[/]")
    begun = time.perf_counter()
    with Stages(console) as stages:
        found = list(probed(checkpoint, tried, read, gaps, length, stages))
    probes = {candidate.name: Probe(**losses) for candidate, losses in found}
    about = {
        "config": {
            "model": preview.source,
            "label": preview.label,
            "trained_length": trained,
            "length": length,
            "positions": checkpoint.kind,
            "text": described,
            "threads": torch.get_num_threads(),
        },
        "probe": gaps,
        "rules": [{"name": one.name, "rule": plain(one.rule), "probe": probes[one.name]} for one in tried],
        "seconds": time.perf_counter() - begun,
    }
    results = to_dict("probe", about)
    heat = Probed(probes, trained)
    print_probe(heat, console)
    if output is not None:
        if output.suffix.lower() == ".json":
            output.parent.mkdir(parents=True, exist_ok=True)
            runs.write_json(output, results)
        else:
            from posenc.lab.drawing.plots import save
            from posenc.lab.extend.pictures import heatmap

            save([heatmap(heat)], output, heading=preview.label)
        console.print(f"Drawn: {escape(output)}", soft_wrap=True)
    return results


def _plan(trained: int, length: int, *, quick: bool) -> Gaps:
    """Gaps from 0 to the end of a text of ``length`` tokens: two within the trained length, three beyond it."""
    parts = (0.5, 1.0) if quick else (0.25, 0.5, 1.0)
    within = [trained] if quick else [trained // 2, trained]
    ends = [*within, *(trained + round((length - trained) * part) for part in parts)]
    return plan(trained, ends, places=1 if quick else 2)

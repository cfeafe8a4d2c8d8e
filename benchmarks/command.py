"""The rotation and attention against their peers, a whole model, blocks of diffusers: ``python -m benchmarks.command``.

Also ``posenc bench``. Both run from a checkout of the repository.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from posenc.lab.run.options import Verb

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.blocks import Gain

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(cls=Verb)
def bench(
    what: Annotated[
        Literal["all", "rotate", "attention", "model", "blocks"],
        typer.Argument(
            metavar="all|rotate|attention|model|blocks",
            help="What to time: the rotation; attention with a bias; a whole small model; all three; or blocks of Flux "
            "and Wan, on the CPU.",
        ),
    ] = "all",
    device: Annotated[Literal["cpu", "cuda"], typer.Option(metavar="cpu|cuda", help="Where it runs.")] = "cpu",
    rounds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="How often each library is timed, in turns.",
            show_default="60; 5 for a model, 15 for blocks and attention",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", help="Number of threads of the CPU.")] = 2,
    only: Annotated[str, typer.Option(metavar="WORD", help="Time only the cases whose name contains WORD.")] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures as JSON lines.", show_default=False)
    ] = None,
) -> None:
    """Time posenc against other libraries, in milliseconds, after a check that all give the same output.

    Libraries that are not installed are named and left out. [bold]all[/] writes one file for each part: gpu.jsonl
    becomes gpu-rotate.jsonl, gpu-attention.jsonl and gpu-model.jsonl.

    Examples:
      posenc bench rotate --rounds 20 --threads 2
      posenc bench --device cuda --out gpu.jsonl
    """
    import torch
    from rich.console import Console

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("posenc bench: there is no GPU here; leave --device out")
    if what == "blocks" and device == "cuda":
        raise SystemExit("posenc bench blocks: it is measured on the CPU; leave --device out")
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no edge to fold at
        console.width = max(console.width, 120)
    parts = ("rotate", "attention", "model") if what == "all" else (what,)
    names = {part: _cases(part, device) for part in parts}
    if not any(only in name for part in parts for name in names[part]):
        known = "; ".join(name for part in parts for name in names[part])
        raise SystemExit(f"posenc bench: no case's name contains {only!r}; there are: {known}")
    for part in parts:
        if not any(only in name for name in names[part]):
            continue
        output = out if out is None or what != "all" else out.with_stem(f"{out.stem}-{part}")
        if lacking := _lacking(part):
            text = f"posenc bench {part}: install what is missing: pip install --no-deps {' '.join(lacking)}"
            if what != "all":
                raise SystemExit(text)
            console.print(f"{text}; left out", style="dim")
            continue
        options = {"rounds": rounds, "threads": threads, "only": only, "output": output, "console": console}
        PARTS[part](device=device, **options)


def _cases(part: str, device: str) -> list[str]:
    """The names of what a part measures."""
    from benchmarks import attention_peers, blocks, registry

    if part == "rotate":
        return [case.name for case in (registry.GPU_CASES if device == "cuda" else registry.CPU_CASES)]
    if part == "attention":
        return [case.name for case in attention_peers.cases(device)]
    return list(blocks.NAMES) if part == "blocks" else ["model"]


def _lacking(part: str) -> list[str]:
    if part == "model":
        from benchmarks import model

        return model.missing()
    if part == "blocks":
        from benchmarks import blocks

        return blocks.missing()
    return []


def _rotate(*, device: str, rounds: int | None, **options: Any) -> None:
    from benchmarks import run

    run.run(device=device, rounds=rounds or 60, **options)


def _attention(*, device: str, rounds: int | None, threads: int, only: str, output: Path | None, console: Any) -> None:
    import torch
    from rich import box
    from rich.table import Table

    from benchmarks import attention_peers as peers
    from posenc.lab.run.environment import describe
    from posenc.lab.run.progress import Stages

    torch.set_num_threads(threads)
    rounds = rounds or 15
    where = describe(threads=threads, device=device) | {"load": os.getloadavg()[0], "rounds": rounds}
    kept: list[dict[str, Any]] = [where]
    cases = [case for case in peers.cases(device) if only in case.name]
    try:
        with Stages(console) as stages:
            stage = stages.begin("attention", rounds * len(cases), unit="round")
            stage.at(0)
            for number, case in enumerate(cases):
                times, absent = peers.measure(case, rounds=rounds, on_round=stage.after(number * rounds))
                for name, reason in absent.items():
                    console.print(f"{case.name}: {name} is left out, {reason}", style="dim")
                table = Table("", "median", "20 % to 80 %", f"times {peers.BASE}", title=case.name, box=box.SIMPLE)
                for name, each in sorted(times.items(), key=lambda item: item[1].median):
                    low, high = each.percentile(0.2), each.percentile(0.8)
                    spread = f"{1e3 * low:.3f} to {1e3 * high:.3f}"
                    table.add_row(name, f"{1e3 * each.median:.3f} ms", spread, f"{each.ratio(times[peers.BASE]):.2f}")
                console.print(table)
                kept += peers.lines(case, times)
            stage.done()
    finally:  # Ctrl-C keeps the cases that are done
        _write(kept, output, console)


def _write(lines: list[dict[str, Any]], output: Path | None, console: Any) -> None:
    if output is not None:
        from benchmarks import run

        run.write(output, lines, console)


def _model(*, device: str, rounds: int | None, threads: int, only: str, output: Path | None, console: Any) -> None:
    import torch
    from rich import box
    from rich.table import Table

    from benchmarks import model as module
    from posenc.lab.run.environment import describe
    from posenc.lab.run.progress import Stages

    torch.set_num_threads(threads)
    rounds = rounds or 5
    where = describe(threads=threads, device=device) | {"load": os.getloadavg()[0], "rounds": rounds}
    processor = where.get("gpu", f"{where['cpu']}, {threads} threads")
    dtype = "float32" if device == "cpu" else "bfloat16"
    console.print(f"SmolLM2-135M in {dtype} on {processor}, load {where['load']:.2f}")
    with Stages(console) as stages:
        stage = stages.begin("model", rounds + 1, unit="round")
        stage.at(0)
        gains = module.measure(module.load(device), rounds=rounds, on_round=stage.at)
        stage.done()
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
    _write([where, *module.as_lines(gains)], output, console)


def _blocks(*, device: str, rounds: int | None, threads: int, only: str, output: Path | None, console: Any) -> None:
    from dataclasses import asdict

    import torch

    from benchmarks import blocks
    from posenc.lab.run.environment import describe
    from posenc.lab.run.progress import Stages

    torch.set_num_threads(threads)
    rounds = rounds or 15
    where = describe(threads=threads, device=device) | {"load": os.getloadavg()[0], "rounds": rounds}
    console.print(f"Blocks of diffusers on {where['cpu']}, {threads} threads, load {where['load']:.2f}")
    names = [name for name in blocks.NAMES if only in name]
    gains: list[blocks.Gain] = []
    try:
        with Stages(console) as stages:
            stage = stages.begin("blocks", len(names), unit="block")
            stage.at(0)
            for gain in blocks.measure(rounds=rounds, only=only):
                gains.append(gain)
                stage.at(len(gains))
            stage.done()
    finally:  # Ctrl-C keeps the blocks that are done
        console.print(_blocks_table(gains))
        _write([where, *(asdict(gain) for gain in gains)], output, console)


def _blocks_table(gains: Sequence["Gain"]) -> "Table":
    from rich import box
    from rich.table import Table

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
    return table


PARTS = {"rotate": _rotate, "attention": _attention, "model": _model, "blocks": _blocks}

if __name__ == "__main__":
    app(prog_name="posenc bench")

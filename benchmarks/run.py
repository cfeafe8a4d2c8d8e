"""``python -m benchmarks.run``: the gate, then the table, then the picture, all kept as JSON lines.

Each line of ``benchmarks/results/<name>.jsonl`` is one contestant in one case; the first line says where it was.
"""

import argparse
import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import gate, timing
from benchmarks.registry import CPU_CASES, GPU_CASES, LIMITS, Bench, Case, Microseconds
from posenc.lab.run import folder
from posenc.lab.run.environment import describe
from posenc.lab.run.progress import Stages

RESULTS = Path(__file__).parent / "results"


@dataclass
class Measured:
    """One case: the gate's errors, the times, and the most bytes that each contestant held."""

    bench: Bench
    errors: dict[str, float]
    times: dict[str, timing.Times]
    peak: dict[str, int]


def run(
    *,
    device: str = "cpu",
    rounds: int = 60,
    threads: int = 2,
    only: str = "",
    output: Path | None = None,
    console: Console | None = None,
) -> list[Measured]:
    """Measure all cases of a device whose name contains ``only``; write JSON lines and a picture beside ``output``."""
    console = console or Console()
    if not console.is_terminal:  # a file or a pipe has no edge to fold at
        console.width = max(console.width, 120)
    torch.set_num_threads(threads)
    where = describe(threads=threads, device=device) | {"load": os.getloadavg()[0], "rounds": rounds}
    where |= _versions("transformers", "rotary-embedding-torch", "x-transformers", "triton")
    processor = where.get("gpu", f"{where['cpu']}, {threads} threads")
    console.print(f"[bold]posenc bench[/], {processor}, torch {where['torch']}, load {where['load']:.2f}")
    if where["load"] > 1:
        console.print("[yellow]The machine is busy: figures of two threads mean little now.[/]")
    cases = [case for case in (GPU_CASES if device == "cuda" else CPU_CASES) if only in case.name]
    measured: list[Measured] = []
    try:
        with Stages(console) as stages:
            stage = stages.begin("rotation", rounds * len(cases), unit="round")
            stage.at(0)
            for number, case in enumerate(cases):
                measured.append(_measure(case, rounds, console, stage.after(number * rounds)))
            stage.done()
    finally:  # Ctrl-C keeps the cases that are done
        where["load_after"] = os.getloadavg()[0]
        if output is not None:
            write(output, [where, *lines(measured)], console)
    print_limits(measured, console)
    if output is not None:
        sweep = roofline(device, rounds=max(5, rounds // 4), threads=threads)
        draw(sweep, output.with_suffix(".svg"))
        console.print(f"Picture: {output.with_suffix('.svg')}; load afterwards {where['load_after']:.2f}")
    return measured


def write(output: Path, kept: list[dict[str, Any]], console: Console) -> None:
    """JSON lines; the first says where the others were measured."""
    output.parent.mkdir(parents=True, exist_ok=True)
    folder.write(output, "".join(json.dumps(line) + "\n" for line in kept))
    console.print(f"Written to {output}")


def _measure(case: Case, rounds: int, console: Console, on_round: timing.OnRound) -> Measured:
    torch.compiler.reset()
    bench = Bench(case)
    errors = gate.check(bench)
    for name, reason in bench.absent.items():
        console.print(f"{case.name}: {name} is left out, {reason}", style="dim")
    times = timing.measure(bench, rounds=rounds, on_round=on_round)
    peak = {n: timing.peak_bytes(c.call, case.device) for n, c in bench.contestants.items()}
    measured = Measured(bench, errors, times, peak)
    console.print(_table(measured, spread=console.width >= 100))
    return measured


def lines(measured: list[Measured]) -> list[dict[str, Any]]:
    """What is kept of each contestant."""
    kept = []
    for m in measured:
        roof = _roof(m.bench)
        for name, times in m.times.items():
            kept.append(
                {
                    "case": m.bench.case.name,
                    "contestant": name,
                    "seconds": times.median,
                    "p20": times.percentile(0.2),
                    "p80": times.percentile(0.8),
                    "times_the_roof": times.ratio(m.times[roof]),
                    "bytes_per_second": m.bench.case.bytes / times.median,
                    "gate_error": m.errors.get(name),
                    "peak_bytes": m.peak.get(name),
                }
            )
    return kept


def print_limits(measured: list[Measured], console: Console) -> None:
    """What was promised and what came out."""
    table = _grid("Promises", "", "compared with", "at most", "measured", "")
    for m in measured:
        promised = [limit for limit in LIMITS if limit[0] == m.bench.case.name]
        promised = [limit for limit in promised if limit[1] in m.times and limit[2] in m.times]
        if promised:
            table.add_row(f"[bold]{m.bench.case.name}[/]")
        for _, name, other, limit in promised:
            if isinstance(limit, Microseconds):
                measured_here, most = 1e6 * m.times[name].more_than(m.times[other]), limit.more
                said = f"+{most:.1f} us", f"{measured_here:+.1f} us"
            else:
                measured_here, most = m.times[name].ratio(m.times[other]), limit
                said = f"{most:.2f}", f"{measured_here:.2f}"
            table.add_row(name, other, *said, "[green]kept[/]" if measured_here <= most else "[red]not kept[/]")
    console.print(table)


def _table(m: Measured, *, spread: bool) -> Table:
    roof = _roof(m.bench)
    columns = ("", "median", *(("20 % to 80 %",) if spread else ()), "ratio", "GB/s", "peak MB", "error")
    table = _grid(m.bench.case.name, *columns)
    for name, times in sorted(m.times.items(), key=lambda item: item[1].median):
        error, peak = m.errors.get(name), m.peak.get(name)
        table.add_row(
            f"[bold]{name}[/]" if m.bench.contestants[name].ours else name,
            _duration(times.median),
            *((f"{_duration(times.percentile(0.2))} to {_duration(times.percentile(0.8))}",) if spread else ()),
            f"{times.ratio(m.times[roof]):.2f}",
            f"{m.bench.case.bytes / times.median / 1e9:.1f}",
            "" if peak is None else f"{peak / 1e6:.1f}",
            "" if error is None else f"{error:.3g}",
        )
    table.caption = f"ratio: to {roof}; error: 1 is what the dtype allows"
    return table


def _grid(title: str, *columns: str) -> Table:
    """Figures to the right. Where the terminal is narrow, only what is compared with is folded."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", caption_justify="left", pad_edge=False)
    for name in columns:
        words = name in ("", "compared with")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "compared with")
    return table


def _roof(bench: Bench) -> str:
    return next(name for name, contestant in bench.contestants.items() if contestant.roof)


def _duration(seconds: float) -> str:
    """Three figures."""
    value, unit = (seconds * 1e6, "us") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def _versions(*names: str) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def roofline(device: str, *, rounds: int, threads: int) -> dict[str, list[tuple[int, float]]]:
    """Bytes per second against bytes, from one token to many, for a few contestants."""
    points: dict[str, list[tuple[int, float]]] = {}
    for tokens in (1, 4, 16, 64, 256, 1024, 4096):
        bench = Bench(Case(f"{tokens} tokens", tokens, torch.float32, "in place", device))
        call = bench.operator(in_place=False)
        bench.add("posenc, out of place", call, ours=True)
        for name, times in timing.measure(bench, rounds=rounds).items():
            points.setdefault(name, []).append((bench.case.bytes, bench.case.bytes / times.median))
    return points


def draw(points: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """The picture of :func:`roofline`: the copies are the roof."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    markers = dict(zip(points, "ovs^Dx", strict=False))
    for name, values in points.items():
        style = "-" if name.startswith("posenc") else ":" if name in ("copy in place", "clone") else "--"
        axes.plot(*zip(*values, strict=True), style, marker=markers[name], label=name)
    axes.set(xscale="log", yscale="log", xlabel="bytes read and written by one call", ylabel="bytes per second")
    axes.set_title("Rotating q (32 heads) and k (8 heads) of 128 channels, float32")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(frameon=False, fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="svg")
    folder.write(path, picture.getvalue())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--output", type=Path, default=None, help="JSON lines; the picture is written beside it")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks: there is no GPU here", file=sys.stderr)
        return 2
    run(**vars(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())

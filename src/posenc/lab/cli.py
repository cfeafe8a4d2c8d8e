"""The verbs of the command line. Each imports what it needs when it is called: ``posenc --help`` imports no torch."""

from pathlib import Path
from typing import Annotated, Any

import typer

import posenc
from posenc.lab import cli_models
from posenc.lab.cli_models import WHERE, given

app = typer.Typer(
    name="posenc",
    help="Positional encodings for transformers, compared by measurement.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"posenc {posenc.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")] = False,
) -> None:
    """Which positional encoding should I use, and how did one idea lead to the next? Answered by measurement."""


SIZES = "Sizes, where they differ from the preset's"


@app.command()
def compare(
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SPEC]...",
            help="Encodings: [bold]rope[/], [bold]rope:pairing=interleaved[/], [bold]mine.py:Mine[/] (your own class), "
            "[bold]mine.py:Mine:width=3[/]. By default the road from none to alibi.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="[bold]quick[/] (minutes on 2 cores, the default) or [bold]standard[/] (up to an hour, 3 seeds)."
        ),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            help="Your own text instead of the novels that ship; may be repeated. The last tenth is held out."
        ),
    ] = None,
    vocabulary: Annotated[
        str | None, typer.Option(metavar="bytes|N", help="Bytes, or N byte pairs learned from the text.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many seeds to train each encoding with: 0, 1, ... N - 1.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with a run: its folder in place of SPEC, or the latest."),
    ] = False,
    steps: Annotated[int | None, typer.Option(help="Training steps.", rich_help_panel=SIZES)] = None,
    length: Annotated[int | None, typer.Option(help="Trained length in tokens.", rich_help_panel=SIZES)] = None,
    batch: Annotated[int | None, typer.Option(help="Windows in a step.", rich_help_panel=SIZES)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest.", rich_help_panel=SIZES)] = None,
    dim: Annotated[int | None, typer.Option(help="Channels of the model.", rich_help_panel=SIZES)] = None,
    layers: Annotated[int | None, typer.Option(help="Layers.", rich_help_panel=SIZES)] = None,
    heads: Annotated[int | None, typer.Option(help="Heads.", rich_help_panel=SIZES)] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Trials side by side; by default one for each core.", rich_help_panel=WHERE),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads of each trial; by default cores / jobs. Numbers repeat for the same threads.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="loky|ray|dask",
            help="Processes here (loky), or a cluster: Ray by RAY_ADDRESS, Dask by DASK_SCHEDULER_ADDRESS. The run "
            "folder must be on a disk that all machines share.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="The run's folder; by default runs/<date-time>-<preset>.", rich_help_panel=WHERE
        ),
    ] = None,
) -> None:
    """Train one small decoder per encoding on real prose, and measure what each encoding does.

    Same data, same initial weights, same steps; perplexity at 1, 2, 4 and 8 times the trained length; speed; a report.
    A GPU is used where there is one.

    Examples:
      posenc compare
      posenc compare none rope alibi --seeds 3
      posenc compare rope mine.py:Mine --text book.txt
      posenc compare --resume
    """
    from rich.console import Console

    from posenc.lab.compare import job
    from posenc.lab.compare.config import Backend
    from posenc.lab.run import folder as runs
    from posenc.lab.run.config import check_choice

    if backend is not None:
        check_choice("--backend", backend, Backend)
    chosen: dict[str, Any] = {
        "preset": preset,
        "texts": text,
        "vocabulary": vocabulary,
        "seeds": seeds,
        "threads": threads,
        "folder": out,
        "model": given(dim=dim, num_layers=layers, num_heads=heads),
        "train": given(steps=steps, length=length, batch=batch, learning_rate=learning_rate),
    }
    chosen = {name: value for name, value in chosen.items() if value is not None and value != {}}
    if not resume:
        request = job.Request(specs=specs or (), jobs=jobs, **given(backend=backend), **chosen)
        job.finish(job.prepare(request), Console())
        return
    if chosen:
        raise ValueError(
            "--resume: a run goes on as it began; of the other options only --jobs and --backend may change."
        )
    if specs and len(specs) > 1:
        raise ValueError(f"--resume: got {len(specs)} folders, expected one.")
    folder = runs.find(Path(specs[0]) if specs else None)
    job.finish(folder, Console(), jobs=jobs, **given(backend=backend))


app.command()(cli_models.extend)
app.command()(cli_models.probe)


@app.command()
def report(
    run: Annotated[
        Path | None, typer.Argument(help="The run's folder; by default the latest.", show_default=False)
    ] = None,
) -> None:
    """Make the report of a run again, from its folder alone."""
    from rich.console import Console

    from posenc.lab.run import folder as runs

    console = Console()
    folder = runs.find(run)
    job: Any
    if runs.kind(folder) == "extend":
        from posenc.lab.extend import report as job
    else:
        from posenc.lab.compare import report as job
    page = job.write(folder)
    job.print_table(folder, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)


@app.command()
def show(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="An encoding, as [bold]posenc compare[/] takes it.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to draw it, as .png or .svg.")] = None,
    dim: Annotated[int, typer.Option(help="Channels of the model that it is for.")] = 128,
    heads: Annotated[int, typer.Option(help="Query heads of that model.")] = 4,
    length: Annotated[int, typer.Option(help="Positions to draw.")] = 128,
) -> None:
    """Draw one encoding: roughly in the terminal, and as pictures in a file.

    Example:
      posenc show rope --out rope.svg
    """
    from rich.console import Console

    from posenc.lab.encodings import show as job

    job.show(spec, dim=dim, heads=heads, length=length, output=out, console=Console())


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A model's folder, a config.json or a GGUF file.")],
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the wavelengths, as .png or .svg.")] = None,
    pairing: Annotated[
        str | None, typer.Option(metavar="half|interleaved", help="The pairing of a model type that is not known.")
    ] = None,
) -> None:
    """Say what a model's positional encoding is, layer by layer, and warn of settings known to be wrong.

    Works offline and reads no weights.

    Example:
      posenc inspect Llama-3.2-1B/config.json --plot wavelengths.svg
    """
    from rich.console import Console

    from posenc.lab import inspect as job

    job.inspect(path, plot=plot, pairing=pairing, console=Console())


@app.command()
def diagnose(
    target: Annotated[str, typer.Argument(help="[bold]module:function[/] or [bold]file.py:function[/].")],
    head_dim: Annotated[
        int | None, typer.Option(help="Channels of a head; by default the first usual number that the function takes.")
    ] = None,
    expect_pairing: Annotated[
        str | None, typer.Option(metavar="half|interleaved", help="Any other is a fault.")
    ] = None,
    expect_direction: Annotated[str | None, typer.Option(metavar="+|-", help="Any other is a fault.")] = None,
) -> None:
    """Say what an unknown rotation does: pairing, direction, slice, scale, precision. Exit code 1 if it has faults.

    Example:
      posenc diagnose mine.py:apply_rotary --expect-pairing half
    """
    from posenc.kernels.rotate.eager import Pairing
    from posenc.lab import diagnose as job
    from posenc.lab.run.config import check_choice

    if expect_pairing is not None:
        check_choice("--expect-pairing", expect_pairing, Pairing)
    if expect_direction not in (None, "+", "-"):
        raise ValueError(f"--expect-direction: got {expect_direction!r}, expected + or -.")
    expected: dict[str, Any] = {"expect_pairing": expect_pairing, "expect_direction": expect_direction}
    found = job.diagnose(target, head_dim=head_dim, **expected)
    print("\n".join(found.lines()))
    raise typer.Exit(found.exit_code)


@app.command()
def build(
    into: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to put it; by default the cache of this user.")
    ] = None,
) -> None:
    """Compile the CPU kernel now, with this machine's compiler, instead of at the first call."""
    from rich.console import Console

    from posenc.lab import build as job

    job.build(into=into, console=Console())


@app.command()
def bench(
    what: Annotated[
        str, typer.Argument(metavar="rotate|model", help="The operation, or a whole small model.")
    ] = "rotate",
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where the operation runs.")] = "cpu",
    rounds: Annotated[int | None, typer.Option(help="How often each contestant takes its turn.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the CPU.")] = 2,
    only: Annotated[str, typer.Option(help="Only cases whose name contains this.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the figures as JSON lines.")] = None,
) -> None:
    """Time the rotation against its peers, which are installed and not rewritten; in a checkout of the repository.

    No figure is shown before the outputs agree with the oracle.
    """
    from typing import Literal

    from rich.console import Console

    from posenc.lab import bench as job
    from posenc.lab.run.config import Device, check_choice

    check_choice("bench", what, Literal["rotate", "model"])
    check_choice("--device", device, Device)
    chosen: dict[str, Any] = {"what": what, "device": device}
    job.bench(**chosen, rounds=rounds, threads=threads, only=only, output=out, console=Console())

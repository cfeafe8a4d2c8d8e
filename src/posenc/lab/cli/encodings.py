"""The verbs that show what posenc has: list, show, explore."""

from pathlib import Path
from typing import Annotated

import typer

from posenc.lab.cli.shared import Json, app, console_for, print_json
from posenc.lab.run.options import Verb, option


@app.command(name="list", cls=Verb)
def list_names(
    what: Annotated[
        str | None,
        typer.Argument(metavar="encodings|rules|positions", help="One of the lists.", show_default="all three"),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the encodings, the frequency rules and the position schemes, each in one line.

    Example:
      posenc list rules
    """
    from posenc.lab.encodings import listing as job

    lists = job.lists(what)
    if as_json:
        print_json(lists)
    else:
        job.show(lists, console_for())


@app.command(cls=Verb)
def show(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="An encoding, written as for [bold]posenc compare[/].")],
    out: Annotated[Path | None, option("Draw the encoding into this .png, .svg or .pdf.", "FILE", False)] = None,
    dim: Annotated[int, option("Channels of the model.", "N")] = 128,
    heads: Annotated[int, option("Query heads of the model.", "N")] = 4,
    length: Annotated[int, option("Number of positions to draw.", "N")] = 128,
    run: Annotated[Path | None, option("Use the weights from this run of posenc compare.", "RUN", False)] = None,
) -> None:
    """Draw one encoding, in the terminal and, with --out, into a file.

    Examples:
      posenc show rope --out rope.svg
      posenc show learned --run runs/latest
    """
    from posenc.lab.encodings import show as job

    job.show(spec, dim=dim, heads=heads, length=length, output=out, run=run, console=console_for())


@app.command(cls=Verb)
def explore(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A rotary encoding, or a model's folder, config.json or GGUF file.")
    ] = "rope",
    out: Annotated[Path, option("The page, an .html file.", "FILE")] = Path("explore.html"),
) -> None:
    """Write one page that shows the effect of RoPE's parameters, with controls to change them.

    Example:
      posenc explore Llama-3.2-1B/config.json --out llama.html
    """
    from posenc.lab.explore import job

    print(f"Page: {job.explore(target, out)}")

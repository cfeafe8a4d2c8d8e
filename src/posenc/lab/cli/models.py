"""The verbs that read what others made: inspect, check, diagnose, vectors, verify."""

from pathlib import Path
from typing import Annotated, Any

import typer

from posenc.lab.cli.shared import Json, Pairing, app, console_for, print_json
from posenc.lab.run.options import Verb, option

LONGEST = "the longest context that one of the two was made for"


@app.command(cls=Verb)
def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model's or pipeline's folder, a config.json, a GGUF file, or a package that ships one.",
        ),
    ],
    against: Annotated[str | None, option("Another model, to compare with the first.", "MODEL", False)] = None,
    to: Annotated[int | None, option("With --against: compare at positions up to N.", "N", LONGEST)] = None,
    plot: Annotated[
        Path | None,
        option("Draw the wavelengths, or the difference of the angles, into this .png, .svg or .pdf.", "FILE", False),
    ] = None,
    pairing: Pairing = None,
    as_json: Json = False,
) -> None:
    """Print the positional encoding of each layer of a model, and warn about settings known to be wrong.

    With --against, compare two checkpoints, such as a draft model and its target or a model before and after a
    conversion: print which settings differ, and the largest difference of the angles, in radians. Exit code 1 if they
    differ. Needs no network and reads no weights.

    Examples:
      posenc inspect Llama-3.2-1B/config.json --plot wavelengths.svg
      posenc inspect Llama-3.2-1B --against llama-3.2-1b.gguf --to 131072
    """
    from posenc.lab import against as comparing
    from posenc.lab import inspect as job
    from posenc.lab.checkpoint.read import read

    if against is None:
        if to is not None:
            raise ValueError(
                "--to: the option sets the length up to which two models are compared; give the second model with "
                "--against."
            )
        described = job.inspect(model, plot=plot, pairing=pairing, console=console_for(as_json))
        if as_json:
            print_json(job.as_data(described))
        return
    both: Any = [read(source, pairing=pairing) for source in (model, against)]
    found = comparing.compare(*both, to=to)
    if plot is not None:
        comparing.draw(found, plot)
    if as_json:
        print_json(comparing.as_data(found))
    else:
        comparing.show(found, console_for(), names=(model, against))
    raise typer.Exit(found.exit_code)


@app.command(cls=Verb)
def check(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's folder, a GGUF file, or a package that ships one.")
    ],
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the Python code in the model's folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Load a model with transformers, and compare its positional encoding with what its config says.

    Compares rates, softmax scales, pairing, and the lengths of learned tables, and prints what it did not compare, such
    as a bias of the scores (T5, ALiBi). Exit code 1 if there is a difference.

    Example:
      posenc check ./Llama-3.2-1B
    """
    from posenc.lab import check as job

    report = job.check(model, trust_remote_code=trust_remote_code)
    print_json(report) if as_json else print("\n".join(report.lines()))
    raise typer.Exit(report.exit_code)


@app.command(cls=Verb)
def diagnose(
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="[bold]module:function[/] or [bold]file.py:function[/]."),
    ],
    head_dim: Annotated[
        int | None, option("Channels of a head.", "N", "the first of 32, 64, 128, 16, 96, 80, 256 that works")
    ] = None,
    expect_pairing: Annotated[
        str | None, option("The expected pairing; any other is a fault.", "half|interleaved", False)
    ] = None,
    expect_direction: Annotated[
        str | None, option("The expected direction; the other is a fault.", "+|-", False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Call an unknown rotation, and print its pairing, direction, slice, scale and precision.

    The last line is the posenc code that builds the same rotation, or the reason why there is none. Exit code 1 if the
    function has faults.

    Example:
      posenc diagnose mine.py:apply_rotary --expect-pairing half
    """
    from posenc.lab import diagnose as job
    from posenc.lab.run.config import check_choice

    check_choice("--expect-pairing", expect_pairing, ("half", "interleaved"))
    check_choice("--expect-direction", expect_direction, ("+", "-"))
    expected: dict[str, Any] = {"expect_pairing": expect_pairing, "expect_direction": expect_direction}
    diagnosis = job.diagnose(target, head_dim=head_dim, **expected)
    if as_json:
        print_json(diagnosis)
    else:
        print("\n".join(diagnosis.lines()))
    raise typer.Exit(diagnosis.exit_code)


@app.command(cls=Verb)
def vectors(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A model's folder, a config.json, a GGUF file, or a package that ships one."
        ),
    ],
    out: Annotated[Path, option("A new folder for vectors.npz and vectors.json.", "DIR")],
    positions: Annotated[str, option("Positions of the tokens of q and k.", "P,P,...")] = "0,1,4095,131071",
    pairing: Pairing = None,
) -> None:
    """Write reference numbers that test other code for a model: rates, cos and sin, q and k before and after rotation.

    They are in float64, for each kind of layer, with its temperature and factors. vectors.json explains the formulas.

    Example:
      posenc vectors Llama-3.2-1B/config.json --positions 0,1,4095,131071 --out golden
    """
    from posenc.lab import vectors as job
    from posenc.lab.drawing.words import counted

    try:
        where = [int(each) for each in positions.split(",")]
    except ValueError:
        raise ValueError(f"--positions: got {positions!r}, expected whole numbers separated by commas.") from None
    written = job.write(model, out, where, pairing=pairing)
    print(f"{counted(len(written['kinds']), 'kind')} of layers: {out / job.NUMBERS}, {out / job.WORDS}")
    for text in written["left_out"]:
        print(f"left out: {text}")


@app.command(cls=Verb)
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that [bold]posenc vectors[/] wrote.")],
    against: Annotated[
        str,
        option(
            "[bold]module:function[/] or [bold]file.py:function[/], called as f(q, k, positions[, layer]).", "TARGET"
        ),
    ],
    as_json: Json = False,
) -> None:
    """Compare a function with the numbers of posenc vectors, and print what it does wrong. Exit code 1 if it differs.

    Example:
      posenc verify golden --against port.py:rotate
    """
    from posenc.lab import vectors as job

    verdicts = job.verify(folder, against)
    if as_json:
        print_json([verdict.as_data() for verdict in verdicts])
    else:
        print("\n".join(verdict.line() for verdict in verdicts))
    raise typer.Exit(int(any(verdict.differs for verdict in verdicts)))

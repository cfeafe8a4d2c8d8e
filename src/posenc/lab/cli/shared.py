"""What all verbs share: the app, the options that several take, and where each kind of output goes."""

import re
from typing import Annotated, Any

import typer

import posenc
from posenc.lab.run.config import check_choice
from posenc.lab.run.options import Verbs, option

EXIT_CODES = (
    "Exit codes: 0: done. 1: posenc refused or failed, with the reason on stderr, or found a difference. 2: wrong "
    "command line: an unknown verb or option, a missing or malformed argument. 70: a bug in posenc. 130: stopped by "
    "Ctrl-C, 143: by SIGTERM, 129: by SIGHUP; a stopped run keeps the work that it has done."
)

app = typer.Typer(
    name="posenc",
    cls=Verbs,
    help="Positional encodings for transformers, compared by measurement.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Json = Annotated[
    bool, typer.Option("--json", help="Print the results as JSON on stdout, and everything else on stderr.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a run: the first argument is its folder, "
                                      "by default the latest run.")]  # fmt: skip


def _pairing(value: str | None) -> str | None:
    check_choice("--pairing", value, ("half", "interleaved"))
    return value


Pairing = Annotated[
    str | None,
    option(
        "Which channels form a pair, for a model type that posenc does not know.",
        "half|interleaved",
        False,
        callback=_pairing,
    ),
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


def console_for(as_json: bool = False) -> Any:
    """Where people read: stderr if stdout is for JSON. What is piped is not cut to the width of a terminal."""
    from rich.console import Console

    console = Console(stderr=as_json, highlight=False)
    if console.is_terminal:
        return console
    return Console(file=_Unpadded(console.file), width=1000, highlight=False)  # type: ignore[arg-type]


class _Unpadded:
    """A stream without the blanks that fill the rows of a table up to its widest one."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(re.sub(r" +(?=\n)", "", text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def print_json(data: Any) -> None:
    """Print results on stdout for a script."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())

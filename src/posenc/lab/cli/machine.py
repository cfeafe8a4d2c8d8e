"""The verbs about this machine: build, bench."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from posenc.lab.cli.shared import app, console_for
from posenc.lab.run.options import Verb, option


@app.command(cls=Verb)
def build(
    into: Annotated[Path | None, option("Where to put the library.", "FOLDER", "the cache of this user")] = None,
) -> None:
    """Compile the CPU kernel now, with this machine's compiler, instead of at the first call."""
    from posenc.lab import build as job

    job.build(into=into, console=console_for())


@app.command(cls=Verb, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(ctx: typer.Context) -> None:
    """Time the rotation, attention and a whole model against other libraries, in a checkout of the repository.

    Passes all its arguments to benchmarks/command.py: [bold]posenc bench -- --help[/] shows its options.

    Examples:
      posenc bench rotate --rounds 20 --threads 2
      posenc bench --device cuda --out gpu.jsonl
    """
    import subprocess

    from posenc.lab.run.errors import RunError

    here, source = Path.cwd(), Path(__file__).resolve().parents[4]
    root = next((root for root in (here, source) if (root / "benchmarks" / "command.py").is_file()), None)
    if root is None:
        raise RunError(
            "posenc bench: the installed package does not contain the benchmarks; clone the repository and run posenc "
            "bench in its root"
        )
    raise typer.Exit(subprocess.run([sys.executable, "-m", "benchmarks.command", *ctx.args], cwd=root).returncode)

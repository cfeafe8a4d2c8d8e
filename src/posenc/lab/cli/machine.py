"""The verbs about this machine: build, bench."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from posenc.lab.cli.shared import app, console_for
from posenc.lab.run.options import Verb, option


@app.command(cls=Verb)
def build(
    into: Annotated[Path | None, option("The folder for the compiled libraries.", "FOLDER", "~/.cache/posenc")] = None,
) -> None:
    """Compile the kernels for the CPU now, with this machine's C++ compiler, instead of at their first call.

    After that posenc needs no compiler, for example in a container. The environment variable [bold]CXX[/] names the
    compiler, and [bold]POSENC_CACHE[/] names the folder that posenc uses instead of ~/.cache/posenc.

    Example:
      posenc build
    """
    from posenc.lab import build as job

    job.build(into=into, console=console_for())


@app.command(cls=Verb, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(ctx: typer.Context) -> None:
    """Measure the speed of the rotation, of attention and of a whole model, and of other libraries.

    Needs a checkout of the repository. [bold]posenc bench -- --help[/] shows its options.

    Examples:
      posenc bench rotate --rounds 20 --threads 2
      posenc bench --device cuda --out gpu.jsonl
    """
    import runpy

    from posenc.lab.run.errors import RunError

    here, source = Path.cwd(), Path(__file__).resolve().parents[4]
    root = next((root for root in (here, source) if (root / "benchmarks" / "command.py").is_file()), None)
    if root is None:
        raise RunError(
            "posenc bench: the installed package does not contain the benchmarks; clone the repository and run posenc "
            "bench in its root."
        )
    # In this process, so that a signal reaches it and that it ends in its own time, in the folder of the caller.
    sys.path.insert(0, str(root))
    sys.argv[1:] = ctx.args
    runpy.run_module("benchmarks.command", run_name="__main__", alter_sys=True)

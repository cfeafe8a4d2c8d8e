"""The options of ``posenc compare``, as the command line and Python give them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from posenc.lab.compare.text.presets import PRESETS

SIZES = "Sizes, where they differ from the preset's"
WHERE = "Where and how"


def _size(said: str, metavar: str = "N", *, section: str = "train", default: str = "") -> Any:
    """The option of a size. Its help shows the ``default`` of each preset, the field of a ``section`` of it."""
    shown = [f"{getattr(getattr(preset, section), default):g} for {key}" for key, preset in PRESETS.items() if default]
    return typer.Option(metavar=metavar, help=said, rich_help_panel=SIZES, show_default=", ".join(shown) or True)


def _encodings(incomplete: str) -> list[str]:
    """The names that complete a SPEC."""
    from posenc.catalogue import CATALOGUE

    return [row.name for row in CATALOGUE if row.name.startswith(incomplete)]


@dataclass(frozen=True)
class Request:
    """A run of ``posenc compare``. What is None is as the preset says.

    ``model`` and ``train`` replace fields of the preset's :class:`ModelConfig` and :class:`TrainConfig`, or of the
    :class:`Sizes` of a task, those among them that no option of the command line sets.
    """

    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC",
            help="Encodings: [bold]rope[/], [bold]rope:pairing=interleaved[/], [bold]mine.py:Mine[/] (your own class), "
            "[bold]mine.py:Mine:width=3[/]. [bold]posenc list[/] shows the names.",
            show_default="the preset's, from none to alibi",
            autocompletion=_encodings,
        ),
    ] = field(default_factory=list)
    preset: Annotated[
        str,
        typer.Option(
            metavar="|".join(PRESETS),
            help="[bold]quick[/] takes minutes on 2 cores; [bold]standard[/] up to an hour, with 3 seeds.",
        ),
    ] = "quick"
    texts: Annotated[
        list[Path],
        typer.Option(
            "--text",
            metavar="FILE...",
            help="Your own text. The last tenth of each file is held out.",
            show_default="novels that ship",
        ),
    ] = field(default_factory=list)
    vocabulary: Annotated[
        str | None,
        typer.Option(
            metavar="bytes|N",
            help="Bytes, or a vocabulary of N byte pairs that is learned from the text.",
            show_default="bytes",
        ),
    ] = None
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Train each encoding with the seeds 0 to N - 1.",
            show_default=", ".join(f"{preset.seeds} for {name}" for name, preset in PRESETS.items()),
        ),
    ] = None
    steps: Annotated[int | None, _size("Training steps.", default="steps")] = None
    length: Annotated[int | None, _size("Trained length in tokens.", default="length")] = None
    lengths: Annotated[
        str | None, _size("Several trained lengths, each trained with each encoding; not for text.", "N,N,...")
    ] = None
    batch: Annotated[int | None, _size("Windows in a step.", default="batch")] = None
    learning_rate: Annotated[float | None, _size("The highest learning rate.", "X", default="learning_rate")] = None
    dim: Annotated[int | None, _size("Channels of the model.", section="model", default="dim")] = None
    layers: Annotated[int | None, _size("Layers.", section="model", default="num_layers")] = None
    heads: Annotated[int | None, _size("Heads.", section="model", default="num_heads")] = None
    warmup: Annotated[int | None, _size("Steps in which the learning rate rises.")] = None
    weight_decay: Annotated[float | None, _size("Weight decay of AdamW.", "X")] = None
    dropout: Annotated[float | None, _size("Dropout in training; not for text.", "X")] = None
    task: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE.py:Class",
            help="What is learned: text, translation, summarisation, retrieval, arithmetic, images, generation, video, "
            "or your own.",
        ),
    ] = "text"
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Trials side by side.",
            rich_help_panel=WHERE,
            show_default="one for each core, or GPU",
        ),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Threads of each trial. The same number of threads gives the same results.",
            rich_help_panel=WHERE,
            show_default="cores / jobs",
        ),
    ] = None
    backend: Annotated[
        str,
        typer.Option(
            metavar="loky|ray|dask",
            help="Processes here (loky), or a cluster: Ray by RAY_ADDRESS, Dask by DASK_SCHEDULER_ADDRESS. The run "
            "folder must be on a disk that all machines share.",
            rich_help_panel=WHERE,
        ),
    ] = "loky"
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="RUN",
            help="The folder of the run.",
            rich_help_panel=WHERE,
            show_default="runs/<date-time>-<preset>",
        ),
    ] = None
    model: Mapping[str, int] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)

    def several_lengths(self) -> list[int]:
        """The trained lengths of ``--lengths``; none if it was not given."""
        words = [] if self.lengths is None else self.lengths.split(",")
        if any(not word.strip().isdecimal() or int(word) < 1 for word in words):
            raise ValueError(f"--lengths: got {self.lengths!r}, expected numbers with commas, such as 64,128.")
        return [int(word) for word in words]

    def refuse(self, *options: str, why: str) -> None:
        """Refuse options that have no meaning for the task.

        Raises:
            ValueError: one of them is not as by default.
        """
        if given := sorted(name for name in options if getattr(self, name) != getattr(Request(), name)):
            words = ", ".join("--text" if name == "texts" else f"--{name}" for name in given)
            raise ValueError(f"--task {self.task}: got {words}, {why}.")

    def model_sizes(self) -> dict[str, int]:
        """What replaces the preset's sizes of the model."""
        sizes = {"dim": self.dim, "num_layers": self.layers, "num_heads": self.heads}
        return {**{name: size for name, size in sizes.items() if size is not None}, **self.model}

    def train_sizes(self) -> dict[str, Any]:
        """What replaces the preset's settings of the training."""
        names = ("steps", "length", "batch", "learning_rate", "warmup", "weight_decay", "dropout")
        sizes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**sizes, **self.train}

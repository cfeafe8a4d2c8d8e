"""The options of ``posenc compare``, as the command line and Python give them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from posenc.lab.compare.text.presets import PRESETS
from posenc.lab.run.config import Backend, check_choice
from posenc.lab.run.options import command_of, option
from posenc.lab.run.signals import cores

SIZES = "Sizes that replace those of the preset"
WHERE = "Where and how"
MODEL = ("dim", "num_layers", "num_heads")
TRAIN = ("steps", "length", "batch", "learning_rate", "warmup", "weight_decay", "dropout")
SEEDS = ", ".join(f"{preset.seeds} for {name}" for name, preset in PRESETS.items())


def _size(said: str, metavar: str = "N", *names: str, section: str = "train", default: str = "") -> Any:
    """An option for a size. Its help shows each preset's default: the field ``default`` of its ``section``."""
    shown = [f"{getattr(getattr(preset, section), default):g} for {key}" for key, preset in PRESETS.items() if default]
    return option(said, metavar, ", ".join(shown) or True, *names, where=SIZES)


def _encodings(incomplete: str) -> list[str]:
    """The names of encodings, for shell completion of a SPEC."""
    from posenc.catalogue import CATALOGUE

    return [row.name for row in CATALOGUE if row.name.startswith(incomplete)]


@dataclass(frozen=True)
class Request:
    """A run of ``posenc compare``. A field that is None takes the value of the preset.

    ``train`` replaces fields of the preset's :class:`TrainConfig`, or of the :class:`Sizes` of a task, which no option
    of the command line sets.
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
        option("[bold]quick[/] takes minutes on 2 cores; [bold]standard[/] takes up to an hour.", "|".join(PRESETS)),
    ] = "quick"
    texts: Annotated[
        list[Path],
        option("Your own text. The last tenth of each file is held out.", "FILE...", "novels that ship", "--text"),
    ] = field(default_factory=list)
    vocabulary: Annotated[
        str | None,
        option("Tokens: bytes, or a byte-pair vocabulary of N tokens learned from the text.", "bytes|N", "bytes"),
    ] = None
    seeds: Annotated[
        int | None,
        option("Train each encoding with the seeds 0 to N - 1.", "N", SEEDS, min=1),
    ] = None
    steps: Annotated[int | None, _size("Training steps.", default="steps")] = None
    length: Annotated[int | None, _size("Trained length in tokens.", default="length")] = None
    lengths: Annotated[
        str | None, _size("Several trained lengths: each encoding is trained at each of them; not for text.", "N,N,...")
    ] = None
    batch: Annotated[
        int | None, _size("Number of windows of text, or of examples, in a training step.", default="batch")
    ] = None
    learning_rate: Annotated[float | None, _size("The highest learning rate.", "X", default="learning_rate")] = None
    dim: Annotated[int | None, _size("Channels of the model.", section="model", default="dim")] = None
    num_layers: Annotated[
        int | None, _size("Number of layers.", "N", "--layers", section="model", default="num_layers")
    ] = None
    num_heads: Annotated[
        int | None, _size("Number of attention heads.", "N", "--heads", section="model", default="num_heads")
    ] = None
    warmup: Annotated[
        int | None,
        _size("Steps in which the learning rate rises; by default 50 for text; each other task has a default."),
    ] = None
    weight_decay: Annotated[
        float | None, _size("Weight decay of AdamW; by default 0.1 for text, 0.01 for other tasks.", "X")
    ] = None
    dropout: Annotated[float | None, _size("Probability of dropout in training; by default 0; not for text.", "X")] = (
        None
    )
    task: Annotated[
        str,
        option(
            "What the models learn: text, translation, summarisation, retrieval, arithmetic, images, generation, "
            "video, or your own task.",
            "NAME|FILE.py:Class",
        ),
    ] = "text"
    jobs: Annotated[
        int | None,
        option("Number of trials that run at the same time.", "N", "one for each core, or GPU", where=WHERE, min=1),
    ] = None
    threads: Annotated[
        int | None,
        option(
            "Threads of each trial. The same number of threads gives the same results.",
            "N",
            "cores / jobs",
            where=WHERE,
            min=1,
        ),
    ] = None
    backend: Annotated[
        str,
        option(
            "Local processes (loky), or the cluster of Ray at RAY_ADDRESS or of Dask at DASK_SCHEDULER_ADDRESS. All "
            "machines of a cluster must share the disk of the run folder.",
            "loky|ray|dask",
            where=WHERE,
        ),
    ] = "loky"
    folder: Annotated[
        Path | None, option("The folder of the run.", "RUN", "runs/<date-time>-<preset>", "--out", where=WHERE)
    ] = None
    train: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("--backend", self.backend, get_args(Backend))
        check_choice("--preset", self.preset, PRESETS)

    def labelled(self, usual: Sequence[str], label: Callable[[str], str]) -> dict[str, str]:
        """The specs by label; without specs, the ``usual`` ones.

        Raises:
            ValueError: two specs have the same label.
        """
        found: dict[str, str] = {}
        for spec in self.specs or usual:
            if (name := label(spec)) in found:
                raise ValueError(f"{name!r} names two encodings of this run; give each once, with different options.")
            found[name] = spec
        return found

    def numbered_seeds(self, usual: int) -> tuple[int, ...]:
        """The seeds; ``usual`` is their number if the request gives none."""
        seeds = usual if self.seeds is None else self.seeds
        if seeds < 1:
            raise ValueError(f"--seeds: got {seeds}, expected at least 1.")
        return tuple(range(seeds))

    def side_by_side(self, trials: int, processors: int) -> tuple[int, int]:
        """The number of jobs and of threads; by default one trial for each processor."""
        jobs = self.jobs or min(trials, processors)
        return jobs, self.threads or max(1, cores() // jobs)

    def command(self, threads: int) -> str:
        """The command that repeats the run, with the same number of threads, on which the results depend."""
        return command_of("compare", replace(self, threads=threads, folder=None, jobs=None))

    def several_lengths(self) -> list[int]:
        """The trained lengths of ``--lengths``; empty if the option was not given."""
        words = [] if self.lengths is None else self.lengths.split(",")
        if any(not word.strip().isdecimal() or int(word) < 1 for word in words):
            raise ValueError(f"--lengths: got {self.lengths!r}, expected numbers separated by commas, such as 64,128.")
        return [int(word) for word in words]

    def refuse(self, *options: str, why: str) -> None:
        """Refuse options that have no meaning for the task.

        Raises:
            ValueError: one of these options differs from its default.
        """
        if given := sorted(name for name in options if getattr(self, name) != getattr(Request(), name)):
            words = ", ".join("--text" if name == "texts" else f"--{name}" for name in given)
            raise ValueError(f"--task {self.task}: got {words}, {why}.")

    def sizes(self, *names: str) -> dict[str, Any]:
        """Those of these sizes that replace the preset's."""
        return {name: size for name in names if (size := getattr(self, name)) is not None}

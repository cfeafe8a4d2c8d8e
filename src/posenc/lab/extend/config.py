"""The configuration of a run of ``posenc extend``, and the layout of its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posenc.lab.run import folder as runs
from posenc.lab.run.config import read_config, to_dict

KIND = "extend"

RULES = "rules"
"""The folder that has one folder for each rule."""
CANDIDATE = "candidate.json"
PROBE = "probe.json"
PASS = "pass.safetensors"
WINDOWS = "windows.safetensors"
SEARCH = "search.json"
TUNED = "tuned"
"""The rule's folder of a model that was trained on, with what the training left."""
TUNING = "tuning.json"
"""The configuration of the training, written at its first step."""
TUNE_REPORT = "tune.json"
"""What the training did, when all its steps are done."""


@dataclass(frozen=True)
class ExtendConfig:
    """A whole run, as RUN/config.json holds it.

    Attributes:
        model: the model as it was named.
        label: its short name.
        files: its files by name, with the size and a digest of samples of each: it must not change within a run.
        positions: how it tells them, "rotary" or "learned".
        trained_length: tokens that it was trained with.
        length: tokens that are wanted.
        rotary_dim: rotated channels of a head, if rotary.
        head_dim: all channels of a head.
        text: name, size and digest of each file of the text.
        rules: the names of the candidates, in order; the first is "none".
        chosen: whether the user named them, in which case each gets the full pass.
        search: steps of the search for LongRoPE factors; 0 for no search.
        full: how many of the best get the full pass, besides "none".
        retrieval: whether passkey and needle are asked for.
        dtype: of the weights, as asked for.
        threads: of the CPU; sums over threads round differently.
        seed: of the search and the retrieval tasks.
        device: "cpu" or "cuda".
        trust_remote_code: whether code of the model may run.
        versions: of the packages whose numbers these are.
        command: the command that makes the same run again.
        factors: whether its own rule has a factor for each rate, as Llama 3's, which a GGUF file stores as such.
    """

    model: str
    label: str
    files: Mapping[str, Any]
    positions: str
    trained_length: int
    length: int
    rotary_dim: int | None
    head_dim: int
    text: tuple[Mapping[str, Any], ...]
    rules: tuple[str, ...]
    chosen: bool
    search: int
    full: int
    retrieval: bool
    dtype: str
    threads: int
    seed: int
    device: str
    trust_remote_code: bool
    versions: Mapping[str, str]
    command: str = ""
    factors: bool = False

    def to_dict(self) -> dict[str, Any]:
        return to_dict(KIND, self)


def load_config(run: Path) -> ExtendConfig:
    """The configuration of a run, from its folder."""
    return read_config(run / runs.CONFIG, ExtendConfig, KIND)


def rule_folder(run: Path, name: str) -> Path:
    """Where what was measured of a rule lies: "yarn:2" in RUN/rules/yarn-2."""
    return run / RULES / name.replace(":", "-")


def retrieval_file(run: Path, name: str, task: str) -> Path:
    """The answers of one task with a rule: a file for each, so that a stop loses one task at most."""
    return rule_folder(run, name) / f"retrieval-{task}.json"

"""The configuration of a run of ``posenc extend``, and the names in its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posenc.lab.run import folder as runs
from posenc.lab.run.config import read_config, to_dict

KIND = "extend"

RULES = "rules"
"""The folder that contains one folder for each rule."""
CANDIDATE = "candidate.json"
PROBE = "probe.json"
PASS = "pass.safetensors"
WINDOWS = "windows.safetensors"
SEARCH = "search.json"
TUNED = "tuned"
"""The folder, within the rule's, of a model after further training, with the files of the training."""
TUNING = "tuning.json"
"""The configuration of the training, written at its first step."""
TUNE_REPORT = "tune.json"
"""The report of the training, written after its last step."""


@dataclass(frozen=True)
class ExtendConfig:
    """A whole run, as stored in RUN/config.json.

    Attributes:
        model: the model: the absolute path of a folder or file, or the name of a package.
        label: its short name.
        files: its files by name, with size and a digest of samples: they must not change within a run.
        positions: the kind of its positional encoding, "rotary" or "learned".
        trained_length: tokens that it was trained with.
        length: the wanted length in tokens.
        rotary_dim: rotated channels of a head, if rotary.
        head_dim: all channels of a head.
        text: name, size and digest of each file of the text.
        rules: the names of the candidates, in order; the first is "none".
        chosen: whether the user named the rules; each then gets the full pass.
        search: steps of the search for LongRoPE factors; 0 for no search.
        full: number of the best rules that get the full pass, besides "none".
        retrieval: whether the passkey and needle tests run.
        dtype: of the weights, as asked for.
        threads: of the CPU; sums over threads round differently.
        seed: of the search and the retrieval tasks.
        device: "cpu" or "cuda".
        trust_remote_code: whether code of the model may run.
        versions: of the packages that compute the results.
        command: the command that makes the same run again.
        factors: whether its own rule has a factor for each rate, as Llama 3's; a GGUF file stores the factors.
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
    """Read the configuration of a run from its folder."""
    return read_config(run / runs.CONFIG, ExtendConfig, KIND)


def rule_folder(run: Path, name: str) -> Path:
    """The folder with the measurements of a rule: RUN/rules/yarn-2 for "yarn:2"."""
    return run / RULES / name.replace(":", "-")


def retrieval_file(run: Path, name: str, task: str) -> Path:
    """The file with the answers of one task with a rule; with one file per task, a stop loses at most one task."""
    return rule_folder(run, name) / f"retrieval-{task}.json"

"""A model with its new rule, as a folder that plain transformers loads."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from posenc.frequencies import Frequencies
from posenc.lab.checkpoint.open import Checkpoint, quietly
from posenc.lab.extend.candidates import Setting
from posenc.lab.extend.measure import ruled
from posenc.lab.run.errors import RunError
from posenc.lab.run.folder import LOCK, sync

Perplexities = Mapping[str, Mapping[str, float]]
"""Of each rule, by its name, the perplexity of each range of positions."""


def save(
    checkpoint: Checkpoint,
    rule: Setting,
    folder: Path,
    *,
    length: int,
    name: str | None = None,
    tuned: bool = False,
    perplexities: Perplexities | None = None,
) -> None:
    """Write the model with a rule: config, safetensors, tokenizer and a card, the whole folder or none of it.

    transformers loads it without posenc and computes the same logits, bit for bit. The numbers are written in the type
    that the model is loaded in, which is the one that was measured.

    Args:
        checkpoint: the model; it is left as it is.
        rule: what :func:`posenc.integrations.transformers.extend` takes, or None to leave the model's own.
        folder: where to; it must not exist, or be empty.
        length: tokens that the model is to take.
        name: what the card calls the rule.
        tuned: whether its weights were trained since it was opened, for the card.
        perplexities: what was measured, for the card.

    Raises:
        RunError: the folder holds something, the disk is too full, the rule has no words in transformers, or
            transformers would not load the model as it is here.
    """
    check_loads(checkpoint)
    check_free(folder, checkpoint)
    folder = folder.resolve()  # a link stays, and leads to the model
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _partial(folder) as partial:
            with quietly(), _set(checkpoint, rule, length):
                checkpoint.model.save_pretrained(partial)
                checkpoint.tokenizer.save_pretrained(partial)
            _allow(partial / "tokenizer_config.json", length)
            card = _card(checkpoint, rule, length, name, tuned, perplexities)
            (partial / "README.md").write_text(card, encoding="utf-8")
            for file in [*(path for path in partial.rglob("*") if path.is_file()), partial]:
                sync(file)
            (partial / LOCK).unlink()  # no part of the model
            partial.replace(folder)
    except SafetensorError as error:
        raise RunError(
            f"{folder}: the weights cannot be written ({error}); free some room, or name another."
        ) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
    sync(folder.parent)


@contextlib.contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """An empty folder beside the one to be made, which this process alone writes to.

    What a process that was killed left in it is removed, and so is the folder at the end, if it is still there.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(exist_ok=True)
    lock = FileLock(partial / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(f"{folder}: another process is saving there; wait for it, or name another folder.") from error
    try:
        for path in partial.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield partial
    finally:
        lock.release()
        shutil.rmtree(partial, ignore_errors=True)


def check_free(folder: Path, checkpoint: Checkpoint | None = None) -> None:
    """Refuse a folder that holds something, before hours of work; and a disk without room for the model.

    Raises:
        RunError: as said.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder}: there is something already, and nothing is overwritten; name another folder.")
    home = next(parent for parent in folder.absolute().parents if parent.exists())
    needed = 0 if checkpoint is None else sum(part.nbytes for part in checkpoint.model.state_dict().values())
    if (free := shutil.disk_usage(home).free) < needed:
        raise RunError(f"{folder}: the model takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there.")


def check_loads(checkpoint: Checkpoint) -> None:
    """Refuse a model that transformers would load otherwise than it is measured.

    Raises:
        RunError: as said.
    """
    if checkpoint.unset:
        import transformers

        raise RunError(
            f"--save: transformers {transformers.__version__} leaves the rotary rates of this model's own code unset "
            "as it loads it, so it would compute nonsense, as the original does; fill inv_freq in its _init_weights, "
            "or leave --save out."
        )


def _set(checkpoint: Checkpoint, rule: Setting, length: int) -> contextlib.AbstractContextManager[Any]:
    try:
        return ruled(checkpoint.model, rule, length)
    except (ValueError, TypeError) as error:
        raise RunError(f"{checkpoint.preview.source}: {error}") from error


def _allow(path: Path, length: int) -> None:
    """Let the tokenizer take as many tokens, so that it does not warn of the old length."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("model_max_length", length) < length:
        path.write_text(json.dumps({**config, "model_max_length": length}, indent=2) + "\n", encoding="utf-8")


def _card(
    checkpoint: Checkpoint, rule: Setting, length: int, name: str | None, tuned: bool, perplexities: Perplexities | None
) -> str:
    label = name or (f"`{rule}`" if isinstance(rule, Frequencies) else rule or "none")
    table = ", but for the longer table of positions" if rule == "interpolate" else ""
    lines = [
        f"# {checkpoint.label}, for {length} tokens",
        "",
        f"{checkpoint.label} was trained with {checkpoint.trained_length} tokens. Here its positions follow the rule "
        f"{label}, set by `posenc extend`. Its weights "
        + ("were fine-tuned since." if tuned else f"are those of the original{table}."),
    ]
    if name and isinstance(rule, Frequencies):
        lines += ["", f"The rule in full: `{rule}`."]
    if perplexities:
        ranges = list(dict.fromkeys(name for row in perplexities.values() for name in row))
        lines += ["", "Perplexity by the position of the token:", ""]
        lines += ["| rule | " + " | ".join(ranges) + " |", "|---" * (len(ranges) + 1) + "|"]
        for title, row in perplexities.items():
            cells = [f"{row[name]:.4g}" if name in row else "" for name in ranges]
            lines.append("| " + " | ".join([title, *cells]) + " |")
    return "\n".join(lines) + "\n"

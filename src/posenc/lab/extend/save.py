"""Saves a model with its new rule, as a folder that plain transformers loads."""

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
"""For each rule, by name, the perplexity of each range of positions."""


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
    """Write the model with a rule: config, safetensors, tokenizer and model card; the whole folder or nothing.

    transformers loads it without posenc and computes the same logits, bit for bit. The weights are written in the dtype
    of the loaded model, which is the dtype that was measured.

    Args:
        checkpoint: the model; it is not changed.
        rule: an argument for :func:`posenc.integrations.transformers.extend`, or None to keep the model's own rule.
        folder: the target folder; it must not exist, or must be empty.
        length: tokens that the model should read.
        name: the name of the rule on the model card.
        tuned: whether its weights were trained since it was opened, for the card.
        perplexities: the measured perplexities, for the card.

    Raises:
        RunError: the folder is not empty, the disk is too full, configs of transformers cannot express the rule, or
            transformers would load the model differently.
    """
    check_loads(checkpoint)
    check_free(folder, checkpoint)
    folder = folder.resolve()  # a link is kept, and points to the model
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
            (partial / LOCK).unlink()  # not part of the model
            partial.replace(folder)
    except SafetensorError as error:
        raise RunError(
            f"{folder}: the weights cannot be written ({error}); free some disk space, or name another folder."
        ) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
    sync(folder.parent)


@contextlib.contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """An empty folder beside the target folder, to which only this process writes.

    Files of a killed process in it are removed. So is the folder at the end, if it still exists.
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
    """Refuse, before hours of work, a folder that is not empty, or a disk without enough space for the model.

    Raises:
        RunError: see above.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: there is a file where a new folder is needed; name another folder.")
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder}: the folder is not empty, and posenc overwrites nothing; name another folder.")
    home = next(parent for parent in folder.absolute().parents if parent.exists())
    needed = 0 if checkpoint is None else sum(part.nbytes for part in checkpoint.model.state_dict().values())
    if (free := shutil.disk_usage(home).free) < needed:
        raise RunError(
            f"{folder}: the model takes {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free there; free some "
            "space, or name a place on another disk."
        )


def check_loads(checkpoint: Checkpoint) -> None:
    """Refuse a model that transformers would load differently from the measured one.

    Raises:
        RunError: see above.
    """
    if checkpoint.unset:
        import transformers

        raise RunError(
            f"--save: transformers {transformers.__version__} does not set the rotary rates of this model's own code "
            "when it loads the model, so the saved model would compute wrong results, as the original model does; set "
            "inv_freq in the _init_weights of that code, or leave --save out."
        )


def _set(checkpoint: Checkpoint, rule: Setting, length: int) -> contextlib.AbstractContextManager[Any]:
    try:
        return ruled(checkpoint.model, rule, length)
    except (ValueError, TypeError) as error:
        raise RunError(f"{checkpoint.preview.source}: {error}") from error


def _allow(path: Path, length: int) -> None:
    """Raise the tokenizer's maximum length, so that it does not warn of the old one."""
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

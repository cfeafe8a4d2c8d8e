"""Small models and runs, made for the reliability tests."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PROSE = "It was the best of times, it was the worst of times; it was the age of wisdom and of foolishness. "


def in_a_child(work: Callable[[], Any]) -> int:
    """The process id of a child that does the work, in silence, and ends."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        torch.set_num_threads(1)
        work()
    except BaseException as error:
        Path(os.environ.get("POSENC_CHILD_ERROR", os.devnull)).write_text(repr(error))
        os._exit(1)
    os._exit(0)


def wait(child: int) -> int:
    """Its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def request(folder: Path, text: Path) -> Any:
    """Two trials of 40 steps, with a checkpoint after every five."""
    from posenc.lab.compare.text.job import Request

    return Request(
        specs=("none", "rope"),
        texts=[text],
        dim=16,
        num_layers=1,
        num_heads=2,
        train={"length": 8, "batch": 4, "steps": 40, "warmup": 5, "log_every": 5, "checkpoint_every": 5},
        threads=1,
        jobs=1,
        folder=folder,
    )


def finish(run: Path) -> None:
    from rich.console import Console

    from posenc.lab.compare.text import job

    with open(os.devnull, "w") as nothing:
        job.finish(run, Console(file=nothing), jobs=1)


def prose(folder: Path) -> Path:
    path = folder / "prose.txt"
    path.write_text(PROSE * 100)
    return path


def llama() -> Any:
    """A random Llama of two layers, the same each time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads)).eval()


def checkpoint(folder: Path) -> Any:
    """The same as a folder with a tokenizer of bytes, opened."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from posenc.lab.checkpoint.open import open_checkpoint

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    llama().save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(folder)
    return open_checkpoint(folder)


def tune(folder: Path, tokens: Tensor, *, into: Path | None = None) -> None:
    """Train the Llama for eight steps, with a checkpoint after each; write its weights to ``into``."""
    from types import SimpleNamespace

    from safetensors.torch import save_file

    from posenc.lab.extend.tune import tune

    tiny = SimpleNamespace(model=llama())
    tune(
        tiny, None, tokens, folder=folder, length=256, steps=8, window=32, batch=2, method="full", learning_rate=3e-3,
        checkpoint_every=1,
    )  # fmt: skip
    if into is not None:
        state = {name: value.clone() for name, value in tiny.model.state_dict().items() if name != "lm_head.weight"}
        save_file(state, into)


def numbers(run: Path) -> list[dict[str, Any]]:
    """The rows of all trials without what a clock measured."""
    from posenc.lab.run.folder import METRICS, Metrics

    clock = ("seconds", "tokens_per_second", "steps_per_second")
    rows = [row for name in ("none", "rope") for row in Metrics(run / f"{name}-seed0" / METRICS).rows()]
    return [{key: value for key, value in row.items() if key not in clock} for row in rows]


if __name__ == "__main__":
    sys.exit("python -m tests.reliability")

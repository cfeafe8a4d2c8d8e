"""Small runs, shared by the tests of the lab."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from posenc.lab.compare.text import job as compare
from posenc.lab.compare.text.trial import run_trial
from posenc.lab.compare.trial import Outcome
from posenc.lab.run import folder as runs

PROSE = "It was the best of times, it was the worst of times; it was the age of wisdom and of foolishness. "


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    """A text file of some thousand words."""
    path = tmp_path / "prose.txt"
    path.write_text(PROSE * 100)
    return path


@pytest.fixture
def prepare(tmp_path: Path, prose: Path) -> Callable[..., Path]:
    """Makes the folder of a tiny run, ready for its trials."""

    def make(*specs: str, name: str = "run", train: dict[str, Any] | None = None, **options: Any) -> Path:
        sizes = {"length": 8, "batch": 4, "steps": 40, "warmup": 5, "log_every": 5, "checkpoint_every": 10}
        request = compare.Request(
            specs=specs,
            texts=[prose],
            dim=16,
            num_layers=1,
            num_heads=2,
            train=sizes | (train or {}),
            threads=1,
            jobs=1,
            folder=tmp_path / name,
            **options,
        )
        return compare.prepare(request)

    return make


@pytest.fixture
def finish_trial() -> Callable[[Path], Outcome]:
    """Runs a trial here, in this process."""
    return lambda folder: run_trial(str(folder), device="cpu", parent=os.getpid())


@pytest.fixture
def numbers() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads the rows of a trial's metrics without what a clock measured."""

    def read(folder: Path) -> list[dict[str, Any]]:
        clock = ("seconds", "tokens_per_second", "steps_per_second")
        rows = runs.Metrics(folder / runs.METRICS).rows()
        return [{key: value for key, value in row.items() if key not in clock} for row in rows]

    return read


@pytest.fixture
def posenc_command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls the command as a user does, in an empty folder."""

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "posenc.lab", *map(str, arguments))
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    return call


@pytest.fixture
def tiny(prose: Path) -> tuple[str, ...]:
    """Options that make a run a matter of seconds."""
    sizes = ("--dim=16", "--layers=1", "--heads=2", "--length=8", "--batch=4", "--steps=40")
    return (*sizes, "--threads=1", f"--text={prose}")


@pytest.fixture
def tiny_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny random model of transformers, trained on 256 tokens by its config, with a tokenizer of bytes."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
    transformers = pytest.importorskip("transformers", reason="posenc[transformers] is not installed")
    import tokenizers

    def make(name: str = "tiny", *, learned: bool = False, template: bool = False, **changes: Any) -> Path:
        folder = tmp_path / name
        torch.manual_seed(0)
        if learned:
            sizes = {"vocab_size": 257, "n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 2}
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes | changes))
        else:
            sizes = {"vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
            heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256}
            config = transformers.LlamaConfig(**sizes | heads | {"initializer_range": 0.2} | changes)
            model = transformers.LlamaForCausalLM(config)
        model.save_pretrained(folder)
        letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
        inner = tokenizers.Tokenizer(tokenizers.models.BPE({letter: at for at, letter in enumerate(letters)}, []))
        inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = tokenizers.decoders.ByteLevel()
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="\u0120")
        if template:
            tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}\n"
        tokenizer.save_pretrained(folder)
        return folder

    return make


LLAMA: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    "tie_word_embeddings": True,
}
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of bytes, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


@pytest.fixture
def llama(tmp_path: Path) -> Callable[..., Path]:
    """Makes the folder of a tiny Llama."""

    def make(name: str = "tiny", dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        folder = tmp_path / name
        model = LlamaForCausalLM(LlamaConfig(**{**LLAMA, "initializer_range": 0.3, **changes})).to(dtype)
        model.save_pretrained(folder)
        save_tokenizer(folder)
        return folder

    return make


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    """The folder of a tiny GPT-2, which has a learned table."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    folder = tmp_path / "gpt2"
    GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=32, n_embd=32, n_layer=2, n_head=4)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder

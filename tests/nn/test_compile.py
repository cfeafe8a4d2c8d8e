"""A whole decoder under torch.compile: one graph for all lengths, and one more for the steps of decoding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import posenc
from posenc.catalogue import names
from posenc.frequencies import DynamicNTK, LongRoPE
from posenc.nn import Transformer

DIM, HEADS, LENGTH = 16, 4, 40
ROTATION = {"head_dim": DIM // HEADS}
OPTIONS: dict[str, dict[str, Any]] = {
    **{"normalized": {"length": LENGTH}, "learned": {"length": LENGTH}, "tupe": {"length": LENGTH}},
    **{"swin": {"window": (2, 20)}, "swin_v2": {"window": (2, 20), "width": 4}, "learned_grid": {"grid": (5, 8)}},
    **{"cope": {"length": 8}, "fire": {"width": 4}, "mrope": {"sections": (2, 0, 0)}},
    "fope": {"trained_length": 7},
    **{"temperature": {"form": "log", "length": 4}},
}
MORE: dict[str, Callable[[], posenc.Encoding | posenc.PerLayer]] = {
    "two places": lambda: posenc.Compose(posenc.Sinusoidal(DIM), posenc.RoPE(4), posenc.ALiBi(HEADS)),
    "a temperature": lambda: posenc.Compose(posenc.RoPE(4), posenc.Temperature("log", length=4)),
    "dynamic": lambda: posenc.RoPE(4, frequencies=DynamicNTK(2.0, trained_length=8)),
    "longrope": lambda: posenc.RoPE(4, frequencies=LongRoPE([1.0, 1.0], [1.0, 4.0], trained_length=8, factor=4)),
    "per layer": lambda: posenc.PerLayer({"a": posenc.RoPE(4), "b": posenc.NoPE()}, pattern=["a", "b"], num_layers=2),
}
QUICK = ("rope", "alibi")


def encoding(name: str) -> posenc.Encoding | posenc.PerLayer:
    if name in MORE:
        return MORE[name]()
    return posenc.make(name, dim=DIM, num_heads=HEADS, **OPTIONS.get(name, {}))


def decoder(name: str) -> Transformer:
    torch.manual_seed(0)
    return Transformer(DIM, HEADS, 2, encoding(name), causal=True).eval()


class Counted:
    """A backend that counts its graphs and runs them as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@torch.no_grad()
def check(name: str) -> None:
    model, backend = decoder(name), Counted()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for length in range(5, 25):
        x = torch.randn(2, length, DIM)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    assert backend.graphs <= 2, f"{name}: {backend.graphs} graphs for 20 lengths"
    x = torch.randn(2, 24, DIM)
    whole, cache = model(x), model.new_cache()
    model(x[:, :4], cache=cache)
    backend = Counted()
    torch.compiler.reset()
    step = torch.compile(model, fullgraph=True, backend=backend)
    for t in range(4, 24):
        y = step(x[:, t : t + 1], cache=cache)
        if getattr(model.encoding, "keys_cacheable", True):
            torch.testing.assert_close(y, whole[:, t : t + 1], rtol=1e-4, atol=1e-5)
    assert backend.graphs <= 2, f"{name}: {backend.graphs} graphs for 20 steps"


@pytest.mark.parametrize("name", QUICK)
def test_a_decoder_has_at_most_two_graphs(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in (*names(), *MORE) if name not in QUICK])
def test_a_decoder_with_any_encoding_has_at_most_two_graphs(name: str) -> None:
    check(name)

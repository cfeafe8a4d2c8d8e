"""Every encoding under what runs the library besides plain eager torch: the same, and nothing is left behind."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.nn.test_compile import encoding
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import posenc
from posenc.testing.candidate import Candidate

pytestmark = [
    # torch.func.jvp compiles its own decompositions by a function that torch calls deprecated.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),  # vmap over torch's own attention
]

NAMES = [*posenc.names(), "two places", "dynamic", "longrope"]
QUICK = ("none", "learned", "rope", "alibi", "shaw", "forgetting", "dynamic")


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


class Layer:
    """A layer around an encoding, and what it gives in plain torch."""

    def __init__(self, name: str) -> None:
        of = encoding(name)
        assert isinstance(of, posenc.Encoding)
        for parameter in of.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
        self.candidate = Candidate(of, None)
        self.x, self.positions = self.candidate.embeddings(6, dtype=torch.float32), torch.arange(6)
        self.expected = self(self.x, self.positions).detach()

    def __call__(self, x: Tensor, positions: posenc.positions.Positions) -> Tensor:
        return self.candidate.layer(x, positions)[0]

    def gradient(self) -> Tensor:
        x = self.x.clone().requires_grad_()
        self(x, self.positions).square().sum().backward()
        assert x.grad is not None
        return x.grad


def fake_tensors(layer: Layer) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert layer(torch.empty(layer.x.shape), torch.arange(6)).shape == layer.expected.shape


def meta_tensors(layer: Layer) -> None:
    on_meta = copy.copy(layer.candidate)
    on_meta.encoding = copy.deepcopy(layer.candidate.encoding).to("meta")
    on_meta.projections = {seed: weight.to("meta") for seed, weight in layer.candidate.projections.items()}
    for positions in (None, 3, layer.positions.to("meta")):
        y, _ = on_meta.layer(layer.x.to("meta"), positions)
        assert y.is_meta
        assert y.shape == layer.expected.shape


def tracers(layer: Layer) -> None:
    for mode in ("real", "symbolic"):
        traced = make_fx(layer, tracing_mode=mode, _allow_non_fake_inputs=True)(layer.x, layer.positions)
        close(traced(layer.x, layer.positions), layer.expected)


def mapped_positions(layer: Layer) -> None:
    rows = torch.stack((layer.positions, layer.positions.flip(0)))
    got = torch.func.vmap(lambda p: layer(layer.x, p))(rows)
    close(got, torch.stack([layer(layer.x, row) for row in rows]))


def mapped_tokens(layer: Layer) -> None:
    batches = torch.stack((layer.x, -layer.x))
    got = torch.func.vmap(lambda x: layer(x, layer.positions))(batches)
    close(got, torch.stack([layer(x, layer.positions) for x in batches]))


def gradients(layer: Layer) -> None:
    got = torch.func.grad(lambda x: layer(x, layer.positions).square().sum())(layer.x)
    torch.testing.assert_close(got, layer.gradient(), rtol=1e-3, atol=1e-4)


def tangents(layer: Layer) -> None:
    tangent = torch.randn(layer.x.shape, generator=torch.Generator().manual_seed(1))
    _, got = torch.func.jvp(lambda x: layer(x, layer.positions).square().sum(), (layer.x,), (tangent,))  # type: ignore[misc]
    torch.testing.assert_close(got, (layer.gradient() * tangent).sum(), rtol=1e-3, atol=1e-3)


def inference_tensors(layer: Layer) -> None:
    with torch.inference_mode():
        close(layer(layer.x, layer.positions), layer.expected)
        x, positions = layer.x.clone(), layer.positions.clone()
    with torch.no_grad():
        close(layer(x, positions), layer.expected)
    layer.gradient()  # nothing that inference mode made is in the way


def expanded_and_overlapping(layer: Layer) -> None:
    close(layer(layer.x[:1].expand(3, -1, -1), layer.positions.expand(3, -1))[2], layer.expected[0])
    overlapping = torch.arange(7).as_strided((2, 6), (1, 1))
    if layer.candidate.encoding.max_positions is None or layer.candidate.encoding.max_positions > 6:
        close(layer(layer.x, overlapping)[1], layer(layer.x[1:], overlapping[1:].clone())[0])


def numbers_of_numpy(layer: Layer) -> None:
    close(layer(layer.x, np.int64(0)), layer.expected)  # type: ignore[arg-type]


RUNNERS: tuple[Callable[[Layer], None], ...] = (
    fake_tensors,
    meta_tensors,
    tracers,
    mapped_positions,
    mapped_tokens,
    gradients,
    tangents,
    inference_tensors,
    expanded_and_overlapping,
    numbers_of_numpy,
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]
)
def test_every_runner(name: str) -> None:
    layer = Layer(name)
    for runner in RUNNERS:
        try:
            runner(layer)
            close(layer(layer.x, layer.positions), layer.expected)  # it left nothing behind
        except Exception as error:
            error.add_note(f"{name} under {runner.__name__}")
            raise


@pytest.mark.parametrize("implementation", ["sdpa", "blocks", "cpu"])
def test_forward_mode_refuses_a_kernel_in_our_words(implementation: str) -> None:
    q = torch.randn(1, 2, 5, 4)
    with pytest.raises(ValueError, match="forward-mode derivatives"):
        torch.func.jvp(lambda q: posenc.attention(q, q, q, implementation=implementation), (q,), (q,))  # type: ignore[arg-type]

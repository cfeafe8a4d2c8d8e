"""The exam, sat by every row of the catalogue, by variants of it, and by an encoding of a user's own."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import posenc
from posenc import testing
from posenc.oracle.embeddings import binary, integer, learned, normalized, sinusoidal
from posenc.oracle.queries_keys import rope
from posenc.oracle.scores import alibi


def added(codes: Callable[..., np.ndarray]) -> SimpleNamespace:
    """An oracle of place 1 from its codes."""
    return SimpleNamespace(on_embeddings=lambda x, positions: x + codes(positions))


def rotated(**options: object) -> SimpleNamespace:
    """An oracle of place 2 from RoPE's options."""

    def on_queries_keys(q: np.ndarray, k: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rope.rotate(q, positions, **options), rope.rotate(k, positions, **options)

    return SimpleNamespace(on_queries_keys=on_queries_keys)


def rates(dim: int, base: float = 10_000) -> np.ndarray:
    return base ** (-np.arange(0, dim, 2) / dim)


class Gauss(posenc.ScoreEncoding):
    """A user's own encoding: a learned width for each head."""

    relative = True

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.log_width = nn.Parameter(torch.linspace(0, 3, num_heads))

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        distance = (q_positions[..., :, None] - k_positions[..., None, :]).to(self.log_width.dtype)
        return -(distance[..., None, :, :] / self.log_width.exp()[:, None, None]).square()


LEARNED = posenc.Learned(dim=32, length=80)
T2T = 10_000 ** (-np.arange(16) / 15)

CASES: dict[str, tuple[posenc.Encoding, SimpleNamespace | None]] = {
    "none": (posenc.NoPE(), SimpleNamespace()),
    "integer": (posenc.Integer(dim=32), added(lambda p: integer.codes(p, dim=32))),
    "normalized": (posenc.Normalized(dim=32, length=64), added(lambda p: normalized.codes(p, dim=32, length=64))),
    "binary": (posenc.Binary(dim=32), added(lambda p: binary.codes(p, dim=32))),
    "sinusoidal": (posenc.Sinusoidal(dim=32), added(lambda p: sinusoidal.codes(p, inv_freq=rates(32)))),
    "sinusoidal as in tensor2tensor": (
        posenc.Sinusoidal(dim=32, frequencies=posenc.Tensor2Tensor(), order="concatenated"),
        added(lambda p: sinusoidal.codes(p, inv_freq=T2T, order="concatenated")),
    ),
    "learned": (LEARNED, added(lambda p: learned.codes(p, table=LEARNED.table.detach().numpy()))),
    "rope": (posenc.RoPE(head_dim=16), rotated(inv_freq=rates(16))),
    "rope interleaved": (
        posenc.RoPE(head_dim=16, pairing="interleaved"),
        rotated(inv_freq=rates(16), pairing="interleaved"),
    ),
    "rope on part of each head": (posenc.RoPE(head_dim=16, rotary_dim=6), rotated(inv_freq=rates(6))),
    "rope with another base": (
        posenc.RoPE(head_dim=16, frequencies=posenc.Geometric(base=500_000)),
        rotated(inv_freq=rates(16, base=500_000)),
    ),
    "alibi": (
        posenc.ALiBi(num_heads=4),
        SimpleNamespace(bias=lambda i, j: alibi.bias(i, j, num_heads=4)),
    ),
    "alibi with 12 heads": (
        posenc.ALiBi(num_heads=12),
        SimpleNamespace(bias=lambda i, j: alibi.bias(i, j, num_heads=12)),
    ),
    "rope and alibi": (posenc.Compose(posenc.RoPE(head_dim=16), posenc.ALiBi(num_heads=4)), None),
    "an encoding of a user's own": (Gauss(num_heads=4), None),
    "sinusoidal and rope": (posenc.Compose(posenc.Sinusoidal(dim=32), posenc.RoPE(head_dim=16)), None),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("question", [name for name, _ in testing.checks(posenc.NoPE())])
def test_the_exam(name: str, question: str) -> None:
    encoding, oracle = CASES[name]
    dict(testing.checks(encoding, oracle=oracle))[question]()


def test_every_row_of_the_catalogue_sits_the_exam() -> None:
    assert set(posenc.names()) <= set(CASES)


class Forgetful(Gauss):
    """Claims to be relative, and is not."""

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return super().bias(q_positions, k_positions) * (1 + 1e-3 * q_positions[..., None, :, None])


def test_the_exam_catches_a_false_claim_and_names_the_question() -> None:
    with pytest.raises(AssertionError, match="Forgetful fails 'depends_on_differences_alone"):
        testing.check_encoding(Forgetful(num_heads=4))


class Clumsy(posenc.RoPE):
    """Right in value, but overwrites the caller's queries."""

    def on_queries_keys(self, q: Tensor, k: Tensor, positions: posenc.positions.Positions = None, **options: object):  # type: ignore[no-untyped-def, override]
        rotated = super().on_queries_keys(q, k, positions, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            q.copy_(rotated[0])
        return rotated


def test_the_exam_catches_inputs_that_are_overwritten() -> None:
    questions = dict(testing.checks(Clumsy(head_dim=16)))
    with pytest.raises(AssertionError, match="inputs after the call"):
        questions["leaves_its_inputs_alone"]()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (posenc.RoPE(head_dim=16), posenc.RoPE(head_dim=16, frequencies=posenc.Geometric(base=500_000))),
        (posenc.RoPE(head_dim=16), posenc.RoPE(head_dim=16, pairing="interleaved")),
        (posenc.RoPE(head_dim=16), posenc.RoPE(head_dim=16, rotary_dim=8)),
        (posenc.Sinusoidal(dim=16), posenc.Sinusoidal(dim=16, order="concatenated")),
        (posenc.Sinusoidal(dim=16), posenc.Sinusoidal(dim=16, frequencies=posenc.Tensor2Tensor())),
        (posenc.Normalized(dim=16, length=8), posenc.Normalized(dim=16, length=9)),
    ],
    ids=["base", "pairing", "rotary_dim", "order", "spacing", "length"],
)
def test_two_instances_that_differ_in_one_parameter_differ_in_output(
    one: posenc.Encoding, other: posenc.Encoding
) -> None:
    def output(encoding: posenc.Encoding) -> Tensor:
        x = torch.ones(1, 2, 8, 16, dtype=torch.float64)
        return encoding.on_queries_keys(x, x)[0] if "queries_keys" in encoding.places else encoding.on_embeddings(x[0])

    first, second = output(one), output(other)
    assert not torch.equal(first, second)
    assert torch.equal(output(other), second)  # in either order, so nothing is shared between instances
    assert torch.equal(output(one), first)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["none", "sinusoidal", "learned", "rope", "alibi"])
def test_the_inductor_gives_what_eager_gives(name: str) -> None:
    encoding, _ = CASES[name]
    q = torch.randn(1, 4, 12, 16)
    x = torch.randn(1, 12, 32)

    def forward(x: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        rotated_q, rotated_k = encoding.on_queries_keys(q, q)
        x = encoding.on_embeddings(x) if "embeddings" in encoding.places else x
        return x, posenc.attention(rotated_q, rotated_k, q, encoding, causal=True)

    torch.compiler.reset()
    for got, expected in zip(torch.compile(forward, fullgraph=True)(x, q), forward(x, q), strict=True):
        torch.testing.assert_close(got, expected)

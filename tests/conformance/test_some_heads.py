"""A process of several holds some of the heads as plain tensors: the table in docs/howto/parallel.md."""

from typing import Any

import pytest
import torch
from tests.conformance.test_pairs import DIM, HEADS, OPTIONS, made

import posenc

#: The dimension of heads of each parameter; one that is not named is the same in all processes.
CUT: dict[str, dict[str, int]] = {
    **{name: {} for name in ("rope", "xpos", "axial", "mrope", "cope", "shaw", "decomposed")},
    **{name: {"table": -1} for name in ("t5", "swin")},
    "levit": {"table": 0},
    "kerple": {"r1": 0, "r2": 0},
    "ssmax": {"scale": 0},
    "fire": {"out.weight": 0, "out.bias": 0},
    "swin_v2": {"out.weight": 0},
    "forgetting": {"gate.weight": 0, "gate.bias": 0},
    "mixed": {"rates": 1},
    "fope": {"cos_coef": 0, "sin_coef": 0},
    "pope": {"phase": 0},
    "alibi": {},
    "sandwich": {},
}


@pytest.mark.parametrize("name", CUT)
def test_half_of_the_heads_give_half_of_the_output(name: str) -> None:
    whole, half = made(name), HEADS // 2
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, HEADS, 9, DIM // HEADS, dtype=torch.float64)
    x = torch.randn(2, 9, DIM, dtype=torch.float64)

    def output(encoding: posenc.Encoding, heads: slice) -> torch.Tensor:
        queries, keys = encoding.on_queries_keys(q[:, heads], k[:, heads])
        return posenc.attention(queries, keys, v[:, heads], encoding, causal=True, state=encoding.carry(x))

    expected = output(whole, slice(None))
    for mine in (slice(0, half), slice(half, HEADS)):
        options: dict[str, Any] = dict(OPTIONS.get(name, {}))
        sizes = {"dim": DIM // HEADS * half, "num_heads": half}
        if isinstance(whole, posenc.ALiBi):
            options["rule"] = whole.slopes[mine]
        if isinstance(whole, posenc.scores.Sandwich):
            options["rule"] = whole.strengths[mine]
        if name == "forgetting":
            sizes["dim"] = DIM  # its gate reads the input of the layer, not the heads
        part = posenc.make(name, **sizes, **options).double()
        weights = {
            key: weight if key not in CUT[name] else weight.narrow(CUT[name][key], mine.start, half)
            for key, weight in whole.state_dict().items()
        }
        part.load_state_dict(weights)
        torch.testing.assert_close(output(part, mine), expected[:, mine])


def test_fewer_heads_have_other_numbers() -> None:
    """Why ``rule`` takes slopes and strengths."""
    assert posenc.ALiBi(num_heads=4).slopes != posenc.ALiBi(num_heads=8).slopes[:4]
    assert posenc.scores.Sandwich(num_heads=4).strengths != posenc.scores.Sandwich(num_heads=8).strengths[:4]

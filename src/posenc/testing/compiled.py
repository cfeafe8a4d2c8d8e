"""The tests of an encoding under a compiler: one graph for all lengths."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from posenc.testing.candidate import Cache, Candidate
from posenc.testing.comparator import assert_close

_LENGTHS = (7, 5, 9, 12, 17)


class _Counted:
    """A backend of torch.compile that counts the graphs it is given and runs them as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


def compiles_to_one_graph_for_all_lengths(candidate: Candidate) -> None:
    def output(x: Tensor, positions: Tensor | None) -> Tensor:
        return candidate.layer(x, positions)[0]

    for positions_are_given in (False, True):
        torch.compiler.reset()
        backend = _Counted()
        compiled = torch.compile(output, fullgraph=True, backend=backend)
        for length in _LENGTHS[: 1 if positions_are_given else None]:
            n = candidate.length(length)
            x = candidate.embeddings(n, dtype=torch.float32)
            positions = torch.arange(n) if positions_are_given else None
            for tensor, axis in ((x, 1), (positions, 0)):
                if tensor is not None:
                    torch._dynamo.mark_dynamic(tensor, axis)
            expected = output(x, positions)
            assert_close(compiled(x, positions), expected, f"compiled, {n} tokens", tolerance=1e-5)
        if backend.graphs != 1:
            raise AssertionError(f"got {backend.graphs} graphs for several lengths, expected one for all of them")


@torch.no_grad()
def decodes_with_two_graphs(candidate: Candidate) -> None:
    """The first step has sizes that torch.compile takes for fixed; the second leaves them open, for all that follow."""
    if not candidate.encoding.keys_cacheable:
        return

    def step(x: Tensor, position: int, cache: Cache) -> tuple[Tensor, Cache]:
        return candidate.layer(x, position, kv_heads=candidate.kv_heads, cache=cache, all_positions=0)

    n = candidate.length(24)
    x = candidate.embeddings(n, dtype=torch.float32)
    whole, _ = candidate.layer(x, kv_heads=candidate.kv_heads)
    _, cache = candidate.layer(x[:, :3], kv_heads=candidate.kv_heads)
    torch.compiler.reset()
    backend = _Counted()
    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for t in range(3, n):
        y, cache = compiled(x[:, t : t + 1], t, cache)
        assert_close(y, whole[:, :, t : t + 1], f"compiled, step {t}", tolerance=1e-5)
    if backend.graphs > 2:
        raise AssertionError(f"got {backend.graphs} graphs for {n - 3} steps of decoding, expected at most 2")


class Layer(nn.Module):
    """The candidate's layer as a module, for the exporters."""

    def __init__(self, candidate: Candidate) -> None:
        super().__init__()
        self.encoding = candidate.encoding
        self._candidate = candidate

    def forward(self, x: Tensor) -> Tensor:
        return self._candidate.layer(x, encoding=self.encoding)[0]


def is_exported_with_an_open_length(candidate: Candidate) -> None:
    layer = Layer(candidate).eval()
    first, other = (candidate.embeddings(candidate.length(n), dtype=torch.float32) for n in (6, 11))
    expected = layer(other)
    for strict in (False, True):
        program = torch.export.export(layer, (first,), dynamic_shapes=({1: torch.export.Dim.DYNAMIC},), strict=strict)
        what = f"exported, strict={strict}"
        assert_close(program.module()(other), expected, what, tolerance=1e-5)


QUESTIONS: tuple[Callable[[Candidate], None], ...] = (
    compiles_to_one_graph_for_all_lengths,
    decodes_with_two_graphs,
    is_exported_with_an_open_length,
)

"""Every encoding on a device without float64, such as Apple's, against what it gives on the CPU.

huggingface/diffusers#10986, #11315, #12449, #12653, #14639: the float64 of rates, tables and positions met such a
device and raised an error.
"""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from tests.conformance.test_every_encoding import CASES
from tests.without_float64 import AWAY, Device
from torch import Tensor, nn

import posenc
from posenc.embeddings import SinusoidalGrid
from posenc.integrations.patch import Patch
from posenc.integrations.transformers.live.exact_tables import exact_tables
from posenc.nn import Transformer
from posenc.positions import augmented, grid, multimodal
from posenc.testing.candidate import Candidate

LENGTH = 9
POSITIONS: dict[str, Callable[[int], Tensor | int | None]] = {
    "none": lambda n: None,
    "an offset": lambda n: 3,
    "whole": torch.arange,
    "float64": lambda n: torch.arange(n).double(),
    "float32": lambda n: torch.arange(n).float(),
}


def moved(module: nn.Module) -> nn.Module:
    """The same on the stand-in: ``Module.to`` knows no tensors of its kind."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                del part._parameters[name]
                setattr(part, name, parameter.detach().float().to(AWAY))
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(AWAY)
    return module


def outputs(encoding: posenc.Encoding, content: list[Tensor], positions: Tensor | int | None) -> list[Tensor]:
    """What each hook makes of the same content, and attention of all together."""
    x, q, k = content
    state = encoding.carry(x)
    made = [encoding.on_embeddings(x, positions)]
    where = positions if isinstance(positions, Tensor) or positions is not None else 0
    made.append(encoding.on_scores(q @ k.mT, where, where, q=q, k=k, state=state))
    turned_q, turned_k = encoding.on_queries_keys(q, k, positions)
    attended = posenc.attention(
        turned_q, turned_k, q, encoding, q_positions=where, k_positions=where, causal=True, state=state
    )
    return [*made, turned_q, turned_k, attended]


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize("name", CASES)
def test_every_hook_gives_what_it_gives_on_the_cpu(name: str, kind: str) -> None:
    encoding = deepcopy(CASES[name][0]).float().requires_grad_(False)
    candidate = Candidate(encoding, None)
    length = candidate.length(LENGTH)
    positions = POSITIONS[kind](length - 3 if kind == "an offset" else length)
    length = length - 3 if kind == "an offset" else length
    x = candidate.embeddings(length, dtype=torch.float32)
    q, k = (
        candidate.random(2, candidate.num_heads, length, candidate.head_dim, dtype=torch.float32, seed=n)
        for n in (1, 2)
    )
    expected = outputs(encoding, [x, q, k], positions)
    with Device():
        got = [t.cpu() for t in outputs(moved(encoding), [t.to(AWAY) for t in (x, q, k)], positions)]
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_positions_are_made_there_in_float32() -> None:
    with Device():
        x = torch.zeros(1, 4, 8).to(AWAY)
        kinds = torch.tensor([0, 2, 2, 0])
        makers: dict[str, Callable[[Tensor | None], Tensor]] = {
            "fit": lambda like: grid(2, 2, fit=(3, 3), like=like),
            "centred": lambda like: grid(2, 2, unit="centred", like=like),
            "exact times": lambda like: multimodal(
                kinds if like is None else kinds.to(AWAY),
                video_grids=torch.tensor([[2, 1, 1]]), time_steps=0.3, positions_per_second=1.0, times="exact",
            ),
            "detr": lambda like: SinusoidalGrid.coordinates_as_in(
                "detr", 2, 2, mask=torch.ones(1, 2, 2, dtype=torch.bool, device="cpu" if like is None else AWAY)
            ),
        }  # fmt: skip
        for name, make in makers.items():
            there, here = make(x), make(None)
            assert there.cpu().dtype == (torch.float64 if name == "detr" else torch.float32), name
            torch.testing.assert_close(there.cpu().double(), here.double(), rtol=1e-6, atol=1e-6)
        coordinates = grid(2, 2, unit="centred", like=x)
        assert augmented(coordinates, shift=0.1).device == AWAY
        rope = posenc.AxialRoPE(8)
        exact = rope.rotate(x[:, None] + 1, grid(2, 2, fit=(3, 3)))
        assert torch.equal(exact.cpu(), rope.rotate(torch.ones(1, 1, 4, 8), grid(2, 2, fit=(3, 3))))


@pytest.mark.parametrize("name", ["axial", "fox", "alibi", "temperature"])
def test_a_model_is_read_step_by_step(name: str) -> None:
    encoding = {
        "axial": lambda: posenc.AxialRoPE(8),
        "fox": lambda: posenc.Forgetting(32, 4),
        "alibi": lambda: posenc.ALiBi(4),
        "temperature": lambda: posenc.Compose(posenc.RoPE(8), posenc.Temperature("log", length=3)),
    }[name]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Transformer(32, 4, 1, encoding, causal=True, mlp_dim=8).eval().requires_grad_(False)
        x = torch.randn(2, 7, 32)
    first = grid(2, 2, fit=(3, 3)) if name == "axial" else torch.arange(4.0).double()

    def read(model: nn.Module, x: Tensor) -> list[Tensor]:
        cache = model.new_cache()
        made = [model(x[:, :4], positions=first, cache=cache)]
        for block in cache:
            block.reorder([1, 0])
        return [*made, model(x[:, 4:6], cache=cache), model(x[:, 6:], cache=cache)]

    expected = read(model, x)
    with Device():
        got = [t.cpu() for t in read(moved(model), x.to(AWAY))]
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_exact_tables_of_a_live_model_are_made_for_it() -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=1, vocab_size=8)
    module = llama.LlamaRotaryEmbedding(config)
    far = torch.tensor([[3, 100_000]])
    expected = posenc.RoPE(8, frequencies=posenc.Geometric(config.rope_parameters["rope_theta"])).phases(far)[0]
    with Device():
        moved(module)
        exact_tables(Patch(module, "tables"), module, [module])
        cos, sin = module(torch.zeros(1, 2, 32).to(AWAY), far.to(AWAY))
        assert cos.device == sin.device == AWAY
        cos, sin = cos.cpu(), sin.cpu()
    for table, like in ((cos, expected.cos()), (sin, expected.sin())):
        torch.testing.assert_close(table, torch.cat((like, like), -1).float(), rtol=0, atol=1e-7)

"""torch.compile with an encoding put in or another rule: one graph, the same numbers, steps of decoding too."""

from typing import Any

import pytest
import torch
from tests.integrations.family_inputs import tokens
from tests.integrations.test_replace import build, made

import posenc
from posenc import YaRN
from posenc.frequencies import DynamicNTK
from posenc.integrations.transformers import Patch, extend, replace

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")]

REPLACED = ("rope", "dynamic", "xpos", "alibi", "t5", "fire", "cope", "both", "none")
ROTARY, TABLE = ("llama", "gpt_neox"), ("gpt2",)
CASES = [
    *((model_type, name) for model_type in ROTARY for name in (*REPLACED, "yarn")),
    *((model_type, name) for model_type in TABLE for name in (*REPLACED, "sinusoidal", "interpolate")),
]


def changed(model: Any, name: str) -> Patch:
    if name == "yarn":
        return extend(model, YaRN(2, trained_length=128), length=256)
    if name == "interpolate":
        return extend(model, "interpolate", length=200)
    return replace(model, posenc.Sinusoidal(64) if name == "sinusoidal" else made(name))


@pytest.mark.parametrize(("model_type", "name"), CASES)
def test_it_is_one_graph_and_steps_of_decoding_are_another(model_type: str, name: str) -> None:
    model, ids = build(model_type), tokens(2, 16)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with changed(model, name), torch.no_grad():
        for options in ({}, {"attention_mask": mask}):
            expected = model(input_ids=ids, use_cache=False, **options).logits
            check(compiled(input_ids=ids, use_cache=False, **options).logits, expected)
        assert len(graphs) == 2
        expected = decoded(model, model, ids)
        check(decoded(model, compiled, ids), expected)
        assert len(graphs) == 4  # the prompt, and one for all steps


def check(logits: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to rounding: a bias of the distance goes to the compiled kernel, which a graph does not hold."""
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def decoded(model: Any, call: Any, ids: torch.Tensor) -> torch.Tensor:
    """The logits of a prompt and of five steps after it, with a static cache."""
    cache = transformers.StaticCache(config=model.config, max_cache_len=24)
    options = {"past_key_values": cache, "use_cache": True}
    places = torch.arange(ids.shape[1])[None]
    rows = [call(input_ids=ids[:, :11], position_ids=places[:, :11], **options).logits]
    for t in range(11, ids.shape[1]):
        rows.append(call(input_ids=ids[:, t : t + 1], position_ids=places[:, t : t + 1], **options).logits)
    return torch.cat(rows, dim=1)


@pytest.mark.parametrize(("model_type", "name"), [("llama", "rope"), ("gpt_neox", "alibi"), ("llama", "yarn")])
def test_the_inductor_gives_the_same_logits_and_gradients(model_type: str, name: str) -> None:
    model, ids = build(model_type), tokens(2, 16)
    found = []
    torch.compiler.reset()
    with changed(model, name):
        for call in (model, torch.compile(model, fullgraph=True)):
            model.zero_grad()
            output = call(input_ids=ids, labels=ids, use_cache=False)
            output.loss.backward()
            gradients = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
            found.append((output.logits.detach(), gradients))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-5)
    assert found[0][1].keys() == found[1][1].keys()
    for key, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][key], gradient, rtol=1e-4, atol=1e-5)


def test_where_transformers_breaks_the_graph_the_numbers_stay() -> None:
    """Dynamic NTK in transformers' own rotary module asks how long the sequence is, which no graph answers."""
    model, ids = build("llama"), tokens(2, 16)
    torch.compiler.reset()
    with extend(model, DynamicNTK(2, trained_length=8)), torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
        compiled = torch.compile(model, backend="eager")
        assert torch.equal(compiled(input_ids=ids, use_cache=False).logits, expected)

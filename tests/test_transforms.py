"""Whoever runs the library besides plain eager torch: fake tensors, tracers, transforms, meta tensors, subclasses."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention.flex_attention import flex_attention

import posenc
from posenc.frequencies import DynamicNTK, LongRoPE

# torch.func.jvp compiles its own decompositions by a function that torch calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

ROTATIONS = {
    "rope": posenc.RoPE(head_dim=8),
    "rope with dynamic rates": posenc.RoPE(head_dim=8, frequencies=DynamicNTK(2, trained_length=4)),
    "rope with two lists": posenc.RoPE(
        head_dim=8, frequencies=LongRoPE([1.0] * 4, [3.0] * 4, trained_length=4, factor=4, long_attention_factor=1.5)
    ),
    "xpos": posenc.XPos(head_dim=8),
    "axial": posenc.AxialRoPE(head_dim=8),
}
BIASES = {
    "alibi": posenc.ALiBi(num_heads=2),
    "t5": posenc.T5Bias(num_heads=2),
    "cope": posenc.CoPE(num_heads=2, head_dim=8),
    "fire": posenc.FIRE(num_heads=2),
}


def heads(tokens: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(2, 2, tokens, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ROTATIONS)
def test_rotations_under_fake_tensors_tracers_and_transforms(name: str) -> None:
    rope, q, positions = ROTATIONS[name], heads(), torch.arange(6)
    expected = rope.rotate(q, positions)
    with FakeTensorMode():
        fake = copy.deepcopy(rope).on_queries_keys(torch.empty(2, 2, 6, 8), torch.empty(2, 2, 6, 8), torch.arange(6))
    assert fake[0].shape == (2, 2, 6, 8)
    traced = make_fx(lambda q, p: rope.rotate(q, p))(q, positions)
    torch.testing.assert_close(traced(q, positions), expected)
    rows = torch.stack((positions, positions + 3))
    mapped = torch.func.vmap(lambda p: rope.rotate(q, p))(rows)
    torch.testing.assert_close(mapped, torch.stack([rope.rotate(q, p) for p in rows]))
    # The rotation is linear in q.
    value, tangent = torch.func.jvp(lambda q: rope.rotate(q, positions), (q,), (q,))  # type: ignore[misc]
    torch.testing.assert_close((value, tangent), (expected, expected))
    gradient = torch.func.grad(lambda q: rope.rotate(q, positions).square().sum())(q)
    leaf = q.clone().requires_grad_()
    rope.rotate(leaf, positions).square().sum().backward()
    torch.testing.assert_close(gradient, leaf.grad)
    torch.testing.assert_close(rope.rotate(q, positions), expected)  # nothing of a transform was kept


def test_positions_with_a_tangent_leave_nothing_behind() -> None:
    rope, q, positions = posenc.AxialRoPE(head_dim=8), heads(), torch.arange(6.0)
    torch.func.jvp(lambda p: rope.rotate(q, p), (positions,), (torch.ones(6),))
    with torch.autograd.forward_ad.dual_level():
        assert torch.autograd.forward_ad.unpack_dual(rope.rotate(q, positions)).tangent is None


@pytest.mark.parametrize("name", ["rope with dynamic rates", "rope with two lists"])
def test_rates_that_depend_on_the_length_are_exported(name: str) -> None:
    class Layer(nn.Module):
        def forward(self, q: Tensor, positions: Tensor) -> Tensor:
            return ROTATIONS[name].rotate(q, positions)

    for strict in (False, True):
        dynamic = ({2: torch.export.Dim.DYNAMIC}, {0: torch.export.Dim.DYNAMIC})
        program = torch.export.export(Layer(), (heads(3), torch.arange(3)), dynamic_shapes=dynamic, strict=strict)
        q, positions = heads(7), torch.arange(7)
        torch.testing.assert_close(program.module()(q, positions), Layer()(q, positions))


@pytest.mark.parametrize("name", BIASES)
def test_attention_on_meta_and_fake_tensors_and_under_grad(name: str) -> None:
    encoding = BIASES[name]
    meta = torch.empty(1, 2, 5, 8, device="meta")
    assert posenc.attention(meta, meta, meta, copy.deepcopy(encoding).to("meta"), causal=True).is_meta
    with FakeTensorMode():
        fake = torch.empty(1, 2, 5, 8)
        assert posenc.attention(fake, fake, fake, type(encoding).from_dict(encoding.to_dict()), causal=True).shape == (
            (1, 2, 5, 8)
        )


@pytest.mark.parametrize("tokens", [724, 725])
def test_attention_is_differentiated_by_torch_func_at_any_length(tokens: int) -> None:
    q = torch.randn(1, 8, tokens, 4)
    loss = torch.func.grad(lambda q: posenc.attention(q, q, q, posenc.ALiBi(num_heads=8), causal=True).square().sum())
    leaf = q.clone().requires_grad_()
    posenc.attention(leaf, leaf, leaf, posenc.ALiBi(num_heads=8), causal=True).square().sum().backward()
    torch.testing.assert_close(loss(q), leaf.grad, rtol=1e-4, atol=1e-5)


def test_blocks_refuse_torch_func_in_our_words() -> None:
    q = torch.randn(1, 2, 5, 4)
    with pytest.raises(ValueError, match="transforms of torch"):
        torch.func.grad(lambda q: posenc.attention(q, q, q, posenc.ALiBi(num_heads=2), implementation="blocks").sum())(
            q
        )


def test_in_place_refuses_before_it_writes() -> None:
    rope = posenc.RoPE(head_dim=8)
    leaf = heads().requires_grad_()
    base = torch.randn(2, 2, 9, 8)
    with torch.inference_mode():
        made_in_inference_mode = heads()
        rope.on_queries_keys_(made_in_inference_mode, heads(seed=1))
    cases = {
        "is a leaf which requires a gradient": (leaf, heads()),
        "or a view of one": (leaf[:], heads()),
        "k that is a leaf": (heads(), leaf),
        "q and k with elements in common": (base[:, :, :6], base[:, :, 3:]),
        "outside of it": (made_in_inference_mode, heads()),
        "q with elements that share memory": (
            torch.randn(40).as_strided((1, 2, 3, 8), (8, 4, 8, 1)),
            heads()[:1, :, :3],
        ),
    }
    for message, (q, k) in cases.items():
        before = q.detach().clone(), k.detach().clone()
        with pytest.raises(ValueError, match=message):
            rope.on_queries_keys_(q, k)
        assert torch.equal(q, before[0]), message
        assert torch.equal(k, before[1]), message


@pytest.mark.parametrize("axes", [(0, 2, 1, 3), (0, 1, 2, 3)])
def test_in_place_takes_parts_of_one_projection(axes: tuple[int, ...]) -> None:
    rope = posenc.RoPE(head_dim=8)
    fused = torch.randn(2, 5, 6, 8).permute(axes) if axes[1] == 2 else torch.randn(2, 6, 5, 8)
    q, k = fused[:, :4], fused[:, 4:]
    alternating = fused[:, ::2], fused[:, 1::2]
    expected = rope.on_queries_keys(q, k), rope.on_queries_keys(*alternating)
    kept = fused.clone()
    for parts, wanted in zip(((q, k), alternating), expected, strict=True):
        fused.copy_(kept)
        rope.on_queries_keys_(*parts)
        torch.testing.assert_close(parts, wanted, rtol=0, atol=0)


def test_inference_tensors_rotate_and_a_later_forward_trains() -> None:
    rope = posenc.RoPE(head_dim=8)
    with torch.inference_mode():
        expected = rope.rotate(heads(), torch.arange(6))
    q = heads().requires_grad_()
    got = rope.rotate(q, torch.arange(6))
    got.sum().backward()
    assert torch.equal(got, expected)
    assert q.grad is not None


def test_whole_numbers_of_numpy_are_offsets() -> None:
    layer, x = posenc.nn.Attention(16, 2, posenc.RoPE(head_dim=8), causal=True).eval(), torch.randn(1, 4, 16)
    assert torch.equal(layer(x, positions=np.int64(3)), layer(x, positions=3))
    for encoding in (posenc.RoPE(head_dim=8), posenc.XPos(head_dim=8)):
        assert torch.equal(encoding.rotate(heads(), np.int64(7)), encoding.rotate(heads(), 7))


@pytest.mark.parametrize("seq_dim", [0, -3])
def test_packed_tokens_take_the_kernel(seq_dim: int) -> None:
    rope = posenc.RoPE(head_dim=8, seq_dim=seq_dim)
    q, k = torch.randn(7, 4, 8), torch.randn(7, 2, 8)
    positions = torch.tensor([0, 1, 2, 0, 1, 2, 3])
    batched = posenc.RoPE(head_dim=8, seq_dim=-3)
    for where in (None, 3, positions):
        for got, wanted in zip(
            rope.on_queries_keys(q, k, where), batched.on_queries_keys(q[None], k[None], where), strict=True
        ):
            assert torch.equal(got, wanted[0])
    assert (
        posenc.explain(rope.on_queries_keys, q, k).implementation
        == posenc.explain(batched.on_queries_keys, q[None], k[None]).implementation
    )
    rotated, turned = rope.on_queries_keys(q, k, positions)
    assert torch.equal(rope.on_queries_keys_(q, k, positions)[0], rotated)
    assert torch.equal(k, turned)


def test_an_explanation_is_the_choice_of_the_call() -> None:
    rope, q = posenc.RoPE(head_dim=8), heads()
    alone = posenc.explain(rope.on_queries_keys, q, q).implementation
    assert posenc.explain(rope.on_queries_keys, q, q.bfloat16()).implementation == alone
    with pytest.raises(ValueError, match="expected tensors of one dtype"):
        posenc.explain(rope.on_queries_keys_, q, q.bfloat16())
    xpos = posenc.XPos(head_dim=8)
    for call in (xpos.on_queries_keys_, lambda q, k: posenc.explain(xpos.on_queries_keys_, q, k)):
        with pytest.raises(ValueError, match="use on_queries_keys"):
            call(q, q.clone())


def test_what_cannot_be_rotated_is_refused_in_our_words() -> None:
    rope = posenc.RoPE(head_dim=8)
    with pytest.raises(ValueError, match=r"got q of torch\.float8_e4m3fn"):
        rope.on_queries_keys(heads().to(torch.float8_e4m3fn), heads().to(torch.float8_e4m3fn))
    nested = torch.nested.nested_tensor([torch.randn(2, 3, 8), torch.randn(2, 5, 8)], layout=torch.jagged)
    with pytest.raises(TypeError, match="got a nested tensor for q, expected a dense one"):
        rope.on_queries_keys(nested, nested)


@pytest.mark.parametrize("call", ["attention", "on_scores", "on_embeddings"])
def test_what_cannot_be_computed_in_is_refused_in_our_words(call: str) -> None:
    calls = {
        "attention": lambda x: posenc.attention(x, x, x),
        "on_scores": lambda x: posenc.ALiBi(num_heads=2).on_scores(x, None, None),
        "on_embeddings": lambda x: posenc.Sinusoidal(dim=8).on_embeddings(x),
    }
    for dtype in (torch.float8_e4m3fn, torch.int64, torch.complex64):
        with pytest.raises(ValueError, match=rf"got \w+ of {dtype}, expected float64"):
            calls[call](heads().to(dtype))
    nested = torch.nested.nested_tensor([torch.randn(2, 3, 8), torch.randn(2, 5, 8)], layout=torch.jagged)
    with pytest.raises(TypeError, match=r"got a nested tensor for \w+, expected a dense one"):
        calls[call](nested)


@pytest.mark.slow
def test_the_inductor_takes_a_score_mod_that_was_made_before() -> None:
    encoding, positions = posenc.ALiBi(num_heads=2), torch.arange(70)
    q, k, v = (torch.randn(1, 2, 70, 16) for _ in range(3))
    torch.compiler.reset()
    with torch.no_grad():
        y = torch.compile(flex_attention, fullgraph=True)(q, k, v, score_mod=encoding.score_mod(positions, positions))
    expected = posenc.attention(q, k, v, encoding, mask=torch.ones(70, 70, dtype=torch.bool), implementation="dense")
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_a_score_mod_is_compiled_whole() -> None:
    encoding = posenc.ALiBi(num_heads=2)

    def attend(q: Tensor, positions: Tensor) -> Tensor:
        return flex_attention(q, q, q, score_mod=encoding.score_mod(positions, positions))  # type: ignore[return-value]

    graphs = 0

    def counted(graph: torch.fx.GraphModule, inputs: list[Tensor]):  # type: ignore[no-untyped-def]
        nonlocal graphs
        graphs += 1
        # The inductor cannot make a table whose length nobody knows before the graph runs.
        assert "item" not in [node.target for node in graph.graph.nodes]
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, backend=counted)
    for n in (6, 8, 11):
        q, positions = heads(n), torch.arange(n)
        torch._dynamo.mark_dynamic(q, 2)
        torch._dynamo.mark_dynamic(positions, 0)
        torch.testing.assert_close(compiled(q, positions), posenc.attention(q, q, q, encoding))
    assert graphs == 1


CONSTANTS = {
    **BIASES,
    "sandwich": posenc.scores.Sandwich(num_heads=2),
    "kerple": posenc.KERPLE(num_heads=2),
    "swin 2": posenc.scores.SwinV2Bias(num_heads=2, window=(2, 3), width=4),
}


@pytest.mark.parametrize("name", [*ROTATIONS, *CONSTANTS])
def test_the_default_device_has_no_say_in_where_a_call_computes(name: str) -> None:
    """ROCm/aiter#2489: a ramp was made on the default device, its other factor on that of the call. A tensor that is
    made on the default device has no values here."""
    q, positions = heads(), torch.arange(6)
    if name in ROTATIONS:
        positions = torch.stack((positions // 3, positions % 3), -1)[None] if name == "axial" else positions
        expected = ROTATIONS[name].rotate(q, positions)
        with torch.device("meta"):
            rope = copy.deepcopy(ROTATIONS[name])
            got, matrices = rope.rotate(q, positions), rope.matrix(positions)
        assert torch.equal(got, expected)
        assert torch.equal(matrices, ROTATIONS[name].matrix(positions))
        return

    def results(bias: posenc.Encoding) -> list[Tensor]:
        leaf, given = q.clone().requires_grad_(), {"causal": name != "swin 2"}
        y = posenc.attention(leaf, leaf, leaf, bias, **given)
        (gradient,) = torch.autograd.grad(y.square().sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), leaf)
        dense = posenc.attention(q, q, q, bias, implementation="dense", **given)
        return [y.detach(), gradient.detach(), second, dense.detach()]

    plain = results(copy.deepcopy(CONSTANTS[name]))
    with torch.device("meta"):
        moved = results(copy.deepcopy(CONSTANTS[name]))
    for one, other in zip(moved, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.skipif(torch.backends.quantized.engine == "none", reason="this build of torch has no quantised layers")
@pytest.mark.parametrize(
    "make",
    [
        lambda: posenc.FIRE(num_heads=2, width=4),
        lambda: posenc.Forgetting(16, num_heads=2),
        lambda: posenc.scores.DeBERTa(16, num_heads=2, span=8),
        lambda: posenc.scores.TUPE(16, num_heads=2, length=8),
        lambda: posenc.scores.InklingBias(16, num_heads=2, rank=4, extent=8),
    ],
    ids=["fire", "fox", "deberta", "tupe", "inkling"],
)
def test_a_model_whose_linear_layers_are_quantised_keeps_those_of_its_encoding(
    make: Callable[[], posenc.Encoding],
) -> None:
    """huggingface/transformers#21839: the dtype of a quantised layer's weight was asked for, which is a method."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = posenc.nn.Transformer(16, 2, 1, make(), causal=True, mlp_dim=16).eval()
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]
    assert not isinstance(quantised.layers[0].self_attn.q_proj, nn.Linear)
    with torch.no_grad():
        torch.testing.assert_close(quantised(x), model(x), rtol=0.1, atol=0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "rule",
    [
        posenc.frequencies.DynamicNTK(2.0, trained_length=8),
        posenc.frequencies.LongRoPE((1.0,) * 8, tuple(1 + pair / 2 for pair in range(8)), trained_length=8, factor=4.0),
    ],
    ids=["dynamic", "longrope"],
)
def test_a_trace_of_jit_follows_the_length(rule: posenc.frequencies.Frequencies) -> None:
    """It recorded the rates of the length that it was traced with, silently."""
    rope = posenc.RoPE(16, frequencies=rule)

    class Rotated(nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            return rope.rotate(q)

    traced = torch.jit.trace(Rotated(), torch.randn(1, 2, 12, 16), check_trace=False)  # type: ignore[no-untyped-call]
    for length in (4, 12, 30):
        q = torch.randn(1, 2, length, 16)
        torch.testing.assert_close(traced(q), rope.rotate(q), rtol=1e-5, atol=1e-5)

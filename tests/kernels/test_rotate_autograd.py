"""Gradients of every order, in place too, and what the compiler, the exporter and torch.func make of the rotation."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import posenc
from posenc.kernels import _build
from posenc.kernels.rotate import choosing
from posenc.kernels.rotate.op import rotate, rotate_

needs_compiler = pytest.mark.skipif(
    _build.load(choosing.SOURCE).handle is None, reason="the compiled kernel is not available"
)
everywhere = pytest.mark.parametrize("implementation", ["eager", pytest.param("cpu", marks=needs_compiler)])
FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"pairing": "interleaved", "start": 1, "inverse": True, "offset": 2},
    {"positions": torch.tensor([4, 0, 4]), "start": 2},
    {"positions": torch.tensor([[4, 0, 4], [1, 2, 2]]), "pairing": "interleaved"},
)


def _double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@everywhere
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("table_shape", [(5, 2), (2, 5, 2), (1, 5, 2)])
def test_gradients_of_first_and_second_order_are_those_of_finite_differences(
    form: dict[str, object], table_shape: tuple[int, ...], implementation: str
) -> None:
    torch.manual_seed(0)
    inputs = (_double(2, 2, 3, 6), _double(2, 1, 3, 6), _double(*table_shape), _double(*table_shape))

    def function(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return rotate(*tensors, **form, implementation=implementation)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@everywhere
@pytest.mark.parametrize("learned", ["q", "k", "cos", "sin"])
def test_only_what_requires_a_gradient_gets_one(learned: str, implementation: str) -> None:
    inputs = {
        "q": torch.randn(1, 2, 3, 4),
        "k": torch.randn(1, 1, 3, 4),
        "cos": torch.randn(3, 2),
        "sin": torch.randn(3, 2),
    }
    inputs[learned].requires_grad_()
    q, k = rotate(**inputs, implementation=implementation)
    (q.sum() + k.sum()).backward()
    assert {name for name, x in inputs.items() if x.grad is not None} == {learned}


@everywhere
@pytest.mark.parametrize("form", FORMS)
def test_in_place_gradients_equal_those_out_of_place(form: dict[str, object], implementation: str) -> None:
    leaves = [torch.randn(2, 2, 3, 6, requires_grad=True), torch.randn(2, 1, 3, 6, requires_grad=True)]
    cos, sin = torch.randn(5, 2), torch.randn(5, 2)
    gradients = []
    for function in (rotate, rotate_):
        q, k = function(leaves[0] * 2, leaves[1] * 3, cos, sin, **form, implementation=implementation)
        gradients.append(torch.autograd.grad((q**2).sum() + (k**3).sum(), leaves))
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


@everywhere
def test_in_place_works_on_views_as_projections_give_them(implementation: str) -> None:
    x = torch.randn(2, 3, 12, requires_grad=True)
    table = torch.randn(2, 3, 2)
    gradients = []
    for function in (rotate, rotate_):
        q, k = (x * 2).view(2, 3, 3, 4).transpose(1, 2).split((2, 1), dim=1)
        q, k = function(q.clone() if function is rotate_ else q, k.clone(), *table, implementation=implementation)
        q, k = function(q[:, :, :], k[:, :, :], *table, implementation=implementation)
        gradients.append(torch.autograd.grad((q**2).sum() + (k**3).sum(), x)[0])
    assert torch.equal(*gradients)


@everywhere
def test_in_place_is_noticed_by_autograd(implementation: str) -> None:
    x = torch.randn(1, 1, 3, 4, requires_grad=True)
    table = torch.randn(3, 2)
    y = x * 1
    loss = (y**2).sum()  # keeps y
    rotate_(y, y[:, :0], table, table, implementation=implementation)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with pytest.raises(ValueError, match="is a leaf which requires"):
        rotate_(x, x[:, :0].detach(), table, table, implementation=implementation)


@everywhere
def test_in_place_refuses_tables_that_learn(implementation: str) -> None:
    x, table = torch.randn(1, 1, 3, 4), torch.randn(3, 2, requires_grad=True)
    with pytest.raises(ValueError, match="use rotate"):
        rotate_(x, x[:, :0], table, table, implementation=implementation)
    with torch.no_grad():
        rotate_(x, x[:, :0], table, table, implementation=implementation)


@everywhere
def test_gradient_checkpointing_changes_nothing(implementation: str) -> None:
    table = torch.randn(2, 3, 2)
    x = torch.randn(1, 2, 3, 4, requires_grad=True)

    def block(x: Tensor) -> Tensor:
        return rotate_(x * 2, (x * 3)[:, :1], *table, implementation=implementation)[0] ** 2

    want = torch.autograd.grad(block(x).sum(), x)[0]
    got = torch.autograd.grad(checkpoint(block, x, use_reentrant=False).sum(), x)[0]
    assert torch.equal(got, want)


def test_no_activation_is_kept_for_a_fixed_table() -> None:
    kept: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    q, k = torch.randn(1, 2, 64, 8, requires_grad=True), torch.randn(1, 2, 64, 8)
    cos, sin = torch.randn(64, 4), torch.randn(64, 4)
    if choosing.level():
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            rotate(q, k, cos, sin)
        assert {x.data_ptr() for x in kept} == {cos.data_ptr(), sin.data_ptr()}


def _operator_inputs(**changes: object) -> list[object]:
    values: dict[str, object] = {
        "q": torch.randn(2, 2, 3, 8),
        "k": torch.randn(2, 1, 3, 8),
        "cos": torch.randn(5, 3),
        "sin": torch.randn(5, 3),
        "positions": None,
        "offset": 0,
        "start": 1,
        "token_dim": 2,
        "interleaved": False,
        "inverse": False,
    }
    return list((values | changes).values())


# What PyTorch 2.14's own check reads of its own tensors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"offset": 2, "interleaved": True},
        {"positions": torch.tensor([1, 4, 0]), "inverse": True},
        {"token_dim": 1, "q": torch.randn(2, 2, 3, 8).transpose(1, 2), "k": torch.randn(2, 3, 1, 8)},
        {"q": torch.randn(2, 2, 3, 8, requires_grad=True)},
        {"q": torch.randn(2, 3, 2, 8).transpose(1, 2), "cos": torch.randn(5, 3, requires_grad=True)},
    ],
)  # fmt: skip
def test_the_operators_keep_their_contract(changes: dict[str, object]) -> None:
    choosing.level()  # builds the kernel
    torch.library.opcheck(torch.ops.posenc.rotate.default, _operator_inputs(**changes))
    if not any(isinstance(x, Tensor) and x.requires_grad for x in changes.values()):
        torch.library.opcheck(torch.ops.posenc.rotate_.default, _operator_inputs(**changes))
        torch.library.opcheck(torch.ops.posenc._rotate.default, _operator_inputs(**changes))
        torch.library.opcheck(torch.ops.posenc._rotate_.default, _operator_inputs(**changes))


def test_the_differentiable_operators_equal_the_functions() -> None:
    inputs = _operator_inputs(q=torch.randn(2, 2, 3, 8, requires_grad=True))
    q, k = torch.ops.posenc.rotate(*inputs)
    want = rotate(*inputs[:4], start=1, implementation="eager")
    assert torch.equal(q, want[0])
    assert torch.equal(k, want[1])
    grads = [torch.autograd.grad((a**2).sum(), inputs[0], retain_graph=True)[0] for a in (q, want[0])]
    assert torch.equal(*grads)
    x = inputs[0] * 1
    torch.ops.posenc.rotate_(x, *inputs[1:])
    assert torch.equal(torch.autograd.grad((x**2).sum(), inputs[0])[0], grads[0])  # type: ignore[attr-defined]


def test_a_compiled_model_neither_breaks_nor_recompiles_as_the_sequence_grows() -> None:
    rope = posenc.RoPE(head_dim=8)
    compilations: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        compilations.append(1)
        return graph.forward

    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend=backend)
    def decode(q: Tensor, k: Tensor, position: int) -> tuple[Tensor, Tensor]:
        return rope.on_queries_keys(q, k, position)

    @torch.compile(fullgraph=True, backend=backend)
    def prefill(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return rope.on_queries_keys(q, k)

    q, k = torch.randn(1, 4, 1, 8), torch.randn(1, 2, 1, 8)
    for position in range(3, 40):
        got, want = decode(q, k, position), rope.on_queries_keys(q, k, position)
        torch.testing.assert_close(got, want)
        if position == 5:
            before = len(compilations)  # the first call, and one more when the number is found to change
    assert len(compilations) == before <= 2
    for n in range(5, 40):
        q, k = torch.randn(1, 4, n, 8), torch.randn(1, 2, n, 8)
        torch.testing.assert_close(prefill(q, k), rope.on_queries_keys(q, k))
        if n == 7:
            before = len(compilations)
    assert len(compilations) == before <= 4


def test_compiled_gradients_are_right() -> None:
    rope = posenc.RoPE(head_dim=8, pairing="interleaved")
    x = torch.randn(1, 2, 5, 8, requires_grad=True)

    def loss(x: Tensor) -> Tensor:
        return (rope.on_queries_keys(x, x[:, :1])[0] ** 3).sum()

    torch.compiler.reset()
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x), x)[0]
    torch.testing.assert_close(got, torch.autograd.grad(loss(x), x)[0])


class _Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rope = posenc.RoPE(head_dim=8)

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self.rope.on_queries_keys(q, k)


def test_exported_programs_take_any_length() -> None:
    q, k = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8)
    seq = torch.export.Dim("seq", min=2, max=512)
    program = torch.export.export(_Model(), (q, k), dynamic_shapes=({2: seq}, {2: seq}))
    for n in (6, 31):
        q, k = torch.randn(1, 4, n, 8), torch.randn(1, 2, n, 8)
        torch.testing.assert_close(program.module()(q, k), _Model()(q, k))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # inside torch.func.jvp
def test_torch_func_transforms_see_plain_torch() -> None:
    cos, sin = torch.randn(3, 2), torch.randn(3, 2)
    q, k = torch.randn(5, 1, 2, 3, 4), torch.randn(5, 1, 1, 3, 4)
    got = torch.vmap(lambda q, k: rotate(q, k, cos, sin))(q, k)
    for i in range(5):
        want = rotate(q[i], k[i], cos, sin, implementation="eager")
        torch.testing.assert_close(got[0][i], want[0])
        torch.testing.assert_close(got[1][i], want[1])
    tangent = torch.randn_like(q[0])
    _, derivative = torch.func.jvp(lambda q: rotate(q, k[0], cos, sin)[0], (q[0],), (tangent,))  # type: ignore[misc]
    torch.testing.assert_close(derivative, rotate(tangent, k[0], cos, sin)[0])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(q[0], tangent)
        turned = torch.autograd.forward_ad.unpack_dual(rotate(dual, k[0], cos, sin)[0])
    torch.testing.assert_close(turned.tangent, derivative)
    gradient = torch.func.grad(lambda q: rotate(q, k[0], cos, sin)[0].sum())(q[0])
    torch.testing.assert_close(gradient, rotate(torch.ones_like(q[0]), k[0], cos, sin, inverse=True)[0])


@needs_compiler
def test_explicit_kernels_refuse_torch_func_transforms() -> None:
    table = torch.randn(3, 2)
    with pytest.raises(ValueError, match=r"torch\.func"):
        torch.vmap(lambda x: rotate(x, x, table, table, implementation="cpu"))(torch.randn(5, 1, 1, 3, 4))


def test_tensors_of_the_meta_device_and_of_a_fake_mode_leave_nothing_behind() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    rope = posenc.RoPE(head_dim=8)
    x = torch.randn(1, 2, 3, 8)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(x)
        assert rope.on_queries_keys(fake, fake, 5)[0].shape == x.shape
    assert rope.on_queries_keys(x.to("meta"), x.to("meta"), 5)[0].is_meta
    q, _ = rope.on_queries_keys(x, x, 5)
    assert type(q) is Tensor
    torch.testing.assert_close(q, posenc.RoPE(head_dim=8, implementation="eager").on_queries_keys(x, x, 5)[0])


@pytest.mark.parametrize("positions", [4, torch.arange(3)])
def test_tables_made_in_inference_mode_serve_a_later_training_step(positions: object) -> None:
    rope = posenc.RoPE(head_dim=8, frequencies=posenc.Geometric(base=77.0))
    x = torch.randn(1, 2, 3, 8)
    with torch.inference_mode():
        rope.on_queries_keys(x, x, positions)
        rope.on_queries_keys_(x.clone(), x.clone(), positions)
    y = x.clone().requires_grad_()
    rope.on_queries_keys(y, y, positions)[0].sum().backward()
    assert y.grad is not None

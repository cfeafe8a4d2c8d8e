"""One call, every implementation: they give what the oracle gives, and the gradients of the reference."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import posenc
from posenc.kernels.biased_attention import blocks, toeplitz
from posenc.oracle.dot_product_attention import attention as oracle

HEADS, Q_LEN, K_LEN, DIM = 4, 37, 53, 8
DOCUMENTS = torch.repeat_interleave(torch.arange(3), torch.tensor([20, 20, 13]))
PADDING = torch.arange(K_LEN) >= torch.tensor([[0], [30]])

CALLS: dict[str, dict[str, object]] = {
    "full": {},
    "causal": {"causal": True},
    "causal window": {"causal": True, "window": 7},
    "window both ways": {"window": 9},
    "window wider than the run": {"causal": True, "window": 1000},
    "padding": {"causal": True, "mask": PADDING[:, None, None, :]},
    "packed documents": {"causal": True, "documents": DOCUMENTS},
    "packed documents, each row its own": {"documents": torch.stack((DOCUMENTS, DOCUMENTS.flip(0)))},
    "a mask that is added": {"mask": torch.linspace(-3, 3, Q_LEN * K_LEN).view(Q_LEN, K_LEN)},
    "sinks": {"causal": True, "sinks": torch.linspace(-1, 2, HEADS)},
    "cross-attention": {"q_positions": torch.arange(Q_LEN) * 2, "k_positions": 5},
    "positions of each row": {
        "q_positions": torch.randint(0, 90, (2, Q_LEN), generator=torch.Generator().manual_seed(0)),
        "k_positions": torch.randint(0, 90, (2, K_LEN), generator=torch.Generator().manual_seed(1)),
    },
    "a scale": {"causal": True, "scale": 0.1},
}

ENCODINGS: dict[str, Callable[[], posenc.Encoding]] = {
    "alibi": lambda: posenc.ALiBi(num_heads=HEADS),
    "t5": lambda: posenc.T5Bias(num_heads=HEADS, num_buckets=8, max_distance=20, direction="both"),
    "fire": lambda: posenc.FIRE(num_heads=HEADS),
    "shaw": lambda: posenc.scores.Shaw(num_heads=HEADS, head_dim=DIM, reach=3),
    "cope": lambda: posenc.CoPE(num_heads=HEADS, head_dim=DIM, length=9),
    "none": lambda: posenc.NoPE(),
}

#: FlexAttention compiles each call, for seconds: this one in every run, the others when there is time.
QUICK_FLEX = [("t5", "packed documents")]


def tensors(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)

    def normal(heads: int, length: int) -> Tensor:
        numbers: Tensor = torch.randn(2, heads, length, DIM, generator=generator, dtype=torch.float64)
        return numbers.to(dtype)

    return normal(HEADS, Q_LEN), normal(2, K_LEN), normal(2, K_LEN)


@pytest.fixture(autouse=True)
def low_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of few queries, so that a short run has several and a ragged last one."""
    monkeypatch.setattr(blocks, "_height", lambda problem, explicit: 16)


def visible(call: dict[str, object]) -> np.ndarray:
    t, u = np.arange(Q_LEN)[:, None] + K_LEN - Q_LEN, np.arange(K_LEN)[None]
    seen = np.broadcast_to(True, (2, 1, Q_LEN, K_LEN))
    if call.get("causal"):
        seen = seen & (u <= t)
    if "window" in call:
        seen = seen & (abs(t - u) < call["window"])
    if isinstance(ids := call.get("documents"), Tensor):
        rows = np.broadcast_to(ids.numpy(), (2, K_LEN))
        seen = seen & (rows[:, None, K_LEN - Q_LEN :, None] == rows[:, None, None, :])
    if isinstance(mask := call.get("mask"), Tensor) and mask.dtype == torch.bool:
        seen = seen & mask.numpy()
    return seen


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("implementation", ["dense", "blocks"])
def test_a_bias_of_positions_gives_what_the_oracle_gives(call: str, implementation: str) -> None:
    q, k, v = tensors()
    options = CALLS[call]
    encoding = posenc.ALiBi(num_heads=HEADS)
    q_positions = options.get("q_positions", torch.arange(K_LEN - Q_LEN, K_LEN))
    k_positions = options.get("k_positions", 0)
    k_positions = torch.arange(K_LEN) + k_positions if isinstance(k_positions, int) else k_positions
    bias = encoding.bias(q_positions, k_positions).double().numpy()
    mask = options.get("mask")
    if isinstance(mask, Tensor) and mask.dtype != torch.bool:
        bias = bias + mask.double().numpy()
    k_all, v_all = k.numpy(), v.numpy()
    seen = np.broadcast_to(visible(options), (2, HEADS, Q_LEN, K_LEN))
    bias = np.broadcast_to(bias, seen.shape)
    scale = options.get("scale")
    if isinstance(sinks := options.get("sinks"), Tensor):  # one more key, before all others, that gives nothing
        k_all, v_all = (np.concatenate((np.zeros((2, 2, 1, DIM)), x), axis=2) for x in (k_all, v_all))
        column = np.broadcast_to(sinks.double().numpy()[:, None, None], (2, HEADS, Q_LEN, 1))
        bias, seen = np.concatenate((column, bias), -1), np.concatenate((np.ones_like(column, dtype=bool), seen), -1)
    expected = oracle(q.numpy(), k_all, v_all, bias=bias, mask=seen, scale=scale)
    y = posenc.attention(q, k, v, encoding, implementation=implementation, **options)
    np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=1e-6 if "mask" in call else 1e-12)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ENCODINGS)
def test_blocks_have_the_values_and_gradients_of_the_reference(name: str, call: str) -> None:
    encoding = ENCODINGS[name]().double()
    for parameter in encoding.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(3))
    results = []
    for implementation in ("dense", "blocks"):
        inputs = [x.requires_grad_() for x in tensors()]
        options = dict(CALLS[call])
        if isinstance(sinks := options.get("sinks"), Tensor):
            options["sinks"] = sinks.double().requires_grad_()
            inputs.append(options["sinks"])
        y = posenc.attention(*inputs[:3], encoding, implementation=implementation, **options)
        cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
        wanted = [*inputs, *encoding.parameters()]
        results.append([y, *torch.autograd.grad(y, wanted, cotangent, allow_unused=True)])
    for dense, block in zip(*results, strict=True):
        assert (dense is None) == (block is None) or not (dense if block is None else block).any()
        if dense is not None and block is not None:
            torch.testing.assert_close(block, dense, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", [posenc.Forgetting, posenc.scores.InklingBias])
def test_the_state_of_a_contextual_encoding_has_its_gradient_in_blocks(make: Callable[..., posenc.Encoding]) -> None:
    encoding = make(dim=HEADS * DIM, num_heads=HEADS).double()
    x = torch.randn(2, K_LEN, HEADS * DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradients = []
    for implementation in ("dense", "blocks"):
        inner = x.clone().requires_grad_()
        q, k, v = tensors()
        y = posenc.attention(q, k, v, encoding, causal=True, state=encoding.carry(inner), implementation=implementation)
        gradients.append(torch.autograd.grad(y.square().sum(), (inner, *encoding.parameters())))
    for dense, block in zip(*gradients, strict=True):
        torch.testing.assert_close(block, dense, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["alibi", "t5", "shaw"])
def test_dropout_is_the_same_in_the_backward(name: str) -> None:
    """A dropped weight has no gradient: with values of one, the output is the sum of what was kept."""
    encoding = ENCODINGS[name]().double()
    q, k, v = (x.requires_grad_() for x in tensors())

    def run(v: Tensor) -> Tensor:
        torch.manual_seed(11)
        return posenc.attention(q, k, v, encoding, causal=True, dropout_p=0.5, implementation="blocks")

    y = run(v)
    (gradient,) = torch.autograd.grad(y.sum(), v)
    step = torch.randn_like(v)
    # The output is linear in the values, so a difference is exact if the same weights were dropped both times.
    torch.testing.assert_close((run(v + step) - y).sum(), (gradient * step).sum(), rtol=1e-9, atol=1e-9)
    kept = run(torch.ones_like(v))[..., 0] if name != "shaw" else None
    if kept is not None:
        assert 0.8 < kept.mean() < 1.2
        assert kept.std() > 0.05


@pytest.mark.parametrize(
    ("name", "call"),
    [
        pytest.param(name, call, marks=() if (name, call) in QUICK_FLEX else pytest.mark.slow)
        for name in ("alibi", "t5")
        for call in ("full", "causal", "causal window", "packed documents", "padding")
    ],
)
def test_flex_attention_gives_what_the_reference_gives(name: str, call: str) -> None:
    torch.compiler.reset()
    encoding, (q, k, v) = ENCODINGS[name](), tensors(torch.float32)
    with torch.no_grad():
        y = posenc.attention(q, k, v, encoding, implementation="flex", **CALLS[call])
        expected = posenc.attention(q, k, v, encoding, implementation="dense", **CALLS[call])
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["alibi", "sandwich", "tupe"])
def test_extra_channels_give_what_the_reference_gives(name: str) -> None:
    encoding = {
        "alibi": posenc.ALiBi(num_heads=HEADS),
        "sandwich": posenc.scores.Sandwich(num_heads=HEADS, code_dim=16),
        "tupe": posenc.scores.TUPE(dim=HEADS * DIM, num_heads=HEADS, length=K_LEN),
    }[name].double()
    q, k, v = tensors()
    for call in ("causal", "causal window", "padding", "a scale"):
        y = posenc.attention(q, k, v, encoding, implementation="channels", **CALLS[call])
        expected = posenc.attention(q, k, v, encoding, implementation="dense", **CALLS[call])
        torch.testing.assert_close(y, expected, rtol=0, atol=3e-6 if name == "sandwich" else 1e-6)


def test_a_view_of_distances_is_the_bias_of_a_block() -> None:
    encoding = posenc.T5Bias(num_heads=2)
    i, j = torch.arange(5, 25), torch.arange(30)
    table = toeplitz.by_distance(encoding.bias, i, j)
    full = encoding.bias(i, j)
    for rows, keys in ((slice(0, 20), slice(0, 30)), (slice(3, 9), slice(4, 21)), (slice(19, 20), slice(29, 30))):
        queries = slice(20 - rows.stop, 20 - rows.start)
        assert torch.equal(toeplitz.view(table, rows, keys)[0].flip(1), full[:, queries, keys])
        assert toeplitz.view(table, rows, keys).data_ptr() == table[:, rows.start + keys.start :].data_ptr()


def test_the_gradient_of_a_view_adds_up_the_diagonals() -> None:
    table = torch.randn(3, 49, dtype=torch.float64, requires_grad=True)
    rows, keys = slice(2, 9), slice(5, 21)
    gradient = torch.randn(2, 3, 7, 16, dtype=torch.float64)
    (expected,) = torch.autograd.grad(toeplitz.view(table, rows, keys).expand(2, -1, -1, -1), table, gradient)
    got = torch.zeros_like(table)
    toeplitz.add_gradient(got, gradient, rows, keys)
    torch.testing.assert_close(got, expected)


def test_a_second_derivative_is_refused() -> None:
    q, k, v = (x.requires_grad_() for x in tensors())
    y = posenc.attention(q, k, v, posenc.ALiBi(num_heads=HEADS), implementation="blocks")
    with pytest.raises(RuntimeError, match=r'no second derivative, .* use implementation="dense"'):
        torch.autograd.grad(y.sum(), q, create_graph=True)


def test_parameters_that_were_swapped_before_the_backward_are_noticed() -> None:
    encoding = posenc.FIRE(num_heads=HEADS)
    q, k, v = tensors(torch.float32)
    y = posenc.attention(q, k, v, encoding, implementation="blocks")
    encoding.c = torch.nn.Parameter(torch.tensor(0.2))
    with pytest.raises(RuntimeError, match="FIRE were replaced between the forward and the backward"):
        y.sum().backward()


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_all_sizes_may_be_open_under_torch_compile(kv_heads: int) -> None:
    torch.compiler.reset()
    attend = torch.compile(
        lambda q, k, v: posenc.attention(q, k, v, causal=True), fullgraph=True, dynamic=True, backend="eager"
    )
    q, k, v = torch.randn(1, 4, 5, 8), torch.randn(1, kv_heads, 5, 8), torch.randn(1, kv_heads, 5, 8)
    torch.testing.assert_close(attend(q, k, v), posenc.attention(q, k, v, causal=True))


@pytest.mark.parametrize("implementation", ["cpu", "sdpa", "blocks", "channels", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mask_of_numbers_may_have_another_dtype(implementation: str, dtype: torch.dtype) -> None:
    q, k, v = tensors(dtype)
    mask = torch.linspace(-3, 3, Q_LEN * K_LEN, dtype=torch.float64).view(Q_LEN, K_LEN)
    encoding = None if implementation == "sdpa" else posenc.ALiBi(num_heads=HEADS)
    y = posenc.attention(q, k, v, encoding, causal=True, mask=mask, implementation=implementation)
    wide = posenc.attention(*tensors(), encoding, causal=True, mask=mask, implementation="dense")
    torch.testing.assert_close(y.double(), wide, rtol=0, atol=1e-5 if dtype == torch.float32 else 3e-2)

"""The short way of a call that was made before gives the bits of the whole way, and is not taken where they differ."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import posenc
from posenc.kernels import _build
from posenc.kernels.biased_attention import again, fused

LIBRARY = _build.load(fused.SOURCE)
pytestmark = pytest.mark.skipif(LIBRARY.handle is None, reason=LIBRARY.reason)

HEADS, DIM = 4, 8


class Slope(posenc.ScoreEncoding):
    """A user's bias, the same for any number of heads, with a number that may be set and one that is learned."""

    relative = True
    bias_is_pure = True

    def __init__(self) -> None:
        super().__init__()
        self.steepness = 0.5
        self.inner = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.inner.weight)

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        distance = (q_positions[..., :, None] - k_positions[..., None, :]).abs().float()
        return (-self.steepness * self.inner.weight[0, 0] * distance)[..., None, :, :]


def cope() -> posenc.CoPE:
    """One that adds something: its table starts with zeros."""
    encoding = posenc.CoPE(HEADS, DIM, length=6)
    nn.init.normal_(encoding.table, generator=torch.Generator().manual_seed(1))
    return encoding


ENCODINGS: dict[str, Callable[[], posenc.Encoding | None]] = {
    "none": lambda: None,
    "rope": lambda: posenc.RoPE(DIM),
    "alibi": lambda: posenc.ALiBi(HEADS),
    "t5": lambda: posenc.T5Bias(HEADS, scale="none"),
    "kerple": lambda: posenc.KERPLE(HEADS),
    "sandwich": lambda: posenc.scores.Sandwich(HEADS),
    "fire": lambda: posenc.FIRE(HEADS, threshold=30),
    "fire past its threshold": lambda: posenc.FIRE(HEADS, threshold=5),
    "cope": cope,
    "rope and alibi": lambda: posenc.Compose(posenc.RoPE(DIM), posenc.ALiBi(HEADS)),
    "a user's": Slope,
}


def tensors(q_len: int, k_len: int, heads: int = HEADS, dim: int = DIM) -> list[Tensor]:
    generator = torch.Generator().manual_seed(k_len)
    return [torch.randn(2, heads, n, dim, generator=generator) for n in (q_len, k_len, k_len)]


def whole_way(q: Tensor, k: Tensor, v: Tensor, encoding: posenc.Encoding | None, window: int | None = None) -> Tensor:
    """The same call, with the scale that it has by default."""
    scale = q.shape[-1] ** -0.5 if encoding is None else encoding.softmax_scale(q.shape[-1])
    return posenc.attention(q, k, v, encoding, causal=True, window=window, scale=scale)


@pytest.fixture(params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> Any:
    """An encoding that has made a call before."""
    made = ENCODINGS[request.param]()
    with torch.no_grad():
        posenc.attention(*tensors(1, 20), made, causal=True)
    return made


def is_short(q: Tensor, k: Tensor, v: Tensor, encoding: posenc.Encoding | None, window: int | None = None) -> bool:
    return again.run(q, k, v, encoding, window) is not None


@torch.no_grad()
def test_every_step_has_the_bits_of_the_whole_way(encoding: Any) -> None:
    short = 0
    for q_len, k_len in [(1, n) for n in range(1, 140)] + [(5, 5), (3, 33), (64, 64), (70, 130)]:
        q, k, v = tensors(q_len, k_len)
        short += is_short(q, k, v, encoding)
        got = posenc.attention(q, k, v, encoding, causal=True)
        assert torch.equal(got, whole_way(q, k, v, encoding))
        dense = posenc.attention(q, k, v, encoding, causal=True, implementation="dense")
        torch.testing.assert_close(got, dense, rtol=1e-5, atol=1e-5)
    assert short >= (138 if isinstance(encoding, posenc.FIRE) else 140)  # it makes its numbers anew past its threshold


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 7, 200])
def test_every_step_in_a_window_has_the_bits_of_the_whole_way(encoding: Any, window: int) -> None:
    short = 0
    for q_len, k_len in [(1, n) for n in range(1, 140)] + [(5, 5), (3, 33), (64, 64), (70, 130)]:
        q, k, v = tensors(q_len, k_len)
        short += is_short(q, k, v, encoding, window)
        got = posenc.attention(q, k, v, encoding, causal=True, window=window)
        assert torch.equal(got, whole_way(q, k, v, encoding, window))
        dense = posenc.attention(q, k, v, encoding, causal=True, window=window, implementation="dense")
        torch.testing.assert_close(got, dense, rtol=1e-5, atol=1e-5)
    assert short >= 136  # FIRE makes its numbers anew past its threshold, for more keys than were kept


@torch.no_grad()
def test_a_layer_decodes_the_short_way(encoding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = posenc.nn.Attention(HEADS * DIM, HEADS, encoding, causal=True).eval()
    taken: list[bool] = []
    run = again.run

    def counted(*call: Any) -> Tensor | None:
        y = run(*call)
        taken.append(y is not None)
        return y

    monkeypatch.setattr(again, "run", counted)
    x = torch.randn(2, 12, HEADS * DIM, generator=torch.Generator().manual_seed(0))
    cache = posenc.nn.Cache()
    y = torch.cat([layer(token, cache=cache) for token in x.split([6, 1, 1, 1, 3], dim=1)], dim=1)
    assert taken[1:] == [True] * 4  # .eval() has changed an attribute, so the first makes the row again
    torch.testing.assert_close(y, layer(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_heads_and_shapes(encoding: Any, dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in tensors(2, 9))
    assert is_short(q, k, v, encoding) == (dtype != torch.float64)
    shared = k[:, :2], v[:, :2, :, :5]
    for keys, values in ((k, v), shared):
        assert torch.equal(
            posenc.attention(q, keys, values, encoding, causal=True), whole_way(q, keys, values, encoding)
        )
    assert not is_short(q, k.float(), v, encoding)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in ENCODINGS if name not in ("none", "rope", "sandwich")])
def test_what_changed_since_is_seen(name: str) -> None:
    encoding: Any = ENCODINGS[name]()
    call = *tensors(1, 12), encoding
    posenc.attention(*call, causal=True)
    for parameter in encoding.parameters():
        before = posenc.attention(*call, causal=True)
        parameter.data.mul_(-3.0)  # which no version counts
        got = posenc.attention(*call, causal=True)
        assert not torch.equal(got, before)
        torch.testing.assert_close(got, posenc.attention(*call, causal=True, implementation="dense"))
    if isinstance(encoding, Slope):
        encoding.steepness = 2.0
        torch.testing.assert_close(
            posenc.attention(*call, causal=True), posenc.attention(*call, causal=True, implementation="dense")
        )
        for heads in (2, 4, 8):
            q, k, v = tensors(1, 12, heads)
            got = posenc.attention(q, k, v, encoding, causal=True)
            torch.testing.assert_close(got, posenc.attention(q, k, v, encoding, causal=True, implementation="dense"))


def gradients(y: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Of first and second order."""
    first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
    return [*first, *torch.autograd.grad(sum(x.square().sum() for x in first), inputs)]


def test_gradients_are_those_of_the_whole_way(encoding: Any) -> None:
    learns = encoding is not None and any(True for _ in encoding.parameters())
    for asked in range(3):
        for q_len in (1, 3):
            inputs = tensors(q_len, 12)
            assert learns or is_short(*inputs, encoding)
            inputs[asked].requires_grad_()
            alone = q_len == 1 and (encoding is None or encoding.at("scores") is None)  # which goes to PyTorch's own
            if alone:
                assert not is_short(*inputs, encoding)
                continue
            assert learns or is_short(*inputs, encoding)
            y = posenc.attention(*inputs, encoding, causal=True)
            expected = whole_way(*inputs, encoding)
            assert torch.equal(y, expected)
            wanted = [inputs[asked]]
            for got, want in zip(gradients(y, wanted), gradients(expected, wanted), strict=True):
                assert torch.equal(got, want)
            y = posenc.attention(*inputs, encoding, causal=True, window=7)
            expected = whole_way(inputs[0], inputs[1], inputs[2], encoding, 7)
            for got, want in zip(gradients(y, wanted), gradients(expected, wanted), strict=True):
                assert torch.equal(got, want)


@pytest.mark.parametrize("name", ["t5", "fire past its threshold", "cope"])
def test_a_frozen_encoding_takes_the_short_way_in_training(name: str) -> None:
    encoding: Any = ENCODINGS[name]()
    encoding.requires_grad_(False)
    inputs = [x.requires_grad_() for x in tensors(3, 12)]
    posenc.attention(*inputs, encoding, causal=True)
    assert is_short(*inputs, encoding)
    y, expected = posenc.attention(*inputs, encoding, causal=True), whole_way(*inputs, encoding)
    assert torch.equal(y, expected)
    for got, want in zip(gradients(y, inputs), gradients(expected, inputs), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("name", ["t5", "kerple", "fire", "a user's"])
def test_a_row_that_is_learned_takes_the_short_way(name: str, window: int | None) -> None:
    encoding: Any = ENCODINGS[name]()
    inputs = [x.requires_grad_() for x in tensors(3, 12)]
    wanted = [*inputs, *encoding.parameters()]
    assert is_short(*inputs, encoding, window)
    expected = whole_way(inputs[0], inputs[1], inputs[2], encoding, window)
    y = posenc.attention(*inputs, encoding, causal=True, window=window)
    assert torch.equal(y, expected)
    for got, want in zip(gradients(y, wanted), gradients(expected, wanted), strict=True):
        assert torch.equal(got, want)
    if name == "t5":
        encoding.edges = tuple(2 * edge for edge in encoding.edges)
    elif name == "kerple":
        encoding.kernel = "power"
    elif name == "fire":
        encoding.threshold = 11.0  # 12 tokens go past it
    assert is_short(*inputs, encoding, window) == (name != "fire")
    for _ in range(2):
        y = posenc.attention(*inputs, encoding, causal=True, window=window)
        expected = posenc.attention(*inputs, encoding, causal=True, window=window, implementation="dense")
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # PyTorch's own attention under vmap
@torch.no_grad()
def test_transforms_and_tracers_go_the_whole_way(encoding: Any) -> None:
    q, k, v = tensors(1, 12)

    def call(q: Tensor) -> Tensor:
        return posenc.attention(q, k, v, encoding, causal=True)

    expected = call(q)
    torch.testing.assert_close(torch.func.vmap(call)(q[None])[0], expected)
    torch.testing.assert_close(torch.func.jvp(call, (q,), (q,))[0], expected)
    torch.compiler.reset()  # it compiles one function for a few encodings only
    torch.testing.assert_close(torch.compile(call, backend="eager", fullgraph=True)(q), expected)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = [mode.from_tensor(x) for x in (q, k, v)]
        assert not is_short(*fakes, encoding)
    assert not is_short(*(x.to("meta") for x in (q, k, v)), encoding)


@torch.no_grad()
def test_bad_input_is_refused_in_the_same_words(encoding: Any) -> None:
    q, k, v = tensors(3, 12)
    calls: tuple[Any, ...] = (
        ((q[0], k, v), {}, "expected .batch, heads, seq, head_dim."),
        ((q, k[:1], v), {}, "one batch size"),
        ((q, k[..., :4], v), {}, "one head_dim for q and k"),
        ((q, k, v[:, :, 1:]), {}, "one value for each key"),
        ((k, q, q), {}, "no more queries than keys"),
        ((q, k[:, :3], v[:, :3]), {}, "expected a multiple"),
        ((q[..., :0], k[..., :0], v), {}, "at least one channel"),
        ((q, k, v), {"dropout_p": None}, "dropout_p"),
        ((q, k, v), {"window": 0}, "at least 1"),
        ((q, k, v), {"window": True}, "a whole number of tokens"),
        ((q, k, v), {"implementation": "fast"}, "expected one of"),
    )
    for given, options, words in calls:
        with pytest.raises((ValueError, TypeError), match=words):
            posenc.attention(*given, encoding, causal=True, **options)
    with pytest.raises(TypeError, match="as encoding"):
        posenc.attention(q, k, v, "alibi", causal=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", [posenc.T5Bias, posenc.KERPLE, posenc.FIRE])
@pytest.mark.parametrize("learns", [True, False])
def test_an_encoding_of_one_head_is_refused_for_several(cls: Any, learns: bool) -> None:
    """Its row could be broadcast over them."""
    encoding = cls(num_heads=1).requires_grad_(learns)
    for heads in (1, HEADS):
        inputs = tensors(3, 12, heads)
        if heads == 1:
            posenc.attention(*inputs, encoding, causal=True)
            continue
        with pytest.raises(ValueError, match=f"q has {HEADS} heads but {cls.__name__} was built for 1"):
            posenc.attention(*inputs, encoding, causal=True)


@torch.no_grad()
def test_without_the_kernel_it_is_not_taken(encoding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_is_loaded", False)
    assert not is_short(*tensors(1, 12), encoding)

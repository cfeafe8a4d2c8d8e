"""The compiled kernel against float64 with the whole matrix of scores: odd sizes, strides, dtypes, what may be seen."""

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor

import posenc
from posenc.kernels import _build
from posenc.kernels.biased_attention import fused
from posenc.kernels.biased_attention.problem import Problem

LIBRARY = _build.load(fused.SOURCE)
pytestmark = pytest.mark.skipif(LIBRARY.handle is None, reason=LIBRARY.reason)
LEVELS = range(len(fused.LEVELS))


@pytest.fixture(params=LEVELS, ids=fused.LEVELS)
def level(request: pytest.FixtureRequest) -> Any:
    """Each instruction set that this processor has."""
    handle = LIBRARY.handle
    assert handle is not None
    best = handle.posenc_attention_level()
    if request.param > best:
        pytest.skip("this processor has no such instructions")
    handle.posenc_attention_set_level(request.param)
    yield request.param
    handle.posenc_attention_set_level(best)


def strided(x: Tensor, kind: int) -> Tensor:
    """The same values with other strides."""
    if kind == 0:
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if kind == 1:
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    if kind == 2:
        room = x.new_zeros([2 * n + 1 for n in x.shape])
        view = room[tuple(slice(1, None, 2) for _ in x.shape)]
        view.copy_(x)
        return view
    return x


def draw(seed: int) -> tuple[list[Tensor], posenc.Encoding | None, dict[str, Any]]:
    """A call of ``attention``: q, k, v of any strides, an encoding, and its options."""
    pick = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    batch, kv_heads, group = pick.choice((1, 2)), pick.choice((1, 2)), pick.choice((1, 1, 3))
    causal = pick.random() < 0.6
    q_len = pick.choice((1, 2, 3, 4, 5, 17, 63, 64, 65, 130, 200))
    k_len = q_len + pick.choice((0, 0, 1, 60, 127, 300))
    if not causal and pick.random() < 0.2:
        k_len = max(1, q_len - 3)
    dim, value_dim = pick.choice((1, 8, 16, 24, 64, 80, 100)), pick.choice((1, 8, 16, 33, 64))
    heads = kv_heads * group
    strong = pick.choice((1.0, 1.0, 6.0))
    q = strong * torch.randn(batch, heads, q_len, dim, generator=generator)
    k = torch.randn(batch, kv_heads, k_len, dim, generator=generator)
    v = torch.randn(batch, kv_heads, k_len, value_dim, generator=generator)
    tensors = [strided(x, pick.randrange(6)) for x in (q, k, v)]
    torch.manual_seed(seed)
    encoding = pick.choice(
        (
            lambda: None,
            lambda: posenc.ALiBi(num_heads=heads),
            lambda: posenc.T5Bias(num_heads=heads, direction="causal" if causal else "both"),
            lambda: posenc.KERPLE(num_heads=heads, kernel=pick.choice(("log", "power"))),
        )
    )()
    options: dict[str, Any] = {"causal": causal}
    if pick.random() < 0.4 and q_len <= k_len:
        options["window"] = pick.choice((1, 2, 7, 64, 100, 1000))
    if pick.random() < 0.2 and q_len <= k_len:
        shape: tuple[int, ...] = pick.choice(((k_len,), (1, k_len), (batch, k_len)))
        options["documents"] = torch.randint(3, shape, generator=generator).sort(-1).values
    if pick.random() < 0.3:
        full = (batch, heads, q_len, k_len)
        shape = tuple(pick.choice((1, n)) for n in full)[pick.choice((0, 1, 2)) :]
        mask = torch.randn(shape, generator=generator)
        options["mask"] = mask > -1 if pick.random() < 0.6 else mask
    if pick.random() < 0.2:
        options["sinks"] = torch.randn(heads, generator=generator)
    if encoding is not None and pick.random() < 0.3:
        start = pick.choice((0, 5, 10_000))
        options["k_positions"] = pick.choice((start, torch.arange(start, start + k_len)))
        if pick.random() < 0.5 or q_len > k_len:
            options["q_positions"] = start + pick.choice((0, 3))
    elif q_len > k_len:
        options["q_positions"] = 0
    return tensors, encoding, options


def double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def run(
    tensors: list[Tensor], encoding: posenc.Encoding | None, options: dict[str, Any], **more: Any
) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of q, k, v, the sinks and what the encoding learns."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    options = options | more
    learned = list(encoding.parameters()) if encoding is not None else []
    if "sinks" in options:
        options["sinks"] = options["sinks"].detach().requires_grad_()
        learned.append(options["sinks"])
    y = posenc.attention(*leaves, encoding, **options)
    torch.manual_seed(0)
    gradient = torch.randn(y.shape).to(y.dtype)
    return y.detach(), list(torch.autograd.grad(y, [*leaves, *learned], gradient, allow_unused=True))


def check(seed: int, dtype: torch.dtype = torch.float32) -> None:
    tensors, encoding, options = draw(seed)
    tensors = [x.to(dtype) for x in tensors]
    y, gradients = run(tensors, encoding, options, implementation="cpu")
    exact_options = {name: double(value) for name, value in options.items() if "positions" not in name}
    exact_options |= {name: value for name, value in options.items() if "positions" in name}
    exact, exact_gradients = run([x.double() for x in tensors], encoding, exact_options, implementation="dense")
    tolerance = {torch.float32: 3e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(y.double(), exact, rtol=tolerance, atol=tolerance, msg=lambda m: f"seed {seed}: {m}")
    assert y.dtype == dtype
    learned = 0 if encoding is None else len(list(encoding.parameters()))
    for index, (got, want) in enumerate(zip(gradients, exact_gradients, strict=True)):
        if want is None:
            assert got is None
            continue
        size = want.double().abs().max().item() + 1e-3
        if 3 <= index < 3 + learned:  # slopes, each rounded, times derivatives of the bias
            size = max(size, largest_bias(tensors, encoding, options))
        error = (got.double() - want.double()).abs().max().item()
        assert error <= 5 * tolerance * max(size, 1.0), f"seed {seed}, gradient {index}: {error} of {size}"


def largest_bias(tensors: list[Tensor], encoding: Any, options: dict[str, Any]) -> float:
    """Of all pairs. A query that sees one key has a slope of 0, but for rounding, however far away the key is."""
    q_len, k_len = (x.shape[2] for x in tensors[:2])
    first = options.get("k_positions", 0)
    first = int(first[0]) if isinstance(first, Tensor) else first
    start = options.get("q_positions", first + k_len - q_len)
    bias = encoding.bias(torch.arange(start, start + q_len), torch.arange(first, first + k_len))
    return float(bias.detach().abs().max())


@pytest.mark.parametrize("seed", range(40))
def test_any_call_is_that_of_float64(seed: int, level: int) -> None:
    check(seed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(100, 112))
def test_half_precision_is_rounded_once_on_the_way_out(seed: int, dtype: torch.dtype) -> None:
    check(seed, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(10, 50))
def test_many_calls_are_those_of_float64(hundred: int) -> None:
    for seed in range(100 * hundred, 100 * hundred + 100):
        check(seed)


@pytest.mark.parametrize("encoding", [posenc.ALiBi(num_heads=4), posenc.KERPLE(num_heads=4, kernel="power")])
@pytest.mark.parametrize("options", [{"causal": True}, {}, {"causal": True, "window": 700}])
def test_skipping_changes_no_bit(encoding: posenc.Encoding, options: dict[str, Any]) -> None:
    torch.manual_seed(3)
    q, k, v = (torch.randn(1, 4, 1500, 32) for _ in range(3))
    problem = Problem(q, k, v, 32**-0.5, encoding=encoding, given_starts=(0, 0), **options)
    with torch.no_grad():
        assert torch.equal(fused.run(problem, skip=True), fused.run(problem, skip=False))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("tokens", [65, 330])
def test_every_tile_of_every_head_is_made_whatever_the_threads(threads: int, tokens: int) -> None:
    """Heads are taken a few at a time: as few as the threads need, so seven are no whole number of them."""
    q, k, v = torch.randn(3, 7, tokens, 32, generator=torch.Generator().manual_seed(0)).unsqueeze(1)
    encoding = posenc.T5Bias(num_heads=7)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        y = fused.run(Problem(q, k, v, 32**-0.5, encoding=encoding, given_starts=(0, 0), causal=True))
    finally:
        torch.set_num_threads(before)
    expected = posenc.attention(q, k, v, encoding, causal=True, implementation="dense")
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_thousands_of_small_weights_beside_a_large_one_are_not_rounded_off(level: int) -> None:
    """KERPLE's bias falls slowly: most of a sum are small numbers that come after a few large ones."""
    encoding = posenc.KERPLE(num_heads=2)
    with torch.no_grad():
        encoding.r1.fill_(1.7)
        encoding.r2.fill_(0.9)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 2048, 32, generator=generator) for _ in range(3))

    def error(y: Tensor) -> float:
        return float((y - right[..., -y.shape[-2] :, :]).abs().max())

    with torch.no_grad():
        twice = copy.deepcopy(encoding).double()
        right = posenc.attention(*(x.double() for x in (q, k, v)), twice, causal=True, implementation="blocks")
        dense = posenc.attention(q, k, v, encoding, causal=True, implementation="dense")
        ours = posenc.attention(q, k, v, encoding, causal=True, implementation="cpu")
        step = posenc.attention(q[..., -1:, :], k, v, encoding, causal=True, implementation="cpu")
    assert error(ours) <= 2 * error(dense)  # 10 times where each was added to the sum of all
    assert error(step) <= 2 * error(dense)


def test_a_value_that_no_weight_reaches_is_not_looked_at() -> None:
    """Whether a proof leaves the far keys out or their weight comes out as 0: this does not tell the two apart."""
    q = k = torch.zeros(1, 8, 2048, 16)
    v = torch.ones(1, 8, 2048, 16)
    v[:, :, :128] = torch.nan
    y = posenc.attention(q, k, v, posenc.ALiBi(num_heads=8), causal=True, implementation="cpu")
    assert bool(y[:, :, :128].isnan().all())
    assert not bool(y[:, 0, 512:].isnan().any())  # a slope of 1/2 reaches 175 tokens
    assert bool(y[:, 7].isnan().all())  # one of 1/256 reaches them all


def test_not_a_number_is_passed_on() -> None:
    q, k, v = (torch.randn(1, 8, 300, 16) for _ in range(3))
    q[0, 0, 250], k[0, 1, 7] = torch.nan, torch.inf
    y = posenc.attention(q, k, v, posenc.ALiBi(num_heads=8), causal=True, implementation="cpu")
    assert bool(y[0, 0, 250].isnan().all())
    assert not bool(y[0, 0, :250].isnan().any())
    assert bool(y[0, 1, 7].isnan().all())


def test_no_flag_of_the_processor_is_left_behind() -> None:
    tiny = torch.tensor([1e-40])
    q = torch.randn(1, 8, 300, 16)
    posenc.attention(q, q, q, posenc.ALiBi(num_heads=8), causal=True, implementation="cpu")
    assert (tiny * 0.5).item() > 0


def test_a_kept_row_follows_the_parameters_and_the_settings() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 4, 20, 8) for _ in range(3))
    encoding = posenc.KERPLE(num_heads=4)

    def error() -> float:
        with torch.no_grad():
            y = posenc.attention(q, k, v, encoding, causal=True, implementation="cpu")
            return (y - posenc.attention(q, k, v, encoding, causal=True, implementation="dense")).abs().max().item()

    assert error() < 1e-5
    encoding.r1.data.add_(3.0)  # no version is counted for .data
    assert error() < 1e-5
    encoding.r2.detach().numpy()[:] = 0.3
    assert error() < 1e-5
    encoding.r1.data = torch.tensor([0.1, 0.9, 0.2, 0.8])  # in other memory
    assert error() < 1e-5
    four = torch.rand(8)
    encoding.r1.data = four[::2]
    assert error() < 1e-5
    encoding.r1.data = four[:4]  # at the same address
    assert error() < 1e-5
    encoding.kernel = "power"
    assert error() < 1e-5
    encoding.double()
    assert error() < 1e-5


def test_what_is_kept_of_the_distances_while_a_table_learns_follows_settings_lengths_and_dtypes() -> None:
    torch.manual_seed(0)

    def check(encoding: posenc.Encoding, length: int) -> None:
        q, k, v = (torch.randn(1, 4, length, 8, requires_grad=True) for _ in range(3))

        def gradients(implementation: str) -> list[Tensor]:
            y = posenc.attention(q, k, v, encoding, causal=True, implementation=implementation)
            return list(torch.autograd.grad(y.square().sum(), (q, *encoding.parameters())))

        for got, want in zip(gradients("cpu"), gradients("dense"), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)

    t5, kerple = posenc.T5Bias(num_heads=4), posenc.KERPLE(num_heads=4)
    for length in (20, 7, 20):
        check(t5, length)
        check(kerple, length)
    t5.edges = tuple(2 * edge for edge in t5.edges)
    kerple.kernel = "power"
    for encoding in (t5, kerple, t5.double(), kerple.double()):
        check(encoding, 20)

    class Doubled(posenc.T5Bias):  # type: ignore[misc]  # a final class says what it is for, and Python lets it pass
        def bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
            return 2 * super().bias(q_positions, k_positions)

    check(Doubled(num_heads=4), 20)  # whose inherited parts would give the half


def test_values_wider_than_a_tile_have_their_gradients() -> None:
    torch.manual_seed(0)
    q, k = (torch.randn(1, 2, 70, 4, requires_grad=True) for _ in range(2))
    v = torch.randn(1, 2, 70, 301, requires_grad=True)
    gradient = torch.randn(1, 2, 70, 301)
    got, want = (
        torch.autograd.grad(posenc.attention(q, k, v, causal=True, implementation=name), (q, k, v), gradient)
        for name in ("cpu", "dense")
    )
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_row_is_kept_while_a_sequence_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = posenc.ALiBi(num_heads=4)
    made: list[int] = []
    bias = type(encoding).bias

    def counted(self: posenc.ALiBi, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        made.append(int(q_positions[-1]))
        return bias(self, q_positions, k_positions)

    monkeypatch.setattr(posenc.ALiBi, "bias", counted)
    k = torch.randn(1, 4, 200, 8)
    for length in range(1, 200):
        posenc.attention(k[:, :, -1:], k[:, :, :length], k[:, :, :length], encoding, causal=True)
    assert made == [63, 127, 255]


@pytest.mark.parametrize("sinks", [None, torch.ones(2)], ids=["no sinks", "sinks"])
def test_a_second_derivative_is_that_of_the_reference(sinks: Tensor | None) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 9, 4, requires_grad=True) for _ in range(3))
    encoding = posenc.T5Bias(num_heads=2)

    def penalty(implementation: str) -> list[Tensor]:
        y = posenc.attention(q, k, v, encoding, causal=True, window=5, sinks=sinks, implementation=implementation)
        (first,) = torch.autograd.grad(y.square().sum(), q, create_graph=True)
        return list(torch.autograd.grad(first.square().sum(), (q, k, v, encoding.table)))

    for got, want in zip(penalty("cpu"), penalty("dense"), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changed", ["q", "mask", "documents"])
def test_what_is_written_to_before_the_backward_is_seen(changed: str) -> None:
    q = torch.randn(1, 2, 9, 8)
    given = {"mask": torch.rand(1, 1, 9, 9) > 0.5, "documents": torch.zeros(1, 9, dtype=torch.int64)}
    options = {} if changed == "q" else {changed: given[changed]}
    k = torch.randn(1, 2, 9, 8, requires_grad=True)
    y = posenc.attention(q, k, k, posenc.ALiBi(2), causal=True, implementation="cpu", **options)  # type: ignore[arg-type]
    (q if changed == "q" else given[changed]).zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_public_attribute_that_is_an_array_makes_the_row_again_when_another_takes_its_place() -> None:
    encoding, q, kv = posenc.ALiBi(num_heads=2), torch.randn(1, 2, 1, 8), torch.randn(1, 2, 9, 8)
    for _ in range(2):
        encoding.extra = torch.arange(3)  # type: ignore[assignment]
        y = posenc.attention(q, kv, kv, encoding, causal=True, implementation="cpu")
        torch.testing.assert_close(y, posenc.attention(q, kv, kv, encoding, causal=True, implementation="dense"))

"""The rotation against the oracle, in every form and by every implementation that runs on CPU."""

import importlib.util
import pathlib
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from posenc.kernels import _build
from posenc.kernels.rotate import choosing
from posenc.kernels.rotate.op import rotate, rotate_

_spec = importlib.util.spec_from_file_location("cases", pathlib.Path(__file__).with_name("cases.py"))
cases = importlib.util.module_from_spec(_spec)
sys.modules["cases"] = cases  # dataclasses look their module up
_spec.loader.exec_module(cases)
Case = cases.Case

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
needs_compiler = pytest.mark.skipif(
    _build.load(choosing.SOURCE).handle is None, reason="the compiled kernel is not available"
)
IMPLEMENTATIONS = ("eager", pytest.param("cpu", marks=needs_compiler))
everywhere = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


@everywhere
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_the_oracles_on_random_layouts(implementation: str, dtype: torch.dtype) -> None:
    for seed in range(60):
        case = Case(seed, dtype)
        outputs = rotate(case.q, case.k, case.cos, case.sin, implementation=implementation, **case.options)
        for x, y in zip((case.q, case.k), outputs, strict=True):
            case.assert_close(y, case.expected(x), of=x)


@everywhere
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_the_oracles_inverse_rotation(implementation: str, dtype: torch.dtype) -> None:
    for seed in range(30):
        case = Case(seed, dtype)
        q, k = (x.detach().requires_grad_() for x in (case.q, case.k))
        outputs = rotate(q, k, case.cos, case.sin, implementation=implementation, **case.options)
        cotangents = [torch.randn(y.shape).to(dtype) for y in outputs]
        torch.autograd.backward(outputs, cotangents)
        for x, cotangent in zip((q, k), cotangents, strict=True):
            case.assert_close(x.grad, case.expected(cotangent, inverse=not case.inverse), of=cotangent)


@pytest.fixture
def levels() -> Iterator[Callable[[], Iterator[int]]]:
    """Goes through the instruction sets that this machine has, from the portable one up."""
    library = _build.load(choosing.SOURCE).handle
    best = library.posenc_rotate_set_level(99)

    def each() -> Iterator[int]:
        for level in range(best + 1):
            assert library.posenc_rotate_set_level(level) == level
            yield level

    yield each
    library.posenc_rotate_set_level(best)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_compiled_kernel_gives_the_bits_of_plain_torch_at_every_level(
    dtype: torch.dtype, levels: Callable[[], Iterator[int]]
) -> None:
    for _ in levels():
        for seed in range(25):
            case = Case(seed, dtype)
            arguments = (case.q, case.k, case.cos, case.sin)
            plain = rotate(*arguments, implementation="eager", **case.options)
            compiled = rotate(*arguments, implementation="cpu", **case.options)
            for a, b in zip(plain, compiled, strict=True):
                assert torch.equal(a, b)


@needs_compiler
@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_precision_number_is_read_and_rounded_as_torch_does_at_every_level(
    dtype: torch.dtype, pairing: str, levels: Callable[[], Iterator[int]]
) -> None:
    # With cos = scale and sin = 0 a value goes through load, a product and store: all 65 536 bit patterns, and scales
    # that make ties, subnormals and overflow. 42 pairs are blocks of vectors and a rest.
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    x = torch.cat((x, x[: -len(x) % 84])).reshape(1, 1, -1, 84)
    for scale in (1.0, 0.5, 1 / 3, 1.001, 2.0**-10, 3.0, 1.0009765625, 2.0**-120):
        cos = torch.full((x.shape[2], 42), scale)
        table = cos, torch.zeros_like(cos)
        want = rotate(x, x[:, :0], *table, pairing=pairing, implementation="eager")[0]
        for _ in levels():
            got = rotate(x, x[:, :0], *table, pairing=pairing, implementation="cpu")[0]
            in_place = rotate_(x.clone(), x[:, :0], *table, pairing=pairing, implementation="cpu")[0]
            for y in (got, in_place):
                both_nan = y.isnan() & want.isnan()
                assert bool((both_nan | (y.view(torch.int16) == want.view(torch.int16))).all())


@everywhere
@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place_writes_the_same_values_into_the_same_memory_and_no_other(
    implementation: str, dtype: torch.dtype
) -> None:
    for seed in range(25):
        case = Case(seed, dtype)
        expected = rotate(case.q, case.k, case.cos, case.sin, implementation=implementation, **case.options)
        rooms = [torch.as_strided(x, (x.untyped_storage().nbytes() // x.itemsize,), (1,), 0) for x in (case.q, case.k)]
        outside = [room.isnan().sum() for room in rooms]
        versions = [x._version for x in (case.q, case.k)]
        got = rotate_(case.q, case.k, case.cos, case.sin, implementation=implementation, **case.options)
        assert got[0] is case.q
        assert got[1] is case.k
        for x, want, room, count, version in zip(got, expected, rooms, outside, versions, strict=True):
            assert torch.equal(x, want)
            assert room.isnan().sum() == count, "memory between the elements was written"
            assert x._version > version


@everywhere
@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 2, 0), (1, 1, 1)])
def test_empty_tensors_come_back_empty(implementation: str, shape: tuple[int, ...]) -> None:
    q, k = torch.randn(*shape, 8), torch.randn(shape[0], 3, shape[2], 8)
    cos, sin = torch.randn(4, 4), torch.randn(4, 4)
    outputs = rotate(q, k, cos, sin, implementation=implementation)
    assert [y.shape for y in outputs] == [q.shape, k.shape]
    rotate_(q, k, cos, sin, implementation=implementation)


@everywhere
def test_no_pairs_means_a_copy(implementation: str) -> None:
    q, k = torch.randn(1, 2, 3, 4), torch.randn(1, 1, 3, 4)
    outputs = rotate(q, k, torch.zeros(3, 0), torch.zeros(3, 0), implementation=implementation)
    assert torch.equal(outputs[0], q)
    assert outputs[0].data_ptr() != q.data_ptr()


@needs_compiler
def test_offsets_beyond_two_to_the_31_elements_are_counted_in_64_bits() -> None:
    # The pages that are not touched take no memory: the tensor spans 2**32 elements and uses a few of them.
    room = torch.empty(3 * 2**31 + 1000, dtype=torch.float16)
    q = torch.as_strided(room, (1, 2, 3, 4), (0, 2**31 + 8, 4, 1), 0)
    k = torch.as_strided(room, (1, 1, 3, 4), (0, 1, 4, 1), 3 * 2**31)
    q.copy_(torch.randn(1, 2, 3, 4))
    k.copy_(torch.randn(1, 1, 3, 4))
    cos, sin = torch.randn(3, 2), torch.randn(3, 2)
    expected = rotate(q.clone(), k.clone(), cos, sin, implementation="eager")
    assert all(torch.equal(a, b) for a, b in zip(rotate(q, k, cos, sin, implementation="cpu"), expected, strict=True))
    rotate_(q, k, cos, sin, implementation="cpu")
    assert torch.equal(q, expected[0])
    assert torch.equal(k, expected[1])


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing_but_the_time(threads: int) -> None:
    q, k = torch.randn(3, 5, 700, 32), torch.randn(3, 2, 700, 32)
    cos, sin = torch.randn(700, 16), torch.randn(700, 16)
    expected = rotate(q, k, cos, sin, implementation="eager")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        got = rotate(q, k, cos, sin, implementation="cpu")
    finally:
        torch.set_num_threads(before)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


@everywhere
def test_tables_may_differ_between_rows_of_the_batch(implementation: str) -> None:
    q, k = torch.randn(3, 2, 5, 8), torch.randn(3, 1, 5, 8)
    cos, sin = torch.randn(3, 9, 4), torch.randn(3, 9, 4)
    for positions in (None, torch.tensor([8, 0, 3, 3, 1]), torch.randint(9, (3, 5)), torch.randint(9, (1, 5))):
        got = rotate(q, k, cos, sin, positions=positions, implementation=implementation)
        for b in range(3):
            ids = (
                torch.arange(5)
                if positions is None
                else positions[b % len(positions)]
                if positions.ndim == 2
                else positions
            )
            alone = rotate(q[b : b + 1], k[b : b + 1], cos[b, ids], sin[b, ids], implementation="eager")
            assert torch.equal(got[0][b], alone[0][0])
            assert torch.equal(got[1][b], alone[1][0])


@everywhere
def test_packed_documents_are_rotated_as_if_they_stood_alone(implementation: str) -> None:
    lengths = [3, 1, 5]
    q, k = torch.randn(1, 2, 9, 8), torch.randn(1, 1, 9, 8)
    cos, sin = torch.randn(9, 4), torch.randn(9, 4)
    positions = torch.cat([torch.arange(n) for n in lengths])
    got = rotate(q, k, cos, sin, positions=positions, implementation=implementation)
    alone = [
        rotate(a, b, cos, sin, implementation="eager")
        for a, b in zip(q.split(lengths, dim=2), k.split(lengths, dim=2), strict=True)
    ]
    assert torch.equal(got[0], torch.cat([a for a, _ in alone], dim=2))
    assert torch.equal(got[1], torch.cat([b for _, b in alone], dim=2))


def _refused() -> dict[str, tuple[dict[str, object], str]]:
    ids = torch.arange(5)
    return {
        "positions past the table": ({"positions": ids + 4}, "table"),
        "negative positions": ({"positions": ids - 1}, "shift all positions by 1"),
        "the lowest position": ({"positions": ids - 2**63}, f"shift all positions by {2**63} "),
        "an offset past the table": ({"offset": 4}, "table"),
        "a negative offset": ({"offset": -1}, "table"),
        "positions and an offset": ({"positions": ids, "offset": 1}, "one of the two"),
        "float positions": ({"positions": ids.float()}, "int64 or int32"),
        "too few positions": ({"positions": ids[:4]}, "expected"),
        "positions of three dimensions": ({"positions": ids.expand(1, 1, 5)}, "expected"),
        "positions of another batch": ({"positions": ids.expand(3, 5)}, "expected"),
        "a slice that leaves the head": ({"start": 1}, "fit into"),
        "a negative start": ({"start": -1}, "fit into"),
        "tokens on another axis": ({"token_dim": 1}, "expected"),
        "an axis that cannot count tokens": ({"token_dim": 3}, "expected 1 or 2"),
        "another batch of k": ({"k": torch.randn(1, 1, 5, 8)}, "batch"),
        "another number of tokens of k": ({"k": torch.randn(2, 1, 4, 8)}, "tokens"),
        "three dimensions": ({"q": torch.randn(2, 5, 8)}, "4 dimensions"),
        "integers": ({"q": torch.ones(2, 2, 5, 8).long(), "k": torch.ones(2, 1, 5, 8).long()}, "expected|int64"),
        "tables of different shapes": ({"sin": torch.randn(7, 4)}, "one shape for both|the same shape"),
        "tables of one dimension": ({"cos": torch.randn(4), "sin": torch.randn(4)}, "rows, pairs"),
        "tables of another batch": ({"cos": torch.randn(3, 8, 4), "sin": torch.randn(3, 8, 4)}, "expected"),
        "an unknown pairing": ({"pairing": "quarter"}, "pairing"),
    }  # fmt: skip


@everywhere
@pytest.mark.parametrize("what", _refused())
@pytest.mark.parametrize("function", [rotate, rotate_])
def test_wrong_arguments_are_refused_before_anything_is_written(
    function: object, what: str, implementation: str
) -> None:
    changes, words = _refused()[what]
    arguments: dict[str, object] = {
        "q": torch.randn(2, 2, 5, 8),
        "k": torch.randn(2, 1, 5, 8),
        "cos": torch.randn(8, 4),
        "sin": torch.randn(8, 4),
    } | changes
    before = [x.clone() for x in arguments.values() if isinstance(x, Tensor)]
    with pytest.raises(ValueError, match=words) as refusal:
        function(**arguments, implementation=implementation)
    assert "got" in str(refusal.value)
    for x, copy in zip([x for x in arguments.values() if isinstance(x, Tensor)], before, strict=True):
        assert torch.equal(x, copy)


@everywhere
def test_in_place_refuses_elements_that_share_memory(implementation: str) -> None:
    cos, sin = torch.randn(5, 4), torch.randn(5, 4)
    q, k = torch.randn(1, 1, 5, 8).expand(2, 2, 5, 8), torch.randn(2, 1, 5, 8)
    before = q.clone()
    with pytest.raises(ValueError, match="share memory"):
        rotate_(q, k, cos, sin, implementation=implementation)
    assert torch.equal(q, before)
    rotate(q, k, cos, sin, implementation=implementation)  # reading them is fine


@needs_compiler
def test_in_place_refuses_overlapping_strides_and_the_same_tensor_twice() -> None:
    cos, sin = torch.randn(5, 4), torch.randn(5, 4)
    q = torch.as_strided(torch.randn(200), (1, 2, 5, 8), (0, 4, 8, 1))
    with pytest.raises(ValueError, match="share memory"):
        rotate_(q, torch.randn(1, 1, 5, 8), cos, sin)
    q = torch.randn(1, 2, 5, 8)
    with pytest.raises(ValueError, match="elements in common"):
        rotate_(q, q, cos, sin)


@needs_compiler
def test_q_and_k_may_be_views_of_one_packed_tensor() -> None:
    packed = torch.randn(2, 5, 3, 2, 8)  # batch, seq, (q, k, v), heads, head_dim
    cos, sin = torch.randn(5, 4), torch.randn(5, 4)
    q, k = packed[:, :, 0], packed[:, :, 1]
    v = packed[:, :, 2].clone()
    expected = rotate(q, k, cos, sin, token_dim=1, implementation="eager")
    rotate_(q, k, cos, sin, token_dim=1, implementation="cpu")
    assert torch.equal(packed[:, :, 0], expected[0])
    assert torch.equal(packed[:, :, 1], expected[1])
    assert torch.equal(packed[:, :, 2], v)


def test_an_unknown_implementation_is_refused_by_name() -> None:
    x, table = torch.randn(1, 1, 2, 4), torch.randn(2, 2)
    with pytest.raises(ValueError, match="expected one of"):
        rotate(x, x, table, table, implementation="fortran")


@needs_compiler
def test_an_explicit_implementation_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x, table = torch.randn(1, 1, 2, 4, dtype=torch.bfloat16), torch.randn(2, 2, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="another order"):
        rotate(x, x, table, table, implementation="cpu")
    assert torch.isfinite(rotate(x, x, table, table)[0]).all()  # "auto" takes plain torch
    with pytest.raises(ValueError, match=r"k is torch\.bfloat16"):
        rotate(x.float(), x, table.float(), table.float(), implementation="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match='implementation="triton"'):
            rotate(x.float(), x.float(), table.float(), table.float(), implementation="triton")


@needs_compiler
def test_the_output_keeps_the_layout_of_its_input() -> None:
    x = torch.randn(2, 5, 3, 8).transpose(1, 2)
    table = torch.randn(5, 4)
    q, _ = rotate(x, x[:, :1], table, table, implementation="cpu")
    assert q.stride() == x.stride()


def test_the_oracle_itself_is_not_what_is_tested() -> None:
    case = Case(0, torch.float64)
    assert np.abs(case.expected(case.q) - case.q.numpy()).max() > 0.1


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_operators_refuse_none_where_the_dispatcher_lets_it_through(which: int, device: str) -> None:
    tensors: list[Tensor | None] = [torch.randn(1, 1, 2, 4, device=device) for _ in range(2)]
    tensors += [torch.randn(2, 2, device=device) for _ in range(2)]
    tensors[which] = None
    for operator in (torch.ops.posenc._rotate, torch.ops.posenc._rotate_):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            operator(*tensors, None, 0, 0, 2, False, False)

"""The Triton kernel: on a GPU where there is one, else in Triton's interpreter on CPU."""

import importlib.util
import os
import pathlib
import sys
from typing import Any

import pytest
import torch

import posenc
from posenc.kernels.rotate.op import rotate, rotate_

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)
INTERPRETED = not torch.cuda.is_available()
if INTERPRETED:
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernel is imported, which its first call does
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

_spec = importlib.util.spec_from_file_location("cases", pathlib.Path(__file__).with_name("cases.py"))
cases = importlib.util.module_from_spec(_spec)
sys.modules["cases"] = cases
_spec.loader.exec_module(cases)

SEEDS = range(8 if INTERPRETED else 200)


def _on_device(case: Any) -> tuple[list[torch.Tensor], dict[str, object]]:
    options = dict(case.options)
    if options["positions"] is not None:
        options["positions"] = options["positions"].to(DEVICE)
    return [x.to(DEVICE) for x in (case.q, case.k, case.cos, case.sin)], options


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_values_are_the_oracles_on_random_layouts(dtype: torch.dtype) -> None:
    # The interpreter cuts bfloat16 off where the compiler rounds to nearest.
    ulps = 1.0 if dtype == torch.bfloat16 and INTERPRETED else 0.5
    for seed in SEEDS:
        case = cases.Case(seed, dtype)
        arguments, options = _on_device(case)
        outputs = rotate(*arguments, implementation="triton", **options)
        for x, y in zip((case.q, case.k), outputs, strict=True):
            case.assert_close(y.cpu(), case.expected(x), of=x, ulps=ulps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_place_equals_out_of_place_and_leaves_the_gaps_alone(dtype: torch.dtype) -> None:
    for seed in SEEDS[:4]:
        case = cases.Case(seed, dtype)
        (q, k, cos, sin), options = _on_device(case)
        want = rotate(q, k, cos, sin, implementation="triton", **options)
        got = rotate_(q, k, cos, sin, implementation="triton", **options)
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], want[1])


def test_gradients_come_from_the_same_kernel() -> None:
    for seed in SEEDS[:4]:
        case = cases.Case(seed, torch.float32)
        (q, k, cos, sin), options = _on_device(case)
        q, k = q.requires_grad_(), k.requires_grad_()
        outputs = rotate(q, k, cos, sin, implementation="triton", **options)
        cotangents = [torch.randn_like(y) for y in outputs]
        torch.autograd.backward(outputs, cotangents)
        for x, cotangent in zip((q, k), cotangents, strict=True):
            case.assert_close(
                x.grad.cpu(), case.expected(cotangent.cpu(), inverse=not case.inverse), of=cotangent.cpu()
            )


def test_a_position_outside_the_table_gives_nan_and_is_never_read() -> None:
    from posenc.kernels.rotate.triton import _launch

    q, k = torch.randn(1, 2, 3, 4, device=DEVICE), torch.randn(1, 1, 3, 4, device=DEVICE)
    cos, sin = torch.randn(8, 2, device=DEVICE), torch.randn(8, 2, device=DEVICE)
    positions = torch.tensor([1, 2**40, -(2**40)], device=DEVICE)
    outputs = torch.zeros_like(q), torch.zeros_like(k)
    if INTERPRETED:
        import posenc.kernels.rotate.checks as module

        real, module.check = module.check, lambda *a: None  # on CPU positions are looked at, and refused
        try:
            _launch(q, k, *outputs, cos, sin, positions, 0, 0, 2, False, False)
        finally:
            module.check = real
    else:
        _launch(q, k, *outputs, cos, sin, positions, 0, 0, 2, False, False)
    for y in outputs:
        assert bool(torch.isfinite(y[:, :, 0]).all())
        assert bool(y[:, :, 1:].isnan().all())


def test_wrong_arguments_are_refused() -> None:
    q, table = torch.randn(1, 2, 3, 4, device=DEVICE), torch.randn(2, 2, device=DEVICE)
    with pytest.raises(ValueError, match="table"):
        rotate(q, q, table, table, implementation="triton")
    with pytest.raises(ValueError, match="share memory"):
        rotate_(q[:, :1].expand(1, 2, 3, 4), q, *torch.randn(2, 3, 2, device=DEVICE), implementation="triton")


def _grid(rows: int, axes: int) -> torch.Tensor:
    return torch.stack([(torch.arange(6) * (axis + 2)) % 5 for axis in range(axes)], -1).expand(rows, -1, -1)


#: Encodings by what they give the kernel: one table for all, a row for each sequence, several coordinates, a slice.
ENCODINGS = {
    "an offset": (lambda: posenc.RoPE(head_dim=16), 7),
    "a position for each token": (lambda: posenc.RoPE(head_dim=16), torch.arange(6).expand(2, -1)),
    "fractions": (lambda: posenc.RoPE(head_dim=16), torch.arange(6) / 4),
    "a slice, neighbours": (lambda: posenc.RoPE(head_dim=16, rotary_dim=8, pairing="interleaved"), 0),
    "a rule with a factor": (
        lambda: posenc.RoPE(head_dim=16, frequencies=posenc.YaRN(4, trained_length=8)),
        3,
    ),
    "three axes": (lambda: posenc.MRoPE(head_dim=16, sections=(4, 2, 2)), _grid(2, 3)),
    "two axes": (lambda: posenc.AxialRoPE(head_dim=16, axes=2), _grid(2, 2)),
    "queries and keys that fade": (lambda: posenc.XPos(head_dim=16), torch.arange(6)),
    "rates that are learned": (
        lambda: posenc.RoPE(head_dim=16, frequencies=posenc.frequencies.LearnedRates(posenc.Geometric())),
        torch.arange(6),
    ),
}


@pytest.mark.parametrize("given", ENCODINGS)
def test_an_encoding_gives_and_learns_the_same_by_triton_as_by_plain_torch(given: str) -> None:
    make, positions = ENCODINGS[given]
    positions = positions.to(DEVICE) if isinstance(positions, torch.Tensor) else positions
    found = []
    for implementation in ("triton", "eager"):
        generator = torch.Generator().manual_seed(0)
        q, k = (torch.randn(2, heads, 6, 16, generator=generator).to(DEVICE).requires_grad_() for heads in (4, 2))
        encoding = make()
        encoding.implementation = implementation
        outputs = encoding.on_queries_keys(q, k, positions)
        (outputs[0].square().sum() + outputs[1].pow(3).sum()).backward()
        taken = posenc.explain(encoding.on_queries_keys, q, k, positions).implementation
        assert taken == implementation
        in_place: tuple[torch.Tensor, ...] = ()
        if not isinstance(encoding, posenc.XPos):  # whose queries and keys are turned by rows of their own
            with torch.no_grad():
                in_place = encoding.on_queries_keys_(q.detach().clone(), k.detach().clone(), positions)
        found.append([*outputs, *in_place, q.grad, k.grad])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_rates_of_each_head_have_no_kernel_and_say_so() -> None:
    encoding = posenc.MixedRoPE(head_dim=16, num_heads=4)
    q = torch.randn(2, 4, 6, 16, device=DEVICE)
    assert posenc.explain(encoding.on_queries_keys, q, q, _grid(2, 2)).implementation == "eager"
    encoding.implementation = "triton"
    with pytest.raises(ValueError, match=r"got implementation 'triton'.*expected \"auto\" or \"eager\""):
        encoding.on_queries_keys(q, q, _grid(2, 2))

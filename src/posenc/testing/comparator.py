"""When two results are the same: element by element, naming the worst."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FloatArray = NDArray[np.float64]


def assert_matches_oracle(
    actual: Tensor,
    expected: FloatArray,
    *,
    dtype: torch.dtype,
    scale: FloatArray | float | None = None,
    slack: float = 4.0,
) -> None:
    r"""Assert that every element equals the oracle's value, up to the rounding of its dtype.

    The budget of an element is one rounding to ``dtype`` (half a unit in the last place of the expected value) plus
    ``slack`` roundings of the arithmetic, which is float64 for float64 and float32 for all else, each relative to
    ``scale``:

    .. math::  |a - e| \le \tfrac12 \mathrm{ulp}_{dtype}(e) + \mathrm{slack} \cdot \varepsilon \cdot \mathrm{scale}

    Args:
        actual: the tensor under test.
        expected: the oracle's float64 values, of the same shape.
        dtype: what the tensor's dtype must be.
        scale: magnitude of the terms that are summed in an element, broadcast to the shape; \|expected\| by default,
            which is too strict where terms cancel.
        slack: how many roundings the arithmetic may take.

    Raises:
        AssertionError: naming the worst element, both values, its error and its budget, and how many are beyond theirs.
    """
    if actual.dtype != dtype:
        raise AssertionError(f"got dtype {actual.dtype}, expected {dtype}")
    if tuple(actual.shape) != expected.shape:
        raise AssertionError(f"got shape {tuple(actual.shape)}, expected {expected.shape}")
    got = actual.detach().to(torch.float64).cpu().numpy()
    scales = np.broadcast_to(np.abs(expected if scale is None else np.asarray(scale, dtype=np.float64)), expected.shape)
    info = torch.finfo(dtype)
    arithmetic = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    with np.errstate(invalid="ignore"):
        exponent = np.frexp(np.where(np.isfinite(expected), expected, 1.0))[1] - 1
        ulp = info.eps * np.exp2(np.maximum(exponent, np.log2(info.smallest_normal)))
        budget = 0.5 * ulp + slack * arithmetic * scales
        error = np.where(got == expected, 0.0, np.abs(got - expected))
    beyond = ~(error <= budget)  # a NaN is beyond every budget
    if beyond.any():
        ratio = np.where(np.isnan(error), np.inf, error / budget)
        worst = tuple(int(i) for i in np.unravel_index(np.argmax(ratio), ratio.shape))
        raise AssertionError(
            f"{int(beyond.sum())} of {beyond.size} elements are beyond their budget; the worst is at {worst}: "
            f"got {got[worst]!r}, expected {expected[worst]!r}, error {error[worst]:.3g}, budget {budget[worst]:.3g}"
        )


def assert_close(actual: Tensor, expected: Tensor, what: str, *, tolerance: float = 1e-6) -> None:
    """Equal to ``tolerance`` of the largest value: for two runs of the same code, in float64 but for float32 biases."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise AssertionError(
            f"{what}: got {actual.dtype} {tuple(actual.shape)}, expected {expected.dtype} {tuple(expected.shape)}"
        )
    error = (actual - expected).abs()
    limit = tolerance * max(1.0, expected.abs().max().item())
    if not bool((error <= limit).all()):
        worst = np.unravel_index(int(torch.nan_to_num(error, nan=torch.inf).argmax()), tuple(error.shape))
        index = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{what}: at {index} got {actual[index].item()!r}, expected {expected[index].item()!r}, limit {limit:.3g}"
        )


def assert_same(actual: list[Tensor], expected: list[Tensor], what: str) -> None:
    for a, e in zip(actual, expected, strict=True):
        if a.dtype != e.dtype or not torch.equal(a, e):
            raise AssertionError(f"{what}: expected the same numbers to the last bit")

"""Measures the angles by which a function rotates: their sign, base and errors."""

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from posenc.lab.diagnose.matrix import FloatArray
from posenc.lab.diagnose.probe import Probe

_LENGTHS = (1, 64, 1024, 4095, 32_768, 131_072)
_EPS32 = float(np.finfo(np.float32).eps)


def direction_of(matrix: FloatArray, pairs: list[tuple[int, int]], given: FloatArray | None) -> Literal["+", "-", "?"]:
    """The sign with which the first channel of the fastest pair enters the second, at position 1."""
    if not pairs:
        return "?"
    a, b = pairs[0]
    sine = matrix[b, a]
    if given is not None:
        sine = sine * math.copysign(1.0, math.sin(given[0]))
    return "+" if sine > 0 else "-"


def precision_of(
    probe: Probe, pairs: list[tuple[int, int]], direction: str, scale: float, moved: FloatArray
) -> tuple[float | None, str, tuple[tuple[int, float], ...], FloatArray]:
    """The base, the quality of the angles, the error by position, and the rates (empty if the angles are given)."""
    given = np.empty(0)
    if not pairs:
        return None, "none", (), given
    sign = -1.0 if direction == "-" else 1.0
    first = [a for a, _ in pairs]
    second = [b for _, b in pairs]
    x = torch.zeros(1, 2, 1, probe.head_dim)
    x[..., first] = 1.0

    def complex_at(position: int) -> NDArray[np.complex128]:
        image = moved.T @ (probe.run(x, (position,))[0][0, 0, 0].double().numpy() / scale)
        turned: NDArray[np.complex128] = image[first] + 1j * sign * image[second]
        return turned

    if not probe.form.makes_its_angles:
        # The caller gives the angles, so this tests only the arithmetic, at angles that tables represent well.
        errors = []
        for position in _LENGTHS:
            angle = probe.angle((position,))[0].numpy()
            got = complex_at(position)
            error = min(float(np.abs(got - np.exp(1j * angle[: len(got)])).max()), 9.99)
            errors.append((position, error))
        sound = all(error < 1e-5 for _, error in errors)
        return None, "given", tuple(errors) if sound else (), given
    rates = np.angle(complex_at(1))
    base, rates = _geometric(rates)
    errors = []
    for position in _LENGTHS:
        if position > 4095 and "positions" not in probe.form.roles:
            break  # a function of this form needs a sequence of this length
        try:
            got = complex_at(position)
        except Exception:  # past the end of its table; the function may raise any error
            break
        errors.append((position, float(np.abs(got - np.exp(1j * position * rates)).max())))
    if base is None:
        return None, "made by a rule that is not geometric", (), rates
    if all(error < 4 * _EPS32 for _, error in errors):
        return base, "exact", tuple(errors), rates
    worst = max(error / position for position, error in errors if position > 1)
    return base, "float32" if worst < 4 * _EPS32 else "coarse", tuple(errors), rates


def inverted_ramp(rates: FloatArray) -> str | None:
    """The fault if the slowest pairs have the rates of RoPE and the fastest do not; None otherwise."""
    n = len(rates)
    if n < 8 or (rates <= 0).any():
        return None
    step = math.log(rates[-2] / rates[-1])  # ln(base) / n, if the slowest pairs are as in RoPE
    if abs(math.log(rates[-1]) + (n - 1) * step) > 0.02 or rates[0] > 0.9:
        return None
    return (
        f"its ramp is inverted: the fastest pair rotates {1 / rates[0]:.3g} times slower than in RoPE, and the "
        "slowest pair as in RoPE. Rules for longer texts keep the fast pairs and slow down the slow ones"
    )


def _geometric(rates: FloatArray) -> tuple[float | None, FloatArray]:
    """The base b of rates b^(-c/n), c = 0 .. n - 1, as the roundest number that fits; None if none fits."""
    n = len(rates)
    if n < 2 or (rates <= 0).any() or abs(rates[0] - 1) > 1e-5:
        return None, rates
    exponent = np.arange(n) / n
    slope = float(np.dot(exponent, -np.log(rates)) / np.dot(exponent, exponent))
    for relative, absolute in ((1e-4, 2e-7), (1e-2, 1.0)):  # float32, then rates that were rounded to half precision
        for digits in range(1, 9):
            base = float(f"{math.exp(slope):.{digits}g}")
            exact = base**-exponent
            if np.abs(exact / rates - 1).max() < relative and np.abs(exact - rates).max() < absolute:
                return base, exact
    return None, rates

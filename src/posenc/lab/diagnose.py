"""`posenc diagnose`: what does an unknown rotation do?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posenc.frequencies import Geometric
from posenc.integrations.transformers.rotations.signature import Form, arguments_for, call, candidates, load

FloatArray = NDArray[np.float64]

#: Widths of a head that are tried, the first that the function takes.
_WIDTHS = (32, 64, 128, 16, 96, 80, 256)

_LENGTHS = (1, 64, 1024, 4095, 32_768, 131_072)
_EPS32 = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Diagnosis:
    """What was found out about a rotation.

    Attributes:
        signature: how it wants to be called.
        pairing: "half", "interleaved", "half, in blocks of n", or "other".
        direction: "+" if pair (a, b) becomes (a cos - b sin, a sin + b cos), "-" for the other way round.
        rotated: first rotated channel, and the one after the last.
        scale: what the length of a vector is multiplied by.
        output_order: "kept", or how channels are moved besides ("interleaved to half").
        base: the base of its wavelengths, if it makes its angles itself and they are geometric.
        angles: "given", "exact", "float32" or "coarse".
        errors: (position, largest error of cos and sin) against angles in float64.
        bfloat16_error: the largest error on bfloat16 input within 2048 tokens, in units of the rounding that it must
            have; None if it does not take bfloat16.
        faults: sentences about what is wrong. Empty for a sound rotation.
    """

    signature: str
    pairing: str
    direction: Literal["+", "-", "?"]
    rotated: tuple[int, int]
    head_dim: int
    scale: float
    output_order: str
    base: float | None
    angles: str
    errors: tuple[tuple[int, float], ...]
    bfloat16_error: float | None
    faults: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 for a sound rotation, 1 if there are faults."""
        return 1 if self.faults else 0

    def lines(self) -> list[str]:
        """The findings as a person reads them."""
        start, stop = self.rotated
        slice_ = "all" if stop - start == self.head_dim else f"{start} to {stop - 1}"
        found = [
            f"called as      {self.signature}",
            f"pairing        {self.pairing}",
            f"direction      {self.direction}angle",
            f"rotated        {slice_} of {self.head_dim} channels",
            f"scale          {self.scale:.6g}",
            f"output order   {self.output_order}",
            f"angles         {self.angles}" + ("" if self.base is None else f", base {self.base:.6g}"),
        ]
        found += [f"error at {position:>7}  {error:.2e}" for position, error in self.errors]
        if self.bfloat16_error is not None:
            found.append(f"bfloat16       {self.bfloat16_error:.1f} x the rounding that it must have")
        return found + [f"FAULT          {fault}" for fault in self.faults]


def diagnose(
    target: str | Callable[..., Any],
    *,
    head_dim: int | None = None,
    expect_pairing: Literal["half", "interleaved"] | None = None,
    expect_direction: Literal["+", "-"] | None = None,
) -> Diagnosis:
    """Find out what a function that rotates queries and keys does: pairing, direction, slice, scale, precision.

    The function is given basis vectors, and what comes back is its matrix at each position. These ways of calling are
    recognised, by the names of the required arguments or, where names say nothing, by trying: ``f(q, k, cos, sin)``,
    ``f(x, cos, sin)``, ``f(x, sin, cos)``, ``f(q, k, freqs_cis)`` and ``f(x, freqs_cis)`` with complex numbers,
    ``f(x, freqs)`` with angles, ``f(x, positions)``, ``f(q, k, positions)``, ``f(x)`` and ``f(q, k)`` with positions
    0, 1, 2, ... understood. Tables with one number for each channel or for each pair, with and without a batch; x as
    (batch, heads, seq, head_dim) or (batch, seq, heads, head_dim).

    Args:
        target: ``module:function``, ``file.py:function``, or the function. For a method, write a function around it.
        head_dim: channels of a head, for functions that were made for a certain number; by default the first of 32, 64,
            128, 16, 96, 80 and 256 that the function takes.
        expect_pairing, expect_direction: a finding other than this is a fault.

    Returns:
        The findings. ``exit_code`` is 0 for a sound rotation and 1 for one with faults.

    Raises:
        ValueError: the target cannot be found, or none of the ways of calling works.

    Example:
        >>> from posenc import RoPE
        >>> found = diagnose(RoPE(head_dim=32, pairing="interleaved").rotate)
        >>> found.pairing, found.direction, found.base, found.angles, found.faults
        ('interleaved', '+', 10000.0, 'exact', ())
    """
    function = load(target) if isinstance(target, str) else target
    probe = _probe(function, head_dim)
    head_dim = probe.head_dim
    faults: list[str] = []
    matrices = probe.matrices((0, 1, 2, 5, 6))
    first = matrices[0]
    scale = float(np.sqrt(np.trace(first.T @ first) / head_dim))
    order, moved = _permutation(first / scale)
    if order is None:
        raise ValueError(
            f"diagnose: called as {probe.form}, it does not leave a vector as it is at position 0, up to a factor and "
            "an order of channels, so it is no rotation by an angle that grows with the position; is position 0 "
            "something else to it?"
        )
    turned = {p: moved.T @ m / scale for p, m in zip((0, 1, 2, 5, 6), matrices, strict=True)}
    pairs, channels = _pairs(turned[1])
    pairing, rotated = _name_pairing(pairs, channels)
    given = probe.angle((1,))[0].numpy()
    direction = _direction(turned[1], pairs, given if not probe.form.makes_its_angles else None)

    if not probe.is_linear():
        faults.append("it is not linear in its input")
    if (error := float(np.abs(turned[5].T @ turned[5] - np.eye(head_dim)).max())) > 1e-4:
        # cos and sin in bfloat16 do not lie on the circle, by up to 2**-8 of its radius.
        what = "it is no rotation" if error > 0.02 else "its cosines and sines are coarse"
        faults.append(f"{what}: lengths or angles between vectors change, by {error:.2g} at position 5")
    elif (error := float(np.abs(turned[1].T @ turned[2] - turned[5].T @ turned[6]).max())) > 1e-3:
        faults.append(f"scores do not depend on the distance alone: (1, 2) and (5, 6) differ by {error:.2g}")
    if not channels:
        faults.append("it does not rotate anything")
    if probe.mutates():
        faults.append("it writes into the tensors that it is given")
    if (error := probe.key_error()) > 1e-5:
        faults.append(f"keys are turned otherwise than queries, by {error:.2g}")
    if pairing == "other" and channels:
        faults.append(_not_pairs(turned[1]))
    if pairing == "other":
        base, angles = None, "not judged: no pairs"
        errors: tuple[tuple[int, float], ...] = ()
    else:
        base, angles, errors = _precision(probe, pairs, direction, scale, moved)
    if angles == "coarse":
        faults.append(f"its angles are coarse: error {errors[-1][1]:.2g} at position {errors[-1][0]}")
    bfloat16 = probe.bfloat16_error()
    if bfloat16 is not None and bfloat16 > 8:
        faults.append(f"on bfloat16 input it loses {bfloat16:.0f} times what rounding must cost: angles in bfloat16?")
    if expect_pairing is not None and pairing != expect_pairing:
        faults.append(f"its pairing is {pairing!r}, expected {expect_pairing!r}")
    if expect_direction is not None and direction != expect_direction:
        faults.append(f"it turns by {direction}angle, expected {expect_direction}angle")
    return Diagnosis(
        signature=str(probe.form),
        pairing=pairing,
        direction=direction,
        rotated=rotated,
        head_dim=head_dim,
        scale=round(scale, 6),
        output_order=order,
        base=base,
        angles=angles,
        errors=errors,
        bfloat16_error=bfloat16,
        faults=tuple(faults),
    )


def _probe(function: Callable[..., Any], head_dim: int | None) -> "_Probe":
    if head_dim is not None:
        return _Probe(function, head_dim)
    for width in _WIDTHS:
        try:
            return _Probe(function, width)
        except ValueError:
            if width == _WIDTHS[-1]:
                break
    return _Probe(function, _WIDTHS[0])  # says what was tried at the most usual width


def _not_pairs(matrix: FloatArray) -> str:
    """Why the matrix of position 1 is not made of pairs."""
    shifted = np.abs(matrix) > 1e-7
    np.fill_diagonal(shifted, False)
    from_channel = shifted.argmax(axis=1)
    steps = {int(s) for s in (np.arange(len(matrix)) - from_channel)[shifted.any(axis=1)] % len(matrix)}
    if shifted.sum(axis=1).max() == 1 and len(steps) == 1 and 2 * (step := steps.pop()) % len(matrix):
        away = step if step <= len(matrix) // 2 else step - len(matrix)
        return (
            f"each channel c is mixed with channel c {'-' if away > 0 else '+'} {abs(away)}, all around the head "
            f"(x.roll({away})): rolling is no rotation. Channels turn in pairs (a, b) -> (a cos - b sin, a sin + b cos)"
        )
    return "its channels are not in pairs, or the pairs follow no known order"


class _Probe:
    """A function, the way of calling it under which it is a rotation, and what it does to chosen inputs."""

    def __init__(self, function: Callable[..., Any], head_dim: int) -> None:
        self.function, self.head_dim = function, head_dim
        tried: list[str] = []
        running: list[Form] = []
        for form in candidates(function):
            self.form = form
            try:
                self._check_form()
                running.append(form)
                if self._is_rotation():
                    break
            except Exception as error:  # whatever it raises means: not called like this
                tried.append(f"{form}: {type(error).__name__}: {error}".split("\n")[0][:160])
        else:
            if not running:
                listed = "".join(f"\n  {line}" for line in tried) or "\n  none: its signature fits no way of calling"
                raise ValueError(
                    f"diagnose: cannot call the function with heads of {head_dim} channels; give head_dim (--head-dim) "
                    "if it was made for another number, or write a function f(q, k, cos, sin) or f(x, positions) "
                    f"around it. Tried:{listed}"
                )
            self.form = running[0]
        # First of all longer runs, because some functions keep tables in the dtype of the first call.
        self._low = self._in_bfloat16()

    def angle(self, positions: Sequence[int]) -> Tensor:
        """The angles that are given to a function which wants them: those of base 10 000 on all channels."""
        rates = torch.from_numpy(Geometric().inv_freq(self.head_dim))
        return torch.tensor(positions, dtype=torch.float64)[:, None] * rates

    def run(self, x: Tensor, positions: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """``x (batch, heads, len(positions), head_dim)`` turned; positions from 0 on if it takes none."""
        if "positions" not in self.form.roles and self.form.makes_its_angles:
            whole = x.new_zeros(*x.shape[:2], max(positions) + 1, x.shape[3])
            whole[:, :, list(positions)] = x
            q, k = self._call(whole, range(max(positions) + 1))
            chosen = list(positions)
            return q[:, :, chosen], None if k is None else k[:, :, chosen]
        return self._call(x, positions)

    def _call(self, x: Tensor, positions: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        return call(self.function, self.form, self._arguments(x, positions))

    def _arguments(self, x: Tensor, positions: Sequence[int]) -> list[Any]:
        return arguments_for(self.form, x, torch.tensor(positions), self.angle(positions))

    def matrices(self, positions: Sequence[int]) -> FloatArray:
        """The matrix at each position, float64, from the images of the basis vectors."""
        d = self.head_dim
        basis = torch.eye(d)[:, None, None, :].expand(d, 2, len(positions), d).contiguous()
        q, _ = self.run(basis, positions)
        images: FloatArray = q[:, 0].double().numpy()  # (basis vector, position, channel)
        return images.transpose(1, 2, 0)

    def _check_form(self) -> None:
        """Raise unless it runs, turns along the sequence and treats heads alike."""
        x = torch.randn(2, 3, 1, self.head_dim, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 5, -1)
        x = x.contiguous()
        q, _ = self.run(x, range(5))
        same_heads, _ = self.run(x[:, :1].expand(-1, 3, -1, -1).contiguous(), range(5))
        if not torch.allclose(same_heads, same_heads[:, :1].expand_as(same_heads), atol=1e-6):
            raise ValueError("heads are treated differently, so the sequence is another axis")
        if torch.allclose(q, q[:, :, :1].expand_as(q), atol=1e-6) and not torch.allclose(q, x, atol=1e-6):
            raise ValueError("nothing changes along the sequence")

    def _is_rotation(self) -> bool:
        matrix = self.matrices((5,))[0]
        square = matrix.T @ matrix
        return bool(np.abs(square - np.eye(self.head_dim) * square[0, 0]).max() < 1e-4)

    def mutates(self) -> bool:
        """Does it write into a tensor that it is given?"""
        x = torch.randn(2, 3, 5, self.head_dim, generator=torch.Generator().manual_seed(4))
        arguments = self._arguments(x, range(5))
        copies = [a.clone() for a in arguments]
        call(self.function, self.form, arguments)
        return any(not torch.equal(a, b) for a, b in zip(arguments, copies, strict=True))

    def is_linear(self) -> bool:
        """Does the sum of two inputs give the sum of their images?"""
        x = torch.randn(2, 1, 2, 5, self.head_dim, generator=torch.Generator().manual_seed(1))
        (a, _), (b, _), (both, _) = (self.run(part, range(5)) for part in (x[0], x[1], x[0] - 2 * x[1]))
        return torch.allclose(both, a - 2 * b, atol=1e-4)

    def key_error(self) -> float:
        """How far the key's image is from the query's, for the same vector; 0 if it has no key."""
        x = torch.randn(1, 2, 5, self.head_dim, generator=torch.Generator().manual_seed(2))
        q, k = self.run(x, range(5))
        return 0.0 if k is None else float((q - k).abs().max())

    def bfloat16_error(self) -> float | None:
        """The error on bfloat16 input, in roundings of the result; None if it gives no bfloat16."""
        if self._low is None:
            return None
        high, _ = self.run(self._bfloat16_input().float(), range(2048))
        rounding = 2.0**-8 * torch.linalg.vector_norm(high, dim=-1, keepdim=True) / math.sqrt(self.head_dim)
        # Cosine, sine, two products and the sum are rounded: four times a typical value's rounding is no fault.
        return float(((self._low.float() - high).abs() / (4 * rounding)).max())

    def _in_bfloat16(self) -> Tensor | None:
        try:
            low, _ = self.run(self._bfloat16_input(), range(2048))
        except Exception:  # it may refuse the dtype, or the length, in any way
            return None
        return low if low.dtype == torch.bfloat16 else None

    def _bfloat16_input(self) -> Tensor:
        return torch.randn(1, 2, 2048, self.head_dim, generator=torch.Generator().manual_seed(3)).bfloat16()


def _permutation(matrix: FloatArray) -> tuple[str | None, FloatArray]:
    """At position 0 only an order of channels is left: its name and its matrix, or None if it is something else."""
    moved = np.round(np.abs(matrix)).astype(np.float64)
    if np.abs(matrix - moved).max() > 1e-3 or not (moved.sum(0) == 1).all() or not (moved.sum(1) == 1).all():
        return None, moved
    goes_to = moved.argmax(axis=0)
    changed = np.flatnonzero(goes_to != np.arange(len(goes_to)))
    if changed.size == 0:
        return "kept", moved
    start, stop = int(changed[0]) - 1, len(goes_to)  # the first channel of a pair stays where it is
    for end in range(stop, int(changed[-1]), -1):
        n = end - start
        halves = start + np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)]) if n % 2 == 0 else None
        if halves is not None and (goes_to[halves] == np.arange(start, end)).all():
            return "interleaved to half", moved
        if halves is not None and (halves == goes_to[start:end]).all():
            return "half to interleaved", moved
    return "another permutation", moved


def _pairs(matrix: FloatArray) -> tuple[list[tuple[int, int]], list[int]]:
    """Which channel turns into which, the lower first; and all channels that take part."""
    off = np.abs(matrix - np.diag(np.diag(matrix)))
    channels = [int(c) for c in np.flatnonzero(off.max(axis=0) > 1e-7)]
    partner = {c: int(off[:, c].argmax()) for c in channels}
    return sorted({(min(c, p), max(c, p)) for c, p in partner.items()}), channels


def _name_pairing(pairs: list[tuple[int, int]], channels: list[int]) -> tuple[str, tuple[int, int]]:
    if not channels:
        return "other", (0, 0)
    start, stop = channels[0], channels[-1] + 1
    gaps = {b - a for a, b in pairs}
    covered = sorted(c for pair in pairs for c in pair)
    if covered != channels or len(gaps) != 1:
        return "other", (start, stop)
    gap = gaps.pop()
    if gap == 1:
        return "interleaved", (start, stop)
    if gap * 2 == stop - start:
        return "half", (start, stop)
    if (stop - start) % (2 * gap) == 0 and len(channels) == stop - start:
        return f"half, in blocks of {2 * gap}", (start, stop)
    # Slow pairs that do not turn at all (a share of the head) leave holes in both halves.
    return "half", (start, stop)


def _direction(matrix: FloatArray, pairs: list[tuple[int, int]], given: FloatArray | None) -> Literal["+", "-", "?"]:
    """The sign of what the first channel of the fastest pair gives to the second, at position 1."""
    if not pairs:
        return "?"
    a, b = pairs[0]
    sine = matrix[b, a]
    if given is not None:
        sine = sine * math.copysign(1.0, math.sin(given[0]))
    return "+" if sine > 0 else "-"


def _precision(
    probe: _Probe, pairs: list[tuple[int, int]], direction: str, scale: float, moved: FloatArray
) -> tuple[float | None, str, tuple[tuple[int, float], ...]]:
    """The base, the quality of the angles and the error by position."""
    if not pairs:
        return None, "none", ()
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
        # The angles are the caller's: what is left to judge is the arithmetic, at angles that the tables round well.
        errors = []
        for position in _LENGTHS:
            angle = probe.angle((position,))[0].numpy()
            got = complex_at(position)
            error = min(float(np.abs(got - np.exp(1j * angle[: len(got)])).max()), 9.99)
            errors.append((position, error))
        sound = all(error < 1e-5 for _, error in errors)
        return None, "given", tuple(errors) if sound else ()
    rates = np.angle(complex_at(1))
    base, rates = _geometric(rates)
    errors = []
    for position in _LENGTHS:
        if position > 4095 and "positions" not in probe.form.roles:
            break  # such a function would have to turn a sequence of this length
        try:
            got = complex_at(position)
        except Exception:  # past the end of its table, in whatever way it says so
            break
        errors.append((position, float(np.abs(got - np.exp(1j * position * rates)).max())))
    if base is None:
        return None, "made by a rule that is not geometric", ()
    if all(error < 4 * _EPS32 for _, error in errors):
        return base, "exact", tuple(errors)
    worst = max(error / position for position, error in errors if position > 1)
    return base, "float32" if worst < 4 * _EPS32 else "coarse", tuple(errors)


def _geometric(rates: FloatArray) -> tuple[float | None, FloatArray]:
    """The base of rates b^(-c/n), c = 0 .. n - 1, to the roundest number that explains them; None if none does."""
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

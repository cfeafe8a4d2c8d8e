"""Finds out what a rotation does, and its faults."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from posenc.integrations.copied_functions import plain
from posenc.integrations.transformers.rotations.signature import load
from posenc.lab.diagnose.angles import direction_of, inverted_ramp, precision_of
from posenc.lab.diagnose.code import Code, code_for
from posenc.lab.diagnose.matrix import at_position_0, name_pairing, not_pairs, pairs_of
from posenc.lab.diagnose.probe import probe_of


@dataclass(frozen=True)
class Diagnosis:
    """The findings about a rotation.

    Attributes:
        signature: the form of the call.
        pairing: "half", "interleaved", "half, in blocks of n", or "other".
        direction: "+" if pair (a, b) becomes (a cos - b sin, a sin + b cos), "-" for the other way round.
        rotated: the first rotated channel, and the one after the last.
        scale: the factor on the length of a vector.
        output_order: "kept", or how the function also reorders channels ("interleaved to half").
        base: the base of its wavelengths, if the function computes its angles and they are geometric.
        angles: "given", "exact", "float32" or "coarse".
        errors: (position, largest error of cos and sin) against angles in float64.
        bfloat16_error: the largest error on bfloat16 input within 2048 tokens, in units of the unavoidable rounding
            error; None if the function does not take bfloat16.
        faults: sentences about the faults; empty for a correct rotation.
        code: an expression that builds the same rotation in posenc; "" if there is none.
        notes: what to change in ``code``, or the reason why there is none.
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
    code: str
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 for a correct rotation, 1 if there are faults."""
        return 1 if self.faults else 0

    def lines(self) -> list[str]:
        """The findings as lines of text."""
        start, stop = self.rotated
        whole = "none" if stop == start else "all" if stop - start == self.head_dim else ""
        slice_ = whole or f"{start} to {stop - 1}"
        found = [
            f"called as      {self.signature}",
            f"pairing        {self.pairing}",
            f"direction      {'unknown' if self.direction == '?' else f'{self.direction}angle'}",
            f"rotated        {slice_} of {self.head_dim} channels",
            f"scale          {self.scale:.6g}",
            f"output order   {self.output_order}",
            f"angles         {self.angles}" + ("" if self.base is None else f", base {self.base:.6g}"),
        ]
        found += [f"error at {position:>7}  {error:.2e}" for position, error in self.errors]
        if self.bfloat16_error is not None:
            found.append(f"bfloat16       {self.bfloat16_error:.1f} x the rounding that it must have")
        found += [f"FAULT          {fault}" for fault in self.faults]
        if not self.code:
            return [*found, f"in posenc      none: {' '.join(self.notes)}"]
        return [*found, *(f"note           {note}" for note in self.notes), f"in posenc      {self.code}"]


def diagnose(
    target: str | Callable[..., Any],
    *,
    head_dim: int | None = None,
    expect_pairing: Literal["half", "interleaved"] | None = None,
    expect_direction: Literal["+", "-"] | None = None,
) -> Diagnosis:
    """Find out what a function that rotates queries and keys does: pairing, direction, slice, scale, precision.

    ``diagnose`` calls the function with basis vectors; its results are the columns of its matrix at each position. It
    recognises these signatures by the names of the required arguments or, if the names do not tell, by trying them:
    ``f(q, k, cos, sin)``,
    ``f(x, cos, sin)``, ``f(x, sin, cos)``, ``f(q, k, freqs_cis)`` and ``f(x, freqs_cis)`` with complex numbers,
    ``f(x, freqs)`` with angles, ``f(x, positions)``, ``f(q, k, positions)``, ``f(x)`` and ``f(q, k)`` with positions
    0, 1, 2, ... implied. Tables with one number for each channel or for each pair, with and without a batch; x as
    (batch, heads, seq, head_dim) or (batch, seq, heads, head_dim).

    Args:
        target: ``module:function``, ``file.py:function``, the function, or a module whose ``forward`` it is. For a
            method, write a function around it.
        head_dim: channels of a head, for functions that were made for a certain number; by default the first of 32, 64,
            128, 16, 96, 80 and 256 that the function takes.
        expect_pairing, expect_direction: a finding other than this is a fault.

    Returns:
        The findings. ``code`` builds the same rotation in posenc; ``exit_code`` is 0 for a correct rotation and 1 for
        one with faults.

    Raises:
        ValueError: the target cannot be found, or no known form of the call works.

    Example:
        >>> from posenc import RoPE
        >>> found = diagnose(RoPE(head_dim=32, pairing="interleaved").rotate)
        >>> found.pairing, found.direction, found.base, found.angles, found.faults
        ('interleaved', '+', 10000.0, 'exact', ())
    """
    function = plain(load(target) if isinstance(target, str) else target)
    probe = probe_of(function, head_dim)
    head_dim = probe.head_dim
    faults: list[str] = []
    matrices = probe.matrices((0, 1, 2, 5, 6))
    first = matrices[0]
    scale = float(np.sqrt(np.trace(first.T @ first) / head_dim))
    order, moved, fault = at_position_0(first / scale, matrices[1] / scale)
    if order is None:
        raise ValueError(
            f"diagnose: called as {probe.form}, the function changes a vector at position 0 by more than a factor and "
            "an order of channels, so it is not a rotation by an angle that grows with the position; perhaps the "
            "function counts positions in another way."
        )
    if fault is not None:
        faults.append(fault)
    shifted = fault is not None
    turned = {p: moved.T @ m / scale for p, m in zip((0, 1, 2, 5, 6), matrices, strict=True)}
    pairs, channels = pairs_of(turned[1])
    pairing, rotated = name_pairing(pairs, channels)
    given = probe.angle((1,))[0].numpy()
    direction = direction_of(turned[1], pairs, given if not probe.form.makes_its_angles else None)

    if not probe.is_linear():
        faults.append("it is not linear in its input")
    if (error := float(np.abs(turned[5].T @ turned[5] - np.eye(head_dim)).max())) > 1e-4:
        # Rounding to bfloat16 moves (cos, sin) off the unit circle by up to 2**-8.
        what = "it is no rotation" if error > 0.02 else "its cosines and sines are coarse"
        faults.append(f"{what}: lengths or angles between vectors change, by {error:.2g} at position 5")
        if pairing != "other" and (error := max(abs(turned[1][a, a] - turned[1][b, b]) for a, b in pairs)) > 0.02:
            faults.append(
                f"the two channels of a pair turn by two angles, their cosines at position 1 differ by {error:.2g}: "
                "are its tables laid out for the other pairing?"
            )
    elif (error := float(np.abs(turned[1].T @ turned[2] - turned[5].T @ turned[6]).max())) > 1e-3:
        faults.append(f"scores do not depend only on the distance: (1, 2) and (5, 6) differ by {error:.2g}")
    if not channels:
        faults.append("it does not rotate anything")
    other = tuple(faults[shifted:])  # those that make it another function than a rotation
    if probe.mutates():
        faults.append("it writes into the tensors that it is given")
    if (error := probe.key_error()) > 1e-5:
        faults.append(f"keys are turned otherwise than queries, by {error:.2g}")
        other = (*other, faults[-1])
    if pairing == "other" and channels:
        faults.append(not_pairs(turned[1]))
    if pairing == "other":
        base, angles = None, "not judged: no pairs"
        errors: tuple[tuple[int, float], ...] = ()
        code = Code("", (not_pairs(turned[1]),)) if channels else Code("", ("it rotates nothing, as posenc.NoPE().",))
    else:
        base, angles, errors, rates = precision_of(probe, pairs, direction, scale, moved)
        if base is None and (fault := inverted_ramp(rates)) is not None:
            faults.append(fault)
        is_given = not probe.form.makes_its_angles
        code = code_for(
            pairing,
            pairs,
            rotated,
            given[: len(pairs)] if is_given else rates,
            turned,
            minus=direction == "-",
            scale=scale,
            base=10_000.0 if is_given else base,
            given=is_given,
            seq_dim=-2 if probe.form.layout.startswith("(batch, heads") else -3,
        )
    if code.line and shifted:
        code = replace(code, notes=(*code.notes, "The line is without the fault at position 0."))
    if code.line and order != "kept":
        moved_alike = f"The function also reorders channels ({order}), which scores do not see if q and k are alike."
        code = replace(code, notes=(*code.notes, moved_alike))
    if other:
        code = Code("", (f"{other[0]}.",))
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
        code=code.line,
        notes=code.notes,
    )

"""The line of posenc code that builds the rotation that was found, or the reason why there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from posenc import RoPE
from posenc.frequencies import Custom, Geometric
from posenc.lab.diagnose.matrix import FloatArray

_NEAR = 1e-3  # of the matrices at positions up to 6; angles in half precision are further away


@dataclass(frozen=True)
class Code:
    """What to write in posenc.

    Attributes:
        line: an expression that builds the encoding; "" if there is none.
        notes: what to change in it, or the reason why there is none.
    """

    line: str
    notes: tuple[str, ...]


def code_for(
    pairing: str,
    pairs: Sequence[tuple[int, int]],
    rotated: tuple[int, int],
    rates: FloatArray,
    turned: Mapping[int, FloatArray],
    *,
    minus: bool,
    scale: float,
    base: float | None,
    given: bool,
    seq_dim: int,
) -> Code:
    """The code, which was built and compared with the function at positions up to 6.

    Args:
        pairing: as in the diagnosis.
        pairs: the channels of each pair.
        rotated: the first rotated channel, and the one after the last.
        rates: the rate of each of ``pairs``, in radians per token, as if the function turned by +angle.
        turned: position -> matrix of the function, without its scale and its order of channels.
        minus: whether it turns by -angle.
        scale: its factor.
        base: the base of the rates if they are geometric.
        given: whether the caller gives the angles, so that the function does not say the rule.
        seq_dim: the dimension of the tokens.
    """
    start, stop = rotated
    head_dim = len(turned[1])
    if pairing not in ("half", "interleaved"):
        if pairing.startswith("half, in blocks"):
            return Code(
                "", ("RoPE has one block; for blocks that turn by several coordinates see AxialRoPE and MRoPE.",)
            )
        return Code("", ("it does not rotate pairs of channels in one of the two orders, which RoPE does.",))
    width = stop - start
    by_slot = np.zeros(width // 2)
    for (first, _), rate in zip(pairs, rates, strict=True):
        by_slot[(first - start) // (1 if pairing == "half" else 2)] = rate
    sign = -1.0 if minus else 1.0
    options = {"pairing": pairing, "rotary_dim": width, "rotary_start": start}
    rope = RoPE(head_dim, frequencies=Custom(sign * by_slot), **options)  # type: ignore[arg-type]
    for position, matrix in turned.items():
        if np.abs(rope.matrix(torch.tensor(position)).numpy() - matrix).max() > _NEAR:
            return Code("", (f"a RoPE with these pairs and rates gives other results at position {position}.",))
    geometric = base is not None and len(pairs) == width // 2
    written = [f"head_dim={head_dim}"]
    if (rule := _rule(by_slot, width, base if geometric else None, minus=minus, scale=scale)) is not None:
        written.append(f"frequencies={rule}")
    written.append(f'pairing="{pairing}"')
    if width != head_dim:
        written += [f"rotary_dim={width}"] + ([f"rotary_start={start}"] if start else [])
    if seq_dim != -2:
        written.append(f"seq_dim={seq_dim}")
    notes = [f"head_dim={head_dim} is the width that was tried; write that of your model."]
    if given:
        notes.append("Its caller makes the angles: write the rule of their rates in place of base 10,000.")
    elif not geometric:
        notes.append("The rates are as measured, to 8 digits; the rule of your model gives more exact ones.")
    return Code(f"posenc.RoPE({', '.join(written)})", tuple(notes))


def _rule(rates: FloatArray, width: int, base: float | None, *, minus: bool, scale: float) -> str | None:
    """The rule as code; None for the default."""
    plain = not minus and abs(scale - 1) < 1e-6
    sign = "-" if minus else ""
    factor = "" if abs(scale - 1) < 1e-6 else f", attention_factor={scale:.6g}"
    rules = "posenc.frequencies"
    if base is None:
        listed = ", ".join(f"{rate:.8g}" for rate in (-rates if minus else rates))
        return f"{rules}.Custom([{listed}]{factor})"
    geometric = f"{rules}.{Geometric(base=base)}"
    if plain:
        return None if base == 10_000 else geometric
    return f"{rules}.Custom({sign}{geometric}.inv_freq({width}){factor})"

"""No figure before the result is right: every contestant's output against the float64 oracle."""

import numpy as np
import torch
from torch import Tensor

import posenc
from benchmarks.registry import OFFSET, Bench
from posenc.oracle.queries_keys import rope as oracle

TOKENS = 64  # this many at the start and at the end of a long case


def check(bench: Bench) -> dict[str, float]:
    """The largest error of each contestant, as a share of what its dtype allows; posenc must be at most 1."""
    errors: dict[str, float] = {}
    for name, contestant in bench.contestants.items():
        if contestant.check is not None:
            with torch.no_grad():
                errors[name] = max(_error(*output) for output in contestant.check())
    wrong = {name: error for name, error in errors.items() if bench.contestants[name].ours and not error <= 1}
    if wrong:
        raise AssertionError(
            f"{bench.case.name}: the gate is red, {wrong} times the error that is allowed; no figures."
        )
    return errors


def _error(y: Tensor, x: Tensor, pairing: str, rotary_dim: int) -> float:
    """max |y - oracle| over 1e-6 of the scale, plus half a unit in the last place in half precision."""
    tokens = x.shape[2]
    keep = sorted({*range(min(TOKENS, tokens)), *range(max(0, tokens - TOKENS), tokens)})
    values = x[:, :, keep].double().cpu().numpy()
    inv_freq = posenc.Geometric().inv_freq(rotary_dim)
    want = oracle.rotate(values, np.array(keep) + OFFSET, inv_freq=inv_freq, pairing=pairing)
    allowed = np.full(want.shape, 1e-6 * np.abs(values).max())
    if y.dtype in (torch.bfloat16, torch.float16):
        info = torch.finfo(y.dtype)
        exponent = np.floor(np.log2(np.maximum(np.abs(want), info.smallest_normal)))
        allowed += 0.5 * info.eps * 2.0**exponent
    error = np.abs(y[:, :, keep].detach().double().cpu().numpy() - want)
    return float((error / allowed).max())

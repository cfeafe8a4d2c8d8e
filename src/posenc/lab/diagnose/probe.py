"""An unknown function: the form of its call, and its results on chosen inputs."""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posenc.frequencies import Geometric
from posenc.integrations.transformers.rotations.signature import Signature, arguments_for, call, candidates
from posenc.lab.diagnose.matrix import FloatArray

#: Head widths that are tried in order, until the function takes one.
_WIDTHS = (32, 64, 128, 16, 96, 80, 256)


class Probe:
    """A function, the form of the call under which it is a rotation, and its results on chosen inputs."""

    def __init__(self, function: Callable[..., Any], head_dim: int) -> None:
        self.function, self.head_dim = function, head_dim
        tried: list[str] = []
        running: list[Signature] = []
        for form in candidates(function):
            self.form = form
            try:
                self._check_form()
                rotates = self._is_rotation()
                running.append(form)
                if rotates:
                    break
            except Exception as error:  # any error means that this is not the form of the call
                tried.append(f"{form}: {type(error).__name__}: {error}".split("\n")[0][:160])
        else:
            if not running:
                listed = "".join(f"\n  {line}" for line in tried) or "\n  none: its signature fits no way of calling"
                raise ValueError(
                    f"diagnose: cannot call the function with heads of {head_dim} channels; give head_dim "
                    "(--head-dim) if the function was made for another number of channels, or write a function f(q, "
                    f"k, cos, sin) or f(x, positions) around it. Tried:{listed}"
                )
            self.form = running[0]
        # Longer runs come first, because some functions keep tables in the dtype of the first call.
        self._low = self._in_bfloat16()

    def angle(self, positions: Sequence[int]) -> Tensor:
        """The angles for a function that takes angles: base 10 000 on all channels."""
        rates = torch.from_numpy(Geometric().inv_freq(self.head_dim))
        return torch.tensor(positions, dtype=torch.float64)[:, None] * rates

    def run(self, x: Tensor, positions: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Rotate ``x (batch, heads, len(positions), head_dim)``; positions count from 0 if the function takes none."""
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
        """The matrix at each position, in float64, computed from the rotated basis vectors."""
        d = self.head_dim
        basis = torch.eye(d)[:, None, None, :].expand(d, 2, len(positions), d).contiguous()
        q, _ = self.run(basis, positions)
        images: FloatArray = q[:, 0].double().numpy()  # (basis vector, position, channel)
        return images.transpose(1, 2, 0)

    def _check_form(self) -> None:
        """Raise unless the call runs, its result changes along the sequence, and all heads get the same result."""
        x = torch.randn(2, 3, 1, self.head_dim, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 5, -1)
        x = x.contiguous()
        q, _ = self.run(x, range(5))
        if not torch.isfinite(q).all():
            raise ValueError("the result holds NaN or infinity, expected finite numbers")
        same_heads, _ = self.run(x[:, :1].expand(-1, 3, -1, -1).contiguous(), range(5))
        if not torch.allclose(same_heads, same_heads[:, :1].expand_as(same_heads), atol=1e-6):
            raise ValueError("the heads get different results, so the sequence is along another axis")
        if torch.allclose(q, q[:, :, :1].expand_as(q), atol=1e-6) and not torch.allclose(q, x, atol=1e-6):
            raise ValueError("the results do not change along the sequence")

    def _is_rotation(self) -> bool:
        matrix = self.matrices((5,))[0]
        square = matrix.T @ matrix
        return bool(np.abs(square - np.eye(self.head_dim) * square[0, 0]).max() < 1e-4)

    def mutates(self) -> bool:
        """Whether the function writes into its arguments."""
        x = torch.randn(2, 3, 5, self.head_dim, generator=torch.Generator().manual_seed(4))
        arguments = self._arguments(x, range(5))
        copies = [a.clone() for a in arguments]
        call(self.function, self.form, arguments)
        return any(not torch.equal(a, b) for a, b in zip(arguments, copies, strict=True))

    def is_linear(self) -> bool:
        """Whether the sum of two inputs gives the sum of their results."""
        x = torch.randn(2, 1, 2, 5, self.head_dim, generator=torch.Generator().manual_seed(1))
        (a, _), (b, _), (both, _) = (self.run(part, range(5)) for part in (x[0], x[1], x[0] - 2 * x[1]))
        return torch.allclose(both, a - 2 * b, atol=1e-4)

    def key_error(self) -> float:
        """The difference between a rotated key and a rotated query, for the same vector; 0 if there is no key."""
        x = torch.randn(1, 2, 5, self.head_dim, generator=torch.Generator().manual_seed(2))
        q, k = self.run(x, range(5))
        return 0.0 if k is None else float((q - k).abs().max())

    def bfloat16_error(self) -> float | None:
        """The error on bfloat16 input, in units of the result's rounding; None if the result is not bfloat16."""
        if self._low is None:
            return None
        high, _ = self.run(self._bfloat16_input().float(), range(2048))
        rounding = 2.0**-8 * torch.linalg.vector_norm(high, dim=-1, keepdim=True) / math.sqrt(self.head_dim)
        # Cosine, sine, two products and the sum are rounded, so four times the rounding of a typical value is allowed.
        return float(((self._low.float() - high).abs() / (4 * rounding)).max())

    def _in_bfloat16(self) -> Tensor | None:
        try:
            low, _ = self.run(self._bfloat16_input(), range(2048))
        except Exception:  # the function may refuse the dtype or the length with any error
            return None
        return low if low.dtype == torch.bfloat16 else None

    def _bfloat16_input(self) -> Tensor:
        return torch.randn(1, 2, 2048, self.head_dim, generator=torch.Generator().manual_seed(3)).bfloat16()


def probe_of(function: Callable[..., Any], head_dim: int | None) -> Probe:
    for width in _WIDTHS if head_dim is None else ():
        with contextlib.suppress(ValueError):
            return Probe(function, width)
    return Probe(function, head_dim or _WIDTHS[0])  # the error lists what was tried

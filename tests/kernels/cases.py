"""Random calls of the rotation, and what the NumPy oracle says of them."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posenc.oracle.queries_keys import rope as oracle

ROWS = 40


def tables(inv_freq: NDArray[np.float64], dtype: torch.dtype, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    angle = torch.arange(rows, dtype=torch.float64)[:, None] * torch.from_numpy(inv_freq)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    return angle.cos().to(arithmetic), angle.sin().to(arithmetic)


@dataclass
class Case:
    """One call: ``q, k, cos, sin`` and ``options`` are its arguments."""

    seed: int
    dtype: torch.dtype
    q: Tensor = field(init=False)
    k: Tensor = field(init=False)
    cos: Tensor = field(init=False)
    sin: Tensor = field(init=False)
    options: dict[str, object] = field(init=False)

    def __post_init__(self) -> None:
        rng = self.rng = np.random.default_rng(self.seed)
        torch.manual_seed(self.seed)
        self.batch, self.tokens = int(rng.integers(1, 4)), int(rng.choice([1, 2, 3, 7, 16, 17]))
        self.pairs = int(rng.choice([1, 2, 3, 8, 16, 33]))
        self.start = int(rng.choice([0, 0, 1, 6]))
        head_dim = self.start + 2 * self.pairs + int(rng.choice([0, 0, 1, 5]))
        self.token_dim = int(rng.choice([1, 2]))
        self.pairing = str(rng.choice(["half", "interleaved"]))
        self.inverse = bool(rng.integers(2))
        self.inv_freq = 10_000.0 ** (-np.arange(self.pairs) / self.pairs)
        self.cos, self.sin = tables(self.inv_freq, self.dtype)
        self.q = self._tensor(int(rng.integers(1, 5)), head_dim)
        self.k = self._tensor(int(rng.integers(1, 3)), head_dim)
        kind, positions, offset = rng.choice(["offset", "seq", "batch", "one row"]), None, 0
        if kind == "offset":
            offset = int(rng.integers(ROWS - self.tokens + 1))
            self.ids = np.arange(offset, offset + self.tokens)
        else:
            shape = {"seq": (self.tokens,), "batch": (self.batch, self.tokens), "one row": (1, self.tokens)}[str(kind)]
            self.ids = rng.integers(0, ROWS, size=shape)
            positions = torch.from_numpy(self.ids).to(torch.int64 if rng.integers(2) else torch.int32)
            self.ids = np.broadcast_to(self.ids, (self.batch, self.tokens)) if len(shape) == 2 else self.ids
        self.options = {
            "positions": positions,
            "offset": offset,
            "start": self.start,
            "token_dim": self.token_dim,
            "pairing": self.pairing,
            "inverse": self.inverse,
        }

    def _tensor(self, heads: int, head_dim: int) -> Tensor:
        """A view into a larger tensor of NaN: any order of the axes, gaps between them, an offset into the storage."""
        sizes = [self.batch, heads, self.tokens, head_dim]
        if self.token_dim == 1:
            sizes[1], sizes[2] = sizes[2], sizes[1]
        order = self.rng.permutation(4) if self.rng.integers(2) else np.arange(4)
        gaps = [int(self.rng.choice([0, 0, 1, 3])) if self.rng.integers(2) else 0 for _ in range(4)]
        room = torch.full([sizes[axis] + gap for axis, gap in zip(order, gaps, strict=True)], torch.nan).to(self.dtype)
        view = room[tuple(slice(gap, None) for gap in gaps)].permute(*np.argsort(order).tolist())
        assert list(view.shape) == sizes
        view.copy_(torch.randn(sizes))
        return view

    def expected(self, x: Tensor, *, inverse: bool | None = None) -> NDArray[np.float64]:
        """The oracle's rotation of ``x``, in the layout of the call."""
        inverse = self.inverse if inverse is None else inverse
        values = x.detach().to(torch.float64).numpy()
        if self.token_dim == 1:
            values = values.swapaxes(1, 2)
        end = self.start + 2 * self.pairs
        turned = values.copy()
        turned[..., self.start : end] = oracle.rotate(
            values[..., self.start : end],
            -self.ids if inverse else self.ids,
            inv_freq=self.inv_freq,
            pairing=self.pairing,
        )
        return turned.swapaxes(1, 2) if self.token_dim == 1 else turned

    def assert_close(self, actual: Tensor, expected: NDArray[np.float64], of: Tensor, *, ulps: float = 0.5) -> None:
        """float32: 1e-6 of the input's scale; bfloat16 and float16: ``ulps`` units in the last place plus 1e-6."""
        assert actual.dtype == self.dtype
        assert tuple(actual.shape) == expected.shape
        if expected.size == 0:
            return
        scale = max(float(of.detach().double().abs().max()), 1e-30)
        budget = np.full(expected.shape, (1e-14 if self.dtype == torch.float64 else 1e-6) * scale)
        if self.dtype in (torch.float16, torch.bfloat16):
            info = torch.finfo(self.dtype)
            exponent = np.floor(np.log2(np.maximum(np.abs(expected), info.smallest_normal)))
            budget += ulps * info.eps * 2.0**exponent
        error = np.abs(actual.detach().double().numpy() - expected)
        assert not np.isnan(error).any(), "NaN from outside the tensor came in"
        assert (error <= budget).all(), f"error {error.max():.3g} at {np.unravel_index(error.argmax(), error.shape)}"

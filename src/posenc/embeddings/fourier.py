"""Fourier features of a point."""

from collections.abc import Sequence
from typing import Literal, final, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from posenc.encoding import EmbeddingEncoding
from posenc.kernels.precision import exact_positions

Order = Literal["cos_sin", "sin_cos"]


@final
class FourierFeatures(EmbeddingEncoding):
    r"""Fourier features: cosines and sines of a point along many directions, which are random by default.

    Place: embeddings. Learned: nothing. Relative: no. Keys may be cached: yes.

    .. math::
        \mathrm{code}(v) = \big[\, \cos 2\pi B v,\ \sin 2\pi B v \,\big]

    Here :math:`v` is a point, such as the middle of a patch from -1 to 1, and each row of :math:`B` is a direction: its
    numbers are turns per unit of each coordinate. The paper draws them from a normal distribution and does not train
    them. With a large ``bandwidth`` near points have different codes; with a small one far points have similar codes.

    Args:
        dim: channels of the embedding, even: a cosine and a sine for each direction.
        coordinates: how many numbers a point has.
        bandwidth: standard deviation of the numbers of :math:`B`, in turns per unit; the paper's sigma. 1 by default,
            as in SAM, whose points go from -1 to 1.
        seed: of the random directions, 0 by default. They are drawn in float64 by NumPy's RandomState, whose numbers
            never change, so nothing has to be stored and no cast can corrupt them.
        directions: :math:`B` itself, ``(dim / 2, coordinates)``, such as a checkpoint's, instead of ``bandwidth`` and
            ``seed``. :meth:`along_axes` makes others.
        order: "cos_sin" as in the paper, or "sin_cos" (SAM, Perceiver).

    Shape:
        x ``(batch, seq, dim)`` -> the same. Positions ``(batch, seq, coordinates)`` or ``(1, seq, coordinates)``,
        integer or float, also negative; ``(seq,)`` or ``(batch, seq)``, from 0 on, set all coordinates to one number.

    Precision: angles in float64, the sum with x in float32, rounded once to the dtype of x.

    Raises:
        ValueError: a ``dim`` that is odd or below 2; directions of another shape, or that are no numbers; directions
            together with a bandwidth or a seed; a seed outside 0 to 2**32 - 1; an unknown order; x of another width;
            bad positions.

    Example:
        >>> from posenc.positions import grid
        >>> FourierFeatures(dim=8, bandwidth=2.0).codes(grid(4, 4, unit="centred")).shape
        torch.Size([1, 16, 8])

    Differs from the paper: nothing.

    References:
        Tancik et al. Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains. 2020.
        arXiv:2006.10739, section 6.
    """

    settled = True

    def __init__(
        self,
        dim: int,
        *,
        coordinates: int = 2,
        bandwidth: float | None = None,
        seed: int | None = None,
        directions: Sequence[Sequence[float]] | Tensor | None = None,
        order: Order = "cos_sin",
    ) -> None:
        super().__init__()
        if dim < 2 or dim % 2 or coordinates < 1:
            raise ValueError(
                f"FourierFeatures: got dim {dim} and {coordinates} coordinates, expected an even dim of at least 2 (a "
                "cosine and a sine for each direction) and at least 1 coordinate."
            )
        if order not in get_args(Order):
            raise ValueError(f"FourierFeatures: got order {order!r}, expected one of {get_args(Order)}.")
        self.dim = dim
        self.coordinates = coordinates
        self.order = order
        if directions is not None and (bandwidth is not None or seed is not None):
            raise ValueError(
                f"FourierFeatures: got directions together with bandwidth {bandwidth} and seed {seed}, expected "
                "either directions, or a bandwidth and a seed from which directions are drawn; leave out one of the "
                "two."
            )
        if seed is not None and not 0 <= seed < 2**32:
            raise ValueError(f"FourierFeatures: got seed {seed}, expected 0 to 2**32 - 1.")
        self.bandwidth = bandwidth
        self.seed = seed
        self.directions = None if directions is None else _rows(directions, (dim // 2, coordinates))
        if self.directions is not None:
            self._b = self.directions
        else:
            width = 1.0 if bandwidth is None else bandwidth
            drawn = np.random.RandomState(0 if seed is None else seed).standard_normal((dim // 2, coordinates)) * width
            self._b = tuple(tuple(row) for row in drawn.tolist())

    @classmethod
    def along_axes(cls, rates: Sequence[float], *, coordinates: int = 2, order: Order = "sin_cos") -> "FourierFeatures":
        """Directions parallel to the axes: all rates of the first coordinate, then all of the second, ...

        Args:
            rates: turns per unit. NeRF has 1/2, 1, 2, 4, ... and Perceiver
                ``torch.linspace(1, side / 2, bands) / 2`` for an image of ``side`` pixels, both on points from -1 to 1.
            coordinates: how many numbers a point has.
            order: "sin_cos" (sines first) or "cos_sin".
        """
        rows = [
            [rate if c == axis else 0.0 for c in range(coordinates)] for axis in range(coordinates) for rate in rates
        ]
        return cls(2 * len(rows), coordinates=coordinates, directions=rows, order=order)

    def codes(self, positions: Tensor) -> Float[Tensor, "*points dim"]:
        exact = exact_positions(positions)
        points = exact[..., None] if self.coordinates == 1 else exact
        if points.ndim == 0 or points.shape[-1] != self.coordinates:
            raise ValueError(
                f"FourierFeatures: codes got points of shape {tuple(positions.shape)}, expected {self.coordinates} "
                "coordinates in the last dimension."
            )
        b = torch.tensor(self._b, dtype=torch.float64, device=exact.device)
        # Sums in the order of the coordinates, not as a matrix product: far from 0 their rounding is that of the angle.
        turns = points[..., :1] * b[:, 0]
        for c in range(1, self.coordinates):
            turns = turns + points[..., c : c + 1] * b[:, c]
        # A tensor, not a number: torch's exporter to ONNX rounds numbers to float32.
        angle = torch.tensor(2 * torch.pi, dtype=torch.float64, device=exact.device) * turns
        pair = (angle.cos(), angle.sin()) if self.order == "cos_sin" else (angle.sin(), angle.cos())
        return torch.cat(pair, dim=-1)


def _rows(directions: Sequence[Sequence[float]] | Tensor, shape: tuple[int, int]) -> tuple[tuple[float, ...], ...]:
    """Directions as plain numbers."""
    try:
        given = directions.detach().cpu().double() if isinstance(directions, Tensor) else torch.tensor(
            [list(map(float, row)) for row in directions], dtype=torch.float64
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"FourierFeatures: got directions that cannot be read as rows of numbers ({error}), expected shape {shape}."
        ) from error
    if tuple(given.shape) != shape or not bool(torch.isfinite(given).all()):
        raise ValueError(
            f"FourierFeatures: got directions of shape {tuple(given.shape)}, expected finite numbers of shape "
            f"{shape}: one row for each pair of channels, and in each row one number for each coordinate."
        )
    return tuple(tuple(row) for row in given.tolist())

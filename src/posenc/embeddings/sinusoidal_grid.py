"""The sinusoidal code of a grid: images, videos, volumes."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, final, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from posenc.encoding import EmbeddingEncoding
from posenc.frequencies import Frequencies, Geometric
from posenc.frequencies.arguments import check_number
from posenc.kernels.precision import as_float64, exact_positions
from posenc.positions import grid

Layout = Literal["concatenated", "interleaved", "sines_first"]
Convention = Literal["mae", "timm", "rt_detr", "detr", "pixart", "sd3", "cogvideox"]


class _Plan(NamedTuple):
    """How a convention gives coordinates their channels; shares are sixteenths of the width, even ones by default."""

    layout: Layout
    order: tuple[int, ...]
    shares: tuple[int, ...] | None = None


_PLANS: dict[str, _Plan] = {
    "mae": _Plan("concatenated", (1, 0)),
    "timm": _Plan("sines_first", (0, 1)),
    "rt_detr": _Plan("concatenated", (0, 1)),
    "detr": _Plan("interleaved", (0, 1)),
    "pixart": _Plan("concatenated", (1, 0)),
    "sd3": _Plan("concatenated", (1, 0)),
    "cogvideox": _Plan("concatenated", (0, 2, 1), (4, 6, 6)),
}


@final
class SinusoidalGrid(EmbeddingEncoding):
    r"""The sinusoidal code in two or three dimensions: sines and cosines of each coordinate, side by side.

    Place: embeddings. Learned: nothing. Relative: no. Keys may be cached: yes.

    .. math::
        \mathrm{code}(p) = \big[\, \sin p_a\,\omega_{a,c},\ \cos p_a\,\omega_{a,c} \,\big]_{a,\,c}

    Here :math:`p_0, p_1, \dots` are the coordinates of a patch, such as row and column, and :math:`\omega_{a,c}` is
    ``frequencies.inv_freq(width)[c]`` in radians per unit of coordinate :math:`a`, which has ``width`` channels.
    ``order`` and ``layout`` say which channel is which; for two coordinates (y, x) of n rates each:

    ============== ============================================= ====================================
    layout         channels with order (0, 1)                    seen in
    ============== ============================================= ====================================
    "concatenated" n sin y, n cos y, n sin x, n cos x            RT-DETR; MAE with order (1, 0)
    "interleaved"  sin y, cos y, sin y, ..., sin x, cos x, ...   DETR
    "sines_first"  n sin y, n sin x, n cos y, n cos x            timm
    ============== ============================================= ====================================

    All have the same numbers in different channels. Use the order of your checkpoint: :meth:`as_in` selects it by name.

    Args:
        dim: channels of the embedding.
        axes: how many coordinates share them evenly, or the even number of channels of each coordinate, which sum to
            ``dim``.
        frequencies: the rule of the rates; ``Geometric(base=10_000)`` by default. Or a rule for each coordinate:
            ``(NTK(2), Geometric(), Geometric())`` stretches only the time.
        layout: a row of the table above.
        order: which coordinate comes first, second, ...; (1, 0) is "x before y" for positions (y, x). By default their
            own order.

    Shape:
        x ``(batch, seq, dim)`` -> the same. Positions ``(batch, seq, axes)`` or ``(1, seq, axes)``, integer or float,
        also negative, as ``posenc.positions.grid`` returns them; ``(seq,)`` or ``(batch, seq)``, from 0 on, set all
        coordinates to one number. Put a class token without a code before the patches afterwards.

    Precision: angles in float64, the sum with x in float32, rounded once to the dtype of x.

    Raises:
        ValueError: channels that cannot be divided evenly; another number of rules than one, or one for each
            coordinate; an unknown layout; an order that is no permutation; x of another width; bad positions.

    Example:
        >>> from posenc.positions import grid
        >>> mae = SinusoidalGrid.as_in("mae", dim=8)
        >>> mae.codes(grid(14, 14)).shape
        torch.Size([1, 196, 8])
        >>> mae.codes(grid(1, 2))[0, 1].round(decimals=2).tolist()  # x = 1 turns the first half, y = 0 stays
        [0.84, 0.01, 0.54, 1.0, 0.0, 0.0, 1.0, 1.0]

    Differs from the paper: the papers say only that each coordinate gets sines and cosines. The conventions with a name
    follow their code.

    References:
        He et al. Masked Autoencoders Are Scalable Vision Learners. 2021. arXiv:2111.06377, appendix A.1.
        Carion et al. End-to-End Object Detection with Transformers. 2020. arXiv:2005.12872, appendix, spatial
        positional encoding.
        Peebles and Xie. Scalable Diffusion Models with Transformers. 2022. arXiv:2212.09748, section 3.2.
    """

    settled = True
    takes_several_rules = True

    def __init__(
        self,
        dim: int,
        *,
        axes: int | Sequence[int] = 2,
        frequencies: Frequencies | Sequence[Frequencies] | None = None,
        layout: Layout = "concatenated",
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.widths = _widths(dim, axes)
        self.axes = int(axes) if isinstance(axes, (int, np.integer)) else self.widths
        self.coordinates = len(self.widths)
        given = Geometric() if frequencies is None else frequencies
        self.frequencies = given if isinstance(given, Frequencies) else tuple(given)
        rules = (given,) * self.coordinates if isinstance(given, Frequencies) else tuple(given)
        if len(rules) != self.coordinates:
            raise ValueError(
                f"SinusoidalGrid: got {len(rules)} rules of frequencies for {self.coordinates} coordinates, expected "
                "one for all of them, or one for each."
            )
        if layout not in get_args(Layout):
            raise ValueError(f"SinusoidalGrid: got layout {layout!r}, expected one of {get_args(Layout)}.")
        self.layout = layout
        self.order = tuple(range(self.coordinates)) if order is None else tuple(order)
        if sorted(self.order) != list(range(self.coordinates)):
            raise ValueError(
                f"SinusoidalGrid: got order {self.order}, expected each of 0 to {self.coordinates - 1} once."
            )
        self._axis_of_pair: list[int] = []
        self._inv_freq: list[float] = []
        for axis in self.order:
            rates = rules[axis].inv_freq(self.widths[axis]).tolist()
            self._axis_of_pair += [axis] * len(rates)
            self._inv_freq += rates

    @classmethod
    def as_in(cls, convention: Convention, dim: int, *, frequencies: Frequencies | None = None) -> "SinusoidalGrid":
        """The encoding with the channels of a known model; :meth:`coordinates_as_in` gives its positions.

        ============= ======================================================= ==================
        convention    whose code it is                                        positions
        ============= ======================================================= ==================
        "mae"         MAE and DiT; ViTMAE in transformers                     (row, column)
        "timm"        ``build_sincos2d_pos_embed`` of timm                    (row, column)
        "rt_detr"     RT-DETR and AIMv2 in transformers                       (row, column)
        "detr"        DETR, MaskFormer, and models that copied their code     (row, column)
        "pixart"      PixArt's ``PatchEmbed`` in diffusers                    (row, column)
        "sd3"         Stable Diffusion 3's ``PatchEmbed`` in diffusers        (row, column)
        "cogvideox"   CogVideoX: 1/4 for time, 3/8 each for column and row    (frame, row, column)
        ============= ======================================================= ==================

        Raises:
            ValueError: an unknown convention; a ``dim`` that it cannot divide.
        """
        layout, order, shares = _plan(convention)
        if shares is not None and dim % 16:
            raise ValueError(
                f"SinusoidalGrid: got dim {dim}, expected a multiple of 16: {convention} gives time a quarter of it, "
                "and height and width three eighths each."
            )
        axes = 2 if shares is None else [share * dim // 16 for share in shares]
        return cls(dim, axes=axes, frequencies=frequencies, layout=layout, order=order)

    @staticmethod
    def coordinates_as_in(
        convention: Convention,
        *shape: int,
        base: int | None = None,
        scale: float = 1.0,
        time_scale: float = 1.0,
        table: int | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The coordinates that a known model gives its patches: ``(1, patches, axes)`` in float64.

        Args:
            convention: a name of :meth:`as_in`.
            shape: rows and columns of patches; frames, rows and columns for "cogvideox".
            base: "pixart", "sd3": patches along a side at training, over which larger and smaller images are stretched
                (the ``sample_size // patch_size`` of their configs).
            scale: "pixart", "sd3", "cogvideox": the divisor of the coordinates (``interpolation_scale`` or
                ``spatial_interpolation_scale`` in their configs).
            time_scale: "cogvideox": the same for frames (``temporal_interpolation_scale``).
            table: "sd3": patches along a side of its table (``pos_embed_max_size``), whose middle is cut out.
            mask: "detr": ``(batch, rows, columns)``, True where a padded image has pixels. The coordinates are then
                those within each image, ``(batch, patches, 2)``.

        Raises:
            ValueError: a shape of another number of axes; ``base`` or ``table`` missing; an argument that the
                convention does not use; an image larger than the table; a scale that is not above 0; a mask of another
                shape.
        """
        plan = _plan(convention)
        asked = {"base": base, "table": table}
        wanted = {"pixart": {"base"}, "sd3": {"base", "table"}}.get(convention, set())
        given = {name for name, value in asked.items() if value is not None}
        if given != wanted or len(shape) != len(plan.order):
            got, expected = ", ".join(sorted(given)), ", ".join(sorted(wanted))
            raise ValueError(
                f"coordinates_as_in: got shape {shape} and {got or 'no base or table'} for {convention!r}, expected "
                f"{len(plan.order)} sides and {expected or 'no base or table'}."
            )
        scales = {"pixart": {"scale"}, "sd3": {"scale"}, "cogvideox": {"scale", "time_scale"}}.get(convention, set())
        for name, divisor in {"scale": scale, "time_scale": time_scale}.items():
            if divisor != 1 and name not in scales:
                raise ValueError(
                    f"coordinates_as_in: got {name} {divisor!r} for {convention!r}, which does not use it; leave it "
                    "out."
                )
        for name, value in {"scale": scale, "time_scale": time_scale, **asked}.items():
            if value is not None:
                check_number("coordinates_as_in", name, value)
                if value <= 0:
                    raise ValueError(f"coordinates_as_in: got {name} {value}, expected above 0.")
        if mask is not None and (convention != "detr" or mask.ndim != 3 or mask.shape[1:] != shape):
            raise ValueError(
                f"coordinates_as_in: got a mask of shape {tuple(mask.shape)} for {convention!r}, expected a mask only "
                f"with the convention 'detr', of shape (batch, {', '.join(map(str, shape))})."
            )
        if mask is not None:
            return _counted(as_float64(mask))
        first, step = [0.0] * len(shape), [1.0] * len(shape)
        if convention == "detr":
            first = step = [_TURN / (side + _EPSILON) for side in shape]
        elif convention == "pixart":
            step = [(base or 1) / side / scale for side in shape]
        elif convention == "sd3":
            whole = table or 1
            if max(shape) > whole:
                raise ValueError(
                    f"coordinates_as_in: got shape {shape}, expected sides of at most {whole}, the size of the table."
                )
            step = [(base or 1) / whole / scale] * 2
            first = [(whole - side) // 2 * step[0] for side in shape]
        elif convention == "cogvideox":
            step = [1 / time_scale, 1 / scale, 1 / scale]
        places: Tensor = grid(*shape, start=first, step=step)
        return places.double()

    def codes(self, positions: Tensor) -> Float[Tensor, "*points dim"]:
        exact = exact_positions(positions)
        if positions.ndim == 0 or positions.shape[-1] != self.coordinates:
            raise ValueError(
                f"SinusoidalGrid: codes got positions of shape {tuple(positions.shape)}, expected {self.coordinates} "
                "coordinates in the last dimension."
            )
        chosen = exact[..., torch.tensor(self._axis_of_pair, device=exact.device)]
        angle = chosen * torch.tensor(self._inv_freq, dtype=torch.float64, device=exact.device)
        if self.layout == "sines_first":
            return torch.cat((angle.sin(), angle.cos()), dim=-1)
        if self.layout == "interleaved":
            return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)
        blocks = angle.split([self.widths[axis] // 2 for axis in self.order], dim=-1)
        return torch.cat([part for block in blocks for part in (block.sin(), block.cos())], dim=-1)


_TURN, _EPSILON = 2 * math.pi, 1e-6  # of DETR: the last row and the last column are at nearly a whole turn


def _counted(mask: Tensor) -> Tensor:
    """DETR's coordinates of padded images: rows and columns are counted where there are pixels."""
    y, x = mask.cumsum(1), mask.cumsum(2)
    ends = y[:, -1:], x[..., -1:]
    parts = [counts * (_TURN / (end + _EPSILON)) for counts, end in zip((y, x), ends, strict=True)]
    return torch.stack(parts, dim=-1).flatten(1, 2)


def _plan(convention: Convention) -> _Plan:
    if convention not in _PLANS:
        raise ValueError(f"SinusoidalGrid: got convention {convention!r}, expected one of {get_args(Convention)}.")
    return _PLANS[convention]


def _widths(dim: int, axes: int | Sequence[int]) -> tuple[int, ...]:
    """The channels of each coordinate."""
    if isinstance(axes, (int, np.integer)) and not isinstance(axes, bool):
        if axes < 1 or dim < 1 or dim % (2 * axes):
            raise ValueError(
                f"SinusoidalGrid: got dim {dim} for {axes} axes, expected a multiple of {2 * max(axes, 1)}, so that "
                "each axis has pairs of sine and cosine; or give the number of channels of each axis, such as "
                "axes=(32, 48, 48)."
            )
        return (dim // axes,) * axes
    widths = tuple(axes) if isinstance(axes, Sequence) and not isinstance(axes, str) else (axes,)
    whole = all(isinstance(width, (int, np.integer)) and not isinstance(width, bool) for width in widths)
    if not widths or not whole or any(width < 2 or width % 2 for width in widths) or sum(widths) != dim:
        raise ValueError(
            f"SinusoidalGrid: got axes {axes!r} for dim {dim}, expected the number of coordinates, or a tuple with an "
            f"even number of channels (at least 2) for each coordinate, with the sum {dim}."
        )
    return widths

"""The sinusoidal code of diffusion's time."""

from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from posenc.encoding import EmbeddingEncoding
from posenc.kernels.precision import angles

Order = Literal["cos_sin", "sin_cos"]


@final
class Timesteps(EmbeddingEncoding):
    r"""The time of a diffusion or flow as a sinusoidal code, as diffusion models read it before their first layer.

    Place: embeddings. Learned: nothing. Relative: no. Keys may be cached: yes.

    .. math::
        \mathrm{code}(t) = \big[\, \cos s\,t\,\omega_c,\ \sin s\,t\,\omega_c \,\big]_c, \qquad
        \omega_c = T^{-c/(n - f)}, \quad c = 0, \dots, n - 1

    Here :math:`t` is the time, which may be a fraction, :math:`n` = floor(dim / 2), :math:`s` is ``scale``, :math:`T`
    is ``max_period`` and :math:`f` is ``shift``: with 1 the slowest rate is 1 / T, with 0 it is T^(1/n) / T. A model
    calls :meth:`codes` with one time for each image and feeds the result, converted to the dtype of x, to two
    linear layers.

    ========================== ========= ===== ==================================================
    diffusers' ``Timesteps``   order     shift seen in
    ========================== ========= ===== ==================================================
    flip True, shift 0         "cos_sin" 0     Stable Diffusion 1 to 3, Flux, Wan, PixArt, and most
    flip True, shift 1         "cos_sin" 1     DiT in diffusers
    flip False, shift 1        "sin_cos" 1     DDPM's own code, Kandinsky 3
    flip False, shift 0        "sin_cos" 0     ERNIE-Image
    ========================== ========= ===== ==================================================

    In diffusers the names of order and shift are ``flip_sin_to_cos`` and ``downscale_freq_shift``.

    Args:
        dim: channels; an odd last one is 0.
        order: whether the cosines or the sines come first.
        shift: :math:`f`, below n.
        scale: :math:`s`, which multiplies the times; 1000 for times from 0 to 1 in a model that was trained on steps.
        max_period: :math:`T`.

    Shape:
        codes: times of any shape ``(...)`` -> ``(..., dim)``, float64. As an encoding: x ``(batch, seq, dim)`` -> the
        same; the positions are times, from 0 on.

    Precision: angles in float64, rounded once at the end; diffusers computes them in float32, with an error of up to
    6e-5 radians at t = 1000.

    Raises:
        ValueError: ``dim`` below 2; a shift of n or more; a ``max_period`` that is not above 0; an unknown order; x of
            another width; bad positions.

    Example:
        >>> import torch
        >>> Timesteps(dim=4).codes(torch.tensor([0.0, 1.0])).round(decimals=3)
        tensor([[1.0000, 1.0000, 0.0000, 0.0000],
                [0.5400, 1.0000, 0.8410, 0.0100]], dtype=torch.float64)

    Differs from the paper: nothing with ``order="sin_cos"`` and ``shift=1``, which its code has and its text leaves
    open. The defaults are those of most models since.

    References:
        Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020. arXiv:2006.11239, appendix B; code:
        hojonathanho/diffusion, diffusion_tf/nn.py.
    """

    settled = True

    def __init__(
        self,
        dim: int,
        *,
        order: Order = "cos_sin",
        shift: float = 0.0,
        scale: float = 1.0,
        max_period: float = 10_000.0,
    ) -> None:
        super().__init__()
        pairs = dim // 2
        if dim < 2:
            raise ValueError(f"Timesteps: got dim {dim}, expected at least 2: a cosine and a sine.")
        if shift >= pairs:
            raise ValueError(
                f"Timesteps: got shift {shift} for dim {dim}, expected below {pairs}, the number of rates; most models "
                "have 0 or 1."
            )
        if max_period <= 0:
            raise ValueError(f"Timesteps: got max_period {max_period}, expected above 0; almost all models have 10000.")
        if order not in get_args(Order):
            raise ValueError(f"Timesteps: got order {order!r}, expected one of {get_args(Order)}.")
        self.dim = dim
        self.order = order
        self.shift = shift
        self.scale = scale
        self.max_period = max_period
        self._inv_freq = tuple(float(max_period) ** (-c / (pairs - shift)) for c in range(pairs))

    def codes(self, positions: Tensor) -> Float[Tensor, "*positions dim"]:
        angle = angles(positions, self._inv_freq) * self.scale
        pair = (angle.cos(), angle.sin()) if self.order == "cos_sin" else (angle.sin(), angle.cos())
        code = torch.cat(pair, dim=-1)
        return torch.nn.functional.pad(code, (0, self.dim % 2)) if self.dim % 2 else code

"""PoPE: polar coordinate position embeddings."""

import math
from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from posenc.encoding import QueryKeyEncoding
from posenc.frequencies import Frequencies, Geometric
from posenc.frequencies.base import check_choice
from posenc.kernels.inputs import check_replicates, is_distributed
from posenc.kernels.precision import angles, as_float64, compute_dtype
from posenc.positions import Positions, resolve
from posenc.queries_keys._checks import check_fixed, check_lengths, check_tensor, checked_groups, checked_kv_heads
from posenc.queries_keys._rows import for_tensor

Start = Literal["zero", "uniform"]
_LINEAR_FROM = 40.0  # ln(1 + e^x) is x there, in float64 too


@final
class PoPE(QueryKeyEncoding):
    r"""Polar coordinate position embeddings: content sets the magnitude of a channel, and position sets its angle.

    Place: queries_keys. Learned: ``phase``. Relative: yes. Keys may be cached: yes, with twice the channels.

    .. math::
        s_{ij} = \sum_c \mu(q_c)\,\mu(k_c) \cos\big((j - i)\,\omega_c + \delta_c\big), \qquad
        \mu(x) = \ln(1 + e^x)

    Here :math:`i, j` are the positions of query and key in tokens, :math:`\omega_c` is
    ``frequencies.inv_freq(2 * head_dim)[c]`` in radians per token, :math:`b^{-c/d}` by default, one rate for each of
    the :math:`d` = ``head_dim`` channels, and :math:`\delta` is ``phase``, in radians from :math:`-2\pi` to 0, for each
    head of k. RoPE adds the angle between a pair of q and a pair of k, which depends on their content, to the angle of
    the distance; PoPE does not.

    In Cartesian coordinates this is a dot product: a query becomes
    :math:`(\mu \cos i\omega,\; \mu \sin i\omega)` and a key
    :math:`(\mu \cos(j\omega + \delta),\; \mu \sin(j\omega + \delta))`, so q and k have twice as many channels after
    place 2 (``widening`` is 2). Values stay as they are. :meth:`softmax_scale` is 1 / sqrt(``head_dim``).

    Args:
        head_dim: channels of each head, before place 2.
        num_heads: heads of q.
        num_kv_heads: heads of k, each with its own phases; num_heads by default.
        frequencies: the rule that sets the rates; ``Geometric(base=10_000)`` by default. Its ``attention_factor``
            multiplies cos and sin; :func:`posenc.attention` multiplies scores by its ``score_factor``.
        start: "zero", or "uniform" for phases drawn from the whole interval.

    Shape:
        q ``(batch, heads, q_len, head_dim)`` -> ``(batch, heads, q_len, 2 * head_dim)``; k likewise

    Precision: angles in float64; cos and sin rounded once to float32; magnitudes and products in float32, rounded once
    to the dtype of q and k; float64 throughout for float64.

    Raises:
        ValueError: heads that do not fit; frequencies without fixed rates; q or k of another ``head_dim`` or other
            heads; bad positions.

    Example:
        >>> pope = PoPE(head_dim=4, num_heads=2)
        >>> q, k = pope.on_queries_keys(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))
        >>> q.shape
        torch.Size([1, 2, 3, 8])
        >>> round((q @ k.mT)[0, 0, 0, 0].item(), 4)  # at distance 0: four channels of ln 2, squared
        1.9218

    Differs from the released code (PoPE-pytorch): in both a phase beyond its limits counts as the limit. Here it gets
    the gradient at the limit, so that training can move it back; a clamp would give no gradient.

    References:
        Gopalakrishnan, Csordás, Schmidhuber, Mozer. Decoupling the "What" and "Where" With Polar Coordinate Positional
        Embeddings. 2025. arXiv:2509.10534; lucidrains/PoPE-pytorch, PoPE_pytorch/pope.py.
    """

    relative = True
    widening = 2

    def __init__(
        self,
        head_dim: int,
        *,
        num_heads: int,
        num_kv_heads: int | None = None,
        frequencies: Frequencies | None = None,
        start: Start = "zero",
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.num_heads = num_heads
        self.num_kv_heads = checked_kv_heads("PoPE", num_heads, num_kv_heads)
        self.frequencies = Geometric() if frequencies is None else frequencies
        self.start = start
        if head_dim < 1:
            raise ValueError(f"PoPE: got head_dim {head_dim}, expected at least 1.")
        check_choice("PoPE", "start", start, get_args(Start))
        check_fixed("PoPE", self.frequencies)
        self.rotary_dim = 2 * head_dim
        self.scales_scores = self.frequencies.score_factor != 1
        self._inv_freq: tuple[float, ...] = tuple(self.frequencies.inv_freq(self.rotary_dim).tolist())
        self.phase = nn.Parameter(torch.empty(self.num_kv_heads, head_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the phases to 0, or draw new random phases."""
        if self.start == "zero":
            nn.init.zeros_(self.phase)
        else:
            nn.init.uniform_(self.phase, -2 * math.pi, 0.0)

    def softmax_scale(self, head_dim: int) -> float:
        """1 / sqrt of the channels before place 2, for any argument: the wider q and k add no terms to a score."""
        return float(self.head_dim**-0.5)

    def temperature(self, q_positions: Tensor) -> float:
        return self.frequencies.score_factor

    def on_queries_keys(
        self,
        q: Float[Tensor, "batch heads q_len head_dim"],
        k: Float[Tensor, "batch kv_heads k_len head_dim"],
        positions: Positions = None,
        *,
        k_positions: Positions = None,
    ) -> tuple[Float[Tensor, "batch heads q_len 2*head_dim"], Float[Tensor, "batch kv_heads k_len 2*head_dim"]]:
        """Place 2: q and k in Cartesian coordinates, with twice the channels."""
        self._check("q", q)
        groups = self._check("k", k)
        check_replicates("PoPE", self.phase)
        if k_positions is None and not isinstance(positions, Tensor):
            check_lengths("PoPE", q, k, -2, one_layout=True)
        cos, sin = self._tables(positions, q, "positions")
        q = _cartesian(q, cos, sin)
        if k_positions is not None:
            cos, sin = self._tables(k_positions, k, "k_positions")
        elif k.shape[0] != q.shape[0] or k.shape[2] != q.shape[2]:
            cos, sin = self._tables(positions, k, "positions")
        delta = _limited(as_float64(self.phase).to(cos.device))[:, None]
        if groups > 1:
            delta = delta.repeat_interleave(groups, dim=0)
        by_cos, by_sin = delta.cos(), delta.sin()  # of a sum of angles: no cos for each head and token
        return q, _cartesian(k, cos * by_cos - sin * by_sin, sin * by_cos + cos * by_sin)

    def _check(self, name: str, x: Tensor) -> int:
        """Refuse what does not fit; how many heads share the phases of one."""
        check_tensor("PoPE", name, x, self.head_dim, -2, one_layout=True)
        return checked_groups("PoPE", x, -2, self.num_kv_heads)

    def _tables(self, positions: Positions, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """cos and sin of the angles of the positions in float64, ``(1, seq, head_dim)`` or with rows in front."""
        where = resolve(positions, x.shape[2], device=x.device, batch=x.shape[0], name=name)
        angle = angles(where, self._inv_freq).unsqueeze(-3)
        return angle.cos() * self.frequencies.attention_factor, angle.sin() * self.frequencies.attention_factor


def _cartesian(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    if is_distributed(x):  # the gradient of a slice lies in memory as the DTensor says, which that of a product may not
        x = x.narrow(-1, 0, x.shape[-1])
    magnitude = functional.softplus(x.to(compute_dtype(x.dtype)), threshold=_LINEAR_FROM)
    table = for_tensor(torch.stack((cos, sin), dim=-2).to(magnitude.dtype).to(x.device), x)
    return (magnitude[..., None, :] * table).flatten(-2).to(x.dtype)


def _limited(phase: Tensor) -> Tensor:
    plain = phase.detach()
    return phase + (plain.clamp(-2 * math.pi, 0.0) - plain)

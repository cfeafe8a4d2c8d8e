"""xPos: RoPE whose pairs also fade with the distance."""

import math
from typing import final

import torch
from torch import Tensor

from posenc.frequencies import Frequencies, Geometric
from posenc.kernels.precision import angles, exact_positions
from posenc.kernels.rotate.eager import Pairing
from posenc.queries_keys._checks import check_fixed
from posenc.queries_keys._rotation import Length, Role, Rotation


@final
class XPos(Rotation):
    r"""Extrapolatable position embedding: RoPE with scores that decrease with the distance, fastest in the fast pairs.

    Place: queries_keys. Learned: nothing. Relative: yes. Keys may be cached: yes.

    .. math::
        q \leftarrow \zeta_c^{(p - p_0)/B}\,R(p)\,q, \qquad k \leftarrow \zeta_c^{-(p - p_0)/B}\,R(p)\,k, \qquad
        \zeta_c = \frac{2c/r + \gamma}{1 + \gamma}

    Here :math:`p` is the position and :math:`p_0` is ``centre``, in tokens; :math:`B` is ``scale_base`` in tokens;
    :math:`\gamma` is ``gamma``; :math:`R(p)` is the rotation of :class:`posenc.RoPE` with its pair c, and :math:`r` is
    ``rotary_dim``. In the score of a query at i and a key at j, pair c has the factor :math:`\zeta_c^{(i-j)/B}`:
    :math:`p_0` cancels.

    Causal use only: scores of keys after their query would grow, so :func:`posenc.attention` refuses XPos if queries
    see later keys.

    Args:
        head_dim: channels of each head.
        frequencies: the rule that sets the rates; ``Geometric(base=10_000)`` by default.
        gamma: the larger, the less the scores of the fastest pair decrease; 0.4 by default.
        scale_base: :math:`B`: the distance in tokens at which a score has the factor :math:`\zeta`; 512 by default.
        centre: :math:`p_0`, the position whose channels are not scaled. It is fixed, so that cached keys remain valid;
            the middle of the longest context allows the longest contexts.
        pairing: "half", or "interleaved" as in the paper.
        rotary_dim: rotate only this many channels of each head; by default all from ``rotary_start`` on.
        rotary_start: the first rotated channel.
        seq_dim: the dimension of the tokens, as for :class:`posenc.RoPE`.

    Shape:
        q ``(batch, heads, q_len, head_dim)``, k ``(batch, kv_heads, k_len, head_dim)`` -> the same shapes.

    Precision: as :class:`posenc.RoPE`; powers in float64. The scale of a token leaves the range of float32 (and of
    bfloat16) ``max_positions - centre`` tokens from the centre, and positions from there on are refused; float16
    has an eighth of that range, and is refused beyond it.

    Raises:
        ValueError: an odd or too large ``rotary_dim``; ``gamma`` or ``scale_base`` of 0 or below; a negative centre;
            positions whose scale the dtype cannot represent; q or k of another ``head_dim``; bad positions.

    Example:
        >>> import torch
        >>> xpos = XPos(head_dim=4, scale_base=1)
        >>> q, k = torch.ones(2, 1, 1, 1, 4, dtype=torch.float64)
        >>> for i in (0, 1, 2):  # the same q and k, further and further apart
        ...     round((xpos.rotate(q, i) * xpos.rotate(k, 0, role="key")).sum().item(), 3)
        4.0
        1.594
        0.758

    Differs from the paper: nothing with the default :math:`p_0` = 0. Other code moves it to the middle of the current
    sequence, which makes all cached keys wrong.

    References:
        Sun et al. A Length-Extrapolatable Transformer. 2022. arXiv:2212.10554, section 3.2 and algorithm 1.
    """

    relative = True
    causal_only = True
    roles_differ = True

    def __init__(
        self,
        head_dim: int,
        *,
        frequencies: Frequencies | None = None,
        gamma: float = 0.4,
        scale_base: float = 512.0,
        centre: int = 0,
        pairing: Pairing = "half",
        rotary_dim: int | None = None,
        rotary_start: int = 0,
        seq_dim: int = -2,
    ) -> None:
        super().__init__(head_dim, pairing=pairing, rotary_dim=rotary_dim, rotary_start=rotary_start, seq_dim=seq_dim)
        self.frequencies = Geometric() if frequencies is None else frequencies
        self.gamma = gamma
        self.scale_base = scale_base
        self.centre = centre
        check_fixed("XPos", self.frequencies)
        for name, value in (("gamma", gamma), ("scale_base", scale_base)):
            if not value > 0:
                raise ValueError(f"XPos: got {name} {value}, expected more than 0; the paper has 0.4 and 512.")
        if centre < 0:
            raise ValueError(f"XPos: got centre {centre}, expected 0 or above; positions count from 0.")
        pairs = self.rotary_dim // 2
        self._inv_freq: tuple[float, ...] = tuple(self.frequencies.inv_freq(self.rotary_dim).tolist())
        self._log_zeta = tuple(math.log((c / pairs + gamma) / (1 + gamma)) for c in range(pairs))
        self.max_positions = centre + self._reach(torch.float32)

    def phases(self, positions: Tensor, *, role: Role = "query", length: Length = None) -> tuple[Tensor, Tensor]:
        exact = exact_positions(positions)
        power = (exact - self.centre)[..., None] / (self.scale_base if role == "query" else -self.scale_base)
        log_zeta = torch.tensor(self._log_zeta, dtype=torch.float64, device=exact.device)
        return angles(positions, self._inv_freq), (power * log_zeta).exp() * self.frequencies.attention_factor

    def check_range(self, positions: Tensor, dtype: torch.dtype) -> None:
        reach = self._reach(dtype)
        if positions.numel() and (far := (positions - self.centre).abs().max().item()) >= reach:
            raise ValueError(
                f"XPos: got a position {far} tokens from the centre {self.centre}, where {dtype} cannot represent "
                f"the scale; expected less than {reach}; move the centre, raise scale_base, or use another dtype."
            )

    def _reach(self, dtype: torch.dtype) -> int:
        """Tokens from the centre up to which a scale and its inverse are normal numbers, with some room for q and k."""
        bits = 12 if dtype == torch.float16 else 120
        return int(self.scale_base * bits * math.log(2) / -self._log_zeta[0])

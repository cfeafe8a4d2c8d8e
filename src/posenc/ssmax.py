"""Scalable softmax: a learned temperature for each head."""

from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from posenc.encoding import Encoding, Multiplies
from posenc.frequencies.base import check_choice
from posenc.kernels.precision import as_float64, exact_positions, sent

Form = Literal["proportional", "affine"]


@final
class SSMax(Encoding):
    r"""Scalable softmax: the temperature of a head grows with the logarithm of the number of tokens so far.

    Place: none. Learned: num_heads numbers, or two times as many. Relative: no. Keys may be cached: yes.

    It multiplies the scores of the query at position p, in head h, by

    - :math:`\tau_h(p) = s_h \ln(p + 1)` for ``form="proportional"``, the paper's, or
    - :math:`\tau_h(p) = s_h \ln(p + 1) + b_h` for ``"affine"`` (Mistral Large 4).

    Here :math:`s` is ``scale`` and :math:`b` is ``offset``. With the factor :math:`s \ln n` the softmax weights are
    powers of n, so attention does not flatten as n grows. The paper replaces the whole softmax, so the factor also
    multiplies a bias, unless ``multiplies="products"``. :func:`posenc.attention` applies it; compose it with the
    encoding of positions: ``Compose(RoPE(...), SSMax(...))``.

    Args:
        num_heads: query heads.
        form: "proportional" or "affine".
        start: the initial :math:`s`: 0.43 by default as in the paper, and 0 for "affine", whose :math:`b` starts at 1,
            so that the initial temperature is 1.
        multiplies: "scores": the dot products and the bias, if there is one; or "products": only the dot products.

    Raises:
        ValueError: no heads; an unknown form or name; bad positions.

    Example:
        >>> import torch
        >>> SSMax(num_heads=2).temperature(torch.tensor([0, 9]))[0].flatten().detach()
        tensor([0.0000, 0.9901], dtype=torch.float64)

    Differs from the paper: nothing. The first token of a sequence, with :math:`\ln 1 = 0`, gives all keys the same
    weight; under a causal mask it sees one.

    References:
        Nakanishi. Scalable-Softmax Is Superior for Attention. 2025. arXiv:2501.19399, section 3. "affine":
        transformers, models/mistral_large4.
    """

    scales_scores = True

    def __init__(
        self,
        num_heads: int,
        *,
        form: Form = "proportional",
        start: float | None = None,
        multiplies: Multiplies = "scores",
    ) -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"SSMax: got num_heads {num_heads}, expected at least 1.")
        if form not in get_args(Form):
            raise ValueError(f"SSMax: got form {form!r}, expected one of {get_args(Form)}.")
        self.num_heads = num_heads
        self.form = form
        self.start = (0.43 if form == "proportional" else 0.0) if start is None else start
        self.multiplies = multiplies
        check_choice("SSMax", "multiplies", multiplies, get_args(Multiplies))
        self.scale = nn.Parameter(torch.empty(num_heads))
        self.offset = nn.Parameter(torch.empty(num_heads)) if form == "affine" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the parameters to their start values."""
        nn.init.constant_(self.scale, self.start)
        if self.offset is not None:
            nn.init.ones_(self.offset)

    def temperature(self, q_positions: Tensor) -> Float[Tensor, "*batch heads q_len 1"]:
        logs = exact_positions(q_positions).log1p()[..., None, :]
        tau = as_float64(self.scale).to(logs.device)[:, None] * logs
        if self.offset is not None:
            tau = tau + as_float64(self.offset).to(logs.device)[:, None]
        return sent(tau[..., None], q_positions.device)

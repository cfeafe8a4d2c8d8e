"""Swin v2's log-spaced continuous position bias."""

import math
from collections.abc import Sequence
from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from posenc.encoding import ScoreEncoding
from posenc.frequencies.base import check_choice
from posenc.kernels.precision import without_autocast
from posenc.scores._distance import looked_up, working
from posenc.scores._linear import ExactLinear
from posenc.scores._window import check, offsets

Form = Literal["code", "paper"]


@final
class SwinV2Bias(ScoreEncoding):
    r"""A small network computes the bias from log-spaced offsets, so that it also works for other window sizes.

    Place: scores. Learned: ``hidden``, ``out``. Relative: in rows and columns, not in the patch indices.
    Keys may be cached: yes.

    .. math::  s_{hij} \leftarrow s_{hij} + 16\,\sigma\big( W_2\,\mathrm{relu}(W_1 (u, v)^\top + b_1) \big)_h, \qquad
        u = \mathrm{sign}(\Delta)\,\tfrac13 \log_2\!\big(1 + |\Delta|\big), \quad \Delta = \frac{8\,(y_i - y_j)}{M' - 1}

    and :math:`v` likewise along :math:`x`. Here :math:`i, j` are the patch indices of query and key, row by row,
    :math:`y_p = \lfloor p/N \rfloor` and :math:`x_p = p \bmod N`, :math:`(M, N)` is ``window`` and :math:`(M', N')` is
    ``trained_window``, whose largest offset is 1 after the logarithm.

    This is the authors' ``form``, "code". That of the paper, "paper", is

    .. math::  s_{hij} \leftarrow s_{hij} + \big( W_2\,\mathrm{relu}(W_1 (u, v)^\top + b_1) + b_2 \big)_h, \qquad
        u = \mathrm{sign}(y_i - y_j)\,\ln\!\big(1 + |y_i - y_j|\big)

    which timm's ``swinv2_cr`` and its MaxViT with ``rmlp`` have (its mode "cr").

    Swin v2 also replaces the dot product by a cosine: normalize q and k and pass the learned
    :math:`\min(e^\tau, 100)` as part of q with ``scale=1``.

    Args:
        num_heads: number of heads.
        window: rows and columns.
        trained_window: the window in training, if it differs from ``window``.
        width: hidden units.
        form: "code" or "paper", as above.

    Shape:
        bias: ``q_positions (q_len,)``, ``k_positions (k_len,)`` -> ``(heads, q_len, k_len)``, all positions below
        rows times columns

    Precision: offsets are spaced in float64 and rounded once to float32, in which the network runs; in float64 if the
    parameters are float64.

    Raises:
        ValueError: ``num_heads``, ``width`` or a side below 1; another form, or a ``trained_window`` for "paper", which
            does not use it; positions past the window, or fractional ones.

    Example:
        >>> SwinV2Bias(num_heads=2, window=(8, 8)).bias(torch.arange(64), torch.arange(64)).shape
        torch.Size([2, 64, 64])

    Differs from the paper: in the form "code" 8, 3 (the binary logarithm of 8), 16 and the sigmoid are the authors'
    code.

    References:
        Liu et al. Swin Transformer V2: Scaling Up Capacity and Resolution. 2021. arXiv:2111.09883, equations 3 and 4;
        microsoft/Swin-Transformer, models/swin_transformer_v2.py.
    """

    def __init__(
        self,
        num_heads: int,
        *,
        window: Sequence[int] = (8, 8),
        trained_window: Sequence[int] | None = None,
        width: int = 512,
        form: Form = "code",
    ) -> None:
        super().__init__()
        check_choice("SwinV2Bias", "form", form, get_args(Form))
        if form == "paper" and trained_window is not None:
            raise ValueError(
                f'SwinV2Bias: got trained_window {trained_window} with form="paper", whose offsets are counted in '
                "patches, not relative to the trained window; leave trained_window out."
            )
        self.form = form
        if width < 1:
            raise ValueError(f"SwinV2Bias: got width {width}, expected at least 1.")
        self.num_heads = num_heads
        self.window = check("SwinV2Bias", num_heads, window)
        self.trained_window = None if trained_window is None else check("SwinV2Bias", num_heads, trained_window)
        self.width = width
        self.max_positions = self.window[0] * self.window[1]
        self.hidden = ExactLinear(2, width)
        self.out = ExactLinear(width, num_heads, bias=form == "paper")

    def reset_parameters(self) -> None:
        """Initialise the network as PyTorch does by default."""
        self.hidden.reset_parameters()
        self.out.reset_parameters()

    def resized(self, rows: int, columns: int) -> "SwinV2Bias":
        """A new encoding for another window: the same network, with offsets scaled as in the trained window."""
        trained = (self.trained_window or self.window) if self.form == "code" else None
        other = SwinV2Bias(
            self.num_heads, window=(rows, columns), trained_window=trained, width=self.width, form=self.form
        )
        other.to(self.hidden.weight).load_state_dict(self.state_dict())
        return other

    def bias(self, q_positions: Tensor, k_positions: Tensor) -> Float[Tensor, "*batch heads q_len k_len"]:
        # The network is asked once for each offset that there is, not once for each pair of places.
        rows, columns = self.window
        weight = working(self.hidden.weight)
        spaced = self._spaced().to(weight.dtype).to(weight.device)
        with without_autocast(weight.device.type):
            inner = F.linear(spaced, weight, working(self.hidden.bias)).relu()
            table = F.linear(inner, working(self.out.weight), None if self.out.bias is None else working(self.out.bias))
            table = table if self.form == "paper" else 16 * table.sigmoid()
        dy, dx = offsets("SwinV2Bias", q_positions, k_positions, self.window)
        return looked_up(table.T, (dy + rows - 1) * (2 * columns - 1) + dx + columns - 1)

    def _spaced(self) -> Tensor:
        """The offsets that there are, as the network sees them, ``(offsets, 2)``, float64."""
        rows, columns = self.window
        sides = (torch.arange(1 - side, side, dtype=torch.float64, device="cpu") for side in (rows, columns))
        grid = torch.cartesian_prod(*sides)
        if self.form == "paper":
            return grid.sign() * grid.abs().log1p()
        reach = 8 * grid / grid.new_tensor([max(side - 1, 1) for side in self.trained_window or self.window])
        return reach.sign() * reach.abs().log1p() / math.log(8)

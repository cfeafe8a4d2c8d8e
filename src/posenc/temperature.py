"""A softmax that is sharpened as the context grows."""

import math
from typing import Literal, final, get_args

from jaxtyping import Float
from torch import Tensor

from posenc.encoding import Encoding, Multiplies
from posenc.frequencies.base import check_choice
from posenc.kernels.precision import exact_positions, sent

Form = Literal["llama4", "mistral", "inkling", "power", "log"]


@final
class Temperature(Encoding):
    r"""A temperature by position: later queries, which have more keys to choose from, get a sharper softmax.

    Place: none. Learned: nothing. Relative: no. Keys may be cached: yes.

    It multiplies the scores of the query at position p by :math:`\tau(p)`: :math:`\tau\, s\, q \cdot k + b` with
    ``multiplies="products"``, :math:`\tau\,(s\, q \cdot k + b)` with ``"scores"``, where :math:`b` is the bias of the
    encoding that it is composed with, if that has one. A bias that reads queries, keys or scores reads them without
    the temperature. :func:`posenc.attention` applies it; compose it with the encoding of positions:
    ``Compose(RoPE(...), Temperature(...))``. By ``form``, with :math:`L` = ``length`` in tokens and :math:`\alpha` =
    ``strength``:

    - "llama4": :math:`1 + \alpha \ln(1 + \lfloor (p + 1) / L \rfloor)`. Llama 4's layers without RoPE: 0.1 and 8192.
    - "mistral": :math:`1 + \alpha \ln(1 + \lfloor p / L \rfloor)`. Ministral 3 and Mistral 4, on all layers.
    - "inkling": :math:`1 + \alpha \ln \max(1, (p + 1) / L)`. The same without steps. Inkling.
    - "power": :math:`(1 + (p + 1) / L)^\alpha`. Beam: 0.1 and 2048.
    - "log": :math:`\max(1, \ln(p + 1) / \ln L)`. Su's log-n scaling, with the trained length; no strength.

    Args:
        form: one of the above.
        length: :math:`L`, above 1.
        strength: :math:`\alpha`, above 0; 0.1 by default, except for "log", which has none.
        multiplies: "products" or "scores". By default "scores" for "inkling", whose model multiplies its relative
            logits too, and "products" for the others, whose models add no bias.

    Raises:
        ValueError: an unknown form or name; a length of 1 or below; a strength of 0 or below, or one for "log"; bad
            positions.

    Example:
        >>> import torch
        >>> Temperature("llama4", length=8192).temperature(torch.tensor([8190, 8191, 131071])).flatten()
        tensor([1.0000, 1.0693, 1.2833], dtype=torch.float64)

    References:
        transformers, models/llama4, ministral3, mistral4, inkling and beam. Su. Scaled attention by entropy invariance
        (log n). 2021. kexue.fm/archives/8823.
    """

    scales_scores = True

    def __init__(
        self, form: Form, *, length: int, strength: float | None = None, multiplies: Multiplies | None = None
    ) -> None:
        super().__init__()
        if form not in get_args(Form):
            raise ValueError(f"Temperature: got form {form!r}, expected one of {get_args(Form)}.")
        if not length > 1:
            raise ValueError(
                f"Temperature: got length {length}, expected the number of tokens after which the temperature rises, "
                "above 1."
            )
        if form == "log" and strength is not None:
            raise ValueError(
                f'Temperature: got strength {strength} with form "log", which has no strength; leave strength out.'
            )
        if strength is not None and not strength > 0:
            raise ValueError(f"Temperature: got strength {strength}, expected more than 0, such as 0.1.")
        self.form = form
        self.length = length
        self.strength = 0.1 if strength is None and form != "log" else strength
        usual: Multiplies = "scores" if form == "inkling" else "products"
        self.multiplies = usual if multiplies is None else multiplies
        check_choice("Temperature", "multiplies", self.multiplies, get_args(Multiplies))

    def temperature(self, q_positions: Tensor) -> Float[Tensor, "*batch heads q_len 1"]:
        return sent(self._tau(exact_positions(q_positions)), q_positions.device)[..., None, :, None]

    def _tau(self, p: Tensor) -> Tensor:
        if self.strength is None:
            return ((p + 1).log() / math.log(self.length)).clamp(min=1)
        if self.form == "llama4":
            return 1 + self.strength * ((p + 1) / self.length).floor().log1p()
        if self.form == "mistral":
            return 1 + self.strength * (p / self.length).floor().log1p()
        if self.form == "inkling":
            return 1 + self.strength * ((p + 1) / self.length).clamp(min=1).log()
        return (1 + (p + 1) / self.length) ** self.strength

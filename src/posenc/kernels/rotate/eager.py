"""The rotation in plain torch: the traceable form, and the reference of the fast ones."""

from typing import Literal

import torch
from torch import Tensor

Pairing = Literal["half", "interleaved"]


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, pairing: Pairing) -> Tensor:
    """Turn each pair (a, b) of the leading channels of ``x`` into (a cos - b sin, a sin + b cos).

    Args:
        x: ``(..., seq, head_dim)``.
        cos, sin: ``(..., seq, pairs)``; the first 2 * pairs channels are rotated, the rest pass through. The arithmetic
            is done in the wider of the dtypes of x and of the tables, and rounded once to that of x.
        pairing: "half" pairs channel c with c + pairs, "interleaved" pairs 2c with 2c + 1.
    """
    rotary_dim = 2 * cos.shape[-1]
    rotated, rest = x[..., :rotary_dim], x[..., rotary_dim:]
    if pairing == "half":
        a, b = rotated.chunk(2, dim=-1)
    else:
        a, b = rotated[..., 0::2], rotated[..., 1::2]
    pair = (a * cos - b * sin, a * sin + b * cos)
    turned = torch.cat(pair, dim=-1) if pairing == "half" else torch.stack(pair, dim=-1).flatten(-2)
    turned = turned.to(x.dtype)
    return turned if rest.shape[-1] == 0 else torch.cat((turned, rest), dim=-1)

"""The rotation as ONNX's own operator, ``RotaryEmbedding`` of opset 23, for graphs that are made to be exported."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from posenc.kernels.rotate.checks import check
from posenc.kernels.rotate.eager import rows_of_tokens

_is_wanted = False


@contextmanager
def wanted() -> Iterator[None]:
    """Graphs that are traced within have the operator wherever it computes the same; the rest is plain torch."""
    global _is_wanted
    before, _is_wanted = _is_wanted, True
    try:
        yield
    finally:
        _is_wanted = before


def suits(q: Tensor, k: Tensor) -> bool:
    """Whether the rotation of q and k is to be the operator, which has no float64."""
    return _is_wanted and q.dtype is not torch.float64 and k.dtype is not torch.float64


def rotate_queries_keys(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    offset: int,
    start: int,
    token_dim: int,
    interleaved: bool,
    inverse: bool,
) -> tuple[Tensor, Tensor]:
    """The arguments of the operators of op.py; the same result as eager.rotate_queries_keys."""
    check(q, k, cos, sin, positions, offset, start, token_dim)
    cos, sin = (rows_of_tokens(table, positions, offset, q.shape[token_dim]) for table in (cos, sin))
    if cos.ndim == 2:  # the operator has tables of each row of the batch
        cos, sin = (table[None].expand(q.shape[0], -1, -1) for table in (cos, sin))
    if inverse:
        sin = -sin
    return _rotate(q, cos, sin, start, token_dim, interleaved), _rotate(k, cos, sin, start, token_dim, interleaved)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, start: int, token_dim: int, interleaved: bool) -> Tensor:
    if 0 in x.shape:  # of two tensors, the one that is not there
        return x
    # In the dtype of the tables, as everywhere: the operator wants one dtype, and would round them to half precision.
    wide = x[..., start:].to(cos.dtype)
    pairs = cos.shape[-1]
    dim = 0 if 2 * pairs == wide.shape[-1] else 2 * pairs
    heads = wide.transpose(1, 2) if token_dim == 1 else wide
    turned: Tensor = torch.onnx.ops.rotary_embedding(heads, cos, sin, interleaved=interleaved, rotary_embedding_dim=dim)
    turned = (turned.transpose(1, 2) if token_dim == 1 else turned).to(x.dtype)
    return turned if start == 0 else torch.cat((x[..., :start], turned), dim=-1)

"""Tensors for the fuzzers: odd strides, and tensors that are wrong in some way."""

import contextlib
import random
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
HUGE = (-1, 2**31, 2**62, -(2**63), 2**63 - 1)


def strided(x: Tensor) -> Tensor:
    """The same values with other strides: axes permuted, gaps, an expanded axis, a storage offset, a tight storage."""
    kind = random.randrange(5)
    if kind == 0:
        order = random.sample(range(x.ndim), x.ndim)
        return x.permute(order).contiguous().permute([order.index(axis) for axis in range(x.ndim)])
    if kind == 1:
        room = torch.zeros([2 * size + 1 for size in x.shape], dtype=x.dtype)
        view = room[tuple(slice(1, None, 2) for _ in x.shape)]
        view.copy_(x)
        return view
    if kind == 2 and x.shape[0]:
        return x[:1].expand(x.shape)
    if kind == 3:
        room = torch.zeros(x.numel() + 3, dtype=x.dtype)
        room[3:] = x.reshape(-1)
        return room[3:].view(x.shape)
    return x


def spoiled(x: Any) -> Any:
    """The same or something else that is wrong in some way; what was made huge would take for ever to spoil more."""
    if isinstance(x, Tensor) and x.numel() < 2**24:
        with contextlib.suppress(RuntimeError):  # not every tensor can be spoiled in every way
            return spoil_tensor(x)
    return x


def spoil_tensor(x: Tensor) -> Any:
    kind = random.randrange(12)
    if kind == 0:
        return x.to(random.choice((*DTYPES, torch.int64, torch.complex64, torch.bool)))
    if kind == 1:
        return x.to("meta")
    if kind == 2 and x.ndim:
        axis = random.randrange(x.ndim)
        return x.narrow(axis, 0, max(0, x.shape[axis] - 1))
    if kind == 3:
        return x.unsqueeze(random.randrange(x.ndim + 1))
    if kind == 4 and x.ndim:
        return x.sum(random.randrange(x.ndim))
    if kind == 5 and x.ndim > 1:
        return x.transpose(*random.sample(range(x.ndim), 2))
    if kind == 6:
        return x.expand(random.randrange(1, 4), *x.shape[1:]) if x.ndim and x.shape[0] == 1 else x.reshape(-1)
    if kind == 7:
        return torch.empty(0, dtype=x.dtype)
    if kind == 8:
        return random.choice((None, 1.0, [1.0], "q"))
    if kind == 9 and x.ndim:
        return torch.as_strided(x, (0, *x.shape[1:]), [2**40] * x.ndim)
    if kind == 10:
        huge = torch.empty((), dtype=x.dtype).expand((2**20, 2**20, 2**21, 2))
        return huge if random.random() < 0.5 else x.to_sparse()
    if kind == 11 and x.ndim:
        return torch.cat((x, x), dim=random.randrange(x.ndim))
    return x[..., ::2] if x.ndim else x

"""Buffers that hold tables of positions: which they are, and how their numbers differ from others."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Buffers and tables that bear on positions, by a part of their name.
POSITIONS = re.compile(r"rotary|rope|pos|sinus|freq|alibi|wpe", re.IGNORECASE)


def table_modules(twin: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in twin.named_modules():
        if any(is_table(module, key) and POSITIONS.search(f"{name}.{key}") for key in module._buffers):
            yield name, module


def is_table(module: nn.Module, key: str) -> bool:
    """A buffer of numbers that is computed, and not read from the checkpoint."""
    buffer = module._buffers[key]
    if buffer is None or not (buffer.is_floating_point() or buffer.is_complex()) or not buffer.ndim:
        return False
    return key in module._non_persistent_buffers_set or key.endswith("inv_freq")


def numbers(x: Tensor) -> Any:
    x = x.detach().cpu()
    return x.to(torch.complex128).numpy() if x.is_complex() else x.double().numpy()


def fits(values: Any, dtype: torch.dtype) -> bool:
    """Could these numbers have been kept in a narrower type without loss?"""
    if np.iscomplexobj(values):
        return False
    x = torch.from_numpy(np.asarray(values))
    return torch.equal(x.to(dtype).double(), x)


def difference(values: Any, wanted: Any) -> str:
    """How the numbers differ."""
    if not np.abs(values).any():
        return "is all zeros"
    moving = np.abs(wanted) > 0
    ratios = np.real(values[moving] / wanted[moving])
    if ratios.size and np.allclose(ratios, ratios[0], rtol=1e-4):
        return f"is {ratios[0]:.4g} times what the config says"
    if ratios.size:
        return f"is {ratios.min():.4g} to {ratios.max():.4g} times what the config says"
    return "differs from what the config says"

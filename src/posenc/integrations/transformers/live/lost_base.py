"""A config that lost its base: whoever sets ``config.rope_scaling`` of a config object of transformers 5 drops it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import nn

from posenc.frequencies import Geometric
from posenc.integrations.transformers.description.layers import is_nested


@contextmanager
def base_of_rates(modules: Mapping[str, nn.Module], configs: Mapping[int, Any]) -> Iterator[dict[str, float]]:
    """Put the base that a model's plain rates have into its config while it is compared, and take it out again.

    Args:
        modules: the modules of a model, by name.
        configs: the config of each module, by its id.

    Yields:
        The base by the name of the rotary module that it was read from; empty where no config lacks one.
    """
    found: dict[str, float] = {}
    changed: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for name, module in modules.items():
        config = configs.get(id(module))
        parameters = getattr(config, "rope_parameters", None)
        if not isinstance(parameters, dict) or not parameters or is_nested(parameters):
            continue
        if parameters.get("rope_theta", getattr(config, "rope_theta", None)) is not None:
            continue
        base = _base(module)
        if base is not None:
            changed.append((parameters, dict(parameters)))
            found[name] = parameters["rope_theta"] = base
    try:
        yield found
    finally:
        for parameters, before in changed:  # transformers 5.6 has no such key then, and later ones null
            parameters.clear()
            parameters.update(before)


def _base(module: nn.Module) -> float | None:
    """The base of the rates that a rotary module was built with, if they are those of the plain rule."""
    buffers = dict(module.named_buffers(recurse=False))
    rates = buffers.get("original_inv_freq", buffers.get("inv_freq"))
    if rates is None or rates.is_meta or rates.ndim != 1 or len(rates) < 3 or rates[0] != 1:
        return None
    values = rates.detach().double().cpu().numpy()
    count = len(values)
    if not (values > 0).all():
        return None
    base = float(f"{values[-1] ** (-count / (count - 1)):.6g}")
    plain = base > 1 and np.allclose(values, Geometric(base).inv_freq(2 * count), rtol=1e-4)
    return base if plain else None

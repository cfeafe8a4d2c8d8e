"""What plain transformers would build from a model's present config: the referee of every change to it."""

import copy
from typing import Any

import torch
from torch import nn


def build(model: Any, config: Any = None) -> Any:
    """A model of the same class without weights, on the meta device: what loading would start from."""
    from transformers import initialization

    config = copy.deepcopy(model.config if config is None else config)
    with torch.device("meta"), initialization.meta_device_safe_creation_ops(), initialization.no_init_weights():
        return type(model)(config)


def rotary_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that keep rates, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(key.endswith("inv_freq") for key in module._buffers) and isinstance(module, nn.Module)
    }


def rates_filled(twin: Any, module: nn.Module) -> nn.Module:
    """The rotary module with the rates that loading would fill in, on the CPU."""
    module.to_empty(device="cpu", recurse=False)
    buffers = [buffer for buffer in module.buffers(recurse=False) if buffer.is_floating_point()]
    for buffer in buffers:
        buffer.fill_(float("nan"))
    twin._init_weights(module)
    if any(bool(buffer.isnan().any()) for buffer in buffers):
        raise ValueError(f"extend: transformers does not fill the rates of {type(module).__name__} in as it loads.")
    return module


def differing_values(before: nn.Module, after: nn.Module) -> dict[tuple[str, str], Any]:
    """(module, attribute) -> value: plain values, such as a softmax scale, that follow from a change of config."""
    earlier, changed = dict(before.named_modules()), {}
    for name, module in after.named_modules():
        if name not in earlier or type(earlier[name]) is not type(module):
            continue
        old = vars(earlier[name])
        for key, value in vars(module).items():
            if isinstance(value, (int, float, str)) and key in old and old[key] != value and not key.startswith("_"):
                changed[name, key] = value
    return changed

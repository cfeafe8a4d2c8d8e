"""What loading would build from a model's present config: the referee of every change to it.

A model with code of its own may do other things with a config than transformers.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posenc.frequencies import DynamicNTK, Frequencies, LongRoPE


def is_foreign(module: nn.Module) -> bool:
    """Is its class from elsewhere than transformers?"""
    return not type(module).__module__.startswith("transformers.")


def fill_rates(twin: Any, modules: dict[str, nn.Module]) -> None:
    """Give the rotary modules of a twin, by name, the rates of its config, on the CPU.

    Those are what loading fills in, by ``_init_weights`` of the innermost model. transformers 5 leaves what that does
    not know unset, as it happens with foreign code; then they are what its constructor computes.
    """
    built: dict[str, nn.Module] = {}
    for name, module in modules.items():
        try:
            rates_filled(_owner(twin, name), module)
        except Exception:
            if not is_foreign(module):
                raise
            built = built or rotary_modules(_built(twin))
            vars(module).update(vars(built[name]))


def _owner(model: nn.Module, name: str) -> nn.Module:
    from transformers import PreTrainedModel

    parents = [name[:at] for at, letter in enumerate(name) if letter == "."]
    models = [part for part in map(model.get_submodule, parents) if isinstance(part, PreTrainedModel)]
    return models[-1] if models else model


def _built(twin: Any) -> Any:
    """The same model on the CPU. Nothing is written into its weights, so they take room that is never touched."""
    from transformers import initialization

    with torch.device("cpu"), initialization.no_init_weights():
        return type(twin)(copy.deepcopy(twin.config))


def check_angles(module: nn.Module, rule: Frequencies, width: int) -> None:
    """Refuse a foreign module that turns by other angles than the rule's, or whose angles cannot be seen if they must.

    Rates in a buffer say what a module keeps, and not that it uses them, nor that they change with the length.

    Raises:
        ValueError: as said.
    """
    name, asked = type(module).__name__, copy.deepcopy(module).cpu()
    lengths = [64]
    if isinstance(rule, (DynamicNTK, LongRoPE)) and rule.depends_on_length:
        trained = rule.trained_length
        lengths = [trained, 2 * trained, trained // 2]  # a short text after a long one, too
    for length in lengths:
        positions = torch.tensor([0, 1, length // 2, length - 1], device="cpu")
        tables = tables_of(asked, positions, width)
        if tables is None and (rule.depends_on_length or _lacks_values(module)):
            raise ValueError(
                f"extend: {name} gave no cos and sin at {length} tokens, expected its forward(x, position_ids) to "
                f"return them, so that posenc can check that it rotates by {rule}; use another rule."
            )
        if tables is not None and not is_turned(tables, positions, rule, width, length):
            raise ValueError(
                f"extend: {name} does not rotate by {rule} at {length} tokens, because its code implements another "
                "rule."
            )


def _lacks_values(module: nn.Module) -> bool:
    """Was a tensor that is no buffer left on the meta device when the model was loaded?"""
    return any(isinstance(value, Tensor) and value.is_meta for value in vars(module).values())


def tables_of(asked: nn.Module, positions: Tensor, width: int, **options: Any) -> tuple[Tensor, Tensor] | None:
    """cos and sin of a rotary module as transformers calls it, (positions, channels) each; None if it is none such."""
    try:
        with torch.no_grad(), torch.device("cpu"):  # whatever the default device, which foreign code may take
            found = asked(torch.zeros(1, 1, len(positions), width), positions[None], **options)
        cos, sin = (table.cpu().double().reshape(len(positions), -1) for table in found)
    except Exception:  # whatever foreign code raises when it is called in another way than its own
        return None
    return (cos, sin) if cos.shape == sin.shape and cos.shape[1] in (width // 2, width) else None


def is_turned(tables: tuple[Tensor, Tensor], positions: Tensor, rule: Frequencies, width: int, length: int) -> bool:
    """Are these the cosines and sines of the rule at these positions, in one of the two orders of channels?"""
    angles = np.outer(positions.numpy(), rule.inv_freq(width, length=length))
    factor = float(rule.attention_factor_at(length))
    wanted = [torch.from_numpy(factor * part) for part in (np.cos(angles), np.sin(angles))]
    near = 1e-3 + 4 * length * 2**-24  # angles in float32
    pairs = width // 2
    for order in (slice(0, pairs), slice(0, None, 2)):  # halves, or neighbours
        if all(
            table[:, order].shape == like.shape and torch.allclose(table[:, order], like, rtol=0, atol=near)
            for table, like in zip(tables, wanted, strict=True)
        ):
            return True
    return False


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
    with torch.device("cpu"):  # whatever the default device, on which transformers computes rates
        twin._init_weights(module)
    if any(bool(buffer.isnan().any()) for buffer in buffers):
        raise ValueError(
            f"extend: transformers does not compute the rates of {type(module).__name__} when it loads the model."
        )
    return module


def differing_values(
    before: nn.Module, after: nn.Module, kinds: tuple[type, ...] = (int, float, str)
) -> dict[tuple[str, str], Any]:
    """(module, attribute) -> value: plain values, such as a softmax scale, that follow from a change of config."""
    earlier, changed = dict(before.named_modules()), {}
    for name, module in after.named_modules():
        if name not in earlier or type(earlier[name]) is not type(module):
            continue
        old = vars(earlier[name])
        for key, value in vars(module).items():
            if isinstance(value, kinds) and key in old and old[key] != value and not key.startswith("_"):
                changed[name, key] = value
    return changed

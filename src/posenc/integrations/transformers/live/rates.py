"""The rates of a live model's rotary modules, taken over from a model that was built from the new config."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from posenc.integrations.patch import Patch
from posenc.integrations.transformers.live import rebuild


def rebuild_rates(patch: Patch, model: Any, twin: Any) -> list[str]:
    """Give rotary modules whose rates come out otherwise the state that loading would give them."""
    rebuilt = []
    live, built = rebuild.rotary_modules(model), rebuild.rotary_modules(twin)
    rebuild.fill_rates(twin, built)
    for name, fresh in built.items():
        if name not in live:
            raise ValueError(f"extend: the model lacks {name}, a module that transformers builds from the config.")
        if type(live[name]) is not type(fresh):
            raise ValueError(
                f"extend: the code of the model takes {type(fresh).__name__} for this rule, got one with "
                f"{type(live[name]).__name__}; write the rule into the model's config, and load the model with it."
            )
        if _state(live[name]) != _state(fresh) or not _same_rates(live[name], fresh):
            _adopt(patch, live[name], fresh)
            rebuilt.append(name)
    return rebuilt


def _state(module: nn.Module) -> dict[str, Any]:
    plain = {key: value for key, value in vars(module).items() if not key.startswith("_") and key != "config"}
    return {key: value for key, value in plain.items() if isinstance(value, (int, float, str)) and key != "training"}


def _same_rates(module: nn.Module, fresh: nn.Module) -> bool:
    if module._buffers.keys() != fresh._buffers.keys():
        return False
    return all(
        torch.equal(buffer.to(fresh._buffers[name]), fresh._buffers[name])  # type: ignore[arg-type]
        for name, buffer in module._buffers.items()
        if buffer is not None
    )


def _adopt(patch: Patch, module: nn.Module, fresh: nn.Module) -> None:
    """Take over another module's rates and plain attributes; hooks and identity stay."""
    ours, theirs = vars(module), vars(fresh)
    hidden = {key: value for key, value in theirs.items() if not key.startswith("_")}
    new = {key: value for key, value in hidden.items() if key not in ("config", "training", "forward")}
    stale = {key for key in ours if key.endswith(("inv_freq", "seq_len_cached")) and key not in theirs}
    before = {key: value for key, value in ours.items() if key in new.keys() | stale}
    buffers, temporary = dict(module._buffers), set(module._non_persistent_buffers_set)
    place = next(buffer.device for buffer in module.buffers(recurse=False))

    def do() -> None:
        for key in stale:
            del ours[key]
        ours.update(new)
        _put(module, {name: buffer.to(place) for name, buffer in fresh.named_buffers(recurse=False)})
        module._non_persistent_buffers_set = set(fresh._non_persistent_buffers_set)

    def undo() -> None:
        place = next(buffer.device for buffer in module.buffers(recurse=False))
        for key in [key for key in ours if key in new or key.endswith(("inv_freq", "seq_len_cached"))]:
            del ours[key]
        ours.update(before)
        _put(module, {name: buffer if buffer is None else buffer.to(place) for name, buffer in buffers.items()})
        module._non_persistent_buffers_set = temporary

    patch.step(do, undo)


def _put(module: nn.Module, buffers: Mapping[str, Any]) -> None:
    module._buffers.clear()
    module._buffers.update(buffers)

"""Selects the parameters to train: LoRA matrices beside the projections, or all weights."""

import contextlib
import importlib.util
from collections.abc import Iterator, Set
from typing import Any

from torch import nn

from posenc.lab.extend.tuning_config import TuneConfig
from posenc.lab.run.errors import RunError
from posenc.lab.run.schedule import seeded

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")

Parameters = dict[str, nn.Parameter]
"""The trained parameters, by name."""


def check_peft(method: str) -> None:
    """Refuse LoRA without the package peft."""
    if method == "lora" and importlib.util.find_spec("peft") is None:
        raise RunError('tune: LoRA needs peft; pip install peft, or train all weights with the method "full".')


@contextlib.contextmanager
def trainable(model: Any, wanted: TuneConfig, frozen: Set[str]) -> Iterator[Parameters]:
    """Make only the selected parameters trainable; afterwards the model has the same modules as before.

    LoRA's matrices are merged into the weights at the end, and dropped if an error or Ctrl-C ends the training.

    Args:
        model: the model.
        wanted: the configuration of the training.
        frozen: names of parameters that are not trained.
    """
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        with _lora(model, wanted) if wanted.method == "lora" else _all_weights(model, frozen) as parameters:
            yield parameters
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
            parameter.grad = None


@contextlib.contextmanager
def _lora(model: Any, wanted: TuneConfig) -> Iterator[Parameters]:
    check_peft(wanted.method)
    from peft import LoraConfig, LoraModel

    transposed = any(type(module).__name__ == "Conv1D" for module in model.modules())  # GPT-2's linear layers
    config = LoraConfig(
        r=wanted.rank,
        lora_alpha=2 * wanted.rank,
        target_modules=_targets(model, wanted.targets),
        fan_in_fan_out=transposed,
    )
    with seeded(wanted.seed, device=model.device):
        try:
            tuner = LoraModel(model, config, "default")
        except ValueError as error:
            raise RunError(
                f"tune: peft finds no layers for LoRA ({error}); name some of {', '.join(_linear(model))} as targets."
            ) from error
    try:
        yield _trained(model)
    except BaseException:
        tuner.unload()
        raise
    tuner.merge_and_unload()


def _targets(model: Any, given: tuple[str, ...] | None) -> list[str] | None:
    """The layers that get LoRA; None lets peft choose, which knows many model types."""
    if given is not None:
        return list(given)
    there = set(_linear(model))
    return [name for name in PROJECTIONS if name in there] or None


def _linear(model: Any) -> list[str]:
    """The last name components of the linear layers in the blocks."""
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    }
    return sorted(found - {"lm_head"})


@contextlib.contextmanager
def _all_weights(model: Any, frozen: Set[str]) -> Iterator[Parameters]:
    """Train all weights, in float32 for the time of training, because bfloat16 would round small steps away."""
    dtypes = {parameter: parameter.dtype for parameter in model.parameters()}
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(name not in frozen)
    try:
        yield _trained(model)
    finally:
        for parameter, dtype in dtypes.items():
            parameter.data = parameter.data.to(dtype)


def _trained(model: Any) -> Parameters:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

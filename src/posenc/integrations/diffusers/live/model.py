"""The model of diffusers in what was given."""

from typing import Any

from torch import nn


def diffusers_model(model: Any, function: str) -> nn.Module:
    """The model of diffusers that this is, or that is wrapped in it.

    Raises:
        TypeError: there is none.
    """
    try:
        from diffusers import DiffusionPipeline, ModelMixin
    except ImportError as error:
        raise ImportError(f"{function}: diffusers is not installed; pip install diffusers.") from error

    if isinstance(model, nn.Module):
        for module in model.modules():
            if isinstance(module, ModelMixin):
                found: nn.Module = module  # for type checkers that do not see diffusers
                return found
    hint = "; give its transformer, such as pipe.transformer" if isinstance(model, DiffusionPipeline) else ""
    raise TypeError(f"{function}: got a {type(model).__name__}, expected a model of diffusers{hint}.")

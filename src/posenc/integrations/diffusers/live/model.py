"""The model of diffusers in what was given."""

from typing import Any

from torch import nn

from posenc.integrations.inside import model_inside


def diffusers_model(model: Any, function: str) -> nn.Module:
    """The model of diffusers that this is, or that is wrapped in it.

    Raises:
        TypeError: there is none.
    """
    try:
        from diffusers import DiffusionPipeline, ModelMixin
    except ImportError as error:
        raise ImportError(f'{function}: diffusers is not installed; pip install "posenc[diffusers]".') from error

    hint = "; give its transformer, such as pipe.transformer" if isinstance(model, DiffusionPipeline) else ""
    found: nn.Module = model_inside(model, ModelMixin, function, "diffusers", hint)
    return found

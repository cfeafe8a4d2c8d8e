"""The model of transformers in what was given."""

from typing import Any

from torch import nn


def pretrained(model: Any, function: str) -> nn.Module:
    """The model of transformers that this is, or that is wrapped in it.

    Raises:
        TypeError: there is none.
    """
    try:
        from transformers import PreTrainedModel
    except ImportError as error:
        raise ImportError(f"{function}: transformers is not installed; pip install transformers.") from error

    if isinstance(model, nn.Module):
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                return module
    raise TypeError(f"{function}: got a {type(model).__name__}, expected a model of transformers.")

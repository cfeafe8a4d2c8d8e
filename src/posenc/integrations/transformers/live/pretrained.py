"""The model of transformers in what was given."""

from typing import Any

from torch import nn

from posenc.integrations.inside import model_inside


def pretrained(model: Any, function: str) -> nn.Module:
    """The model of transformers that this is, or that is wrapped in it.

    Raises:
        TypeError: there is none.
    """
    try:
        from transformers import PreTrainedModel
    except ImportError as error:
        raise ImportError(f'{function}: transformers is not installed; pip install "posenc[transformers]".') from error

    found: nn.Module = model_inside(model, PreTrainedModel, function, "transformers")
    return found

"""The model of a library in what a user gave."""

from typing import Any

from torch import nn


def model_inside(model: Any, kind: type[Any], function: str, library: str, hint: str = "") -> Any:
    """The model of a library that this is, or that is wrapped in it, as PEFT does.

    Raises:
        TypeError: there is none.
    """
    if isinstance(model, nn.Module):
        for module in model.modules():
            if isinstance(module, kind):
                return module
    raise TypeError(f"{function}: got a {type(model).__name__}, expected a model of {library}{hint}.")

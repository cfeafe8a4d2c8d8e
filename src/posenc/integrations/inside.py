"""Find the model of a library in an object that wraps it."""

from typing import Any

from torch import nn


def model_inside(model: Any, kind: type[Any], function: str, library: str, hint: str = "") -> Any:
    """Return the model itself, or the model that it wraps, as PEFT does.

    Raises:
        TypeError: there is no such model.
    """
    if isinstance(model, nn.Module):
        for module in model.modules():
            if isinstance(module, kind):
                return module
    raise TypeError(f"{function}: got a value of type {type(model).__name__}, expected a model of {library}{hint}.")

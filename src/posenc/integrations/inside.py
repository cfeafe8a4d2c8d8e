"""Find the model of a library in an object that wraps it."""

import os
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
    raise TypeError(f"{function}: got {_named(model)}, expected a model of {library}{hint or _what_to_do(model)}.")


def _named(model: Any) -> str:
    return f"the class {model.__name__}" if isinstance(model, type) else f"a value of type {type(model).__name__}"


def _what_to_do(model: Any) -> str:
    """The end of a message about something that is no model."""
    if hasattr(model, "from_pretrained") and isinstance(model, type):
        return f"; load one: {model.__name__}.from_pretrained(...)"
    if isinstance(model, (str, os.PathLike)) or hasattr(model, "to_dict"):
        return "; load it first: a path, a name or a config has no modules"
    return ""

"""timm itself, and a model of it by name."""

import warnings
from typing import Any

import torch
from torch import nn


def timm(function: str) -> Any:
    """The package.

    Raises:
        ImportError: it is not installed, or cannot be imported, with the reason.
    """
    try:
        import timm as library
    except (ImportError, RuntimeError) as error:  # the second where torchvision was built for another torch
        raise ImportError(
            f"{function}: timm cannot be imported ({error}); pip install timm, with a torchvision that was built for "
            "the installed torch."
        ) from error
    return library


def model_of(source: Any, function: str) -> nn.Module:
    """A model of timm: the one that is given, or one by its name, without memory.

    Raises:
        TypeError: something else.
        ValueError: an unknown name, with those that are near.
    """
    if isinstance(source, nn.Module):
        return source
    if not isinstance(source, str):
        raise TypeError(f"{function}: got a {type(source).__name__}, expected a model of timm or its name.")
    library = timm(function)
    if not library.is_model(source):
        from difflib import get_close_matches

        near = get_close_matches(source.split(".")[0], library.list_models(), n=3)
        raise ValueError(
            f"{function}: timm {library.__version__} has no model {source!r}"
            + (f"; did you mean {', '.join(near)}?" if near else "; timm.list_models() lists all.")
        )
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return library.create_model(source, pretrained=False)  # type: ignore[no-any-return]


def live_model(model: Any, function: str) -> nn.Module:
    """The model of timm that this is, or that is wrapped in it.

    Raises:
        TypeError: there is none.
        ValueError: it has no weights.
    """
    if isinstance(model, nn.Module):
        for module in model.modules():
            if type(module).__module__.startswith("timm.models."):
                if any(parameter.is_meta for parameter in module.parameters()):
                    raise ValueError(f"{function}: the model is on the meta device, without weights; load them first.")
                return module
    raise TypeError(f"{function}: got a {type(model).__name__}, expected a model of timm.")

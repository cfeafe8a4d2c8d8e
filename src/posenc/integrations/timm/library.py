"""timm itself, and a model of it by name or by its config."""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from posenc.integrations.json_file import load_json


def timm(function: str) -> Any:
    """The package.

    Raises:
        ImportError: it is not installed, or cannot be imported, with the reason.
    """
    try:
        import timm as library
    except (ImportError, RuntimeError) as error:  # the second where torchvision was built for another torch
        raise ImportError(
            f'{function}: timm cannot be imported ({error}); pip install "posenc[timm]", with a torchvision that was '
            "built for the installed torch."
        ) from error
    return library


def model_of(source: Any, function: str) -> nn.Module:
    """A model of timm: the one that is given, or one by its name or its config, without memory.

    Raises:
        TypeError: something else.
        ValueError: an unknown name, with those that are near; a config that is not one of timm, or that timm refuses.
    """
    if isinstance(source, nn.Module):
        return source
    if isinstance(source, Mapping):
        return _by_config(source, function)
    if not isinstance(source, (str, Path)):
        raise TypeError(
            f"{function}: got a value of type {type(source).__name__}, expected a model of timm, its name, or its "
            "config: a dict, a config.json or the folder that holds one."
        )
    library = timm(function)
    if isinstance(source, Path) or (not library.is_model(source) and Path(source).exists()):
        path = Path(source)
        return _by_config(load_json(path / "config.json" if path.is_dir() else path), function)
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


def is_timm(config: Mapping[str, Any]) -> bool:
    """Is this the config.json of a model of timm, as timm or transformers' wrapper of it writes it?

    TensorRT-LLM's files have an ``architecture`` too, and say the sizes of the model.
    """
    named = isinstance(config.get("architecture"), str) and config.get("model_type") in (None, "", "timm_wrapper")
    return named and "num_hidden_layers" not in config


def _by_config(config: Mapping[str, Any], function: str) -> nn.Module:
    """The model of a config.json: its architecture, with the size of image and the arguments that the file gives."""
    if not is_timm(config):
        raise ValueError(f"{function}: this config has no architecture, expected the name of a model of timm; add it.")
    library, name = timm(function), str(config["architecture"])
    if not library.is_model(name):
        raise ValueError(f"{function}: timm {library.__version__} has no model {name!r}, which the config names.")
    found = {"pretrained_cfg": config.get("pretrained_cfg", config), "model_args": config.get("model_args") or {}}
    for key, value in found.items():
        if not isinstance(value, Mapping):
            raise ValueError(f"{function}: {key} is {value!r}, expected an object, the keys of timm; correct it.")
    fields = {field.name for field in dataclasses.fields(library.models.PretrainedCfg)}
    settings = {key: value for key, value in found["pretrained_cfg"].items() if key in fields}
    arguments = {str(key): value for key, value in found["model_args"].items()}
    if arguments.get("dynamic_img_size") or arguments.get("strict_img_size") is False or arguments.get("use_naflex"):
        settings["fixed_input_size"] = False  # as timm reads it
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: nn.Module = library.create_model(name, pretrained=False, pretrained_cfg=settings, **arguments)
    except Exception as error:  # whatever a model of timm raises for its arguments
        raise ValueError(f"{function}: timm {library.__version__} refuses this config of {name!r}: {error}") from error
    return made


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
    raise TypeError(f"{function}: got a value of type {type(model).__name__}, expected a model of timm.")

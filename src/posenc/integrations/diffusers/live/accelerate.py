"""posenc's fused rotation in a live model of diffusers."""

import warnings
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import torch
from torch import nn

from posenc.integrations.diffusers.live.model import diffusers_model
from posenc.integrations.diffusers.live.rotation import Rotation
from posenc.integrations.diffusers.live.sites import Site, find_sites
from posenc.integrations.patch import Patch


def accelerate(model: Any, *, inputs: Mapping[str, Any] | None = None) -> Patch:
    """Make a live transformer of diffusers use posenc's fused rotation, forward and backward.

    In this model alone, posenc replaces the function that the attention calls to rotate queries and keys: a function of
    the module, one that is defined inside the processor's call, or one that is imported there. The model keeps its own
    tables. At the first call of each kind posenc runs both functions on random numbers and compares the results; if
    they differ, the model's own function stays, with a warning. ``torch.compile`` compiles the model's own function.

    Args:
        model: a model of diffusers, such as ``pipe.transformer``.
        inputs: arguments of the model. The model runs on them once, without gradients, to compare all calls now; a
            difference is an error. Without ``inputs`` the first step of the pipeline compares.

    Returns:
        A :class:`Patch`. In float32 the outputs are the same bits if the model multiplies and adds in float32, as
        nearly all do. If it rounds otherwise (complex numbers in float64, products in bfloat16), the comparison allows
        4 units of rounding of the dtype.

    Raises:
        TypeError: no model of diffusers.
        ValueError: no module calls a function that rotates; with ``inputs``, a function that does not rotate by its
            tables, or that the run does not reach. The model is then unchanged.

    Example:
        >>> from diffusers import FluxTransformer2DModel
        >>> model = FluxTransformer2DModel(in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        ...     num_attention_heads=2, joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(4, 6, 6))
        >>> with accelerate(model) as patch:
        ...     patch
        Patch('accelerate FluxTransformer2DModel: 2 attentions')
    """
    inner = diffusers_model(model, "accelerate")
    name = type(inner).__name__
    try:
        sites = find_sites(inner)
    except ValueError as error:
        raise ValueError(f"accelerate: {name} cannot be accelerated: {error}; nothing was changed.") from error
    rotations: dict[Any, Rotation] = {}
    patch = Patch(inner, f"accelerate {name}: {len(sites)} attention{'s' if len(sites) > 1 else ''}")
    try:
        rebuilt: dict[Any, Callable[..., Any]] = {}
        classes: dict[type, type] = {}
        for site in sites:
            key = (site.function, site.wrappers)
            if key not in rebuilt:
                rebuilt[key] = site.rebuilt(_maker(rotations, type(site.owner).__name__))
            _put(patch, site, rebuilt[key], classes)
        if inputs is not None:
            _settle(inner, inputs, rotations)
    except ValueError as error:
        patch.roll_back()
        raise ValueError(f"accelerate: {name} cannot be accelerated: {error}; nothing was changed.") from error
    return patch.commit()


def _maker(rotations: dict[Any, Rotation], owner: str) -> Callable[[Any, Callable[..., Any]], Rotation]:
    def made(key: Any, function: Callable[..., Any]) -> Rotation:
        if key not in rotations:
            rotations[key] = Rotation(function, f"{function.__name__} in {owner}")
        return rotations[key]

    return made


def _put(patch: Patch, site: Site, method: Callable[..., Any], classes: dict[type, type]) -> None:
    """Set a method of a module on the module, and one of a processor, which is called as a whole, in a class of it."""
    own, owner = type(site.owner), site.owner
    if isinstance(owner, nn.Module) and site.method != "__call__":
        patch.assign(owner, site.method, MethodType(method, owner))
        return
    if own in classes.values():  # another method of one that has its class already
        setattr(own, site.method, method)
        return
    if own not in classes:
        body = {"_posenc": True, "__module__": own.__module__, "__qualname__": own.__qualname__}
        classes[own] = type(own.__name__, (own,), body)
    setattr(classes[own], site.method, method)
    patch.step(lambda: setattr(owner, "__class__", classes[own]), lambda: setattr(owner, "__class__", own))


def _settle(model: nn.Module, inputs: Mapping[str, Any], rotations: dict[Any, Rotation]) -> None:
    training = [(module, module.training) for module in model.modules()]
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(list(devices)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(**inputs)
    except (ValueError, TypeError, RuntimeError, IndexError, AttributeError, KeyError) as error:
        raise ValueError(
            f"a forward pass of the model failed on {sorted(inputs)} ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    finally:
        for module, was in training:
            module.training = was
    for rotation in rotations.values():
        if rotation.left:
            raise ValueError(f"{rotation.name} was called with {rotation.left[0]}")
    if not any(rotation.settled for rotation in rotations.values()):
        raise ValueError("the forward pass with these inputs does not call its rotation")

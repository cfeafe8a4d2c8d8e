"""Where a live model rotates: the methods that call a function which does, and a run with others in their place."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from posenc.integrations.copied_functions import around, names_in, plain, with_globals, wrappers_of

#: Names of functions that apply a rotation.
_ROTATES = re.compile(r"^_?(vision_)?apply_(rotary|multi\w*rope)")

#: Where such a hook keeps the forward that it calls.
_HOOKED = "_old_forward"


@dataclass(frozen=True)
class Site:
    """A method of a live module that calls functions which rotate: name in the code -> function."""

    name: str
    module: nn.Module
    method: str
    code: FunctionType
    functions: tuple[tuple[str, Callable[..., Any]], ...]
    wrappers: tuple[FunctionType, ...] = ()

    def rebuilt(self, names: Mapping[str, Any]) -> Callable[..., Any]:
        """The method with other functions behind those names, in the same decorators."""
        twin, inner = with_globals(self.code, names), self.code
        for wrapper in self.wrappers:
            twin, inner = around(wrapper, inner, twin), wrapper
        return twin


def find_sites(model: nn.Module, named: re.Pattern[str] = _ROTATES) -> list[Site]:
    """Every method of every module that calls a function which rotates, as its name says.

    Raises:
        ValueError: there is none, or one that cannot be replaced in this model alone; kernels of the hub, which take
            the place of functions and modules where nothing in the code says it.
    """
    if getattr(model, "use_kernels", False) is True:
        raise ValueError(
            "it runs kernels from the hub, which may compute the rotation instead of its code; set model.use_kernels "
            "= False"
        )
    found = []
    for name, module in model.named_modules():
        for method, code, functions, wrappers in _methods(type(module), named):
            if _is_hooked(module, method):
                method = _HOOKED
            elif method in vars(module):
                raise ValueError(
                    f"the {method} of {name} was replaced already, by a hook or an earlier patch; undo that "
                    "replacement first"
                )
            found.append(Site(name, module, method, code, functions, wrappers))
    if not found:
        raise ValueError("none of its modules calls a function that rotates queries and keys")
    return found


def _is_hooked(module: nn.Module, method: str) -> bool:
    """Whether a hook of Hugging Face's accelerate, which moves weights, stands around the class's own method."""
    own = vars(module)
    inner = getattr(own.get(_HOOKED), "__func__", None)
    return method == "forward" and "_hf_hook" in own and inner is type(module).forward


def _methods(
    cls: type, named: re.Pattern[str]
) -> Iterator[tuple[str, FunctionType, tuple[tuple[str, Callable[..., Any]], ...], tuple[FunctionType, ...]]]:
    seen: set[str] = set()
    for owner in cls.__mro__:
        if owner is nn.Module:
            return
        for method, value in vars(owner).items():
            if method in seen:
                continue
            seen.add(method)
            inner = inspect.unwrap(value) if callable(value) else value
            if not isinstance(inner, FunctionType):
                continue
            functions = tuple(
                (name, plain(inner.__globals__[name]))
                for name in sorted(names_in(inner.__code__))
                if named.match(name) and callable(inner.__globals__.get(name))
            )
            if not functions:
                continue
            yield method, inner, functions, wrappers_of(value, f"{cls.__name__}.{method}")


@contextmanager
def with_sites(sites: list[Site], made: Callable[[Site, Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """For as long as the context lasts, other functions in the place of those that rotate."""
    before = [vars(site.module).get(site.method) for site in sites]
    try:
        for site in sites:
            names = {name: made(site, function) for name, function in site.functions}
            setattr(site.module, site.method, MethodType(site.rebuilt(names), site.module))
        yield
    finally:
        for site, method in zip(sites, before, strict=True):
            vars(site.module).pop(site.method, None)
            if method is not None:
                setattr(site.module, site.method, method)


def run(model: Any, inputs: Mapping[str, Any] | None) -> None:
    """One forward, without gradients, dropout or a trace in the generator."""
    if type(model).forward is nn.Module.forward:
        raise ValueError("it has no forward of its own; pass the models that it contains, one by one")
    given = dict(inputs) if inputs is not None else _dummy(model)
    devices = [torch.device(model.device)] if model.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices), _evaluating(model):
        try:
            model(**given)
        except (ValueError, TypeError, RuntimeError, IndexError, AttributeError, KeyError) as error:
            if isinstance(error, ValueError) and _is_ours(error):
                raise
            raise ValueError(
                f"a forward pass with {sorted(given)} failed ({type(error).__name__}: {str(error)[:200]}); give "
                "inputs=..., arguments that it takes"
            ) from error


def _is_ours(error: ValueError) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("posenc.")


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was in training:
            module.training = was


def _dummy(model: Any) -> dict[str, Any]:
    """Five tokens, or an image, a video or a spectrogram."""
    device = model.device
    if device.type == "meta":
        raise ValueError("it has no weights (it is on the meta device); load them first")
    config = model.config
    name = getattr(model, "main_input_name", "input_ids")
    if config.model_type == "audio-spectrogram-transformer":
        return {
            "input_values": torch.zeros(1, config.max_length, config.num_mel_bins, device=device, dtype=model.dtype)
        }
    if name == "pixel_values":
        size = getattr(config, "image_size", 32)
        sides = (size, size) if isinstance(size, int) else tuple(size)
        channels = getattr(config, "num_channels", 3)
        frames = (config.num_frames,) if config.model_type in ("videomae", "vivit") else ()
        return {name: torch.zeros(1, *frames, channels, *sides, device=device, dtype=model.dtype)}
    ids = torch.arange(1, 6, device=device)[None]
    given = {"input_ids": ids}
    accepted = inspect.signature(model.forward).parameters
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in accepted:
        given["decoder_input_ids"] = ids
    if "attention_mask" in accepted:
        given["attention_mask"] = torch.ones_like(ids)
    if "use_cache" in accepted:
        given["use_cache"] = False  # type: ignore[assignment]
    return given

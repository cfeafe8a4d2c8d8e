"""A model that is made of parts, such as a text and an image tower: which of them is meant."""

from typing import Any

from torch import nn

from posenc import AxialRoPE, MixedRoPE, MRoPE, RoPE
from posenc.embeddings import LearnedGrid
from posenc.encoding import Encoding
from posenc.integrations.transformers.description.description import Description
from posenc.integrations.transformers.live.learned_table import config_of
from posenc.scores import DecomposedBias, LeViTBias, SwinBias, SwinV2Bias

_WINDOWS = (SwinBias, SwinV2Bias, LeViTBias, DecomposedBias)


def check_parts(model: Any, described: Description, encoding: Encoding, *, of_images: bool) -> None:
    """Refuse what has one part in mind and would reach another, or none.

    Raises:
        ValueError: biases within a window, which stay; an encoding of several coordinates for a model that is not one
            of images alone; one that acts in the attention for a model of parts without a rotation, where it would act
            in all of them, beside the tables of the others.
    """
    name, added = type(model).__name__, type(encoding).__name__
    parts = {group.part: group.encoding for group in described}
    stays = next((each for each in parts.get("", encoding).parts if isinstance(each, _WINDOWS)), None)
    if stays is not None and "" in parts:
        raise ValueError(f"replace: {name} has {type(stays).__name__} within its attention, which cannot be removed.")
    several = [each for each in encoding.parts if isinstance(each, MRoPE) or _coordinates(each) > 1]
    if several and not of_images:
        raise ValueError(
            f"replace: {type(several[0]).__name__} reads several coordinates of a token, expected one"
            f"{_which(model, [part for part, each in parts.items() if part and _reads_images(each)])}."
        )
    rotates = any(isinstance(each, (RoPE, MRoPE, AxialRoPE)) for one in described for each in one.encoding.parts)
    if len(parts) > 1 and not rotates and set(encoding.places) - {"embeddings"}:
        found = ", ".join(f"{part or 'model'}: {type(each).__name__}" for part, each in parts.items())
        raise ValueError(
            f"replace: {name} has several parts with encodings ({found}), and {added} would act in the attention "
            f"of all, expected one part{_which(model, list(parts))}."
        )


def _coordinates(encoding: Encoding) -> int:
    return getattr(encoding, "coordinates", None) or 1


def _reads_images(encoding: Encoding) -> bool:
    return any(isinstance(each, (LearnedGrid, AxialRoPE, MixedRoPE, *_WINDOWS)) for each in encoding.parts)


def _which(model: nn.Module, parts: list[str]) -> str:
    """The modules of these parts, as they are called."""
    configs = [config_of(model.config, part) for part in parts]
    found: dict[int, str] = {}
    for path, module in model.named_modules():
        config = getattr(module, "config", None)
        if path and any(config is one for one in configs):
            found.setdefault(id(config), f"replace(model.{path}, ...)")
    return f"; call {' or '.join(found.values())}" if found else ""

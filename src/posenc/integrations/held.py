"""The encoding of a patched model, as its attentions find it."""

import copy
from typing import Any

from torch import nn

from posenc.encoding import Encoding
from posenc.integrations.image_positions import Places
from posenc.integrations.patch import Patch

#: Under which name a patched model owns its encoding.
NAME = "posenc_encoding"


class Held:
    """What each attention of a patched model refers to: the model, which owns the encoding, and the image's tokens.

    The encoding is looked up at each call, because a tool may put another in its place: PEFT trains a copy of each
    module that ``modules_to_save`` names.
    """

    def __init__(self, model: nn.Module, places: Places | None = None) -> None:
        self.model, self.places = model, places

    @property
    def encoding(self) -> Encoding:
        """The model's encoding; of a module that wraps it, the one that the wrapper uses now."""
        found: Any = self.model.get_submodule(NAME)
        return found if isinstance(found, Encoding) else found.on_queries_keys.__self__

    def __deepcopy__(self, memo: dict[int, Any]) -> "Held":
        """A copy of the model refers to itself; a copy of one layer to the model that it is from."""
        memo[id(self)] = made = Held(memo.get(id(self.model), self.model), copy.deepcopy(self.places, memo))
        return made


def check_own(module: nn.Module, function: str, do: str) -> None:
    """Refuse a model whose encoding was replaced: what its config says is not what acts.

    Raises:
        ValueError: it was replaced; ``do`` says what to do.
    """
    encoding = replaced_by(module)
    if encoding is not None:
        raise ValueError(
            f"{function}: got a model in which replace put {type(encoding).__name__} in place of its own encoding, "
            f"expected one that has its own; {do}."
        )


def replaced_by(module: nn.Module) -> Encoding | None:
    """The encoding that ``replace`` put in place of the one of a model, which the module is, holds or belongs to."""
    for each in module.modules():
        held = Held(each) if NAME in each._modules else vars(each).get("_posenc")
        if isinstance(held, Held):
            return held.encoding
    return None


def own(patch: Patch, model: nn.Module, encoding: Encoding) -> None:
    """Let the model own the encoding, in place of the one of an earlier patch."""
    before = model._modules.get(NAME)

    def undo() -> None:
        del model._modules[NAME]
        if before is not None:
            model._modules[NAME] = before

    patch.step(lambda: model.add_module(NAME, encoding), undo)

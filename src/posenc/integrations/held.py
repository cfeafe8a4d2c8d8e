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


def own(patch: Patch, model: nn.Module, encoding: Encoding) -> None:
    """Let the model own the encoding, in place of the one of an earlier patch."""
    before = model._modules.get(NAME)

    def undo() -> None:
        del model._modules[NAME]
        if before is not None:
            model._modules[NAME] = before

    patch.step(lambda: model.add_module(NAME, encoding), undo)

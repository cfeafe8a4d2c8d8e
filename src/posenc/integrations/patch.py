"""Changes to a live model that can be taken back."""

import weakref
from collections.abc import Callable
from types import MethodType, TracebackType
from typing import Any

from torch import Tensor, nn


class Patch:
    """A change to a live model: what ``accelerate``, ``replace`` and ``extend`` of an integration return.

    :meth:`undo` takes the change back; so does the end of a ``with`` block. Undo several patches of a model in reverse
    order. You can use, copy and train the model while it is patched, and save its ``state_dict()``.

    Attributes:
        description: what was done, in a sentence.
    """

    def __init__(self, model: nn.Module, description: str) -> None:
        self.description = description
        self._steps: list[Callable[[], None]] = []
        self._model = model
        self._is_open = False

    def undo(self) -> None:
        """Restore the model, bit for bit. A second call does nothing.

        Raises:
            ValueError: a later patch of the same model is not undone yet.
        """
        if not self._is_open:
            return
        stack = _living(self._model)
        if stack[-1] is not self:
            raise ValueError(
                f"Patch: got undo() of {self}, expected the last patch of the model to be undone first: {stack[-1]}."
            )
        self._take_back()
        _patches[self._model] = [weakref.ref(patch) for patch in stack[:-1]]

    def __enter__(self) -> "Patch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"Patch({self.description!r}{'' if self._is_open else ', undone'})"

    def step(self, do: Callable[[], None], undo: Callable[[], None]) -> None:
        """Do a part of the change, and remember how to undo it."""
        self._steps.append(undo)
        do()

    def assign(self, target: object, name: str, value: Any) -> None:
        """Set an attribute of an object; if it has the value already, this is not a change."""
        own = vars(target)
        if name in own and type(own[name]) is type(value) and isinstance(value, _PLAIN) and own[name] == value:
            return
        if name in own:
            before = own[name]
            self.step(lambda: setattr(target, name, value), lambda: setattr(target, name, before))
        else:
            self.step(lambda: setattr(target, name, value), lambda: delattr(target, name))

    def bind(self, target: object, name: str, function: Callable[..., Any]) -> None:
        """Set a method of an object that computes something else; pickling the object then raises an error."""
        self.assign(target, name, MethodType(function, target))
        self.assign(target, "_posenc_bound", CopyOnly(self.description))

    def swap(self, tensors: dict[str, Any], key: str, new: Tensor | None) -> None:
        """Replace a tensor of a module; undoing moves the old tensor to the device of the new one."""
        before = tensors[key]

        def undo() -> None:
            present = tensors[key]
            tensors[key] = before
            if before is not None and present is not None and before.device != present.device:
                moved = before.to(present.device)
                tensors[key] = nn.Parameter(moved) if isinstance(before, nn.Parameter) else moved

        self.step(lambda: tensors.__setitem__(key, new), undo)

    def commit(self) -> "Patch":
        """Finish the patch: all parts are done.

        Raises:
            ValueError: no part changed the model.
        """
        if not self._steps:
            raise ValueError(
                f"Patch: nothing was changed, because the model already is as it would be after {self.description!r}."
            )
        _patches[self._model] = [weakref.ref(patch) for patch in (*_living(self._model), self)]
        self._is_open = True
        return self

    def roll_back(self) -> None:
        """Undo the finished parts, because a part failed."""
        self._take_back()

    def _take_back(self) -> None:
        while self._steps:
            self._steps.pop()()
        self._is_open = False


class CopyOnly:
    """Mark an object whose methods are changed: ``copy.deepcopy`` keeps them, a pickle would lose them silently."""

    def __init__(self, description: str) -> None:
        self.description = description

    def __deepcopy__(self, memo: dict[int, Any]) -> "CopyOnly":
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"Patch: got a model to pickle after {self.description!r}, expected one without changed methods, because a "
            "pickle would lose them; save its state_dict(), and load it into a model that has the same patch."
        )


#: Values that are compared before they are set.
_PLAIN = (bool, int, float, str, dict, type(None))

_patches: "weakref.WeakKeyDictionary[nn.Module, list[weakref.ref[Patch]]]" = weakref.WeakKeyDictionary()


def _living(model: nn.Module) -> list[Patch]:
    return [patch for ref in _patches.get(model, []) if (patch := ref()) is not None]

"""A device without float64, such as Apple's: a stand-in that refuses it, as MPS does."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from posenc.kernels import precision

AWAY = torch.device("meta")  # what the stand-in calls itself: a device that every build of torch knows


class Held(Tensor):
    """A tensor of the stand-in: its numbers lie in another one, which is on the CPU."""

    inner: Tensor  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Held":
        if inner.dtype in (torch.float64, torch.complex128):
            raise TypeError("Cannot convert a tensor to float64: the device does not support it")
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=AWAY
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Makes what is given as numbers: PyTorch's own way passes by a mode of dispatch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        made = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor)
        if made and options.get("device") is not None and torch.device(options["device"]) == AWAY:
            return func(*args, **options | {"device": "cpu"}).to(AWAY)
        return func(*args, **options)


class Device(TorchDispatchMode):
    """Where the stand-in is a device, without float64 for posenc too."""

    def __enter__(self) -> "Device":
        self._literals, self._patched = _Literals(), pytest.MonkeyPatch()
        self._patched.setattr(precision, "WITHOUT_FLOAT64", {AWAY.type})
        self._literals.__enter__()
        entered: Device = super().__enter__()
        return entered

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._literals.__exit__(*raised)
        self._patched.undo()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, options: dict[str, Any]) -> Any:
    given = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)]
    away = [isinstance(leaf, Held) for leaf in given]
    if any(away) and any(leaf.ndim > 0 and not isinstance(leaf, Held) for leaf in given):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    if any(away) and options.get("dtype") in (torch.float64, torch.complex128):  # also on the way to the CPU
        raise TypeError("Cannot convert a tensor to float64: the device does not support it")
    wanted = options.get("device")
    here = any(away) if wanted is None else torch.device(wanted) == AWAY
    if wanted is not None:
        options = options | {"device": torch.device("cpu")}
    made = func(
        *tree_map_only(Held, lambda held: held.inner, args), **tree_map_only(Held, lambda held: held.inner, options)
    )
    return tree_map_only(Tensor, Held, made) if here else made

"""Tables for a device without float64, such as Apple's: a stand-in that refuses it, as MPS does."""

from typing import Any

import pytest
import torch
from tests.integrations.diffusers.models import FAMILIES, build
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

pytest.importorskip("diffusers", reason="diffusers is not installed")

from posenc.integrations.diffusers.description.reader import modules
from posenc.integrations.diffusers.live.check import arguments, tensors_in
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


class Device(TorchDispatchMode):
    """Where the stand-in is a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, options: dict[str, Any]) -> Any:
    given = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)]
    away = [isinstance(leaf, Held) for leaf in given]
    if any(away) and any(leaf.ndim > 0 and not isinstance(leaf, Held) for leaf in given):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    wanted = options.get("device")
    here = any(away) if wanted is None else torch.device(wanted) == AWAY
    if wanted is not None:
        options = options | {"device": torch.device("cpu")}
    made = func(
        *tree_map_only(Held, lambda held: held.inner, args), **tree_map_only(Held, lambda held: held.inner, options)
    )
    return tree_map_only(Tensor, Held, made) if here else made


def test_the_stand_in_refuses_float64() -> None:
    with Device():
        there = torch.arange(3, device=AWAY)
        assert (there + 1).float().device == AWAY
        assert (there + 1).cpu().tolist() == [1, 2, 3]
        with pytest.raises(TypeError, match="Cannot convert"):
            there.double()
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.arange(3)


@pytest.mark.parametrize("family", FAMILIES)
def test_tables_are_made_on_the_cpu_and_moved(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(FAMILIES[family])
    for _, module, row in modules(model):
        encoding = row.encoding(module, model)
        call = arguments(module, row, (), {**row.probe(module), **row.given(encoding)}) if not row.argument else None
        if call is None:
            continue
        expected = tensors_in(row.tables(encoding, module, call))
        with monkeypatch.context() as patched, Device(), torch.no_grad():
            patched.setattr(precision, "WITHOUT_FLOAT64", {AWAY.type})
            there = {key: tree_map_only(Tensor, lambda x: x.to(AWAY), value) for key, value in call.items()}
            there = {key: AWAY if isinstance(value, torch.device) else value for key, value in there.items()}
            made = tensors_in(row.tables(encoding, module, there))
            assert {table.device for table in made} <= {AWAY}
            for table, same in zip(made, expected, strict=True):
                torch.testing.assert_close(table.cpu(), same.to(table.dtype), rtol=1e-6, atol=1e-6)

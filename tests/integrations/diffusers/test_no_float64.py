"""Tables for a device without float64, such as Apple's."""

import pytest
import torch
from tests.integrations.diffusers.models import FAMILIES, build
from tests.without_float64 import AWAY, Device
from torch import Tensor
from torch.utils._pytree import tree_map_only

pytest.importorskip("diffusers", reason="diffusers is not installed")

from posenc.integrations.diffusers.description.reader import modules
from posenc.integrations.diffusers.live.check import arguments, tensors_in


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
def test_tables_are_made_on_the_cpu_and_moved(family: str) -> None:
    model = build(FAMILIES[family])
    for _, module, row in modules(model):
        encoding = row.encoding(module, model)
        call = arguments(module, row, (), {**row.probe(module), **row.given(encoding)}) if not row.argument else None
        if call is None:
            continue
        expected = tensors_in(row.tables(encoding, module, call))
        with Device(), torch.no_grad():
            there = {key: tree_map_only(Tensor, lambda x: x.to(AWAY), value) for key, value in call.items()}
            there = {key: AWAY if isinstance(value, torch.device) else value for key, value in there.items()}
            made = tensors_in(row.tables(encoding, module, there))
            assert {table.device for table in made} <= {AWAY}
            for table, same in zip(made, expected, strict=True):
                torch.testing.assert_close(table.cpu(), same.to(table.dtype), rtol=1e-6, atol=1e-6)

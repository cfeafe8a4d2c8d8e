"""A decoder with any encoding, compiled ahead of time by AOTInductor, at several lengths."""

from pathlib import Path

import pytest
import torch
from tests.nn.test_compile import DIM, MORE, decoder

from posenc.catalogue import names


@pytest.mark.slow
@pytest.mark.parametrize("name", [*names(), *MORE])
def test_aot_inductor(name: str, tmp_path: Path) -> None:
    model = decoder(name).requires_grad_(False)
    length = torch.export.Dim("length", min=2, max=40)
    program = torch.export.export(model, (torch.randn(2, 6, DIM),), dynamic_shapes={"x": {1: length}})
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    loaded = torch._inductor.aoti_load_package(path)
    for tokens in (6, 2, 11, 24, 40):
        x = torch.randn(2, tokens, DIM)
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)

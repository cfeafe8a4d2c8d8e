"""Swin: the same output of its window attention, and places that are not in the window."""

import pytest
import torch
from torch import Tensor

import posenc


def test_swin_gives_the_same_with_its_attention_replaced() -> None:
    transformers = pytest.importorskip("transformers")
    swin = pytest.importorskip("transformers.models.swin.modeling_swin")
    torch.manual_seed(0)
    config = transformers.SwinConfig(
        image_size=28, patch_size=2, embed_dim=12, depths=[2], num_heads=[3], window_size=7, drop_path_rate=0.0
    )
    model = transformers.SwinModel(config).double().eval()
    image = torch.randn(2, 3, 28, 28, dtype=torch.float64)
    modules = [m for m in model.modules() if isinstance(m, swin.SwinRelativePositionBias)]
    assert len(modules) == 2
    places = torch.arange(49)
    with torch.no_grad():
        for module in modules:
            torch.nn.init.normal_(module.relative_position_bias_table)
        expected = model(image).last_hidden_state

        def forward(self: torch.nn.Module) -> Tensor:
            encoding = posenc.scores.SwinBias(num_heads=3, window=(7, 7)).double()
            encoding.table.copy_(self.relative_position_bias_table)
            return encoding.bias(places, places)[None]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(swin.SwinRelativePositionBias, "forward", forward)
            got = model(image).last_hidden_state
    assert torch.equal(got, expected)


@pytest.mark.parametrize("positions", [torch.tensor([49]), torch.tensor([0.5])])
def test_a_place_that_is_not_in_the_window_is_refused(positions: Tensor) -> None:
    with pytest.raises(ValueError, match="SwinBias: got"):
        posenc.scores.SwinBias(num_heads=2).bias(positions, positions)


def test_a_window_without_two_sides_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got num_heads 2 and window \(7,\), expected"):
        posenc.scores.SwinBias(num_heads=2, window=(7,))

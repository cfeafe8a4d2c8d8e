"""Swin: the same output of its window attention, and places that are not in the window."""

import pytest
import torch
from tests import peers
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


@pytest.mark.parametrize("window", [(4, 4), (3, 5)])
@pytest.mark.parametrize("prefix", [0, 1])
def test_with_and_without_a_class_token_it_is_timms(window: tuple[int, int], prefix: int) -> None:
    """Of BEiT and all that have ``RelPosBias``; a class token's query meets every place with one number."""
    theirs = peers.timm("layers.pos_embed_rel").RelPosBias(window_size=window, num_heads=2, prefix_tokens=prefix)
    torch.nn.init.normal_(theirs.relative_position_bias_table)
    encoding = posenc.scores.SwinBias(num_heads=2, window=window, prefix=prefix)
    encoding.load_state_dict({"table": theirs.relative_position_bias_table})
    places = torch.arange(prefix + window[0] * window[1])
    assert torch.equal(encoding.bias(places, places), theirs.get_bias()[0])
    assert torch.equal(encoding.bias(places[2:5], places[:1]), theirs.get_bias()[0, :, 2:5, :1])


@pytest.mark.parametrize("window", [(4, 4), (3, 5)])
def test_it_is_maxvits_with_its_table_turned_round(window: tuple[int, int]) -> None:
    """MaxViT counts the offset from the query to the key, and keeps heads first."""
    theirs = peers.timm("layers.pos_embed_rel").RelPosBiasTf(window_size=window, num_heads=2)
    table = theirs.relative_position_bias_table.flip(1, 2).permute(1, 2, 0).flatten(0, 1)
    encoding = posenc.scores.SwinBias(num_heads=2, window=window)
    encoding.load_state_dict({"table": table})
    places = torch.arange(window[0] * window[1])
    torch.testing.assert_close(encoding.bias(places, places), theirs.get_bias().view(2, len(places), -1))


def test_beit_gives_the_same_with_its_bias_replaced() -> None:
    transformers = pytest.importorskip("transformers")
    beit = pytest.importorskip("transformers.models.beit.modeling_beit")
    config = transformers.BeitConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=8, image_size=20, patch_size=4,
        use_relative_position_bias=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BeitModel(config).eval()
    modules = [m for m in model.modules() if isinstance(m, beit.BeitRelativePositionBias)]
    assert len(modules) == 2
    image, places = torch.randn(2, 3, 20, 20), torch.arange(26)

    def forward(self: torch.nn.Module, *_: object, **__: object) -> Tensor:
        encoding = posenc.scores.SwinBias(num_heads=3, window=(5, 5), prefix=1)
        encoding.load_state_dict({"table": self.relative_position_bias_table})
        return encoding.bias(places, places)[None].detach()

    with torch.no_grad():
        for module in modules:
            torch.nn.init.normal_(module.relative_position_bias_table)
        expected = model(image).last_hidden_state
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(beit.BeitRelativePositionBias, "forward", forward)
            assert torch.equal(model(image).last_hidden_state, expected)


def test_a_window_has_one_class_token_or_none() -> None:
    with pytest.raises(ValueError, match="got prefix 2, expected 0 to 1"):
        posenc.scores.SwinBias(num_heads=2, prefix=2)

"""Swin: the same output of its window attention, and places that are not in the window."""

import numpy as np
import pytest
import torch
from tests import peers
from torch import Tensor

import posenc
from posenc.oracle.scores import swin as oracle


@pytest.mark.transformers_as_pinned
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


@pytest.mark.parametrize(
    ("window", "size"), [((7, 7), (12, 12)), ((7, 7), (4, 4)), ((4, 6), (9, 5)), ((3, 3), (40, 40))]
)
@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.filterwarnings("ignore::UserWarning")  # timm's interpolator: how it indexes, and a copy
def test_another_window_is_read_as_timm_does(window: tuple[int, int], size: tuple[int, int], prefix: int) -> None:
    timm = peers.timm("layers.pos_embed_rel")
    torch.manual_seed(0)
    bias = posenc.scores.SwinBias(num_heads=3, window=window, prefix=prefix)
    torch.nn.init.normal_(bias.table)
    shape = ((2 * size[0] - 1) * (2 * size[1] - 1) + 3 * prefix, 3)
    geometric = bias.resized(*size, by="geometric")
    theirs = timm.resize_rel_pos_bias_table(bias.table.detach(), size, shape, old_window_size=window)
    torch.testing.assert_close(geometric.table.detach(), theirs, atol=2e-4, rtol=0)  # their ratio is good to 1e-6
    expected = oracle.resized_geometrically(
        bias.table.detach()[: len(bias.table) - 3 * prefix], window=window, size=size
    )
    np.testing.assert_allclose(geometric.table.detach()[: len(expected)], expected, atol=1e-5)
    if window[0] == window[1]:
        theirs = timm.resize_rel_pos_bias_table_simple(bias.table.detach(), size, shape)
        assert torch.equal(bias.resized(*size).table.detach(), theirs)
    places = torch.arange(prefix + size[0] * size[1])
    assert geometric.bias(places, places).shape == (3, len(places), len(places))


def test_the_same_window_keeps_its_table() -> None:
    bias = posenc.scores.SwinBias(num_heads=2, window=(4, 5), prefix=1)
    for by in ("bicubic", "geometric"):
        assert torch.equal(bias.resized(4, 5, by=by).table, bias.table)
    one = posenc.scores.SwinBias(num_heads=2, window=(1, 4))
    assert one.resized(3, 4, by="geometric").table.shape == (35, 2)
    with pytest.raises(ValueError, match="got by='linear', expected one of"):
        bias.resized(4, 4, by="linear")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1 each"):
        bias.resized(0, 4)

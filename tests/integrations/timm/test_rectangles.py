"""Tables of images that are no squares: what describe says is what the model reads, or it says nothing."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from models import timm

from posenc.embeddings import LearnedGrid
from posenc.integrations.timm import describe


def on_meta(name: str, **options: Any) -> Any:
    with torch.device("meta"):
        return timm.create_model(name, **options)


def tables_of(model: Any) -> dict[str, tuple[int, tuple[int, int], int]]:
    found = {}
    for group in describe(model):
        if isinstance(group.encoding, LearnedGrid):
            found[group.label] = (group.encoding.dim, group.encoding.grid, group.encoding.prefix)
    return found


@pytest.mark.parametrize(
    ("name", "size", "wanted"),
    [
        (
            "visformer_tiny",
            (224, 160),
            {"pos_embed1": (96, (28, 20), 0), "pos_embed2": (192, (14, 10), 0), "pos_embed3": (384, (7, 5), 0)},
        ),
        ("pit_ti_224", (224, 160), {"pos_embed": (64, (27, 19), 0)}),
        ("volo_d1_224", (224, 160), {"pos_embed": (384, (14, 10), 0)}),
        ("tnt_s_legacy_patch16_224", (224, 160), {"patch_pos": (384, (14, 10), 1), "pixel_pos": (24, (4, 4), 0)}),
        ("hiera_tiny_224", (224, 160), {"pos_embed": (96, (56, 40), 0)}),
        ("hiera_tiny_224", (256, 64), {"pos_embed": (96, (64, 16), 0)}),  # as many as in a square of 32
        ("crossvit_tiny_240", (240, 240), {"pos_embed_0": (96, (20, 20), 1), "pos_embed_1": (192, (14, 14), 1)}),
    ],
)
def test_a_rectangle_is_read_as_one(name: str, size: tuple[int, int], wanted: dict[str, Any]) -> None:
    """A channel was taken for a row, and a rectangle for a square with tokens before it."""
    assert tables_of(on_meta(name, img_size=size)) == wanted


def test_rows_without_places_are_not_read() -> None:
    """timm's CrossViT counts the patches of rectangles otherwise than it makes them."""
    model = on_meta("crossvit_tiny_240", img_size=(240, 192))
    assert model.pos_embed_1.shape[1] - 1 != model.patch_embed[1].num_patches
    assert "pos_embed_1" not in tables_of(model)
    assert any("whose rows are not known" in why for why in describe(model).unread)


@pytest.mark.parametrize("registers", [0, 4, 12])
@pytest.mark.parametrize("with_rows", [True, False])
def test_any_number_of_registers(registers: int, with_rows: bool) -> None:
    model = on_meta("vit_tiny_patch16_224", img_size=(224, 160), reg_tokens=registers, no_embed_class=not with_rows)
    assert tables_of(model) == {"pos_embed": (192, (14, 10), (1 + registers) * with_rows)}


@torch.no_grad()
def test_the_rows_of_a_rectangle_are_the_models() -> None:
    """The table as posenc reads it, in the place of the model's own: nothing changes."""
    torch.manual_seed(0)
    model = timm.create_model("visformer_tiny", img_size=(64, 32), num_classes=0).eval()
    nn.init.normal_(model.pos_embed1)
    found = next(group for group in describe(model) if group.label == "pos_embed1")
    seen: list[Tensor] = []
    model.pos_drop.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    stem = model.patch_embed1(model.stem(torch.zeros(1, 3, 64, 32)))
    model(torch.zeros(1, 3, 64, 32))
    rows = model.pos_embed1[0].flatten(1).T
    ours = LearnedGrid.from_table(rows, grid=found.encoding.grid, prefix=found.encoding.prefix)
    tokens = ours.on_embeddings(stem.flatten(2).transpose(1, 2))
    torch.testing.assert_close(tokens.transpose(1, 2).view_as(stem), seen[0])


def test_attention_of_one_head_is_attention() -> None:
    """MobileViT v2 was said to be made of convolutions alone."""
    (found,) = describe(on_meta("mobilevitv2_050"))
    assert len(found.layers) == 9
    assert found.notes


def test_a_lambda_over_neighbours_is_named() -> None:
    assert any("a convolution over neighbours" in why for why in describe(on_meta("lambda_resnet26t")).unread)

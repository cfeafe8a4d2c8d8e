"""What people reported of timm's positions, made small: the numbers are of huggingface/pytorch-image-models."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from models import timm

from posenc.embeddings import LearnedGrid
from posenc.integrations.timm import accelerate, describe, extend

SMALL = {"embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 3, "patch_size": 16}


def vit(**options: object) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.models.vision_transformer.VisionTransformer(**SMALL, **options).eval()
    nn.init.normal_(model.pos_embed)
    return model


@pytest.mark.parametrize("size", [(64, 64), (128, 32), (64, 256)])
def test_a_rectangle_of_as_many_patches_is_read_anew(size: tuple[int, int]) -> None:
    """2737 and 2317: 2 x 8 patches and 4 x 4 are as many, and lie elsewhere; 2190: the table of a rectangle."""
    model = vit(img_size=(32, 128))
    before = LearnedGrid.from_table(model.pos_embed.detach(), grid=(2, 8), prefix=1)
    (group,) = describe(model)
    assert group.encoding.grid == (2, 8)
    with extend(model, size=size):
        wanted = before.resized(size[0] // 16, size[1] // 16, convention="timm").table
        torch.testing.assert_close(model.pos_embed[0], wanted, atol=1e-6, rtol=0)
        assert not torch.equal(model.pos_embed[0, :17], before.table)
    assert torch.equal(model.pos_embed[0], before.table)


def test_a_class_token_without_a_row_is_no_patch() -> None:
    """1365: ``no_embed_class``, which DeiT 3 has."""
    model = vit(img_size=64, no_embed_class=True)
    (group,) = describe(model)
    assert (group.encoding.grid, group.encoding.prefix) == ((4, 4), 0)
    before = LearnedGrid.from_table(model.pos_embed.detach())
    with extend(model, size=(128, 64)), torch.no_grad():
        torch.testing.assert_close(model.pos_embed[0], before.resized(8, 4, convention="timm").table)
        assert model(torch.zeros(1, 3, 128, 64)).shape == (1, 3)


def test_patches_that_are_dropped_keep_their_places() -> None:
    """2549: each image of a batch keeps patches of its own, and so has tables of its own."""
    torch.manual_seed(0)
    model = timm.models.eva.Eva(img_size=64, use_rot_pos_emb=True, patch_drop_rate=0.5, use_abs_pos_emb=False, **SMALL)
    model.train()
    images = torch.randn(2, 3, 64, 64)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        before = model(images)
    with accelerate(model), torch.random.fork_rng():
        model.train()
        torch.manual_seed(1)
        assert torch.equal(model(images), before)


@pytest.mark.parametrize(
    ("name", "how"),
    [("naflexvit_base_patch16_siglip", "bilinear with antialias"), ("naflexvit_base_patch16_map", "bicubic")],
)
def test_how_naflex_reads_its_table_is_said(name: str, how: str) -> None:
    """2542: SigLIP 2 is bilinear in Google's code, and was bicubic here."""
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    with torch.device("meta"):
        module = timm.models.naflexvit.NaFlexEmbeds(
            embed_dim=32, pos_embed_grid_size=(4, 4), pos_embed="learned", pos_embed_interp_mode=how.split()[0]
        )
    from posenc.integrations.timm.modules import reader_of

    reader = reader_of(module)
    assert reader is not None
    assert reader(module, module)[0].notes[0].startswith(f"read at the grid of each image, {how}")

"""Where the tokens of timm's rotations stand, and by which rates they turn, whatever the model was made with."""

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from models import timm

from posenc import AxialRoPE, positions
from posenc.embeddings import SinusoidalGrid
from posenc.frequencies import NTK, Custom, Geometric, Turns
from posenc.integrations.timm import accelerate, describe, extend, replace

SIZES = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "global_pool": "avg"}


def naflex(**options: Any) -> Any:
    torch.manual_seed(0)
    layers = timm.models.naflexvit
    model = layers.NaFlexVit(layers.NaFlexVitCfg(**SIZES, **options), num_classes=0, img_size=32).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model


def eva(**options: Any) -> Any:
    torch.manual_seed(0)
    return timm.models.eva.Eva(**SIZES, num_classes=0, use_rot_pos_emb=True, use_abs_pos_emb=False, **options).eval()


def rotation_of(model: Any) -> Any:
    return next(group for group in describe(model) if group.label == "rope")


def places_of(found: Any, grid: tuple[int, int]) -> torch.Tensor:
    names = {**vars(positions), "rows": grid[0], "columns": grid[1], "max": max, "min": min}
    return eval(found.positions, names)  # type: ignore[no-any-return]


def check(model: Any, grid: tuple[int, int]) -> None:
    found = rotation_of(model)
    places = places_of(found, grid)
    prefix = places.shape[1] - grid[0] * grid[1]
    q = torch.randn(1, 2, places.shape[1], 16)
    tables = model.rope.get_embed(shape=list(grid))
    theirs = q.clone()
    theirs[:, :, prefix:] = timm.layers.apply_rot_embed_cat(q[:, :, prefix:], tables, half=bool(model.rope.rotate_half))
    torch.testing.assert_close(found.encoding.rotate(q, places), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("reference", [None, (4, 4), (3, 5)])
@pytest.mark.parametrize("kind", ["cat", "dinov3"])
def test_a_grid_that_is_known(kind: str, reference: Any, offset: float) -> None:
    """Offsets by half a patch, and those of DINOv3's coordinates, were not expressed."""
    for indexing, grid in itertools.product(("ij", "xy"), ((4, 4), (6, 2))):
        size = {"img_size": (8 * grid[0], 8 * grid[1]), "ref_feat_shape": reference}
        check(eva(**size, rope_type=kind, rope_grid_offset=offset, rope_grid_indexing=indexing), grid)


@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("reference", [None, (4, 4), (3, 5)])
@pytest.mark.parametrize("kind", ["axial", "dinov3"])
def test_a_grid_that_is_each_images(kind: str, reference: Any, offset: float) -> None:
    """NaFlexVit makes its grid at each call, and lays it over that of training: the latter was not said."""
    model = naflex(
        pos_embed="none", rope_type=kind, rope_ref_feat_shape=reference, rope_grid_offset=offset, rope_rotate_half=True
    )
    for grid in ((4, 4), (6, 2), (1, 5)):
        check(model, grid)


def test_rates_of_a_rule_are_described() -> None:
    """After extend by a rule describe said the rates of the model's settings, which it no longer had."""
    image = torch.randn(1, 3, 32, 48)
    for kind, rule in (("axial", NTK(2)), ("dinov3", Turns(NTK(2, base=100)))):
        model = naflex(pos_embed="none", rope_type=kind, rope_temperature=10_000.0 if kind == "axial" else 100.0)
        own = rotation_of(model).encoding.frequencies
        before = model.forward_features(image)
        with extend(model, size=(64, 64), by=rule):  # it has no set_input_size, and takes any size
            assert not torch.allclose(model.forward_features(image), before, atol=1e-3)
            changed = rotation_of(model).encoding.frequencies
            assert isinstance(changed, Custom)
            assert changed.inv_freq(8) == pytest.approx(rule.inv_freq(8), rel=1e-5)
            check(model, (4, 6))
        assert rotation_of(model).encoding.frequencies == own
        assert torch.equal(model.forward_features(image), before)
    with pytest.raises(ValueError, match="takes 64 x 64 as it is"):
        extend(model, size=64)
    with pytest.raises(ValueError, match="stores no image size"):
        extend(naflex(pos_embed="none", rope_type="axial"), size=64, by="fit")


@pytest.mark.parametrize("indexing", ["ij", "xy"])
def test_squeezed_coordinates_of_learned_rates_stay_so(indexing: str) -> None:
    """timm makes them anew when the dtype changes; describe said they were whole."""
    model = eva(img_size=(32, 48), rope_type="mixed", rope_grid_indexing=indexing)
    assert rotation_of(model).positions == "grid(4, 6, prefix=1)"
    with extend(model, size=(64, 64), by="fit"):
        for _ in range(2):
            assert rotation_of(model).positions == "grid(8, 8, prefix=1, step=(0.5, 0.75))"
            where = positions.grid(8, 8, step=(0.5, 0.75))[0]
            where = where.flip(-1) if indexing == "xy" else where
            assert torch.equal(torch.stack((model.rope.t_x, model.rope.t_y), -1).double(), where)
            model.to(torch.bfloat16).to(torch.float32)
    assert rotation_of(model).positions == "grid(4, 6, prefix=1)"


def test_a_table_in_four_dimensions_is_taken_out() -> None:
    """NaFlexVit's was said to be a LearnedGrid within a window."""
    model, image = naflex(pos_embed="learned"), torch.randn(1, 3, 32, 48)
    before = model.forward_features(image)
    rotation = AxialRoPE(16, frequencies=Geometric(100))
    with replace(model, rotation, positions=positions.grid(4, 6), inputs=image):
        assert not torch.allclose(model.forward_features(image), before, atol=1e-2)
        assert not model.embeds.pos_embed.any()
    assert torch.equal(model.forward_features(image), before)
    with pytest.raises(
        ValueError, match="no rows that the codes could be written into; read at the grid of each image"
    ):
        replace(model, SinusoidalGrid(32), positions=positions.grid(4, 6), inputs=image)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["axial", "mixed", "dinov3", "mrope"])
def test_images_of_several_sizes_have_the_fused_rotation(kind: str) -> None:
    """Learned rates have a table for each head of each image then, which a model that was accelerated refused."""
    model = naflex(pos_embed="none", rope_type=kind, rope_mrope_section=(2, 3, 3) if kind == "mrope" else None)
    sizes = [(2, 3), (4, 2), (1, 5)]
    patches, valid = torch.randn(3, 8, 8 * 8 * 3), torch.zeros(3, 8, dtype=torch.bool)
    places = torch.zeros(3, 8, 2, dtype=torch.long)
    for i, (rows, columns) in enumerate(sizes):
        places[i, : rows * columns] = positions.grid(rows, columns)[0]
        valid[i, : rows * columns] = True

    def read() -> torch.Tensor:
        found = model.forward_features(patches, patch_coord=places, patch_valid=valid)
        return found["patches"][valid] if isinstance(found, dict) else found[:, -8:][valid]

    before = read()
    with accelerate(model):
        assert torch.equal(read(), before)
    assert torch.equal(read(), before)

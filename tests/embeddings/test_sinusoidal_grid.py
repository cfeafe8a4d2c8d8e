"""The sinusoidal code of a grid: each named convention against the code that it is named after."""

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from tests import peers
from torch import Tensor

import posenc
from posenc.embeddings import SinusoidalGrid
from posenc.embeddings.sinusoidal_grid import Convention, Layout
from posenc.oracle.embeddings import sinusoidal_grid as oracle
from posenc.positions import grid

SHAPES = [(8, 8), (5, 7)]
#: One rounding of a sine to float32, and that of an angle of up to a few dozen radians that was formed in float32.
CLOSE = {"rtol": 0, "atol": 3e-6}


def rates(width: int) -> np.ndarray:
    return 10_000.0 ** (-np.arange(0, width, 2) / width)


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize(("axes", "order"), [(2, None), (2, (1, 0)), (3, (2, 0, 1)), ((4, 12, 8), (0, 2, 1))])
def test_it_is_the_oracles(layout: Layout, axes: Any, order: tuple[int, ...] | None) -> None:
    encoding = SinusoidalGrid(24, axes=axes, layout=layout, order=order)
    positions = torch.randn(2, 9, encoding.coordinates, dtype=torch.float64) * 50
    expected = oracle.codes(
        positions.numpy(), inv_freq=[rates(width) for width in encoding.widths], layout=layout, order=order
    )
    np.testing.assert_allclose(encoding.codes(positions).numpy(), expected, rtol=0, atol=1e-13)
    x = torch.randn(2, 9, 24)
    assert encoding.on_embeddings(x, positions).shape == x.shape


# Other libraries' own code


def made(convention: Convention, dim: int, *shape: int, **options: Any) -> Tensor:
    coordinates = SinusoidalGrid.coordinates_as_in(convention, *shape, **options)
    return SinusoidalGrid.as_in(convention, dim).codes(coordinates)[0].float()


@pytest.mark.parametrize("side", [7, 14])
def test_mae_is_transformers_and_diffusers(side: int) -> None:
    """Whose functions are MAE's; diffusers' has a base over which coordinates are stretched, here by nothing."""
    mae = pytest.importorskip("transformers.models.vit_mae.modeling_vit_mae")
    from transformers import ViTMAEConfig

    theirs = mae.ViTMAEEmbeddings(ViTMAEConfig(hidden_size=32, image_size=2 * side, patch_size=2))
    theirs.initialize_weights()
    torch.testing.assert_close(made("mae", 32, side, side), theirs.position_embeddings[0, 1:].detach(), **CLOSE)
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    expected = embeddings.get_2d_sincos_pos_embed(32, side, base_size=side)
    torch.testing.assert_close(made("mae", 32, side, side), torch.as_tensor(expected).float(), **CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
def test_timm_is_timms(shape: tuple[int, int]) -> None:
    build = peers.timm("layers.pos_embed_sincos").build_sincos2d_pos_embed
    torch.testing.assert_close(made("timm", 32, *shape), build(list(shape), 32), **CLOSE)
    other = SinusoidalGrid(32, layout="concatenated").codes(grid(*shape))[0].float()
    torch.testing.assert_close(other, build(list(shape), 32, interleave_sin_cos=True), **CLOSE)


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("model", ["rt_detr", "aimv2"])
def test_rt_detr_and_aimv2_are_transformers(shape: tuple[int, int], model: str) -> None:
    module = pytest.importorskip(f"transformers.models.{model}.modeling_{model}")
    expected = module.build_2d_sinusoidal_position_embedding(*shape, embed_dim=32)
    torch.testing.assert_close(made("rt_detr", 32, *shape), expected.float(), rtol=0, atol=1e-7)


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize("shape", SHAPES)
def test_detr_is_transformers(shape: tuple[int, int]) -> None:
    detr = pytest.importorskip("transformers.models.detr.modeling_detr")
    theirs = detr.DetrSinePositionEmbedding(num_position_features=16, normalize=True)
    image = torch.zeros(1, 3, *shape)
    expected = theirs(image.shape, image.device, image.dtype)[0]
    expected = expected.flatten(1).T if expected.shape[0] == 32 else expected.reshape(-1, 32)
    torch.testing.assert_close(made("detr", 32, *shape), expected, **CLOSE)


@pytest.mark.transformers_as_pinned
def test_detr_counts_the_pixels_of_padded_images() -> None:
    detr = pytest.importorskip("transformers.models.detr.modeling_detr")
    theirs = detr.DetrSinePositionEmbedding(num_position_features=16, normalize=True)
    mask = torch.zeros(2, 6, 8, dtype=torch.bool)
    mask[0, :6, :5] = mask[1, :4, :8] = True
    expected = theirs(torch.Size((2, 3, 6, 8)), torch.device("cpu"), torch.float32, mask).flatten(2).mT
    coordinates = SinusoidalGrid.coordinates_as_in("detr", 6, 8, mask=mask)
    got = SinusoidalGrid.as_in("detr", 32).codes(coordinates).float()
    real = mask.flatten(1)
    torch.testing.assert_close(got[real], expected[real], **CLOSE)
    whole = SinusoidalGrid.coordinates_as_in("detr", 6, 8, mask=torch.ones(1, 6, 8))
    torch.testing.assert_close(whole, SinusoidalGrid.coordinates_as_in("detr", 6, 8))
    with pytest.raises(
        ValueError, match=r"got a mask of shape \(2, 6, 8\) for 'mae', expected a mask only with the convention 'detr'"
    ):
        SinusoidalGrid.coordinates_as_in("mae", 6, 8, mask=mask)
    with pytest.raises(ValueError, match=r"with the convention 'detr', of shape \(batch, 6, 9\)"):
        SinusoidalGrid.coordinates_as_in("detr", 6, 9, mask=mask)


@pytest.mark.parametrize("shape", [(16, 16), (24, 20)])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_pixart_is_diffusers(shape: tuple[int, int], scale: float) -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    expected = embeddings.get_2d_sincos_pos_embed(32, shape, base_size=16, interpolation_scale=scale)
    torch.testing.assert_close(
        made("pixart", 32, *shape, base=16, scale=scale), torch.as_tensor(expected).float(), **CLOSE
    )


@pytest.mark.parametrize("shape", [(24, 24), (10, 15)])
def test_stable_diffusion_3_cuts_out_the_middle_of_its_table(shape: tuple[int, int]) -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    theirs = embeddings.PatchEmbed(
        height=32, width=32, patch_size=2, in_channels=4, embed_dim=32, pos_embed_max_size=24
    )
    expected = theirs.cropped_pos_embed(2 * shape[0], 2 * shape[1])[0]
    torch.testing.assert_close(made("sd3", 32, *shape, base=16, table=24), expected, **CLOSE)


@pytest.mark.parametrize("shape", [(3, 6, 6), (4, 5, 9)])
def test_cogvideox_is_diffusers(shape: tuple[int, int, int]) -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    frames, rows, columns = shape
    expected = embeddings.get_3d_sincos_pos_embed(64, (columns, rows), frames, 1.875, 1.25).flatten(0, 1)
    got = made("cogvideox", 64, *shape, scale=1.875, time_scale=1.25)
    torch.testing.assert_close(got, torch.as_tensor(expected).float(), **CLOSE)


@pytest.mark.parametrize("convention", [name for name in get_args(Convention) if name not in ("mae", "pixart", "sd3")])
def test_no_two_conventions_are_one(convention: Convention) -> None:
    """MAE, PixArt and SD3 share their channels; all others differ, and a checkpoint of one is nothing in another."""
    others = {"mae", "timm", "rt_detr", "detr"} - {convention}
    mine = SinusoidalGrid.as_in(convention, 48)
    positions = torch.rand(1, 5, mine.coordinates) * 9
    for other in others if mine.coordinates == 2 else ():
        assert not torch.equal(mine.codes(positions), SinusoidalGrid.as_in(other, 48).codes(positions))  # type: ignore[arg-type]


# What it does


def test_a_text_stands_on_the_diagonal() -> None:
    encoding = SinusoidalGrid(16)
    x = torch.zeros(2, 5, 16)
    diagonal = torch.arange(5)[None, :, None].expand(1, 5, 2)
    assert torch.equal(encoding.on_embeddings(x), encoding.on_embeddings(x, diagonal))
    assert torch.equal(encoding.on_embeddings(x, 3)[:, :2], encoding.on_embeddings(x)[:, 3:])


def test_each_image_may_have_coordinates_of_its_own() -> None:
    encoding = SinusoidalGrid(16)
    both = torch.cat((grid(2, 3), grid(3, 2)))
    x = torch.randn(2, 6, 16)
    together = encoding.on_embeddings(x, both)
    for row in range(2):
        assert torch.equal(together[row], encoding.on_embeddings(x[row], both[row : row + 1]))
    with pytest.raises(ValueError, match=r"expected \(2, 6, 2\): batch, tokens and coordinates"):
        encoding.on_embeddings(x, torch.zeros(3, 6, 2))


def test_a_step_along_one_axis_is_one_rotation() -> None:
    """The code at (y, x + 3) is a fixed linear map of the code at (y, x), wherever it is."""
    encoding = SinusoidalGrid(16, layout="interleaved")
    here, there = (encoding.codes(grid(5, 9)[0] + torch.tensor([0, step])) for step in (0, 3))
    angle = torch.tensor(posenc.Geometric().inv_freq(8)) * 3
    pairs = here.view(-1, 8, 2)
    sin, cos = pairs[:, 4:, 0], pairs[:, 4:, 1]
    turned = torch.stack((sin * angle.cos() + cos * angle.sin(), cos * angle.cos() - sin * angle.sin()), dim=-1)
    torch.testing.assert_close(there.view(-1, 8, 2)[:, 4:], turned)
    torch.testing.assert_close(there.view(-1, 8, 2)[:, :4], pairs[:, :4])


def test_a_rule_of_frequencies_stretches_all_axes() -> None:
    plain, linear = SinusoidalGrid(16), SinusoidalGrid(16, frequencies=posenc.frequencies.Linear(2))
    torch.testing.assert_close(linear.codes(grid(4, 4) * 2), plain.codes(grid(4, 4)))


def test_a_rule_for_time_alone_leaves_rows_and_columns() -> None:
    rule = posenc.frequencies.Linear(2)
    plain = SinusoidalGrid.as_in("cogvideox", 32)
    slowed = SinusoidalGrid.as_in("cogvideox", 32, frequencies=[rule, posenc.Geometric(), posenc.Geometric()])
    places = grid(4, 3, 3).double()
    twice = places * torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(slowed.codes(twice), plain.codes(places))
    assert posenc.from_dict(slowed.to_dict()).to_dict() == slowed.to_dict()
    assert torch.equal(posenc.from_dict(slowed.to_dict()).codes(places), slowed.codes(places))  # type: ignore[attr-defined]


def test_detr_ends_at_a_whole_turn() -> None:
    coordinates = SinusoidalGrid.coordinates_as_in("detr", 10, 20)[0]
    torch.testing.assert_close(coordinates[-1], torch.full((2,), 2 * math.pi, dtype=torch.float64), rtol=1e-6, atol=0)


# Refusals


@pytest.mark.parametrize(
    ("dim", "axes", "message"),
    [
        (18, 2, "got dim 18 for 2 axes, expected a multiple of 4"),
        (16, 0, "got dim 16 for 0 axes, expected a multiple of 2"),
        (16, (8, 10), r"got axes \(8, 10\) for dim 16, expected"),
        (16, (7, 9), r"got axes \(7, 9\) for dim 16, expected"),
        (16, (8.0, 8.0), "expected the number of coordinates"),
        (16, "xy", "expected the number of coordinates"),
        (16, (), "expected the number of coordinates"),
        (16, True, "got axes True for dim 16"),
    ],
)
def test_channels_that_do_not_share_out_are_refused(dim: int, axes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"SinusoidalGrid: .*{message}"):
        SinusoidalGrid(dim, axes=axes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SinusoidalGrid(16, layout="half"), "got layout 'half', expected one of"),  # type: ignore[arg-type]
        (lambda: SinusoidalGrid(16, order=(0, 0)), r"got order \(0, 0\), expected each of 0 to 1 once"),
        (lambda: SinusoidalGrid(16, frequencies=[posenc.Geometric()] * 3), "got 3 rules of frequencies for 2 coord"),
        (lambda: SinusoidalGrid.as_in("vit", 16), "got convention 'vit', expected one of"),  # type: ignore[arg-type]
        (lambda: SinusoidalGrid.as_in("cogvideox", 24), "got dim 24, expected a multiple of 16"),
        (lambda: SinusoidalGrid(16).codes(torch.zeros(3)), r"shape \(3,\), expected 2 coordinates"),
        (lambda: SinusoidalGrid.coordinates_as_in("mae", 4), r"got shape \(4,\) .* expected 2 sides"),
        (lambda: SinusoidalGrid.coordinates_as_in("cogvideox", 4, 4), "expected 3 sides"),
        (lambda: SinusoidalGrid.coordinates_as_in("pixart", 4, 4), "no base or table .*expected 2 sides and base"),
        (lambda: SinusoidalGrid.coordinates_as_in("mae", 4, 4, base=4), "got .*base for 'mae', expected"),
        (lambda: SinusoidalGrid.coordinates_as_in("sd3", 9, 4, base=4, table=8), "expected sides of at most 8"),
        (lambda: SinusoidalGrid.coordinates_as_in("pixart", 4, 4, base=4, scale=0), "got scale 0, expected above 0"),
        (
            lambda: SinusoidalGrid.coordinates_as_in("mae", 4, 4, scale=2),
            "got scale 2 for 'mae', which does not use it",
        ),
        (lambda: SinusoidalGrid.coordinates_as_in("sd3", 4, 4, base=4, table=8, time_scale=2), "got time_scale 2 for"),
        (lambda: SinusoidalGrid.coordinates_as_in("pixart", 4, 4, base="4"), "got base '4', expected a finite"),  # type: ignore[arg-type]
    ],
)
def test_what_no_model_has_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()

"""Fourier features against the modules that have them: SAM, Perceiver, timm and diffusers."""

from typing import Any

import numpy as np
import pytest
import torch
from tests import peers

from posenc.embeddings import FourierFeatures
from posenc.oracle.embeddings import fourier as oracle
from posenc.positions import grid


@pytest.mark.parametrize("coordinates", [1, 2, 3])
@pytest.mark.parametrize("order", ["cos_sin", "sin_cos"])
def test_it_is_the_oracles(coordinates: int, order: Any) -> None:
    directions = torch.randn(6, coordinates, dtype=torch.float64)
    encoding = FourierFeatures(12, coordinates=coordinates, directions=directions, order=order)
    points = torch.randn(2, 5, coordinates, dtype=torch.float64)
    expected = oracle.codes(points.numpy(), directions=directions.numpy(), order=order)
    got = encoding.codes(points[..., 0] if coordinates == 1 else points)
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-14)


def test_sams_grid_of_an_image_is_that_of_centred_patches() -> None:
    sam = pytest.importorskip("transformers.models.sam.modeling_sam")
    from transformers import SamConfig

    config = SamConfig(
        vision_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64,
                       "patch_size": 16, "output_channels": 16, "num_pos_feats": 8, "window_size": 2,
                       "global_attn_indexes": [0]},
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16},
        mask_decoder_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 8,
                             "iou_head_hidden_dim": 8},
    )  # fmt: skip
    model = sam.SamModel(config)
    matrix = model.shared_image_embedding.positional_embedding.detach()  # rows for x and y
    encoding = FourierFeatures(16, directions=matrix.T, order="sin_cos")
    expected = model.get_image_wide_positional_embeddings()[0].detach().flatten(1).T
    got = encoding.codes(grid(4, 4, unit="centred").flip(-1))[0]
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=3e-5)


def test_perceivers_bands_run_along_the_axes() -> None:
    perceiver = pytest.importorskip("transformers.models.perceiver.modeling_perceiver")
    points = torch.rand(1, 12, 2) * 2 - 1
    expected = perceiver.generate_fourier_features(points, 6, (32, 32), concat_pos=False)
    encoding = FourierFeatures.along_axes((torch.linspace(1, 16, 6, dtype=torch.float64) / 2).tolist())
    torch.testing.assert_close(encoding.codes(points)[0].float(), expected, rtol=0, atol=1e-5)


def test_timms_bands_alternate_between_the_axes() -> None:
    """FourierEmbed turns its (axis, sine or cosine and band) pairs over: band by band, y and x in turn."""
    theirs = peers.timm("layers.pos_embed_sincos").FourierEmbed(max_res=32, num_bands=4, concat_grid=False)
    expected = theirs(torch.zeros(1, 1, 5, 7))[0, :, 1:]  # after the one channel of the image
    bands = (torch.linspace(1, 16, 4, dtype=torch.float64) / 2).tolist()
    rows = [[band * (a == axis) for a in range(2)] for band in bands for axis in range(2)]
    points = torch.cartesian_prod(torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 7))
    got = FourierFeatures(16, directions=rows, order="sin_cos").codes(points)
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_the_noise_levels_of_diffusers_are_points_of_a_line(flip: bool) -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    theirs = embeddings.GaussianFourierProjection(8, scale=4.0, set_W_to_weight=False, log=True, flip_sin_to_cos=flip)
    sigma = torch.tensor([0.01, 0.5, 80.0])
    encoding = FourierFeatures(
        16, coordinates=1, directions=theirs.weight[:, None], order="cos_sin" if flip else "sin_cos"
    )
    torch.testing.assert_close(encoding.codes(sigma.log()).float(), theirs(sigma), rtol=0, atol=2e-5)


def test_directions_are_drawn_from_a_seed_and_no_cast_spoils_them() -> None:
    one, same, other = (FourierFeatures(4096, bandwidth=3.0, seed=seed) for seed in (1, 1, 2))
    points = torch.rand(7, 2)
    assert torch.equal(one.codes(points), same.bfloat16().codes(points))
    assert not torch.equal(one.codes(points), other.codes(points))
    assert np.std(one._b) == pytest.approx(3.0, rel=0.03)
    assert list(one.state_dict()) == []
    # The first numbers that RandomState(1) ever drew.
    np.testing.assert_allclose(one._b[0], [3 * 1.6243453636632417, 3 * -0.6117564136500754], rtol=1e-15)


def test_a_wide_kernel_forgets_distance_and_a_narrow_one_keeps_it() -> None:
    """The mean product of two codes is exp(-2 (pi sigma d)^2), a Gaussian of their distance."""
    d = 0.1
    for sigma in (0.5, 2.0):
        encoding = FourierFeatures(60_000, bandwidth=sigma)
        a, b = encoding.codes(torch.tensor([[0.3, 0.4], [0.3 + d, 0.4]], dtype=torch.float64))
        assert float(a @ b) / 30_000 == pytest.approx(np.exp(-2 * (np.pi * sigma * d) ** 2), abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 7}, "got dim 7 and 2 coordinates, expected an even dim"),
        ({"dim": 8, "coordinates": 0}, "got dim 8 and 0 coordinates"),
        ({"dim": 8, "order": "sin"}, "got order 'sin', expected one of"),
        (
            {"dim": 8, "directions": [[1.0, 2.0]]},
            r"got directions of shape \(1, 2\), expected finite .* shape \(4, 2\)",
        ),
        ({"dim": 2, "directions": [[1.0, float("nan")]]}, "expected finite numbers"),
        ({"dim": 2, "directions": "ab"}, "got directions that cannot be read as rows of numbers"),
        ({"dim": 2, "directions": [1.0, 2.0]}, "got directions that cannot be read as rows of numbers"),
        ({"dim": 2, "directions": [[1.0, 2.0]], "seed": 1}, "got directions together with bandwidth None and seed 1"),
        ({"dim": 2, "seed": -1}, "got seed -1, expected 0 to"),
        ({"dim": 2, "bandwidth": float("inf")}, "got bandwidth inf, expected"),
    ],
)
def test_what_is_no_set_of_directions_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"FourierFeatures: .*{message}"):
        FourierFeatures(**options)


def test_points_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got points of shape \(4, 3\), expected 2 coordinates"):
        FourierFeatures(8).codes(torch.zeros(4, 3))

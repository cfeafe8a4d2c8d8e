"""A table on a grid, against PyTorch's interpolation, Pillow's, and by hand."""

import numpy as np
import pytest
import torch

from posenc.oracle.embeddings.learned_grid import codes, resized, weights

SIZES = [((4, 4), (8, 8)), ((7, 5), (3, 11)), ((14, 14), (5, 20)), ((3, 3), (3, 4)), ((6, 6), (1, 1)), ((1, 2), (3, 3))]
PLAIN = {"mode": "bicubic", "antialias": False, "align_corners": False, "offset": 0.0}


def test_a_place_gives_its_row() -> None:
    table = np.arange(14.0).reshape(7, 2)
    np.testing.assert_array_equal(codes([0, 1, 6], table=table), [[0, 1], [2, 3], [12, 13]])


@pytest.mark.parametrize(("grid", "size"), SIZES)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("antialias", "align_corners"), [(False, False), (True, False), (False, True)])
def test_it_reads_the_table_as_pytorch_does(
    grid: tuple[int, int], size: tuple[int, int], mode: str, antialias: bool, align_corners: bool
) -> None:
    table = np.random.default_rng(0).normal(size=(2 + grid[0] * grid[1], 3))
    image = torch.from_numpy(table[2:].reshape(*grid, 3)).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(
        image, size=size, mode=mode, antialias=antialias, align_corners=align_corners
    )
    new = resized(table, grid=grid, size=size, prefix=2, mode=mode, antialias=antialias, align_corners=align_corners)
    np.testing.assert_array_equal(new[:2], table[:2])
    np.testing.assert_allclose(new[2:], expected[0].permute(1, 2, 0).reshape(-1, 3).numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("grid", "size"), [((4, 4), (8, 8)), ((14, 14), (5, 20)), ((5, 7), (6, 3))])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_with_antialias_it_is_pillows_resize(grid: tuple[int, int], size: tuple[int, int], mode: str) -> None:
    image = pytest.importorskip("PIL.Image")
    table = np.random.default_rng(0).normal(size=(grid[0] * grid[1], 1))
    method = {"bilinear": image.Resampling.BILINEAR, "bicubic": image.Resampling.BICUBIC}[mode]
    theirs = image.fromarray(table.reshape(grid).astype(np.float32)).resize(size[::-1], method)
    new = resized(table, grid=grid, size=size, mode=mode, antialias=True)
    np.testing.assert_allclose(new.reshape(size), np.asarray(theirs), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("old", "new"), [(37, 16), (37, 37), (37, 50), (16, 22)])
def test_the_offset_of_dinov2_shifts_where_the_rows_are_read(old: int, new: int) -> None:
    """Given as a scale factor of (new + 0.1) / old, which PyTorch then uses as it is."""
    image = torch.randn(1, 2, old, old, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factor = (new + 0.1) / old
    expected = torch.nn.functional.interpolate(image, scale_factor=(factor, factor), mode="bicubic")
    assert expected.shape[-1] == new
    w = weights(old, new, **(PLAIN | {"offset": 0.1}))
    np.testing.assert_allclose(w @ image.numpy() @ w.T, expected.numpy(), rtol=0, atol=1e-13)


def test_doubling_by_hand() -> None:
    """Bicubic at a quarter: Keys's weights for a = -3/4, in 256ths -27, 225, 67, -9, and at the edge together."""
    w = weights(4, 8, **PLAIN)
    np.testing.assert_allclose(w[3] * 256, [-27, 225, 67, -9], atol=1e-12)
    np.testing.assert_allclose(w[0] * 256, [-9 + 67 + 225, -27, 0, 0], atol=1e-12)


def test_every_reading_is_a_mean() -> None:
    for mode in ("bilinear", "bicubic"):
        for antialias in (False, True):
            w = weights(14, 9, mode=mode, antialias=antialias, align_corners=False, offset=0.0)
            np.testing.assert_allclose(w.sum(axis=1), 1.0, atol=1e-14)

"""The table on a grid: resized as six libraries' code does, each of them the referee where it is installed."""

import importlib
from typing import Any, get_args

import numpy as np
import pytest
import torch
from tests import peers
from torch import Tensor

from posenc.embeddings.learned_grid import CONVENTIONS, Convention, LearnedGrid
from posenc.oracle.embeddings import learned_grid as oracle

SIZES = [(14, 14), (18, 18), (10, 7), (24, 5), (1, 1)]


def table(prefix: int = 1, *, grid: tuple[int, int] = (14, 14), dim: int = 6) -> LearnedGrid:
    torch.manual_seed(0)
    return LearnedGrid(dim, grid=grid, prefix=prefix, std=1.0)


@pytest.mark.parametrize("convention", get_args(Convention))
@pytest.mark.parametrize(("grid", "size"), [((4, 4), (7, 3)), ((5, 3), (2, 9)), ((4, 4), (4, 4)), ((3, 4), (1, 1))])
def test_a_resized_table_is_the_oracles(convention: Convention, grid: tuple[int, int], size: tuple[int, int]) -> None:
    learned = table(2, grid=grid).double()
    resized = learned.resized(*size, convention=convention)
    old = learned.table.detach().numpy()
    expected = old if size == grid else oracle.resized(
        old, grid=grid, size=size, prefix=2, **CONVENTIONS[convention]._asdict()
    )  # fmt: skip
    np.testing.assert_allclose(resized.table.detach().numpy(), expected, rtol=0, atol=1e-13)
    assert resized.grid == size
    assert resized.prefix == 2
    assert resized.max_positions == len(resized.table) == 2 + size[0] * size[1]
    assert resized.table.dtype == torch.float64
    assert resized.table.requires_grad


@pytest.mark.parametrize("convention", get_args(Convention))
@pytest.mark.parametrize("size", [(7, 3), (4, 4)])
def test_a_table_learns_from_images_of_several_sizes(convention: Convention, size: tuple[int, int]) -> None:
    learned = table(2, grid=(4, 4)).double()
    rows = learned.rows_for(*size, convention=convention)
    assert torch.equal(rows, learned.resized(*size, convention=convention).table)
    weights = torch.randn(rows.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((rows * weights).sum(), learned.table)
    moved = table(2, grid=(4, 4)).double()
    with torch.no_grad():  # the interpolation is linear
        moved.table.copy_(learned.table.roll(3, 0))
        change = ((moved.rows_for(*size, convention=convention) - rows) * weights).sum()
    torch.testing.assert_close(((moved.table - learned.table) * gradient).sum(), change)
    assert learned.bfloat16().rows_for(*size, convention=convention).dtype == torch.bfloat16


# Other libraries' own code


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_the_convention_of_timm_is_timms(size: tuple[int, int], prefix: int) -> None:
    resample = peers.timm("layers.pos_embed").resample_abs_pos_embed
    learned = table(prefix)
    for dtype in (torch.float32, torch.bfloat16):
        learned = learned.to(dtype)
        expected = resample(learned.table[None], list(size), old_size=[14, 14], num_prefix_tokens=prefix)[0]
        assert torch.equal(learned.resized(*size, convention="timm").table, expected)


def test_a_vit_of_timm_gives_the_same_at_another_size() -> None:
    """Its own resizing, asked for by ``dynamic_img_size``, against our table put in its place."""
    vit = peers.timm("models.vision_transformer")
    torch.manual_seed(0)
    options: dict[str, Any] = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 3}
    model = vit.VisionTransformer(img_size=32, dynamic_img_size=True, **options).eval()
    torch.nn.init.normal_(model.pos_embed)
    other = vit.VisionTransformer(img_size=(40, 24), **options).eval()
    resized = LearnedGrid.from_table(model.pos_embed, prefix=1).resized(10, 6, convention="timm")
    other.load_state_dict({**model.state_dict(), "pos_embed": resized.table[None]})
    image = torch.randn(2, 3, 40, 24)
    with torch.no_grad():
        assert torch.equal(other(image), model(image))


@pytest.mark.parametrize(
    ("kind", "module", "prefix", "convention"),
    [
        ("ViT", "ViTEmbeddings", 1, "transformers"),
        ("DeiT", "DeiTEmbeddings", 2, "transformers"),
        ("Dinov2", "Dinov2Embeddings", 1, "transformers"),
        ("Dinov2WithRegisters", "Dinov2WithRegistersEmbeddings", 1, "dinov2_registers"),
        ("Beit", "BeitEmbeddings", 1, "transformers"),
        ("SiglipVision", "SiglipVisionEmbeddings", 0, "transformers"),
    ],
)
@pytest.mark.parametrize("size", [(18, 18), (10, 7)])
def test_the_conventions_of_transformers_are_its_own(
    kind: str, module: str, prefix: int, convention: Convention, size: tuple[int, int]
) -> None:
    transformers = pytest.importorskip("transformers")
    names = {"Dinov2WithRegisters": "dinov2_with_registers", "SiglipVision": "siglip"}
    name = names.get(kind, kind.lower())
    modelling = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    options = {"use_absolute_position_embeddings": True} if kind == "Beit" else {}
    config = getattr(transformers, f"{kind}Config")(hidden_size=6, image_size=28, patch_size=2, **options)
    theirs = getattr(modelling, module)(config).eval()
    parameter = getattr(theirs, "position_embeddings", None)
    parameter = theirs.position_embedding.weight if parameter is None else parameter
    torch.nn.init.normal_(parameter)
    learned = LearnedGrid.from_table(parameter.detach(), prefix=prefix)
    tokens = torch.zeros(1, prefix + size[0] * size[1], 6)
    expected = theirs.interpolate_pos_encoding(tokens, 2 * size[0], 2 * size[1])[0]
    assert torch.equal(learned.resized(*size, convention=convention).table, expected)


@pytest.mark.parametrize("size", [(16, 16), (20, 12), (9, 28)])
def test_the_convention_of_siglip_2_is_its_own(size: tuple[int, int]) -> None:
    siglip2 = pytest.importorskip("transformers.models.siglip2.modeling_siglip2")
    learned = table(0, grid=(16, 16))
    expected = siglip2.Siglip2VisionEmbeddings.resize_positional_embeddings(
        learned.table.detach().view(16, 16, 6), torch.tensor([size]), max_length=size[0] * size[1]
    )[0]
    torch.testing.assert_close(learned.resized(*size, convention="siglip2").table, expected, rtol=0, atol=1e-6)


def test_the_offset_of_dinov2_is_a_factor() -> None:
    """Meta's code gives PyTorch the factor (16 + 0.1) / 37, and no size; a size would be 16 / 37."""
    learned = table(1, grid=(37, 37))
    image = learned.table[1:].view(37, 37, 6).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(image, scale_factor=(16.1 / 37, 22.1 / 37), mode="bicubic")
    new = learned.resized(16, 22, convention="dinov2").table
    assert torch.equal(new[1:], expected[0].permute(1, 2, 0).reshape(-1, 6))
    without = learned.resized(16, 22, convention="dinov2", offset=0.0).table
    assert torch.equal(without, learned.resized(16, 22).table)
    assert float((new - without).detach().abs().max()) > 0.1


# What a table can do


def test_an_argument_changes_one_entry_of_the_convention() -> None:
    learned = table()
    assert torch.equal(learned.resized(9, 9, convention="timm").table, learned.resized(9, 9, antialias=True).table)
    assert torch.equal(learned.resized(9, 9, convention="timm", antialias=False).table, learned.resized(9, 9).table)
    assert torch.equal(
        learned.resized(9, 9, convention="siglip2").table,
        learned.resized(9, 9, mode="bilinear", antialias=True).table,
    )


def test_the_places_are_those_of_the_patches_in_reading_order() -> None:
    learned = table(1, grid=(2, 3))
    coded = learned.on_embeddings(torch.zeros(2, 7, 6))
    assert torch.equal(coded[0], learned.table)
    kept = torch.tensor([[0, 1, 6], [0, 4, 5]])  # a class token and two patches of each image, the others dropped
    assert torch.equal(learned.on_embeddings(torch.zeros(2, 3, 6), kept), learned.table[kept])


def test_resizing_leaves_the_old_table_alone() -> None:
    learned = table()
    before = learned.table.detach().clone()
    with torch.no_grad():
        learned.resized(14, 14).table.zero_()
    assert torch.equal(learned.table, before)


def test_a_narrow_table_is_read_in_float32_and_rounded_once() -> None:
    learned = table().bfloat16()
    expected = table().bfloat16().float().resized(18, 18).table.bfloat16()
    assert torch.equal(learned.resized(18, 18).table, expected)


def test_a_checkpoints_table_becomes_an_encoding() -> None:
    given = torch.randn(1, 17, 4, dtype=torch.float16)
    made = LearnedGrid.from_table(given, prefix=1)
    assert made.grid == (4, 4)
    assert torch.equal(made.table, given[0])
    assert made.table.data_ptr() != given.data_ptr()
    assert LearnedGrid.from_table(given[0], grid=(2, 8), prefix=1).grid == (2, 8)


# Refusals


@pytest.mark.parametrize("grid", [(14,), (14, 0), (14, 14, 14), 14, (14.0, 14.0), "14", (True, 14), None])
def test_a_grid_that_is_no_pair_of_sides_is_refused(grid: Any) -> None:
    with pytest.raises(
        ValueError, match=r"LearnedGrid: got grid .*, expected two whole numbers of at least 1, the rows and columns"
    ):
        LearnedGrid(4, grid=grid)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convention": "tim"}, "got convention 'tim', expected one of"),
        ({"mode": "lanczos"}, "got mode 'lanczos', expected one of"),
        ({"offset": 1.0}, "got offset 1.0, expected a number from 0 to below 1"),
        ({"offset": float("nan")}, "got offset nan, expected"),
        ({"align_corners": True, "antialias": True}, "got align_corners with antialias True"),
        ({"convention": "dinov2", "align_corners": True}, "and offset 0.1: antialias and offset measure"),
    ],
)
def test_a_reading_that_does_not_exist_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table().resized(9, 9, **options)
    with pytest.raises(ValueError, match=message):
        table().rows_for(9, 9, **options)
    with pytest.raises(ValueError, match=r"got size \(0, 9\), expected"):
        table().resized(0, 9)
    with pytest.raises(
        TypeError, match=r"resized: got the arguments \['interpolation'\], expected convention or some of"
    ):
        table().rows_for(9, 9, interpolation="bicubic")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (torch.zeros(16, 4), {"prefix": 1}, "got 16 rows with a prefix of 1, expected a square"),
        (torch.zeros(17, 4), {"grid": (4, 5), "prefix": 1}, "got 17 rows, expected 21 for a prefix of 1 and 4 x 5"),
        (torch.zeros(2, 17, 4), {}, r"shape \(2, 17, 4\), expected floats of shape"),
        (torch.zeros(16, 4, dtype=torch.int64), {}, "got a table of torch.int64"),
        (torch.zeros(1, 4), {"prefix": 1}, "got 1 rows with a prefix of 1, expected a square"),
    ],
)
def test_a_table_that_is_no_grid_is_refused(given: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearnedGrid.from_table(given, **options)


def test_a_place_past_the_table_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"got position 197, expected below 197: a prefix of 1 and 14 x 14 patches"):
        table().on_embeddings(torch.zeros(1, 198, 6))
    with pytest.raises(ValueError, match="fractional positions"):
        table().on_embeddings(torch.zeros(1, 1, 6), torch.tensor([0.5]))


@pytest.mark.parametrize(("prefix", "std", "what"), [(-1, 0.02, "prefix -1"), (0, -0.1, "std -0.1")])
def test_a_prefix_or_a_spread_below_zero_is_refused(prefix: int, std: float, what: str) -> None:
    with pytest.raises(ValueError, match=f"LearnedGrid: got {what}, expected 0 or above"):
        LearnedGrid(4, prefix=prefix, std=std)


def test_it_starts_as_in_timm() -> None:
    torch.manual_seed(0)
    start = LearnedGrid(256).table
    assert start.std().item() == pytest.approx(0.02 * 0.88, rel=0.02)  # a normal distribution cut at two
    assert start.abs().max().item() <= 0.04

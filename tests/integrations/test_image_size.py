"""Models of images in transformers: what describe says is what they have, and another size is what they would read."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posenc import Geometric, Learned, Sinusoidal, YaRN, positions
from posenc.embeddings import LearnedGrid, SinusoidalGrid
from posenc.frequencies import NTK
from posenc.integrations.transformers import describe, extend
from posenc.scores import SwinBias, SwinV2Bias

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SMALL: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    **{"image_size": 32, "patch_size": 8},
}
STAGES: dict[str, Any] = {
    **{"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4},
}
VIDEO = {**SMALL, "num_frames": 4, "tubelet_size": 2}
SOUND = {
    **{key: value for key, value in SMALL.items() if key != "image_size"},
    **{"num_mel_bins": 32, "max_length": 64, "frequency_stride": 6, "time_stride": 6},
}


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**options)
    model = getattr(transformers, f"{name}Model")(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2 if parameter.ndim > 1 else 0.05)
    return model


def images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def read(model: Any, pixels: Tensor, **options: Any) -> Tensor:
    return model(pixels, **options).last_hidden_state  # type: ignore[no-any-return]


# What is described


def tables(config: Any, dim: int) -> set[int]:
    """The rows of the tables of positions in a model without memory."""
    module = __import__(type(config).__module__.replace("configuration_", "modeling_"), fromlist=["_"])
    classes = [transformers.MODEL_MAPPING[type(config)]] if type(config) in transformers.MODEL_MAPPING else []
    classes += [c for n, c in vars(module).items() if getattr(c, "config_class", None) is type(config)]
    classes += [c for n, c in vars(module).items() if n.endswith("VisionEmbeddings") and n != "VisionEmbeddings"]
    for cls in classes:
        try:
            with torch.device("meta"):
                model = cls(config)
        except (TypeError, AttributeError, ValueError, KeyError):  # of another config
            continue
        rows = {p.shape[-2] for n, p in model.named_parameters() if "pos" in n and p.ndim > 1 and p.shape[-1] == dim}
        if rows:
            return rows
    raise AssertionError(f"no model of {type(config).__name__} has a table of positions")


@pytest.mark.transformers_as_pinned
def test_windows_have_the_biases_of_the_model() -> None:
    model = build("Swin", **STAGES)
    groups = describe(model)
    assert [(group.label, group.layers) for group in groups] == [("stage 0", (0,)), ("stage 1", (1,))]
    theirs = [m for m in model.modules() if type(m).__name__ == "SwinRelativePositionBias"]
    for group, module in zip(groups, theirs, strict=True):
        assert isinstance(group.encoding, SwinBias)
        ours = SwinBias.from_dict(group.encoding.to_dict())
        ours.load_state_dict({"table": module.relative_position_bias_table})
        places = torch.arange(16)
        assert torch.equal(ours.bias(places, places)[None], module())


def test_windows_of_the_second_version_are_cut_to_their_stage() -> None:
    groups = describe(transformers.Swinv2Config(**{**STAGES, "window_size": 8}))
    assert all(isinstance(group.encoding, SwinV2Bias) for group in groups)
    assert [group.encoding.window for group in groups] == [(8, 8), (4, 4)]
    table = "encoder.layers.1.blocks.0.attention.self.relative_coords_table"
    assert dict(build("Swinv2", **{**STAGES, "window_size": 8}).named_buffers())[table].shape[1:3] == (7, 7)


def test_videomae_has_sinusoids_that_count_tubelets() -> None:
    model = build("VideoMAE", **VIDEO)
    (group,) = describe(model)
    assert isinstance(group.encoding, Sinusoidal)
    theirs = model.embeddings.position_embeddings[0]
    assert group.longest == len(theirs) == 32
    assert torch.allclose(group.encoding.codes(torch.arange(32)), theirs.double(), atol=1e-6)


def test_a_video_table_is_counted() -> None:
    config = transformers.VivitConfig()
    (group,) = describe(config)
    assert isinstance(group.encoding, Learned)
    assert group.encoding.length in tables(config, 768)


def test_a_spectrogram_has_rows_of_frequency() -> None:
    model = build("AST", **SOUND)
    (group,) = describe(model)
    assert isinstance(group.encoding, LearnedGrid)
    assert (group.encoding.grid, group.encoding.prefix) == ((5, 10), 2)
    assert model.embeddings.position_embeddings.shape[1] == group.encoding.max_positions


@pytest.mark.transformers_as_pinned
def test_mae_has_sinusoids_of_rows_and_columns() -> None:
    from transformers.models.vit_mae import modeling_vit_mae

    (group,) = describe(transformers.ViTMAEConfig(**SMALL))
    assert isinstance(group.encoding, SinusoidalGrid)
    rows_first = modeling_vit_mae.build_2d_sinusoidal_position_embedding(
        height=4, width=4, embed_dim=32, cls_token=True
    )
    theirs = torch.cat((rows_first[..., 16:], rows_first[..., :16]), dim=-1).view(17, 32)  # as its weights are
    assert torch.allclose(group.encoding.codes(positions.grid(4, 4)[0]).double(), theirs[1:].double(), atol=1e-6)
    assert not theirs[0].any()


def test_sam_has_windows_and_the_whole() -> None:
    small = {**SMALL, "image_size": 64, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 64}
    config = transformers.SamVisionConfig(**{k: v for k, v in small.items() if k != "intermediate_size"})
    table, window, whole = describe(config)
    assert (table.encoding.grid, window.layers, whole.layers) == ((8, 8), (0,), (1,))
    model = transformers.SamVisionModel(config)
    for group in (window, whole):
        module = model.vision_encoder.layers[group.layers[0]].attn
        assert group.encoding.rows.shape == module.rel_pos_h.shape
        assert group.encoding.columns.shape == module.rel_pos_w.shape


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_size": "224"}, "image_size is '224', expected a size in pixels"),
        ({"image_size": [224, 224, 3]}, "expected a size in pixels, one number or"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"image_size": 8}, "so that there are no patches"),
        ({"hidden_size": -1}, "hidden_size"),
    ],
)
def test_a_damaged_config_is_refused(change: dict[str, Any], said: str) -> None:
    from posenc.integrations.transformers.description.images import READERS

    config = {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 2, "image_size": 224, "patch_size": 16}
    with pytest.raises(ValueError, match=said):
        READERS["vit"]({**config, **change})


# Another size

READS_ON_DEMAND: dict[str, Callable[[], Any]] = {
    "ViT": lambda: build("ViT", **SMALL),
    "DeiT": lambda: build("DeiT", **SMALL),
    "CLIP": lambda: build("CLIPVision", **SMALL),
    "SigLIP": lambda: build("SiglipVision", **SMALL),
    "Swin": lambda: build("Swin", **{**STAGES, "window_size": 2}, use_absolute_embeddings=True),
    "BEiT": lambda: build("Beit", **SMALL, use_absolute_position_embeddings=True),
}


@pytest.mark.transformers_as_pinned("Swin-(64, 48)", "Swin-(64, 64)", "Swin-(24, 32)")
@pytest.mark.parametrize("size", [(64, 48), (64, 64), (24, 32)], ids=str)
@pytest.mark.parametrize("name", READS_ON_DEMAND)
def test_another_size_is_what_the_model_reads_on_demand(name: str, size: tuple[int, int]) -> None:
    """A referee that is not ours: transformers' own interpolation of its table."""
    model, pixels = READS_ON_DEMAND[name](), images(*size)
    before = read(model, images(32, 32))
    theirs = read(model, pixels, interpolate_pos_encoding=True)
    with extend(model, size=size):
        assert torch.allclose(read(model, pixels), theirs, atol=1e-6)
        twin = copy.deepcopy(model)
        assert torch.equal(read(twin, pixels), read(model, pixels))
    assert torch.equal(read(model, images(32, 32)), before)


@pytest.mark.parametrize("name", ["Dinov2", "Dinov2WithRegisters"])
def test_dinov2_takes_a_table_that_is_no_square(name: str) -> None:
    model, pixels = build(name, **{k: v for k, v in SMALL.items() if k != "intermediate_size"}), images(64, 48)
    theirs = read(model, pixels)  # it reads its table at every size, unasked
    with extend(model, size=(64, 48)) as patch:
        assert model.embeddings.position_embeddings.shape[1] == 1 + 8 * 6
        assert torch.allclose(read(model, pixels), theirs, atol=1e-6)
        assert "again after loading" in patch.description
        with pytest.raises(ValueError, match="expected 64 x 48"):
            read(model, images(32, 32))
    assert torch.equal(read(model, pixels), theirs)


def test_beit_reads_its_biases_by_offset() -> None:
    model = build("Beit", **SMALL, use_relative_position_bias=True)
    (group,) = describe(model)
    assert isinstance(group.encoding, SwinBias)
    assert (group.encoding.window, group.encoding.prefix) == ((4, 4), 1)
    name = "relative_position_bias_table"
    before = {n: p.detach().clone() for n, p in model.named_parameters() if n.endswith(name)}
    with extend(model, size=(64, 48)):
        assert read(model, images(64, 48)).shape == (2, 49, 32)
        for path, old in before.items():
            new = model.get_parameter(path)
            assert new.shape == (15 * 11 + 3, 2)
            assert torch.equal(new[-3:], old[-3:])  # to, from and among the class token
            middle, centre = new[:-3].view(15, 11, 2)[7, 5], old[:-3].view(7, 7, 2)[3, 3]
            assert torch.allclose(middle, centre, atol=0.2)
    assert all(torch.equal(model.get_parameter(path), old) for path, old in before.items())


@pytest.mark.transformers_as_pinned("DINOv3ViT---")
@pytest.mark.parametrize(
    ("name", "options", "size", "pixels"),
    [
        ("ViT", SMALL, (64, 48), images(64, 48)),
        ("CLIPVision", SMALL, 64, images(64, 64)),
        ("Dinov2", {k: v for k, v in SMALL.items() if k != "intermediate_size"}, 64, images(64, 64)),
        ("AST", SOUND, (40, 100), torch.randn(1, 100, 40)),
        ("Swinv2", STAGES, (64, 48), images(64, 48)),
        ("DINOv3ViT", SMALL, (64, 48), images(64, 48)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_is_saved_and_loaded(name: str, options: Any, size: Any, pixels: Tensor, tmp_path: Path) -> None:
    model = build(name, **options)
    patch = extend(model, size=size)
    assert "again" not in patch.description
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(read(loaded, pixels), read(model, pixels))


def test_the_ways_of_reading_differ_and_are_named() -> None:
    model = build("ViT", **SMALL)
    results = []
    for by in ("bicubic", "transformers", "timm", "bilinear"):
        with extend(model, size=(64, 48), by=by):
            results.append(model.embeddings.position_embeddings.detach().clone())
    assert torch.equal(results[0], results[1])
    assert all(not torch.equal(results[0], other) for other in results[2:])
    with pytest.raises(ValueError, match="by='nearest', expected one of"):
        extend(model, size=(64, 48), by="nearest")


@pytest.mark.transformers_as_pinned
def test_a_rule_turns_rows_and_columns() -> None:
    model, pixels = build("DINOv3ViT", **SMALL), images(64, 48)
    with extend(model, size=(64, 48)):
        plain = read(model, pixels)
    with extend(model, size=(64, 48), by=Geometric(100)):  # what it has
        assert torch.allclose(read(model, pixels), plain, atol=1e-5)
    with extend(model, size=(64, 48), by=NTK(2, base=100)) as patch:
        assert torch.allclose(model.rope_embeddings.inv_freq.double(), torch.from_numpy(NTK(2, base=100).inv_freq(8)))
        assert not torch.equal(read(model, pixels), plain)
        assert "again after loading" in patch.description
    with extend(model, size=(64, 48)):
        assert torch.equal(read(model, pixels), plain)
    with pytest.raises(ValueError, match="has no rotation"):
        extend(build("ViT", **SMALL), size=64, by=NTK(2))
    with pytest.raises(ValueError, match="without a factor"):
        extend(model, size=64, by=YaRN(4, trained_length=16))
    with pytest.raises(ValueError, match="expected one of"):
        extend(model, size=64, by="fit")


def test_a_video_keeps_its_frames() -> None:
    model = build("VideoMAE", **VIDEO)
    video = torch.randn(1, 4, 3, 64, 48)
    table = model.embeddings.position_embeddings
    with extend(model, size=(64, 48)) as patch:
        assert read(model, video).shape == (1, 2 * 8 * 6, 32)
        assert "fill position_embeddings anew" in patch.description
    assert model.embeddings.position_embeddings is table


def test_what_has_no_size_is_refused() -> None:
    text = transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    with pytest.raises(ValueError, match="expected one part that reads images"):
        extend(transformers.BertModel(text), size=64)
    model = build("ViT", **SMALL)
    for size in ("64", (64,), (64, 0), (64.0, 64), True):
        with pytest.raises(ValueError, match="in pixels"):
            extend(model, size=size)
    with pytest.raises(ValueError, match="expected only size"):
        extend(model, "interpolate", size=64)
    with pytest.raises(ValueError, match="neither a rule nor a size"):
        extend(model)
    with pytest.raises(ValueError, match="so that there are no patches"):
        extend(model, size=4)
    with pytest.raises(ValueError, match="nothing was changed"):
        extend(model, size=32)
    assert model.config.image_size == 32


def test_the_part_of_a_model_with_two() -> None:
    small = {key: value for key, value in SMALL.items() if "size" not in key} | {
        "hidden_size": 32,
        "intermediate_size": 32,
    }
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 50}, vision_config={**SMALL}, projection_dim=16
    )
    model = transformers.CLIPModel(config).eval()
    with extend(model, size=64):
        assert model.vision_model(images(64, 64)).last_hidden_state.shape == (2, 65, 32)
        assert model.config.vision_config.image_size == 64


# What people reported


@pytest.mark.parametrize("convention", ["dinov2", "dinov2_registers", "transformers", "timm"])
def test_every_size_has_as_many_rows_as_patches(convention: Any) -> None:
    """facebookresearch/dinov2 333, dino 8, transformers 32410: factors that were rounded down lost a row."""
    table = LearnedGrid(2, grid=(37, 37), prefix=1)
    for height in range(1, 80, 7):
        for width in range(2, 80, 5):
            assert table.resized(height, width, convention=convention).table.shape[0] == 1 + height * width


@pytest.mark.parametrize("name", ["ViT", "DeiT", "Dinov2"])
def test_a_table_of_a_rectangle_is_read_as_one(name: str) -> None:
    """facebookresearch/dinov2 506: 4 x 6 patches, which DINOv2's own code takes for a square."""
    options = {key: value for key, value in SMALL.items() if name != "Dinov2" or key != "intermediate_size"}
    model = build(name, **{**options, "image_size": [32, 48]})
    (group,) = describe(model)
    encoding = group.encoding
    assert isinstance(encoding, LearnedGrid)
    assert encoding.grid == (4, 6)
    table = model.embeddings.position_embeddings
    before = LearnedGrid.from_table(table.detach(), grid=(4, 6), prefix=encoding.prefix)
    with extend(model, size=(48, 40)):
        wanted = before.resized(6, 5).table
        torch.testing.assert_close(model.embeddings.position_embeddings[0], wanted)
        assert read(model, images(48, 40)).shape[1] == encoding.prefix + 30


def test_vit_mae_reads_its_sines_as_it_does_on_demand() -> None:
    """transformers 32410: an image that is no square."""
    model = build("ViTMAE", **SMALL, mask_ratio=0.0)
    noise = torch.arange(30)[None].expand(2, -1).float()
    own = read(model, images(48, 40), noise=noise, interpolate_pos_encoding=True)
    with extend(model, size=(48, 40)):
        assert torch.equal(read(model, images(48, 40), noise=noise), own)


def test_a_model_of_images_is_told_of_size() -> None:
    model = build("ViT", **SMALL)
    for rule in ("interpolate", Geometric(1e6)):
        with pytest.raises(
            ValueError, match=r"a model of images takes extend\(model, size=|a model of images extend\("
        ):
            extend(model, rule, length=64)

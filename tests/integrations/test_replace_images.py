"""Another encoding in models of images: positions from the grid of patches, and the tokens before them."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posenc import ALiBi, AxialRoPE, MixedRoPE, NoPE, RoPE, Sinusoidal, positions
from posenc.embeddings import LearnedGrid
from posenc.encoding import Encoding
from posenc.integrations.transformers import describe, extend, replace

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

SMALL: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    **{"image_size": 32, "patch_size": 8},
}
SOUND = {
    **{key: value for key, value in SMALL.items() if key != "image_size"},
    **{"num_mel_bins": 32, "max_length": 64, "frequency_stride": 6, "time_stride": 6},
}


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**options)
    model = getattr(transformers, f"{name}Model")(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:  # norms stay as they are
            nn.init.normal_(parameter, std=0.3)
    return model


def images(height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def read(model: Any, pixels: Tensor) -> Tensor:
    return model(pixels).last_hidden_state  # type: ignore[no-any-return]


WITHOUT = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
MODELS: dict[str, tuple[Callable[[], Any], Tensor, int]] = {
    "ViT": (lambda: build("ViT", **SMALL), images(), 2),
    "DeiT": (lambda: build("DeiT", **SMALL), images(), 2),
    "CLIP": (lambda: build("CLIPVision", **SMALL), images(), 2),
    "SigLIP": (lambda: build("SiglipVision", **SMALL), images(), 2),
    "DINOv2": (lambda: build("Dinov2", **WITHOUT), images(), 2),
    "DINOv2 with registers": (lambda: build("Dinov2WithRegisters", **WITHOUT), images(), 2),
    "DINOv3": (lambda: build("DINOv3ViT", **SMALL), images(), 2),
    "VideoMAE": (lambda: build("VideoMAE", **SMALL, num_frames=4, tubelet_size=2), torch.randn(2, 4, 3, 32, 32), 3),
    "AST": (lambda: build("AST", **SOUND), torch.randn(2, 64, 32), 2),
}


@pytest.mark.parametrize("name", MODELS)
def test_patches_have_coordinates(name: str) -> None:
    make, pixels, axes = MODELS[name]
    model = make()
    before = read(model, pixels)
    encoding = AxialRoPE(16, axes=axes, rotary_dim=12)
    with replace(model, encoding):
        after = read(model, pixels)
        assert torch.equal(read(copy.deepcopy(model), pixels), after)
    with replace(model, NoPE()):
        assert not torch.allclose(read(model, pixels), after, atol=1e-3)
    assert torch.equal(read(model, pixels), before)


def test_the_models_own_rotation_put_back_changes_nothing() -> None:
    """DINOv3: one class token and the registers before the patches, centres from -1 to 1, in turns."""
    model, pixels = build("DINOv3ViT", **SMALL), images()
    before = read(model, pixels)
    (group,) = describe(model)
    places = positions.grid(4, 4, prefix=before.shape[1] - 16, unit="centred") * 2 * torch.pi
    with replace(model, group.encoding, positions=places):
        assert torch.allclose(read(model, pixels), before, atol=1e-5)
    with replace(model, group.encoding):  # counted patches are other places
        assert not torch.allclose(read(model, pixels), before, atol=1e-3)


def test_the_models_own_table_put_back_changes_nothing() -> None:
    model, pixels = build("ViT", **SMALL), images()
    before = read(model, pixels)
    table = LearnedGrid.from_table(model.embeddings.position_embeddings.detach(), grid=(4, 4), prefix=1)
    with replace(model, table):
        assert torch.equal(read(model, pixels), before)
        assert model.embeddings.position_embeddings.requires_grad


@pytest.mark.parametrize("encoding", [RoPE(16), ALiBi(num_heads=2), Sinusoidal(32)], ids=lambda e: type(e).__name__)
def test_places_in_the_sequence_still_work(encoding: Any) -> None:
    model, pixels = build("ViT", **SMALL), images()
    with replace(model, NoPE()):
        plain = read(model, pixels)
    with replace(model, encoding):
        assert not torch.allclose(read(model, pixels), plain, atol=1e-3)


def test_without_positions_patches_may_change_places() -> None:
    model = build("CLIPVision", **SMALL)
    patches = images().unfold(2, 8, 8).unfold(3, 8, 8)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    moved = patches.flatten(2, 3)[:, :, order].unflatten(2, (4, 4))
    pixels, others = (each.transpose(3, 4).reshape(2, 3, 32, 32) for each in (patches, moved))
    with replace(model, NoPE()):
        assert torch.allclose(read(model, pixels)[:, 0], read(model, others)[:, 0], atol=1e-4)
    with replace(model, AxialRoPE(16)):
        assert not torch.allclose(read(model, pixels)[:, 0], read(model, others)[:, 0], atol=1e-3)


def test_parameters_are_trained() -> None:
    model, encoding = build("ViT", **SMALL), MixedRoPE(16, num_heads=2)
    with replace(model, encoding):
        model(images()).last_hidden_state.square().sum().backward()
        assert encoding.rates.grad is not None
        assert "posenc_encoding.rates" in dict(model.named_parameters())
    assert "posenc_encoding.rates" not in dict(model.named_parameters())


def test_on_top_of_another_size() -> None:
    model, pixels = build("ViT", **SMALL), images(64, 48)
    with extend(model, size=(64, 48)), replace(model, AxialRoPE(16)):
        assert read(model, pixels).shape == (2, 1 + 8 * 6, 32)


def test_what_does_not_fit_is_refused() -> None:
    model = build("ViT", **SMALL)
    before = read(model, images())
    for encoding, options, said in (
        (AxialRoPE(12, axes=3), {}, "reads 3 coordinates"),
        (AxialRoPE(16), {"positions": torch.zeros(1, 17, 3)}, r"expected \(1, tokens, 2\)"),
        (AxialRoPE(16), {"positions": torch.zeros(1, 9, 2)}, "expected 9 as in positions"),
        (LearnedGrid(32, grid=(3, 3)), {}, "has 9 different positions, expected 17"),
        (Sinusoidal(64), {}, "has dim 64, expected 32"),
        (AxialRoPE(32), {}, "does not fit"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(model, encoding, **options)
    text = transformers.BertModel(
        transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )
    with pytest.raises(ValueError, match="reads no images"):
        replace(text, RoPE(16), positions=torch.zeros(1, 5, 1))
    with pytest.raises(ValueError, match="several coordinates"):
        replace(text, AxialRoPE(16))
    assert torch.equal(read(model, images()), before)


def test_of_a_model_with_a_text_and_an_image_tower_one_part_is_asked_for() -> None:
    """With inputs, RoPE for the text of a CLIP was put into its image tower too, beside the table there; an encoding
    of rows and columns was refused without a word on the tower."""
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = build("CLIP", text_config={**text, "vocab_size": 9, "eos_token_id": 8}, vision_config=SMALL)
    inputs = {"input_ids": torch.tensor([[1, 2, 3, 8]]), "pixel_values": images()[:1]}
    before = model(**inputs)
    with pytest.raises(
        ValueError, match=r"call replace\(model.text_model, ...\) or replace\(model.vision_model, ...\)"
    ):
        replace(model, RoPE(16), inputs=inputs)
    with pytest.raises(ValueError, match=r"several coordinates .* call replace\(model.vision_model, ...\)\.$"):
        replace(model, AxialRoPE(16))
    for part, encoding, moved in ((model.text_model, RoPE(16), "text"), (model.vision_model, AxialRoPE(16), "image")):
        with replace(part, encoding):
            after = model(**inputs)
        for name in ("text", "image"):
            same = torch.equal(after[f"{name}_embeds"], before[f"{name}_embeds"])
            assert same == (name != moved)
    with replace(model, Sinusoidal(32), inputs=inputs):  # written into the one table of a text
        assert torch.equal(model(**inputs).image_embeds, before.image_embeds)


@pytest.mark.parametrize("encoding", [AxialRoPE(16), RoPE(16), NoPE()], ids=repr)
def test_biases_within_windows_are_what_stands_in_the_way(encoding: Encoding) -> None:
    model = build("Beit", **SMALL, use_relative_position_bias=True)
    with pytest.raises(ValueError, match="has SwinBias within its attention, which cannot be removed"):
        replace(model, encoding)

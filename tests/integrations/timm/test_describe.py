"""What describe says of a model of timm is what its own modules compute."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from models import ROTATING, SMALL, build, timm

from posenc import AxialRoPE, MixedRoPE, MRoPE, NoPE, attention, positions
from posenc.embeddings import LearnedGrid, SinusoidalGrid
from posenc.integrations.timm import describe
from posenc.integrations.timm.modules import READERS
from posenc.scores import DecomposedBias, LeViTBias, SwinBias, SwinV2Bias


def group(model: Any, label: str) -> Any:
    return next(each for each in describe(model) if each.label == label)


@pytest.mark.parametrize("name", [name for name in ROTATING if "mixed" not in name])
def test_a_rotation_is_the_models(name: str) -> None:
    """timm's own tables and its own function, on random queries, against posenc's rotation at the described places."""
    model = build(name)
    found = group(model, "rope")
    assert found.layers == (0, 1)
    assert isinstance(found.encoding, AxialRoPE)
    places = eval(found.positions, vars(positions))
    q = torch.randn(1, 2, places.shape[1], 32)
    prefix = places.shape[1] - 16
    theirs = q.clone()
    tables = model.rope.get_embed(shape=[4, 4]) if model.rope.get_embed.__code__.co_argcount > 1 else None
    rotated = timm.layers.apply_rot_embed_cat(q[:, :, prefix:], tables, half=bool(model.rope.rotate_half))
    theirs[:, :, prefix:] = rotated
    assert torch.allclose(found.encoding.rotate(q, places), theirs, atol=2e-6)


@pytest.mark.parametrize("name", [name for name in ROTATING if "mixed" in name])
def test_learned_rates_are_the_models(name: str) -> None:
    model = build(name)
    found = group(model, "rope")
    assert isinstance(found.encoding, MixedRoPE)
    places = eval(found.positions, vars(positions))[:, 1:].flip(-1)  # columns first
    for block in range(2):
        encoding = MixedRoPE.from_dict(found.encoding.to_dict())
        encoding.load_state_dict({"rates": model.rope.freqs[:, block]})
        q = torch.randn(1, 2, 16, 32)
        theirs = timm.layers.apply_rot_embed_cat(q, model.rope.get_embed(shape=[4, 4])[block])
        assert torch.allclose(encoding.rotate(q, places), theirs, atol=2e-6)


def test_sections_are_those_of_the_reference() -> None:
    from timm.layers.pos_embed_sincos import RotaryEmbeddingMRope

    module = RotaryEmbeddingMRope(64)
    (row,) = READERS["RotaryEmbeddingMRope"](module, nn.Module())
    assert isinstance(row.encoding, MRoPE)
    places = torch.cat((torch.zeros(1, 12, 1, dtype=torch.long), positions.grid(3, 4)), dim=-1)
    q = torch.randn(1, 2, 12, 64)
    theirs = timm.layers.apply_rot_embed_cat(q, module.get_embed([3, 4]), half=True)
    assert torch.allclose(row.encoding.rotate(q, places), theirs, atol=2e-6)


@pytest.mark.parametrize("options", [{"max_res": 224}, {"max_res": 64, "linear_bands": True}], ids=str)
def test_bands_by_pixels_are_rates(options: dict[str, Any]) -> None:
    from timm.layers.pos_embed_sincos import RotaryEmbeddingCat

    module = RotaryEmbeddingCat(32, in_pixels=True, feat_shape=[3, 4], **options)
    (row,) = READERS["RotaryEmbeddingCat"](module, nn.Module())
    axes = [torch.linspace(-1, 1, side, dtype=torch.float64) for side in (3, 4)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(1, 12, 2)
    said = eval(row.positions, {**vars(positions), "rows": 3, "columns": 4})
    assert torch.allclose(said, places, atol=1e-12)
    q = torch.randn(1, 1, 12, 32)
    theirs = timm.layers.apply_rot_embed_cat(q, module.get_embed())
    assert torch.allclose(row.encoding.rotate(q, places), theirs, atol=1e-4)  # rates up to 350 in float32


def test_a_table_is_the_models() -> None:
    model = build("ViT")
    (found,) = describe(model)
    assert isinstance(found.encoding, LearnedGrid)
    assert (found.encoding.grid, found.encoding.prefix, found.layers) == ((4, 4), 1, (0, 1))
    table = LearnedGrid.from_table(model.pos_embed, grid=(4, 4), prefix=1)
    tokens = torch.randn(1, 4, 4, 64)
    theirs = model._pos_embed(tokens.flatten(1, 2))
    with_class = torch.cat((model.cls_token, tokens.flatten(1, 2)), dim=1)
    assert torch.equal(table.on_embeddings(with_class), theirs)


def test_biases_are_the_models() -> None:
    model = build("Swin")
    groups = describe(model)
    assert [each.layers for each in groups] == [(0, 1), (2,)]
    for each, path in zip(groups, ("layers.0.blocks.0.attn", "layers.1.blocks.0.attn"), strict=True):
        module = model.get_submodule(path)
        assert isinstance(each.encoding, SwinBias)
        ours = SwinBias.from_dict(each.encoding.to_dict())
        ours.load_state_dict({"table": module.relative_position_bias_table})
        places = torch.arange(ours.window[0] * ours.window[1])
        assert torch.equal(ours.bias(places, places)[None], module._get_rel_pos_bias())


def test_tensorflows_biases_are_read_backwards() -> None:
    from timm.layers import RelPosBiasTf  # type: ignore[attr-defined]

    module = RelPosBiasTf((3, 4), num_heads=2)
    (row,) = READERS["RelPosBiasTf"](module, nn.Module())
    ours = SwinBias.from_dict(row.encoding.to_dict())
    table = module.relative_position_bias_table.detach().flip(1, 2).flatten(1).T
    ours.load_state_dict({"table": table})
    assert torch.allclose(ours.bias(torch.arange(12), torch.arange(12)), module.get_bias(), atol=1e-7)


def test_continuous_biases_are_the_models() -> None:
    model = build("Swin v2")
    module = model.layers[0].blocks[0].attn
    found = describe(model).groups[0]
    assert isinstance(found.encoding, SwinV2Bias)
    ours = SwinV2Bias.from_dict(found.encoding.to_dict())
    ours.hidden.load_state_dict(module.cpb_mlp[0].state_dict())
    ours.out.load_state_dict(module.cpb_mlp[2].state_dict())
    offsets = module.cpb_mlp(module.relative_coords_table).view(-1, ours.num_heads)
    places = ours.window[0] * ours.window[1]
    theirs = 16 * offsets[module.relative_position_index.view(-1)].view(places, places, -1).permute(2, 0, 1).sigmoid()
    assert torch.allclose(ours.bias(torch.arange(places), torch.arange(places)), theirs, atol=1e-5)


def test_a_name_is_read_without_memory() -> None:
    found = describe("vit_base_patch16_224")
    assert found.model_type == "vit_base_patch16_224"
    assert found.groups[0].encoding.max_positions == 197
    assert found.groups[0].encoding.table.is_meta
    assert "timm" in found.reading


def test_mirrored_biases_are_the_models() -> None:
    from timm.models.levit import Attention, AttentionDownsample

    whole = Attention(16, 8, num_heads=2, resolution=(4, 6))
    halved = AttentionDownsample(16, 16, 8, 2, resolution=(4, 6))
    for module in (whole, halved):
        nn.init.normal_(module.attention_biases)
        (row,) = READERS[f"levit.{type(module).__name__}"](module, nn.Module())
        ours = LeViTBias.from_dict(row.encoding.to_dict())
        ours.load_state_dict({"table": module.attention_biases})
        places = torch.arange(24)
        asking = places if module is whole else places.view(4, 6)[::2, ::2].flatten()
        assert torch.equal(ours.bias(asking, places), module.get_attention_biases(places.device))
        assert bool(row.notes) == (len(asking) < 24)


def test_decomposed_biases_are_the_models() -> None:
    from timm.models.vision_transformer_sam import Attention, get_decomposed_rel_pos_bias

    module = Attention(32, num_heads=2, use_rel_pos=True, input_size=(3, 4))
    nn.init.normal_(module.rel_pos_h), nn.init.normal_(module.rel_pos_w)
    (row,) = READERS["vision_transformer_sam.Attention"](module, nn.Module())
    ours = DecomposedBias.from_dict(row.encoding.to_dict())
    ours.load_state_dict({"rows": module.rel_pos_h, "columns": module.rel_pos_w})
    q, v = torch.randn(1, 2, 12, 16), torch.randn(1, 2, 12, 16)
    bias = get_decomposed_rel_pos_bias(q[0], module.rel_pos_h, module.rel_pos_w, (3, 4), (3, 4))
    theirs = torch.nn.functional.scaled_dot_product_attention(q, q, v, attn_mask=bias.view(1, 2, 12, 12))
    assert torch.allclose(attention(q, q, v, ours), theirs, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["BottleneckAttn", "HaloAttn", "HaloAttn, halved"])
def test_biases_of_blocks_are_the_models(kind: str) -> None:
    """BoTNet's and HaloNet's were said to have no encoding here: they count the other way round."""
    from timm.layers.bottleneck_attn import BottleneckAttn
    from timm.layers.halo_attn import HaloAttn

    if kind == "BottleneckAttn":
        module: Any = BottleneckAttn(16, feat_size=(3, 4), num_heads=2)
        queries = keys = torch.arange(12)
    else:
        stride = 2 if "halved" in kind else 1
        module = HaloAttn(16, num_heads=2, block_size=4, halo_size=1, stride=stride)
        keys = torch.arange(36)
        queries = keys.view(6, 6)[: 4 // stride, : 4 // stride].flatten()  # their numbers in the window
    (row,) = READERS[type(module).__name__](module, nn.Module())
    ours = DecomposedBias.from_dict(row.encoding.to_dict())
    ours.load_state_dict({"rows": module.pos_embed.height_rel.flip(0), "columns": module.pos_embed.width_rel.flip(0)})
    q, k, v = torch.randn(1, 2, len(queries), 8), torch.randn(1, 2, len(keys), 8), torch.randn(1, 2, len(keys), 8)
    flat = q.flatten(0, 1)
    bias = module.pos_embed(flat if kind == "BottleneckAttn" else flat[:, None])
    bias = bias.reshape(1, 2, len(queries), len(keys))
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    found = attention(q, k, v, ours, q_positions=queries, k_positions=keys)
    torch.testing.assert_close(found, theirs, atol=1e-5, rtol=1e-5)
    module.scale_pos_embed = True
    (row,) = READERS[type(module).__name__](module, nn.Module())
    assert row.encoding is None


def test_beits_biases_have_a_class_token() -> None:
    model = build("BEiT")
    (found,) = describe(model)
    ours = SwinBias.from_dict(found.encoding.to_dict())
    assert (ours.window, ours.prefix) == ((4, 4), 1)
    module = model.blocks[0].attn
    ours.load_state_dict({"table": module.relative_position_bias_table})
    assert torch.equal(ours.bias(torch.arange(17), torch.arange(17))[None], module._get_rel_pos_bias())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("xcit_nano_12_p16_224", "behind a learned projection"),
        ("twins_svt_small", "depthwise convolution"),
        ("convit_tiny", "a gate mixes"),
        ("hiera_small_abswin_256", "which repeats over it"),
    ],
)
def test_what_has_no_encoding_is_named_with_the_reason(name: str, why: str) -> None:
    unread = describe(name).unread
    assert len(unread) == 1
    assert why in unread[0]


@torch.no_grad()
@pytest.mark.parametrize("name", ["xcit", "edgenext"])
def test_sinusoids_behind_a_projection_are_those_that_are_named(name: str) -> None:
    module = getattr(timm.models, name).PositionalEncodingFourier(hidden_dim=16, dim=8)
    (row,) = READERS["PositionalEncodingFourier"](module, nn.Module())
    assert 'as_in("detr", 32)' in row.notes[0]
    seen = []
    module.token_projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(1, 3, 5) if name == "xcit" else module((1, 3, 5))
    codes = SinusoidalGrid.as_in("detr", 32).codes(SinusoidalGrid.coordinates_as_in("detr", 3, 5))
    torch.testing.assert_close(seen[0][0].flatten(1).T, codes[0].float(), atol=1e-5, rtol=0)


def test_another_module_of_the_same_name_has_no_biases() -> None:
    assert all(isinstance(group.encoding, NoPE) for group in describe("mobilenetv4_hybrid_medium"))


def test_models_without_positions() -> None:
    (found,) = describe("pvt_v2_b0")
    assert isinstance(found.encoding, NoPE)
    assert found.notes
    with pytest.raises(ValueError, match="convolutions need no positional encoding"):
        describe("resnet18")


def test_other_sources_are_refused() -> None:
    with pytest.raises(ValueError, match=r"did you mean .*vit_base_patch16_224"):
        describe("vit_base_patch_16_224")
    with pytest.raises(TypeError, match="got a value of type int, expected a model of timm, its name, or its config"):
        describe(3)


def test_every_small_model_is_described() -> None:
    for name in SMALL:
        found = describe(build(name))
        assert found.groups or found.unread, name

"""Live models of timm: another size, the fused rotation, another encoding; and back."""

import copy
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from models import ROTATING, SMALL, build, images, read, timm

from posenc import ALiBi, AxialRoPE, Geometric, MixedRoPE, NoPE, PoPE, RoPE, Sinusoidal, positions
from posenc.embeddings import LearnedGrid
from posenc.frequencies import NTK, Frequencies, Turns, YaRN
from posenc.integrations.timm import accelerate, describe, extend, replace

# Another size


@pytest.mark.parametrize("size", [(96, 80), (32, 64)], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_another_size_is_what_timm_makes_of_it(name: str, size: tuple[int, int]) -> None:
    if name.startswith("Swin") and size == (32, 64):
        size = (128, 96)
    model, twin = build(name), build(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of timm's own reading of offsets
        twin.set_input_size(img_size=size)
    before, state = read(model, images()), {key: value.clone() for key, value in model.state_dict().items()}
    with extend(model, size=size):
        assert torch.equal(read(model, images(*size)), read(twin, images(*size)))
        assert model.state_dict().keys() == twin.state_dict().keys()
        assert torch.equal(read(copy.deepcopy(model), images(*size)), read(twin, images(*size)))
    assert torch.equal(read(model, images()), before)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


def test_the_ways_of_reading_a_table() -> None:
    model = build("ViT")
    table = LearnedGrid.from_table(model.pos_embed, prefix=1)
    for by, ours in {
        "bicubic": table.resized(6, 5, convention="timm"),
        "bilinear": table.resized(6, 5, mode="bilinear", antialias=True),
        "dinov2": table.resized(6, 5, convention="dinov2"),
    }.items():
        with extend(model, size=(96, 80), by=by):
            assert torch.equal(model.pos_embed[0], ours.table)


def test_offsets_are_read_in_other_ways() -> None:
    model = build("Swin")
    with extend(model, size=128, by="bilinear"):
        assert read(model, images(128, 128)).shape[0] == 2
        assert model.layers[0].blocks[0].attn.relative_position_bias_table.shape == (15 * 15, 1)


@pytest.mark.parametrize("name", ["EVA-02", "RoPE-ViT", "RoPE-ViT, mixed", "Perception Encoder"])
def test_fit_squeezes_coordinates_into_the_grid_of_training(name: str) -> None:
    model = build(name)
    found = next(each for each in describe(model) if each.label == "rope")
    first = 1 if "start=" in found.positions else 0
    before = model.rope.get_embed().detach()[..., 4, :]  # row 1 of four, column 0
    with extend(model, size=(128, 64), by="fit"):
        rows = [model.rope.get_embed().detach()[..., 4 * row, :] for row in range(8)]
    alike = [torch.allclose(row, before, atol=1e-5) for row in rows]
    assert alike == [row == 2 + first for row in range(8)]  # eight rows lie where four were


@pytest.mark.parametrize("name", ["EVA-02", "RoPE-ViT", "DINOv3"])
def test_a_rule_sets_the_rates(name: str) -> None:
    model = build(name)
    base = 100.0 if name != "EVA-02" else 10_000.0
    before = read(model, images())
    own: Frequencies = NTK(2, base=base)
    if name == "DINOv3":  # its periods are those of whole turns
        with pytest.raises(ValueError, match=r"expected rates in turns, .*by=Turns\(NTK\(factor=2, base=100\.0\)\)"):
            extend(model, size=(96, 80), by=own)
    with extend(model, size=(96, 80), by=Turns(own) if name == "DINOv3" else own):
        rates = getattr(model.rope, "bands", None)
        rates = 1 / model.rope.periods if rates is None else rates
        assert torch.allclose(rates.double(), torch.from_numpy(NTK(2, base=base).inv_freq(16)), rtol=1e-6)
        model.to(torch.bfloat16).to(torch.float32)  # timm makes its tables anew then
        rates = getattr(model.rope, "bands", None)
        rates = 1 / model.rope.periods if rates is None else rates
        assert torch.allclose(rates.double(), torch.from_numpy(NTK(2, base=base).inv_freq(16)), rtol=1e-6)
        with pytest.raises(TypeError, match="a pickle would lose them"):
            pickle.dumps(model)
    model = build(name)
    plain: Frequencies = Geometric(base)
    with extend(model, size=(96, 80), by=Turns(plain) if name == "DINOv3" else plain), torch.no_grad():
        with_plain = read(model, images(96, 80))
    with extend(model, size=(96, 80)):
        assert torch.allclose(read(model, images(96, 80)), with_plain, atol=1e-5)
    assert torch.equal(read(model, images()), before)


def test_what_cannot_be_extended() -> None:
    model = build("ViT")
    before = read(model, images())
    for options, said in (
        ({"size": (96, 80), "by": "fit"}, "has no rotation"),
        ({"size": (96, 80), "by": NTK(2)}, "has no rotation"),
        ({"size": (96, 80), "by": "nearest"}, "expected one of"),
        ({"size": (96, 80, 3)}, r"expected \(height, width\)"),
        ({"size": 64}, "nothing was changed"),
    ):
        with pytest.raises(ValueError, match=said):
            extend(model, **options)
    with pytest.raises(ValueError, match="are learned, or are computed from the image size"):
        extend(build("RoPE-ViT, mixed"), size=96, by=NTK(2))
    with pytest.raises(ValueError, match="without a factor on cos and sin"):
        extend(build("EVA-02"), size=96, by=YaRN(4, trained_length=16))
    with pytest.raises(TypeError, match="expected a model of timm"):
        extend(nn.Linear(2, 2), size=64)
    assert torch.equal(read(model, images()), before)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cait_xxs24_224", r"Cait has no set_input_size, and does not take 256 x 192 \(.*img_size=\(256, 192\)"),
        ("twins_svt_small", "Twins takes 256 x 192 as it is; there is nothing to change"),
        ("resnet10t", "ResNet takes 256 x 192 as it is"),
    ],
)
def test_a_model_that_cannot_set_its_size_is_asked_whether_it_takes_another(name: str, said: str) -> None:
    """Twins makes its positions from the image, and was said to have a fixed size."""
    with torch.device("meta"):
        model = timm.create_model(name).to_empty(device="cpu")
    with pytest.raises(ValueError, match=said):
        extend(model, size=(256, 192))


# The fused rotation


@pytest.mark.parametrize("name", ROTATING)
def test_the_fused_rotation_gives_the_same_bits(name: str) -> None:
    model, pixels = build(name), images()
    before = read(model, pixels)
    model(pixels).square().sum().backward()
    weight = next(p for n, p in model.blocks[0].attn.named_parameters() if n in ("qkv.weight", "q_proj.weight"))
    gradient = weight.grad.clone()
    model.zero_grad()
    with accelerate(model) as patch:
        assert "2 attentions" in patch.description
        assert torch.equal(read(model, pixels), before)
        assert torch.equal(read(copy.deepcopy(model), pixels), before)
        model(pixels).square().sum().backward()
        assert torch.allclose(weight.grad, gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))
    assert torch.equal(read(model, pixels), before)


@pytest.mark.parametrize("name", ["EVA-02", "RoPE-ViT, mixed", "DINOv3"])
def test_narrow_heads_agree_within_their_rounding(name: str) -> None:
    model, pixels = build(name).bfloat16(), images().bfloat16()
    before = read(model, pixels)
    with accelerate(model):
        assert torch.allclose(read(model, pixels), before, atol=0.1 * float(before.abs().max()))


def test_tables_that_change_are_seen() -> None:
    model, pixels = build("RoPE-ViT"), images()
    with accelerate(model):
        before = read(model, pixels)
        with torch.no_grad():
            model.rope.pos_embed.copy_(model.rope.pos_embed.flip(0))
        assert not torch.equal(read(model, pixels), before)
        with extend(model, size=(96, 80)):
            fused = read(model, images(96, 80))
    with extend(model, size=(96, 80)):
        assert torch.equal(read(model, images(96, 80)), fused)


def test_models_without_a_rotation_are_not_accelerated() -> None:
    with pytest.raises(ValueError, match="nothing was changed"):
        accelerate(build("ViT"))


# Another encoding


@pytest.mark.parametrize("name", ["EVA-02", "RoPE-ViT", "Perception Encoder", "DINOv3"])
def test_what_describe_says_replaces_what_the_model_has(name: str) -> None:
    """The model's own encoding, taken out and put back as posenc's: nothing may change."""
    model, pixels = build(name), images()
    before = read(model, pixels)
    found = {each.label: each for each in describe(model)}
    encoding = found["rope"].encoding
    if "pos_embed" in found:  # it stays: only the rotation is compared
        table = model.pos_embed.detach().clone()
    with replace(model, encoding, positions=eval(found["rope"].positions, vars(positions))):
        if "pos_embed" in found:
            with torch.no_grad():
                model.pos_embed.copy_(table)
        assert torch.allclose(read(model, pixels), before, atol=2e-4)
    assert torch.equal(read(model, pixels), before)


@pytest.mark.parametrize(
    "encoding",
    [
        NoPE(),
        AxialRoPE(32),
        MixedRoPE(32, num_heads=2),
        PoPE(32, num_heads=2),
        RoPE(32),
        ALiBi(num_heads=2),
        Sinusoidal(64),
        LearnedGrid(64, grid=(4, 4), prefix=1),
    ],
    ids=lambda encoding: type(encoding).__name__,
)
def test_an_encoding_is_put_in(encoding: Any) -> None:
    model, pixels = build("ViT"), images()
    before = read(model, pixels)
    with replace(model, encoding):
        after = read(model, pixels)
        assert not torch.allclose(after, before, atol=1e-2)
        assert torch.equal(read(copy.deepcopy(model), pixels), after)
        model(pixels).sum().backward()
        learned = dict(encoding.named_parameters())
        if isinstance(encoding, MixedRoPE):
            assert all(parameter.grad is not None for parameter in learned.values())
            assert {"posenc_encoding.rates"} == {n for n, _ in model.named_parameters() if "posenc" in n}
        swapped = pixels.flip(-1)
        if not isinstance(encoding, NoPE):
            assert not torch.allclose(read(model, swapped)[:, 0], after[:, 0], atol=1e-4)
    assert torch.equal(read(model, pixels), before)


@pytest.mark.filterwarnings("ignore")
def test_peft_trains_the_copy_that_attention_uses() -> None:
    peft = pytest.importorskip("peft")
    model, pixels = build("ViT"), images()
    replace(model, MixedRoPE(32, num_heads=2))
    lora = peft.get_peft_model(model, peft.LoraConfig(target_modules=["qkv"], modules_to_save=["posenc_encoding"]))
    before = read(lora, pixels)
    copied = lora.base_model.model.posenc_encoding.modules_to_save["default"]
    lora(pixels).sum().backward()
    assert float(copied.rates.grad.abs().max()) > 0
    with torch.no_grad():
        copied.rates.mul_(2)
    assert not torch.allclose(read(lora, pixels), before, atol=1e-4)


def test_without_positions_patches_may_change_places() -> None:
    model = build("ViT")
    patches = images().unfold(2, 16, 16).unfold(3, 16, 16)  # (2, 3, 4, 4, 16, 16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    moved = patches.flatten(2, 3)[:, :, order].unflatten(2, (4, 4))
    pixels, others = (each.transpose(3, 4).reshape(2, 3, 64, 64) for each in (patches, moved))
    with replace(model, NoPE()):
        assert torch.allclose(read(model, pixels)[:, 0], read(model, others)[:, 0], atol=1e-4)
        with pytest.raises(ValueError, match="in which replace put NoPE in place of its own encoding"):
            describe(model)
    assert len(describe(model)) == 1
    assert not torch.allclose(read(model, pixels)[:, 0], read(model, others)[:, 0], atol=1e-2)


def test_what_cannot_be_replaced() -> None:
    model = build("RoPE-ViT")
    before = read(model, images())
    with pytest.raises(ValueError, match="no table to write it into"):
        replace(model, Sinusoidal(64))
    with pytest.raises(ValueError, match="reads 3 coordinates"):
        replace(model, AxialRoPE(24, axes=3))
    with pytest.raises(ValueError, match=r"expected \(1, tokens, 2\)"):
        replace(model, AxialRoPE(32), positions=torch.zeros(1, 17, 3))
    with pytest.raises(ValueError, match="does not fit"):
        replace(model, AxialRoPE(64))
    with pytest.raises(ValueError, match="within a window"):
        replace(build("Swin"), AxialRoPE(16))
    with pytest.raises(TypeError, match="as encoding"):
        replace(model, "axial")
    assert torch.equal(read(model, images()), before)


def test_patches_lie_on_each_other() -> None:
    model, pixels = build("DINOv3"), images(96, 80)
    with extend(model, size=(96, 80)) as first:
        plain = read(model, pixels)
        with accelerate(model):
            assert torch.equal(read(model, pixels), plain)
            with pytest.raises(ValueError, match="undo"):
                first.undo()

"""Models whose tables the pipeline makes, and models of which nothing is read: neither may be passed over."""

from typing import Any

import pytest
import torch
from tests.integrations.diffusers.models import FAMILIES, build, outputs
from tests.integrations.diffusers.more_models import MORE

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from posenc import AxialRoPE, RoPE, Sinusoidal  # noqa: E402
from posenc.frequencies import NTK, Geometric  # noqa: E402
from posenc.integrations.diffusers import check, describe, extend  # noqa: E402

GIVEN = {"hunyuan_dit": "image_rotary_emb", "lumina_next": "image_rotary_emb", "stable_audio": "rotary_embedding"}


@pytest.mark.parametrize("family", GIVEN)
def test_the_pipelines_tables_are_those_of_the_description(family: str) -> None:
    model, inputs = build(MORE[family]), MORE[family].inputs()
    (part,) = describe(model)
    assert describe({"_class_name": MORE[family].cls, **model.config}).parts[0].encoding.to_dict() == (
        part.encoding.to_dict()
    )
    assert any("the pipeline makes the tables" in note for note in part.notes)
    before = outputs(model, inputs)
    with extend(model, dict.fromkeys(part.axes, Geometric())):  # which compares them with what it is given
        after = outputs(model, inputs)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
    with extend(model, {part.axes[-1]: NTK(8)}):
        assert any(not torch.allclose(a, b, atol=1e-5) for a, b in zip(before, outputs(model, inputs), strict=True))
        if isinstance(part.encoding, AxialRoPE):
            (changed,) = describe(model)
            assert [rule == Geometric() for rule in changed.encoding.rules] == [True, False]  # type: ignore[union-attr]
    with extend(model, dict.fromkeys(part.axes, NTK(8))):
        given = inputs[GIVEN[family]]
        strange = given.conj() if isinstance(given, torch.Tensor) else (given[0], -given[1])
        with pytest.raises(ValueError, match="other tables than those of"):
            outputs(model, inputs | {GIVEN[family]: strange})
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(model, inputs), strict=True))


@pytest.mark.parametrize("sides", [(6, 4), (4, 6), (5, 5), (3, 8)])
def test_an_image_of_another_shape_is_a_part_of_hunyuans_grid(sides: tuple[int, int]) -> None:
    """As HunyuanDiTPipeline makes the tables; the first half of a head turns by the column."""
    from diffusers.models.embeddings import get_2d_rotary_pos_embed
    from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

    model, inputs = build(MORE["hunyuan_dit"]), MORE["hunyuan_dit"].inputs()
    tables = get_2d_rotary_pos_embed(16, get_resize_crop_region_for_grid(sides, 32), sides, output_type="pt")
    inputs |= {"hidden_states": torch.randn(1, 4, 2 * sides[0], 2 * sides[1]), "image_rotary_emb": tables}
    before = outputs(model, inputs)
    with extend(model, {"height": Geometric(), "width": Geometric()}):
        after = outputs(model, inputs)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


def test_stable_audio_turns_a_half_of_each_head() -> None:
    (part,) = describe({"_class_name": "StableAudioDiTModel"})
    assert isinstance(part.encoding, RoPE)
    assert (part.encoding.head_dim, part.encoding.rotary_dim, part.encoding.pairing) == (64, 32, "half")


def test_animatediff_adds_sinusoids_of_the_frame() -> None:
    """guoyww/animatediff-motion-adapter-v1-5-2 in small: modules that add the same are one part."""
    options: dict[str, Any] = {
        "block_out_channels": (16, 16),
        "motion_layers_per_block": 1,
        "motion_norm_num_groups": 4,
    }
    options |= {"motion_num_attention_heads": 2, "motion_max_seq_length": 24, "use_motion_mid_block": True}
    model = diffusers.MotionAdapter(**options)
    described = describe(model)
    (part,) = described
    assert described.unread == ()
    assert isinstance(part.encoding, Sinusoidal)
    assert (part.encoding.dim, part.encoding.order, part.ends) == (16, "interleaved", (24,))
    assert "more of its modules" in part.notes[0]
    assert not check(model).findings
    table = model.mid_block.motion_modules[0].transformer_blocks[0].pos_embed.pe[0]
    torch.testing.assert_close(part.encoding.codes(torch.arange(24)).float(), table, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"_class_name": "AllegroTransformer3DModel"}, "image_rotary_emb: an argument of the model"),
        ({"_class_name": "PriorTransformer"}, "positional_embedding: a table of 1 x 81 x 2048"),
        ({"_class_name": "AceStepTransformer1DModel"}, "a function makes the tables"),
        ({"_class_name": "WanAnimate2Transformer3DModel"}, "the rotation is written out"),
        ({"_class_name": "SanaTransformer2DModel"}, "no rotation: positions come from convolutions"),
        ({"_class_name": "RFD4ProteinaTransformer"}, "none of its modules, tables and arguments"),
    ],
    ids=lambda value: value.get("_class_name") if isinstance(value, dict) else "",
)
def test_a_model_of_which_nothing_is_read_says_so(config: dict[str, Any], words: str) -> None:
    if not hasattr(diffusers, config["_class_name"]):
        pytest.skip("an older diffusers")
    described = describe(config)
    assert not described.parts
    assert len(described.unread) == 1
    assert words in described.unread[0]


def test_a_model_that_counts_its_layers_is_built_with_all_of_them() -> None:
    """Wan-AI/Wan2.1-VACE-1.3B-diffusers: the numbers of its layers with control go past the one that is built."""
    vace: dict[str, Any] = {"_class_name": "WanVACETransformer3DModel", "num_layers": 30, "vace_layers": [0, 2, 4]}
    (part,) = describe({**vace, "num_attention_heads": 12, "attention_head_dim": 128})
    assert isinstance(part.encoding, AxialRoPE)
    assert part.encoding.widths == (44, 42, 42)
    with pytest.raises(ValueError, match=r"exceed the number of transformer layers 3"):
        describe({**vace, "num_layers": 3})


def test_omnigen_adds_a_table_besides_its_rotation() -> None:
    """Shitao/OmniGen-v1-diffusers: 192 by 192 sinusoids, stretched over the trained 64 by 64."""
    scaling = {"short_factor": [1.0] * 48, "long_factor": [1.1] * 48}
    rotation, added = describe({"_class_name": "OmniGenTransformer2DModel", "rope_scaling": scaling})
    assert isinstance(rotation.encoding, RoPE)
    assert (added.module, added.ends) == ("patch_embedding", (192, 192))
    model = build(FAMILIES["omnigen"])
    report = check(model)
    assert len(report.checked) == 2
    model.patch_embedding.pos_embed.mul_(1.01)
    assert "differs by up to" in check(model).findings[0].text


def test_a_table_of_a_module_without_a_name_for_it_is_named() -> None:
    """Wan2.1-FLF2V: two images have learned places before they are attended to."""
    described = describe({"_class_name": "WanTransformer3DModel", "image_dim": 1280, "pos_embed_seq_len": 514})
    assert len(described) == 1
    (entry,) = described.unread
    assert entry == "condition_embedder.image_embedder.pos_embed: a table of 1 x 514 x 1280, which is not read"

"""Axial RoPE: its layouts against the models that use them, its identities, its refusals."""

import json
import math
from typing import Any, get_args

import pytest
import torch

import posenc
from posenc.oracle.queries_keys import axial as oracle
from posenc.queries_keys.axial import Layout
from posenc.testing import assert_matches_oracle

LAYOUTS = tuple(layout for layout in get_args(Layout) if layout != "half_across_heads")  # whose heads differ
GRID = torch.cartesian_prod(torch.arange(5), torch.arange(7))  # (row, column) of 35 patches
HEAD_DIM = 32


def queries(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(1, 2, 35, HEAD_DIM, generator=torch.Generator().manual_seed(0)).to(dtype)


def rope(layout: str, **options: object) -> posenc.AxialRoPE:
    return posenc.AxialRoPE(head_dim=HEAD_DIM, layout=layout, **options)  # type: ignore[arg-type]


def vision(**parameters: object) -> dict[str, object]:
    return {
        "hidden_size": 2 * HEAD_DIM,
        "embed_dim": 2 * HEAD_DIM,
        "num_attention_heads": 2,
        "num_heads": 2,
        "rope_parameters": {"rope_type": "axial", "rope_theta": 10_000.0, **parameters},
    }


def of_qwen2_vl() -> tuple[torch.Tensor, torch.Tensor]:
    from transformers.models.qwen2_vl import modeling_qwen2_vl as theirs
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig

    cos, sin = theirs.Qwen2VLVisionRotaryEmbedding(Qwen2VLVisionConfig(**vision()))(queries(), GRID)
    q = queries()[0].transpose(0, 1)
    return theirs.apply_rotary_pos_emb_vision(q, q, cos, sin)[0].transpose(0, 1)[None], rope("half").rotate(
        queries(), GRID[None]
    )


def of_gemma4() -> tuple[torch.Tensor, torch.Tensor]:
    from transformers.models.gemma4 import modeling_gemma4 as theirs
    from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig

    config = Gemma4VisionConfig(**vision(rope_theta=100.0), head_dim=HEAD_DIM)
    cos, sin = theirs.Gemma4VisionRotaryEmbedding(config)(queries(), GRID[None])
    q = queries().transpose(1, 2)
    turned = theirs.apply_multidimensional_rope(q, cos, sin, GRID[None]).transpose(1, 2)
    ours = rope("half_per_axis", frequencies=posenc.Geometric(base=100))
    return turned, ours.rotate(queries(), GRID[None])


def of_pixtral() -> tuple[torch.Tensor, torch.Tensor]:
    from transformers.models.pixtral import modeling_pixtral as theirs
    from transformers.models.pixtral.configuration_pixtral import PixtralVisionConfig

    config = PixtralVisionConfig(**vision())
    cos, sin = theirs.PixtralVisionRotaryEmbedding(config)(queries(), GRID)
    return theirs.apply_rotary_pos_emb(queries(), queries(), cos, sin, unsqueeze_dim=0)[0], rope("dealt_half").rotate(
        queries(), GRID[None]
    )


def of_sam2() -> tuple[torch.Tensor, torch.Tensor]:
    from transformers.models.sam2_video import modeling_sam2_video as theirs
    from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoConfig

    config = Sam2VideoConfig(
        memory_attention_hidden_size=2 * HEAD_DIM,
        memory_attention_num_attention_heads=2,
        memory_attention_downsample_rate=1,
        memory_attention_rope_theta=10_000,
    )
    config.rope_parameters = {"rope_type": "axial", "rope_theta": 10_000.0}
    cos, sin = theirs.Sam2VideoVisionRotaryEmbedding(config)(queries(), GRID)
    return theirs.apply_rotary_pos_emb_2d(queries(), queries(), cos, sin)[0], rope("interleaved").rotate(
        queries(), GRID[None]
    )


def of_llama4() -> tuple[torch.Tensor, torch.Tensor]:
    """A 6 x 6 image, columns before rows, counted from 1; the class token comes last and stands at (0, 0)."""
    from transformers.models.llama4 import modeling_llama4 as theirs
    from transformers.models.llama4.configuration_llama4 import Llama4VisionConfig

    config = Llama4VisionConfig(**vision(rope_type="default"), image_size=84, patch_size=14)
    freqs = theirs.Llama4VisionRotaryEmbedding(config)(queries())
    q = torch.randn(1, 37, 2, HEAD_DIM, generator=torch.Generator().manual_seed(1))
    turned = theirs.vision_apply_rotary_emb(q, q, freqs)[0]
    patches = torch.cartesian_prod(torch.arange(6), torch.arange(6)) + 1
    where = torch.cat((patches, torch.zeros(1, 2, dtype=torch.long)))[None]
    return turned, rope("interleaved", order=(1, 0), seq_dim=-3).rotate(q, where)


def of_neomme() -> tuple[torch.Tensor, torch.Tensor]:
    from transformers.models.neomme import modeling_neomme as theirs

    freq = GRID.T[:, :, None] * torch.from_numpy(posenc.Geometric().inv_freq(HEAD_DIM)).float()
    angle = theirs.NeoMMERotaryEmbedding.recomposition_frequencies(None, freq)
    q = queries()
    return q * angle.cos() + theirs.rotate_half(q) * angle.sin(), rope("dealt_half_alternating").rotate(q, GRID[None])


def of_kimi() -> tuple[torch.Tensor, torch.Tensor]:
    from transformers.models.kimi_k25 import modeling_kimi_k25 as theirs

    freq = GRID[..., None] * torch.from_numpy(posenc.Geometric().inv_freq(HEAD_DIM // 2)).float()
    angle = theirs.Kimi_K25VisionRotaryEmbedding.recomposition_frequencies(None, freq)
    q = queries()
    return q * angle.cos() + theirs.rotate_half(q) * angle.sin(), rope("half_alternating", order=(1, 0)).rotate(
        q, GRID[None]
    )


VIDEO = torch.cartesian_prod(torch.arange(5), torch.arange(8), torch.arange(6))  # (frame, row, column)


def in_diffusers(module: str) -> Any:
    return pytest.importorskip(f"diffusers.models.{module}", reason="diffusers is not installed")


def turned_by_diffusers(tables: Any, *, half: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """A video of VIDEO's size with heads of 128, and what diffusers makes of it with tables of its own."""
    q = torch.randn(1, 2, len(VIDEO), tables[0].shape[-1], generator=torch.Generator().manual_seed(0))
    return q, in_diffusers("embeddings").apply_rotary_emb(q, tables, use_real_unbind_dim=-2 if half else -1)


def of_flux() -> tuple[torch.Tensor, torch.Tensor]:
    q, theirs = turned_by_diffusers(
        in_diffusers("transformers.transformer_flux").FluxPosEmbed(10_000, [16, 56, 56])(VIDEO.float())
    )
    return theirs, posenc.AxialRoPE(128, axes=(16, 56, 56), layout="interleaved").rotate(q, VIDEO[None])


def of_wan() -> tuple[torch.Tensor, torch.Tensor]:
    module = in_diffusers("transformers.transformer_wan").WanRotaryPosEmbed(128, (1, 2, 2), 1024)
    q, theirs = turned_by_diffusers([table[0, :, 0] for table in module(torch.zeros(1, 16, 5, 16, 12))])
    return theirs, posenc.AxialRoPE(128, axes=(44, 42, 42), layout="interleaved").rotate(q, VIDEO[None])


def of_hunyuan_video() -> tuple[torch.Tensor, torch.Tensor]:
    module = in_diffusers("transformers.transformer_hunyuan_video").HunyuanVideoRotaryPosEmbed(
        2, 1, [16, 56, 56], 256.0
    )
    q, theirs = turned_by_diffusers(module(torch.zeros(1, 16, 5, 16, 12)))
    ours = posenc.AxialRoPE(128, axes=(16, 56, 56), layout="interleaved", frequencies=posenc.Geometric(256))
    return theirs, ours.rotate(q, VIDEO[None])


def of_cogvideox() -> tuple[torch.Tensor, torch.Tensor]:
    tables = in_diffusers("embeddings").get_3d_rotary_pos_embed(64, ((0, 0), (8, 6)), (8, 6), 5, use_real=True)
    q, theirs = turned_by_diffusers(tables)
    return theirs, posenc.AxialRoPE(64, axes=(16, 24, 24), layout="interleaved").rotate(q, VIDEO[None])


def of_cosmos() -> tuple[torch.Tensor, torch.Tensor]:
    """The rule of time is NTK by 2; frames are counted at 24 to the second."""
    module = in_diffusers("transformers.transformer_cosmos").CosmosRotaryPosEmbed(128, rope_scale=(2.0, 1.0, 1.0))
    q, theirs = turned_by_diffusers(module(torch.zeros(1, 4, 5, 16, 12), fps=30), half=True)
    rules = (posenc.frequencies.NTK(2), posenc.Geometric(), posenc.Geometric())
    where = VIDEO * torch.tensor([24 / 30, 1, 1], dtype=torch.float64)
    return theirs, posenc.AxialRoPE(128, axes=(44, 42, 42), frequencies=rules).rotate(q, where[None])


@pytest.mark.parametrize(
    "model", [of_flux, of_wan, of_hunyuan_video, of_cogvideox, of_cosmos], ids=lambda f: f.__name__[3:]
)
def test_widths_are_those_of_a_model_of_diffusers(model) -> None:  # type: ignore[no-untyped-def]
    theirs, ours = model()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=4e-6)  # the angles of some are formed in float32


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize(
    "model", [of_qwen2_vl, of_gemma4, of_pixtral, of_sam2, of_llama4, of_neomme, of_kimi], ids=lambda f: f.__name__[3:]
)
def test_each_layout_is_that_of_a_model_that_uses_it(model) -> None:  # type: ignore[no-untyped-def]
    theirs, ours = model()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=4e-6)  # their angles are formed in float32


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_agrees_with_the_oracle_on_a_grid(layout: str, dtype: torch.dtype) -> None:
    q = queries(dtype)
    expected = oracle.rotate(q.double().numpy(), GRID.numpy(), layout=layout)
    scale = abs(expected).max(axis=-1, keepdims=True) * 8
    assert_matches_oracle(rope(layout).rotate(q, GRID[None]), expected, dtype=dtype, scale=scale)


@pytest.mark.parametrize("layout", ["half", "half_per_axis", "interleaved"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_widths_and_rules_of_each_axis_agree_with_the_oracle(layout: str, dtype: torch.dtype) -> None:
    q = queries(dtype)
    where = torch.cartesian_prod(torch.arange(5), torch.arange(7), torch.tensor([-3]))
    encoding = rope(layout, axes=(4, 16, 12), frequencies=[posenc.Geometric(base) for base in (100, 10_000, 7)])
    expected = oracle.rotate(
        q.double().numpy(), where.numpy(), layout=layout, widths=(4, 16, 12), base=(100, 10_000, 7)
    )
    scale = abs(expected).max(axis=-1, keepdims=True) * 8
    assert_matches_oracle(encoding.rotate(q, where[None]), expected, dtype=dtype, scale=scale)
    assert encoding.axis_of_pair == (0,) * 2 + (1,) * 8 + (2,) * 6


@pytest.mark.parametrize("layout", ["half", "half_per_axis", "interleaved"])
def test_equal_widths_are_what_a_number_of_axes_is(layout: str) -> None:
    q = queries()
    assert torch.equal(rope(layout, axes=(16, 16)).rotate(q, GRID[None]), rope(layout).rotate(q, GRID[None]))
    assert rope(layout).widths == (16, 16)


def test_widths_and_rules_stay_with_their_coordinate_under_another_order() -> None:
    rules = (posenc.Geometric(100), posenc.Geometric(7))
    encoding = rope("interleaved", axes=(8, 24), order=(1, 0), frequencies=rules)
    q = queries()
    wide = posenc.RoPE(24, frequencies=rules[1], pairing="interleaved").rotate(q[..., :24], GRID[:, 1])
    narrow = posenc.RoPE(8, frequencies=rules[0], pairing="interleaved").rotate(q[..., 24:], GRID[:, 0])
    torch.testing.assert_close(encoding.rotate(q, GRID[None]), torch.cat((wide, narrow), dim=-1))


def test_a_rule_on_some_axes_leaves_the_others_as_they_were() -> None:
    plain = posenc.AxialRoPE(128, axes=(44, 42, 42), layout="interleaved")
    rules = (posenc.Geometric(), posenc.frequencies.NTK(2), posenc.frequencies.NTK(2))
    space = posenc.AxialRoPE(128, axes=(44, 42, 42), layout="interleaved", frequencies=rules)
    q = torch.randn(1, 2, 9, 128)
    frames = torch.zeros(1, 9, 3)
    frames[..., 0] = torch.arange(9)
    assert torch.equal(space.rotate(q, frames), plain.rotate(q, frames))
    rows = frames.roll(1, dims=-1)
    assert not torch.equal(space.rotate(q, rows), plain.rotate(q, rows))


def test_the_factor_of_a_rule_multiplies_the_channels_of_its_axis_alone() -> None:
    yarn = posenc.YaRN(4, trained_length=64)
    encoding = posenc.AxialRoPE(32, axes=(8, 24), frequencies=(posenc.Geometric(), yarn), layout="half_per_axis")
    q = queries()
    turned = encoding.rotate(q, GRID[None])
    torch.testing.assert_close(turned[..., :8].norm(dim=-1), q[..., :8].norm(dim=-1))
    torch.testing.assert_close(turned[..., 8:].norm(dim=-1), yarn.attention_factor * q[..., 8:].norm(dim=-1))
    torch.testing.assert_close(encoding.inverse(turned, GRID[None]), q)


def test_a_ladder_across_heads_is_that_of_ltx_2() -> None:
    ltx2 = in_diffusers("transformers.transformer_ltx2")
    module = ltx2.LTX2AudioVideoRotaryPosEmbed(
        512, theta=100.0, rope_type="split", num_attention_heads=4, causal_offset=1
    )
    corners = module.prepare_video_coords(1, 3, 8, 6, "cpu")
    cos, sin = module(corners)
    q = torch.randn(1, 4, 144, 128, generator=torch.Generator().manual_seed(0))
    a, b = q.chunk(2, dim=-1)
    theirs = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    where = corners.double().mean(-1).mT / torch.tensor([20, 2048, 2048]) * 2 - 1
    rates = posenc.frequencies.Logspaced(math.pi / 2, 50 * math.pi)
    ours = posenc.AxialRoPE(128, axes=3, layout="half_across_heads", num_kv_heads=4, frequencies=rates)
    torch.testing.assert_close(ours.rotate(q, where), theirs, rtol=0, atol=1e-4)  # their angles are float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_ladder_across_heads_agrees_with_the_oracle(dtype: torch.dtype) -> None:
    """Four query heads, two key heads, 32 pairs for three coordinates: two of them stand still."""
    q = torch.randn(1, 2, 35, HEAD_DIM, generator=torch.Generator().manual_seed(1)).to(dtype)
    where = torch.cartesian_prod(torch.arange(5), torch.arange(7), torch.tensor([-3]))
    encoding = posenc.AxialRoPE(HEAD_DIM, axes=3, layout="half_across_heads", num_kv_heads=2)
    expected = oracle.rotate_across_heads(q.double().numpy(), where.numpy())
    scale = abs(expected).max(axis=-1, keepdims=True) * 8
    assert_matches_oracle(encoding.rotate(q, where[None]), expected, dtype=dtype, scale=scale)
    grouped = encoding.rotate(q.repeat_interleave(2, dim=1), where[None])
    assert torch.equal(grouped, encoding.rotate(q, where[None]).repeat_interleave(2, dim=1))
    assert encoding.widths == (20, 20, 20)
    assert len(encoding.axis_of_pair) == 32


def test_ernie_image_turns_the_channels_of_a_pair_by_different_angles_which_is_no_rotation() -> None:
    ernie = in_diffusers("transformers.transformer_ernie_image")
    where = torch.cat((torch.zeros(35, 1), GRID), dim=1)
    angle = ernie.ErnieImageEmbedND3(128, 256, (32, 48, 48))(where[None])[0, :, 0]
    q = torch.randn(35, 128, generator=torch.Generator().manual_seed(0))
    a, b = q.chunk(2, dim=-1)
    turned = q * angle.cos() + torch.cat((-b, a), dim=-1) * angle.sin()  # as in the processor of its attention
    assert (turned.norm(dim=-1) / q.norm(dim=-1) - 1).abs().max() > 0.05
    first, second = angle.chunk(2, dim=-1)
    assert not torch.allclose(first, second)


def test_the_score_factor_of_a_rule_reaches_attention() -> None:
    """Of several coordinates as of one: RoPE's own is the referee, on a text."""
    rule = posenc.YaRN(4, trained_length=64, mscale_all_dim=1.0)
    q, k, v = torch.randn(3, 1, 2, 9, HEAD_DIM, generator=torch.Generator().manual_seed(0)).double()
    one = posenc.RoPE(HEAD_DIM, frequencies=rule)
    for several in (
        posenc.MRoPE(HEAD_DIM, sections=(4, 6, 6), frequencies=rule),
        rope("half", axes=1, frequencies=rule),
    ):
        turned = several.on_queries_keys(q, k)
        expected = posenc.attention(*one.on_queries_keys(q, k), v, one)
        torch.testing.assert_close(posenc.attention(*turned, v, several), expected)
        assert several.temperature(torch.arange(9)) == rule.score_factor != 1
    with pytest.raises(ValueError, match="expected one for all axes"):
        rope("half", frequencies=(rule, posenc.Geometric()))


def test_rules_of_each_axis_survive_a_dictionary() -> None:
    encoding = rope("interleaved", axes=(8, 24), frequencies=(posenc.Geometric(9), posenc.frequencies.NTK(2)))
    data = json.loads(json.dumps(encoding.to_dict()))
    assert data["axes"] == [8, 24]
    again = posenc.AxialRoPE.from_dict(data)
    assert (again.axes, again.frequencies) == (encoding.axes, encoding.frequencies)
    assert torch.equal(again.rotate(queries(), GRID[None]), encoding.rotate(queries(), GRID[None]))


def test_a_list_of_rules_and_what_is_no_number_of_axes_are_refused() -> None:
    with pytest.raises(TypeError, match="RoPE: got a value of type list as frequencies"):
        posenc.RoPE(32, frequencies=[posenc.Geometric()])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got the class Geometric as frequencies"):
        posenc.AxialRoPE(32, frequencies=[posenc.Geometric, posenc.Geometric])  # type: ignore[list-item]
    for axes in (2.0, True, "2"):
        with pytest.raises(TypeError, match=f"got axes {axes!r}, expected the number of coordinates"):
            posenc.AxialRoPE(32, axes=axes)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_score_depends_on_the_offset_along_each_axis_alone(layout: str) -> None:
    q = queries(torch.float64)
    encoding = rope(layout)

    def scores(where: torch.Tensor) -> torch.Tensor:
        turned = encoding.rotate(q, where)
        return turned @ turned.mT

    here = scores(GRID[None])
    torch.testing.assert_close(scores(GRID[None] + torch.tensor([3, -11])), here)
    torch.testing.assert_close(scores(GRID[None] * 0.5 - 0.25), scores(GRID[None] * 0.5))


def test_negative_coordinates_may_come_in_every_form() -> None:
    """A line from -1 to 1 along one axis: as the connectors of LTX-2 number a text."""
    line = torch.linspace(-1, 1, 35, dtype=torch.float64)
    q = queries(torch.float64)
    one = rope("interleaved", axes=1)
    assert torch.equal(one.rotate(q, line), one.rotate(q, line[None, :, None]))
    assert torch.equal(one.rotate(q, line[None]), one.rotate(q, line))
    both = rope("half")
    assert torch.equal(both.rotate(q, line), both.rotate(q, torch.stack((line, line), dim=-1)[None]))
    with pytest.raises(ValueError, match=r"got -1\.0, expected 0 or above"):  # a text, where -1 is a mistake
        posenc.MRoPE(HEAD_DIM, sections=(4, 6, 6)).rotate(q, line)


def test_a_row_and_a_column_turn_pairs_of_their_own() -> None:
    for layout in LAYOUTS:
        encoding = rope(layout)
        q = queries(torch.float64)
        down = torch.tensor([[[1, 0]]]).expand(1, 35, 2)
        moved = encoding.rotate(q, down) != encoding.rotate(q, 0 * down)
        assert moved[0, 0, 0].sum() == HEAD_DIM // 2
        assert encoding.axis_of_pair.count(0) == encoding.axis_of_pair.count(1) == HEAD_DIM // 4


def test_the_last_channels_can_be_left_alone() -> None:
    encoding = posenc.AxialRoPE(head_dim=HEAD_DIM, axes=3, rotary_dim=30)
    q = torch.randn(1, 2, 4, HEAD_DIM)
    where = torch.randint(0, 9, (1, 4, 3))
    assert torch.equal(encoding.rotate(q, where)[..., 30:], q[..., 30:])
    inner = posenc.AxialRoPE(head_dim=30, axes=3)
    assert torch.equal(encoding.rotate(q, where)[..., :30], inner.rotate(q[..., :30], where))


def test_a_slice_in_the_middle_can_be_paired_per_axis() -> None:
    encoding = posenc.AxialRoPE(head_dim=HEAD_DIM, rotary_dim=16, rotary_start=8, layout="half_per_axis")
    q = queries()
    inner = posenc.AxialRoPE(head_dim=16, layout="half_per_axis").rotate(q[..., 8:24], GRID[None])
    assert torch.equal(encoding.rotate(q, GRID[None]), torch.cat((q[..., :8], inner, q[..., 24:]), dim=-1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_dim": 30}, r"got 30 rotated channels for 2 axes, .* such as axes=\(16, 14\)"),
        ({"head_dim": 128, "axes": 3}, r"give the width of each in channels, such as axes=\(44, 42, 42\)"),
        ({"head_dim": 4, "axes": 3}, "each with at least 2 channels"),
        ({"head_dim": 128, "axes": (16, 56, 50)}, "sum to 122 channels, for 128 .* sum to 128, or rotary_dim=122"),
        ({"head_dim": 128, "axes": (16, 56, 60)}, "sum to 132 channels, for 128 .* give widths that sum to 128.$"),
        ({"head_dim": 128, "axes": (15, 57, 56)}, "an even number of at least 2"),
        ({"head_dim": 128, "axes": (0, 64, 64)}, "an even number of at least 2"),
        ({"head_dim": 128, "axes": ()}, r"got axes \(\), expected the width of each axis"),
        ({"head_dim": 128, "axes": (16.0, 56, 56)}, "got a width in axes 16.0, expected a whole number"),
        ({"head_dim": 32, "axes": (8, 24), "layout": "half_alternating"}, "expected the same width for all axes"),
        ({"head_dim": 32, "axes": (8, 24), "layout": "dealt_half"}, "expected the same width for all axes"),
        ({"head_dim": 32, "frequencies": [posenc.Geometric()]}, "got 1 rules of frequencies for 2 axes"),
        (
            {"head_dim": 32, "num_kv_heads": 2},
            'got num_kv_heads 2 with layout "half", in which all heads rotate in the same way',
        ),
        ({"head_dim": 32, "layout": "half_across_heads"}, "got num_kv_heads None .* expected the number of key heads"),
        ({"head_dim": 32, "layout": "half_across_heads", "num_kv_heads": 0}, "got num_kv_heads 0"),
        (
            {"head_dim": 32, "layout": "half_across_heads", "num_kv_heads": 2, "axes": (32, 32)},
            "expected the number of axes",
        ),
        (
            {"head_dim": 32, "layout": "dealt_half", "frequencies": [posenc.Geometric(), posenc.Geometric(9)]},
            "expected one rule",
        ),
        (
            {"head_dim": 32, "frequencies": [posenc.Geometric(), posenc.frequencies.DynamicNTK(2, trained_length=9)]},
            "expected a rule with fixed rates",
        ),
        ({"head_dim": 32, "layout": "hw"}, "got layout 'hw', expected one of"),
        ({"head_dim": 32, "order": (0, 0)}, r"got order \(0, 0\), expected each of 0 to 1 once"),
        ({"head_dim": 32, "axes": 0}, "for 0 axes"),
        (
            {"head_dim": 32, "frequencies": posenc.frequencies.DynamicNTK(2, trained_length=9)},
            "expected a rule with fixed rates",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.AxialRoPE(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (GRID[None, :4], r"got shape \(1, 4, 2\), expected \(1, 35, 2\)"),
        (GRID[None, :, :1], r"got shape \(1, 35, 1\)"),
        (GRID.expand(3, 35, 2), r"got shape \(3, 35, 2\)"),
        (GRID[None].float() / 0, "NaN or infinite coordinates"),
        (GRID, r"got shape \(35, 2\), expected \(\d, 35, 2\).*Use positions\[None\]"),  # as diffusers' img_ids
        (GRID[:, :1], r"got shape \(35, 1\), expected [^\[]*coordinates\.$"),
    ],
)
def test_coordinates_of_another_shape_are_refused(where: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rope("half").rotate(queries(), where)

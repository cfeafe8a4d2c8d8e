"""Axial RoPE: its layouts against the models that use them, its identities, its refusals."""

from typing import get_args

import pytest
import torch

import posenc
from posenc.oracle.queries_keys import axial as oracle
from posenc.queries_keys.axial import Layout
from posenc.testing import assert_matches_oracle

LAYOUTS = get_args(Layout)
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
        ({"head_dim": 30}, "got 30 rotated channels for 2 axes, expected a multiple of 4, .*use rotary_dim=28"),
        ({"head_dim": 32, "axes": 3}, "use rotary_dim=30"),
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
        (GRID, r"got shape \(35, 2\), expected \(35,\)"),
    ],
)
def test_coordinates_of_another_shape_are_refused(where: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rope("half").rotate(queries(), where)

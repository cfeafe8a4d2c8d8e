"""What an unknown rotation does is found out from its outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import posenc
from posenc import RoPE
from posenc import frequencies as rules
from posenc.lab.diagnose import diagnose


@pytest.mark.parametrize(
    ("target", "pairing", "direction", "order"),
    [
        ("llama.modeling_llama:apply_rotary_pos_emb", "half", "+", "kept"),
        ("gptj.modeling_gptj:apply_rotary_pos_emb", "interleaved", "+", "kept"),
        ("cohere.modeling_cohere:apply_rotary_pos_emb", "interleaved", "+", "kept"),
        ("deepseek_v2.modeling_deepseek_v2:apply_rotary_emb", "interleaved", "+", "kept"),
        ("deepseek_v3.modeling_deepseek_v3:apply_rotary_pos_emb_interleave", "interleaved", "+", "interleaved to half"),
        ("llama4.modeling_llama4:apply_rotary_emb", "interleaved", "+", "kept"),
        ("gpt_oss.modeling_gpt_oss:apply_rotary_pos_emb", "half", "+", "kept"),
        ("gemma3n.modeling_gemma3n:apply_rotary_pos_emb", "half", "+", "kept"),
        ("qwen2_vl.modeling_qwen2_vl:apply_rotary_pos_emb_vision", "half", "+", "kept"),
        ("nanochat.modeling_nanochat:apply_rotary_pos_emb", "half", "-", "kept"),
        ("qwen4_exp.modeling_qwen4_exp:apply_rotary_pos_emb", "half", "+", "kept"),  # q, and all else has defaults
    ],
)
def test_the_rotations_of_transformers_are_recognised(target: str, pairing: str, direction: str, order: str) -> None:
    pytest.importorskip("transformers")
    found = diagnose(f"transformers.models.{target}")
    assert (found.pairing, found.direction, found.output_order) == (pairing, direction, order)
    assert found.rotated == (0, 32)
    assert found.angles == "given"
    assert found.exit_code == 0, found.faults


def test_positions_of_one_row_are_tried_too(tmp_path: Path) -> None:
    """The simplest function of all adds no axis for the heads to positions (batch, seq), so it needs (seq,)."""
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "def rotate(q, k, positions):\n"
        "    rates = 10000 ** (-torch.arange(0, q.shape[-1], 2, dtype=torch.float64) / q.shape[-1])\n"
        "    t = positions[..., None] * rates\n"
        "    cos, sin = torch.cat((t, t), -1).cos().float(), torch.cat((t, t), -1).sin().float()\n"
        "    def turn(x):\n"
        "        a, b = x.chunk(2, -1)\n"
        "        return x * cos + torch.cat((-b, a), -1) * sin\n"
        "    return turn(q), turn(k)\n"
    )
    found = diagnose(f"{file}:rotate")
    assert (found.pairing, found.base, found.exit_code) == ("half", 10_000, 0)
    assert found.lines()[0].endswith("on (batch, heads, seq, head_dim), positions (seq,)")


def test_v_jepa_2_is_found_to_be_no_rotation() -> None:
    """Both channels of a pair should turn by one angle; the tables of V-JEPA 2 give them two."""
    pytest.importorskip("transformers")
    found = diagnose("transformers.models.vjepa2.modeling_vjepa2:rotate_queries_or_keys")
    assert any("no rotation" in fault for fault in found.faults)


def test_rotary_embedding_torch_makes_its_angles_in_the_dtype_of_its_input() -> None:
    package = pytest.importorskip("rotary_embedding_torch")
    found = diagnose(package.RotaryEmbedding(dim=32).rotate_queries_or_keys)
    assert (found.pairing, found.direction, found.base) == ("interleaved", "+", 10_000)
    assert found.exit_code == 1
    assert found.angles == "float32"
    assert ["on bfloat16 input" in fault for fault in found.faults] == [True]


def test_x_transformers_takes_angles_for_pairs() -> None:
    package = pytest.importorskip("x_transformers.x_transformers")
    found = diagnose(package.apply_rotary_pos_emb)
    assert (found.pairing, found.direction, found.exit_code) == ("interleaved", "+", 0)
    assert "pairs repeated" in found.signature


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("rotary_dim", [32, 16])
def test_our_own_rotation_is_exact(pairing: Any, rotary_dim: int) -> None:
    found = diagnose(RoPE(head_dim=32, pairing=pairing, rotary_dim=rotary_dim).rotate)
    assert (found.pairing, found.rotated, found.base) == (pairing, (0, rotary_dim), 10_000)
    assert found.angles == "exact"
    assert [position for position, _ in found.errors] == [1, 64, 1024, 4095, 32_768, 131_072]
    assert found.bfloat16_error is not None
    assert found.bfloat16_error < 2
    assert found.exit_code == 0


def half(x: Tensor, positions: Tensor, *, dtype: torch.dtype = torch.float64, shift: float = 0.0) -> Tensor:
    """A plain rotation to break."""
    pairs = x.shape[-1] // 2
    rates = 10_000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    angle = ((positions.to(dtype)[..., None] + shift) * rates.to(dtype)).to(dtype)
    cos, sin = angle.double().cos().to(x.dtype), angle.double().sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def with_bfloat16_angles(x: Tensor, positions: Tensor) -> Tensor:
    return half(x, positions, dtype=torch.bfloat16)


def with_float32_angles(x: Tensor, positions: Tensor) -> Tensor:
    return half(x, positions, dtype=torch.float32)


def that_writes_into_its_input(x: Tensor, positions: Tensor) -> Tensor:
    return x.copy_(half(x.clone(), positions))


def with_one_wrong_sign(x: Tensor, positions: Tensor) -> Tensor:
    turned = half(x, positions)
    return torch.cat((turned[..., :16], half(x, -positions)[..., 16:]), dim=-1)


def that_adds_the_position(x: Tensor, positions: Tensor) -> Tensor:
    return half(x, positions) + positions[..., None]


def with_squared_positions(x: Tensor, positions: Tensor) -> Tensor:
    return half(x, positions**2)


def that_rolls_instead_of_rotating(x: Tensor, positions: Tensor) -> Tensor:
    angle = positions.double()[..., None] * 10_000.0 ** (-torch.arange(32) // 2 / 16)
    return (x * angle.cos() + x.roll(1, dims=-1) * angle.sin()).to(x.dtype)


def with_cos_and_sin_swapped(x: Tensor, positions: Tensor) -> Tensor:
    turned = half(x, -positions)
    a, b = turned.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


def that_counts_from_one(x: Tensor, positions: Tensor) -> Tensor:
    return half(x, positions, shift=1.0)


def that_counts_from_minus_one(x: Tensor, positions: Tensor) -> Tensor:
    return half(x, positions, shift=-1.0)


def with_an_inverted_ramp(x: Tensor, positions: Tensor) -> Tensor:
    plain, ramped = posenc.Geometric().inv_freq(x.shape[-1]), posenc.YaRN(8, trained_length=4096).inv_freq(x.shape[-1])
    angle = positions.double()[..., None] * torch.from_numpy(plain**2 / 8 / ramped)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def with_the_tables_of_the_other_pairing(x: Tensor, positions: Tensor) -> Tensor:
    angle = positions.double()[..., None] * torch.from_numpy(posenc.Geometric().inv_freq(x.shape[-1]))
    angle = torch.cat((angle, angle), dim=-1)
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    return (x * angle.cos() + turned * angle.sin()).to(x.dtype)


def with_longer_keys(q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    positions = positions[:, None]
    return half(q, positions), 2 * half(k, positions)


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (with_bfloat16_angles, "angles are coarse"),
        (that_writes_into_its_input, "writes into"),
        (with_one_wrong_sign, "no rotation"),
        (that_adds_the_position, "not linear"),
        (with_squared_positions, "only on the distance"),
        (that_rolls_instead_of_rotating, "no rotation"),
        (with_cos_and_sin_swapped, "cos and sin are swapped"),
        (that_counts_from_one, "turns position 0 as position 1 must"),
        (that_counts_from_minus_one, "turns position 0 as position -1 must"),
        (with_an_inverted_ramp, "the fastest pair rotates 8 times slower"),
        (with_the_tables_of_the_other_pairing, "tables laid out for the other pairing"),
        (with_longer_keys, "otherwise than queries"),
    ],
)
def test_a_broken_rotation_is_found_out(function: Callable[..., Any], fault: str) -> None:
    found = diagnose(function)
    assert found.exit_code == 1
    assert any(fault in sentence for sentence in found.faults), found.faults
    assert any(fault in line for line in found.lines())


def test_float32_angles_are_told_from_exact_ones() -> None:
    assert diagnose(half).angles == "exact"
    found = diagnose(with_float32_angles)
    assert (found.angles, found.exit_code) == ("float32", 0)
    assert found.errors[-1][1] > 5e-4


def test_a_scale_is_reported_and_is_no_fault() -> None:
    found = diagnose(lambda x, positions: 1.25 * half(x, positions))
    assert (found.scale, found.pairing, found.exit_code) == (1.25, "half", 0)


def test_a_trailing_slice_is_found() -> None:
    found = diagnose(lambda x, positions: torch.cat((x[..., :24], half(x[..., 24:], positions)), dim=-1))
    assert (found.rotated, found.pairing) == ((24, 32), "half")


def test_what_was_expected_and_is_not_so_is_a_fault() -> None:
    assert diagnose(half, expect_pairing="half", expect_direction="+").exit_code == 0
    found = diagnose(half, expect_pairing="interleaved", expect_direction="-")
    assert len(found.faults) == 2


def test_a_function_in_a_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from posenc import RoPE\n\nclass Mine:\n    turn = RoPE(head_dim=32).rotate\n")
    assert diagnose(f"{path}:Mine.turn").pairing == "half"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("math", "expected module:function"),
        ("no_such_module_at_all:f", "cannot find"),
        ("math:no_such_function", "cannot find"),
        ("no_such_file.py:f", "cannot find"),
        ("math:pi", "is of type float"),
        ("math:sqrt", "cannot call the function"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(target)


ANGLES = torch.arange(200)[:, None] * (10_000.0 ** (-torch.arange(32) / 32)).repeat_interleave(2)


def rolled(x: Tensor, p: Tensor) -> Tensor:
    """The tutorial's example of a program that rolls and does not rotate, for heads of 64 channels and 200 tokens."""
    return x * ANGLES[p].cos() + x.roll(1, dims=-1) * ANGLES[p].sin()


def rolled_by_tables(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return q * cos + q.roll(-1, dims=-1) * sin, k * cos + k.roll(-1, dims=-1) * sin


@pytest.mark.parametrize(("function", "step", "width"), [(rolled, "c - 1", 64), (rolled_by_tables, "c + 1", 32)])
def test_rolling_is_told_from_rotating(function: Callable[..., Any], step: str, width: int) -> None:
    found = diagnose(function)
    assert (found.pairing, found.head_dim, found.exit_code) == ("other", width, 1)
    assert any("no rotation" in fault for fault in found.faults)
    assert any(f"channel {step}, all around the head" in fault for fault in found.faults), found.faults


def test_a_function_for_one_width_alone_is_called_with_it_or_the_width_is_asked_for() -> None:
    def only(width: int) -> Callable[..., Any]:
        def turned(x: Tensor, positions: Tensor) -> Tensor:
            if x.shape[-1] != width:
                raise RuntimeError("another width")
            return half(x, positions)

        return turned

    assert diagnose(only(80)).head_dim == 80
    assert diagnose(only(24), head_dim=24).head_dim == 24
    with pytest.raises(ValueError, match="give head_dim"):
        diagnose(only(24))


def test_a_function_that_moves_position_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="at position 0"):
        diagnose(lambda x, positions: half(x, positions, shift=0.3))


@pytest.mark.parametrize(
    "rule", [rules.YaRN(8, trained_length=4096), rules.Linear(8), rules.NTK(8), rules.Llama3(8, trained_length=8192)]
)
def test_a_sound_rule_is_no_inverted_ramp(rule: rules.Frequencies) -> None:
    assert not diagnose(RoPE(head_dim=64, frequencies=rule).rotate).faults


def test_nan_and_a_function_that_turns_nothing_are_said_in_words() -> None:
    """NaN differs from itself: the heads were said to get different results."""
    with pytest.raises(ValueError, match="the result holds NaN or infinity, expected finite numbers"):
        diagnose(lambda q, k, positions: (q * float("nan"), k))
    still = "\n".join(diagnose(lambda q, k, positions: (q, k)).lines())
    assert "rotated        none of 32 channels" in still
    assert "direction      unknown" in still


def as_in_ggml(x: Any, positions: Any, *, neox: bool, sign: int = 1, dims: int = 32, scale: float = 1.0) -> Any:
    """ggml's loop over pairs, in numpy: (c, c + dims / 2) for NeoX, (2c, 2c + 1) for the normal order."""
    x, theta = np.asarray(x), np.asarray(positions).astype(np.float64) * scale
    turned = x.copy()
    for c in range(dims // 2):
        a, b = (c, c + dims // 2) if neox else (2 * c, 2 * c + 1)
        cos, sin = np.cos(theta), sign * np.sin(theta)
        turned[..., a], turned[..., b] = x[..., a] * cos - x[..., b] * sin, x[..., a] * sin + x[..., b] * cos
        theta = theta * 10_000.0 ** (-2 / dims)
    return turned


@pytest.mark.parametrize("neox", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dims", [32, 16])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_the_line_of_code_builds_the_same_rotation(neox: bool, sign: int, dims: int, scale: float) -> None:
    def function(x: Any, positions: Any) -> Any:
        return as_in_ggml(x, positions, neox=neox, sign=sign, dims=dims, scale=scale)

    found = diagnose(function)
    assert (found.faults, found.direction) == ((), "+" if sign == 1 else "-")
    assert found.lines()[-1] == f"in posenc      {found.code}"
    built = eval(found.code, {"posenc": posenc})
    x, positions = torch.randn(2, 3, 40, 32), torch.arange(40)
    torch.testing.assert_close(built.rotate(x, positions), torch.from_numpy(function(x, positions)), atol=2e-5, rtol=0)
    if sign == 1 and scale == 1 and dims == 32:
        assert found.code == f'posenc.RoPE(head_dim=32, pairing="{"half" if neox else "interleaved"}")'


@pytest.mark.parametrize("minus", [False, True])
def test_the_line_of_code_for_functions_that_are_given_angles(minus: bool) -> None:
    modeling = pytest.importorskip("transformers.models.gptj.modeling_gptj")

    def function(tensor: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
        return modeling.apply_rotary_pos_emb(tensor, -sin if minus else sin, cos)  # type: ignore[no-any-return]

    found = diagnose(function)
    built = eval(found.code, {"posenc": posenc})
    x, angle = torch.randn(2, 40, 3, 32), torch.arange(40)[:, None] * torch.tensor(posenc.Geometric().inv_freq(32))
    wanted = function(x, angle.sin()[None].float(), angle.cos()[None].float())
    torch.testing.assert_close(built.rotate(x), wanted, atol=1e-5, rtol=0)
    assert any("write the rule of their rates" in note for note in found.notes)


def test_a_scale_is_in_the_line_of_code() -> None:
    built = eval(diagnose(lambda x, positions: 1.25 * half(x, positions)).code, {"posenc": posenc})
    x, positions = torch.randn(1, 2, 9, 32), torch.arange(9)
    torch.testing.assert_close(built.rotate(x, positions), 1.25 * half(x, positions))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (with_one_wrong_sign, "none: it is no rotation"),
        (that_adds_the_position, "none: it is not linear"),
        (that_rolls_instead_of_rotating, "none: it is no rotation"),
        (with_longer_keys, "none: keys are turned otherwise than queries"),
        (lambda q, k, positions: (q, k), "none: it does not rotate anything"),
        (lambda x, positions: torch.cat((half(x[..., :16], positions), half(x[..., 16:], positions)), -1), "AxialRoPE"),
    ],
)
def test_where_there_is_no_line_of_code_the_last_line_has_the_reason(function: Any, reason: str) -> None:
    found = diagnose(function)
    assert not found.code
    assert found.lines()[-1].startswith("in posenc      none: ")
    assert reason in found.lines()[-1]


def test_a_width_that_fits_by_accident_for_one_batch_is_not_taken() -> None:
    """torchtune's module for 64 channels views its table of 5 x 32 pairs as 2 x 5 x 16: right for a batch of two."""
    table = torch.arange(8192)[:, None] * 10_000.0 ** (-torch.arange(32) / 32)

    def function(x: Tensor) -> Tensor:
        angle = table[: x.shape[1]].view(-1, x.shape[1], 1, x.shape[3] // 2)
        a, b = x[..., ::2], x[..., 1::2]
        turned = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos())
        return torch.stack(turned, dim=-1).flatten(-2)

    found = diagnose(function)
    assert (found.head_dim, found.pairing, found.code[-10:]) == (64, "interleaved", "eq_dim=-3)")

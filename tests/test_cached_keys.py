"""rerotate: cached keys that get other positions are what rotating them afresh gives."""

import pytest
import torch

import posenc
from posenc.frequencies import DynamicNTK, LearnedRates, LongRoPE
from posenc.testing import assert_matches_oracle

LENGTH = 12


def keys(dtype=torch.float64, *, seed=0, length=LENGTH, heads=2):
    return torch.randn(2, heads, length, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(
        dtype
    )


ROTATIONS = {
    "rope": posenc.RoPE(head_dim=16),
    "rope, interleaved, in the middle": posenc.RoPE(head_dim=16, pairing="interleaved", rotary_dim=8, rotary_start=4),
    "rope with learned rates": posenc.RoPE(head_dim=16, frequencies=LearnedRates()),
    "rope in a composition": posenc.Compose(posenc.RoPE(head_dim=16), posenc.ALiBi(num_heads=2)),
    "yarn": posenc.RoPE(head_dim=16, frequencies=posenc.YaRN(4, trained_length=64)),
    "xpos": posenc.XPos(head_dim=16),
    "axial, paired per axis": posenc.AxialRoPE(head_dim=16, layout="half_per_axis"),
    "mrope": posenc.MRoPE(head_dim=16, sections=(4, 2, 2), layout="interleaved"),
    "mixed": posenc.MixedRoPE(head_dim=16, num_heads=2),
}


def rotated(encoding, k, positions):
    return encoding.on_queries_keys(k, k, positions)[1]


@pytest.mark.parametrize("name", ROTATIONS)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (1000, 0),
        (0, 1000),
        (torch.tensor([0, 1, 2, 3, 90, 91, 92, 93, 94, 95, 96, 97]), None),
        (None, torch.arange(2 * LENGTH).view(2, LENGTH)),
        (torch.linspace(0, 3, LENGTH, dtype=torch.float64), 7),
    ],
    ids=["shift down", "shift up", "prune", "rows", "floats"],
)
def test_is_rotating_afresh(name, old, new):
    encoding, k = ROTATIONS[name], keys()
    moved = posenc.rerotate(rotated(encoding, k, old), old, new, encoding=encoding)
    torch.testing.assert_close(moved, rotated(encoding, k, new), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["rope", "yarn", "xpos", "mrope"])
def test_is_rotating_afresh_to_one_rounding_in_low_precision(name, dtype):
    encoding = ROTATIONS[name]
    cached = rotated(encoding, keys(dtype), 2000)
    moved = posenc.rerotate(cached, 2000, 30, encoding=encoding)
    # The cached numbers themselves, moved without any rounding: what is left is that of the move.
    exact = posenc.rerotate(cached.double(), 2000, 30, encoding=encoding).detach().numpy()
    assert_matches_oracle(moved, exact, dtype=dtype, scale=abs(exact).max(axis=-1, keepdims=True))


def test_a_cache_whose_beginning_was_cut_off_serves_as_one_that_never_had_it():
    rope = posenc.RoPE(head_dim=16)
    k, v, q = keys(), keys(seed=1), keys(seed=2, length=1)
    cache = rope.rotate(k, 0)[:, :, 4:]
    moved = posenc.rerotate(cache, 4, 0, encoding=rope)
    step = posenc.attention(rope.rotate(q, LENGTH - 4), moved, v[:, :, 4:], rope, q_positions=LENGTH - 4)
    afresh = posenc.attention(rope.rotate(q, LENGTH - 4), rope.rotate(k[:, :, 4:]), v[:, :, 4:], rope)
    torch.testing.assert_close(step, afresh)


def test_two_caches_concatenated_are_one():
    rope = posenc.RoPE(head_dim=16)
    k = keys()
    first, second = rope.rotate(k[:, :, :5]), rope.rotate(k[:, :, 5:])
    together = torch.cat((first, posenc.rerotate(second, 0, 5, encoding=rope)), dim=2)
    torch.testing.assert_close(together, rope.rotate(k), rtol=0, atol=1e-13)


def test_the_rule_can_change_and_its_factor_with_it():
    plain = posenc.RoPE(head_dim=16)
    yarn = ROTATIONS["yarn"]
    k = keys()
    moved = posenc.rerotate(plain.rotate(k), None, None, encoding=plain, new_encoding=yarn)
    torch.testing.assert_close(moved, yarn.rotate(k), rtol=0, atol=1e-13)
    back = posenc.rerotate(moved, None, 3, encoding=yarn, new_encoding=plain)
    torch.testing.assert_close(back, plain.rotate(k, 3), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "frequencies",
    [
        DynamicNTK(2, trained_length=8),
        LongRoPE([1.0] * 8, [2.0] * 8, trained_length=8, attention_factor=1.1, long_attention_factor=1.3),
    ],
    ids=["dynamic", "longrope"],
)
def test_keys_can_follow_a_rule_as_the_sequence_grows(frequencies):
    rope = posenc.RoPE(head_dim=16, frequencies=frequencies)
    k = keys()
    cached = rope.rotate(k[:, :, :7])
    assert not rope.keys_cacheable
    moved = posenc.rerotate(cached, None, None, encoding=rope, new_length=LENGTH)
    torch.testing.assert_close(moved, rope.rotate(k)[:, :, :7], rtol=0, atol=1e-13)
    assert not torch.allclose(cached, moved)


def test_coordinates_can_change():
    mrope = ROTATIONS["mrope"]
    k = keys()
    old, new = (torch.randint(0, 50, (2, LENGTH, 3), generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    moved = posenc.rerotate(mrope.rotate(k, old), old, new, encoding=mrope)
    torch.testing.assert_close(moved, mrope.rotate(k, new), rtol=0, atol=1e-13)


def test_another_layout_is_kept():
    rope = posenc.RoPE(head_dim=16, seq_dim=-3)
    k = keys().transpose(1, 2)
    torch.testing.assert_close(
        posenc.rerotate(rope.rotate(k, 9), 9, 2, encoding=rope), rope.rotate(k, 2), rtol=0, atol=1e-13
    )


def test_encodings_that_pair_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"differ in \['pairing'\]"):
        posenc.rerotate(
            keys(),
            0,
            1,
            encoding=posenc.RoPE(head_dim=16),
            new_encoding=posenc.RoPE(head_dim=16, pairing="interleaved"),
        )


def test_an_encoding_without_a_rotation_is_refused():
    with pytest.raises(TypeError, match="got ALiBi, which rotates no keys"):
        posenc.rerotate(keys(), 0, 1, encoding=posenc.ALiBi(num_heads=2))


def test_bad_positions_are_named():
    with pytest.raises(ValueError, match="new_positions: got offset -4"):
        posenc.rerotate(keys(), 4, -4, encoding=posenc.RoPE(head_dim=16))

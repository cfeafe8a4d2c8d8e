"""RoPE: its identities as properties, its precision against 50 digits, its referees, its refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import posenc
import posenc.frequencies
from posenc.frequencies import DynamicNTK, LearnedRates, LongRoPE, Proportional
from posenc.kernels.rotate.eager import Pairing
from posenc.oracle.queries_keys import rope as oracle
from posenc.testing import assert_matches_oracle

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "cos_sin_50_digits.json").read_text())["values"]

positions = st.integers(0, 2**20)
pairings = st.sampled_from(["half", "interleaved"])
seeds = st.integers(0, 2**16)
widths = st.sampled_from([2, 8, 64, 128])


def vector(width: int, seed: int) -> torch.Tensor:
    return torch.randn(1, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60)
@given(p=positions, pairing=pairings, width=widths, seed=seeds)
def test_norms_are_kept(p: int, pairing: str, width: int, seed: int) -> None:
    x = vector(width, seed)
    rotated = posenc.RoPE(head_dim=width, pairing=pairing).rotate(x, p)
    torch.testing.assert_close(rotated.norm(), x.norm(), rtol=1e-14, atol=0)


@settings(max_examples=60)
@given(i=positions, j=positions, shift=positions, pairing=pairings, width=widths, seed=seeds)
def test_a_score_depends_on_the_distance_alone(i: int, j: int, shift: int, pairing: str, width: int, seed: int) -> None:
    rope = posenc.RoPE(head_dim=width, pairing=pairing)
    q, k = vector(width, seed), vector(width, seed + 1)

    def score(i: int, j: int) -> torch.Tensor:
        return (rope.rotate(q, i) * rope.rotate(k, j)).sum()

    # An angle of 2**20 radians has an error of 2**20 * 2**-53 in float64.
    torch.testing.assert_close(score(i, j), score(i + shift, j + shift), rtol=0, atol=1e-8 * width)


@settings(max_examples=40)
@given(i=positions, j=positions, pairing=pairings, width=widths)
def test_the_transpose_of_one_rotation_times_another_is_the_rotation_of_the_difference(
    i: int, j: int, pairing: str, width: int
) -> None:
    i, j = min(i, j), max(i, j)
    matrix = posenc.RoPE(head_dim=width, pairing=pairing).matrix(torch.tensor([i, j, j - i]))
    torch.testing.assert_close(matrix[0].T @ matrix[1], matrix[2], rtol=0, atol=1e-9)
    torch.testing.assert_close(matrix[0].T @ matrix[0], torch.eye(width, dtype=torch.float64), rtol=0, atol=1e-14)


@settings(max_examples=40)
@given(p=positions, pairing=pairings, width=widths, seed=seeds, rotated=st.floats(0.1, 1))
def test_the_matrix_form_equals_the_element_form(p: int, pairing: str, width: int, seed: int, rotated: float) -> None:
    rotary_dim = max(2, 2 * int(rotated * width / 2))
    rope = posenc.RoPE(head_dim=width, pairing=pairing, rotary_dim=rotary_dim)
    x = vector(width, seed)
    by_matrix = x @ rope.matrix(torch.tensor(p)).T
    torch.testing.assert_close(rope.rotate(x, p), by_matrix, rtol=0, atol=1e-14 * width)
    inv_freq = rope.frequencies.inv_freq(rotary_dim)
    block = oracle.matrix(p, inv_freq=inv_freq, pairing=pairing)
    np.testing.assert_allclose(rope.matrix(torch.tensor(p))[:rotary_dim, :rotary_dim], block, atol=1e-15)


@settings(max_examples=40)
@given(p=positions, width=widths, seed=seeds)
def test_interleaved_is_half_after_a_permutation_of_channels(p: int, width: int, seed: int) -> None:
    x = vector(width, seed)
    to_half = torch.cat((torch.arange(0, width, 2), torch.arange(1, width, 2)))
    interleaved = posenc.RoPE(head_dim=width, pairing="interleaved").rotate(x, p)
    half = posenc.RoPE(head_dim=width, pairing="half").rotate(x[:, to_half], p)
    assert torch.equal(interleaved[:, to_half], half)


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: "-".join(str(v) for v in list(row.values())[:4]))
def test_cos_and_sin_are_within_6e_8_of_50_digits(row: dict[str, int | str]) -> None:
    head_dim, pair = int(row["head_dim"]), int(row["pair"])
    rope = posenc.RoPE(head_dim=head_dim, frequencies=posenc.Geometric(base=float(row["base"])))
    x = torch.zeros(1, head_dim)
    x[0, pair] = 1  # the pair (1, 0) turns into (cos, sin)
    turned = rope.rotate(x, int(row["position"]))[0]
    assert abs(turned[pair].item() - float(row["cos"])) <= 6e-8
    assert abs(turned[pair + head_dim // 2].item() - float(row["sin"])) <= 6e-8


def test_the_golden_file_has_the_positions_that_are_promised() -> None:
    assert {0, 1_000, 100_000, 1_000_000, 2**24} <= {int(row["position"]) for row in GOLDEN}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
def test_with_numerics_of_transformers_it_is_their_llama_bit_for_bit(dtype: torch.dtype, base: float) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers.models.llama import modeling_llama
    from transformers.models.llama.configuration_llama import LlamaConfig

    config = LlamaConfig(
        hidden_size=512, num_attention_heads=4, rope_parameters={"rope_theta": base, "rope_type": "default"}
    )
    ids = torch.stack((torch.arange(300), torch.arange(300) * 437))
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 300, 128, generator=generator).to(dtype)
    k = torch.randn(2, 2, 300, 128, generator=generator).to(dtype)
    cos, sin = modeling_llama.LlamaRotaryEmbedding(config)(q, ids)
    theirs = modeling_llama.apply_rotary_pos_emb(q, k, cos, sin)
    frequencies = posenc.Geometric(base=base)
    ours = posenc.RoPE(head_dim=128, frequencies=frequencies, numerics="transformers").on_queries_keys(q, k, ids)
    exact = posenc.RoPE(head_dim=128, frequencies=frequencies).on_queries_keys(q, k, ids)
    for mine, their, right in zip(ours, theirs, exact, strict=True):
        assert torch.equal(mine, their)
        assert not torch.equal(mine, right)


def test_one_table_serves_all_layers_and_all_equal_encodings(monkeypatch: pytest.MonkeyPatch) -> None:
    from posenc.kernels.rotate import tables as module

    calls = []
    real = module.angles  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "angles", lambda *a: calls.append(1) or real(*a))
    layers = [posenc.RoPE(head_dim=8, frequencies=posenc.Geometric(base=321.0)) for _ in range(6)]
    x = torch.randn(2, 4, 5, 8)
    for ids in (None, 3, torch.arange(5), torch.arange(5).expand(2, 5)):
        for rope in layers:
            rope.on_queries_keys(x, x, ids)
    assert len(calls) == 1
    layers[0].on_queries_keys(x, x, 5000)
    layers[1].on_queries_keys(x, x, torch.arange(5) + 4000)
    assert len(calls) == 2, "a longer table is made once too"


def test_rows_that_a_table_grows_are_those_of_their_positions() -> None:
    rope = posenc.RoPE(head_dim=8, frequencies=posenc.Geometric(base=654.0))
    inv_freq = 654.0 ** (-np.arange(0, 8, 2) / 8)
    x = torch.randn(1, 2, 3, 8)
    for ids in ([0, 1, 4], [1, 2047, 3000], [1, 2048, 5001]):
        expected = oracle.rotate(x.double().numpy(), np.array(ids), inv_freq=inv_freq)
        assert_matches_oracle(
            rope.rotate(x, torch.tensor(ids)), expected, dtype=torch.float32, scale=np.abs(expected).max()
        )


@pytest.mark.parametrize("ids", [torch.arange(5).float(), torch.arange(5).expand(2, 5) * 2.0**21])
def test_one_computation_serves_all_layers_where_no_table_does(
    ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posenc.queries_keys import rope as module

    calls = []
    real = module.angles  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "angles", lambda *a: calls.append(1) or real(*a))
    rope = posenc.RoPE(head_dim=8)
    x = torch.randn(2, 4, 5, 8)
    for _ in range(6):
        rope.on_queries_keys(x, x, ids.clone())
    assert len(calls) == 1


def test_positions_changed_in_place_are_noticed() -> None:
    rope = posenc.RoPE(head_dim=8)
    x, ids = torch.randn(5, 8), torch.arange(5)
    rope.rotate(x, ids)
    ids += 1
    assert torch.equal(rope.rotate(x, ids), posenc.RoPE(head_dim=8).rotate(x, torch.arange(5) + 1))
    with torch.inference_mode():
        inside = torch.arange(5)
        rope.rotate(x, inside)
        inside += 2
        assert torch.equal(rope.rotate(x, inside), rope.rotate(x, 2))


def test_float_positions_carry_gradients() -> None:
    rope = posenc.RoPE(head_dim=8)
    x = torch.randn(5, 8, dtype=torch.float64)
    where = torch.linspace(1, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: rope.rotate(x, p), (where,))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_cross_attention_takes_positions_of_its_own_for_keys(dtype: torch.dtype) -> None:
    rope = posenc.RoPE(head_dim=8)
    q, k = torch.randn(1, 2, 3, 8).to(dtype), torch.randn(1, 2, 5, 8).to(dtype)
    rotated_q, rotated_k = rope.on_queries_keys(q, k, 10, k_positions=2)
    inv_freq = posenc.Geometric().inv_freq(8)
    for got, given_, start in ((rotated_q, q, 10), (rotated_k, k, 2)):
        expected = oracle.rotate(given_.double().numpy(), start + np.arange(given_.shape[2]), inv_freq=inv_freq)
        assert_matches_oracle(got, expected, dtype=dtype, scale=np.abs(expected).max() * 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_dim": 16, "rotary_dim": 7}, "got rotary_dim 7 for head_dim 16, .* use rotary_dim=6"),
        ({"head_dim": 16, "rotary_dim": 1}, "got rotary_dim 1 for head_dim 16, .* use rotary_dim=2"),
        ({"head_dim": 16, "rotary_dim": 18}, "got rotary_dim 18 for head_dim 16, .* use rotary_dim=16"),
        ({"head_dim": 7}, "got rotary_dim 7 for head_dim 7, expected an even number from 2 to 7, .* use rotary_dim=6"),
        ({"head_dim": 8, "rotary_dim": 5}, "got rotary_dim 5"),
        ({"head_dim": 8, "rotary_dim": 10}, "got rotary_dim 10 for head_dim 8, expected an even number from 2 to 8"),
        ({"head_dim": 8, "rotary_dim": 0}, "got rotary_dim 0"),
        ({"head_dim": 1}, "use a head_dim of at least 2"),
        ({"head_dim": 8, "pairing": "adjacent"}, "got pairing 'adjacent', expected one of"),
        ({"head_dim": 8, "numerics": "hf"}, "got numerics 'hf', expected one of"),
        (
            {"head_dim": 8, "numerics": "transformers", "frequencies": posenc.Tensor2Tensor()},
            "reproduces the rounding of transformers",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.RoPE(**options)  # type: ignore[arg-type]


def test_another_head_dim_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"^RoPE: q has head_dim 96 but .* head_dim 128; build it with head_dim=96\.$"):
        posenc.RoPE(head_dim=128).on_queries_keys(torch.zeros(1, 1, 2, 96), torch.zeros(1, 1, 2, 96))
    with pytest.raises(
        ValueError, match=r"^RoPE: k has head_dim 96 .* or rotary_dim=64 to rotate part of each head\.$"
    ):
        posenc.RoPE(head_dim=64).on_queries_keys(torch.zeros(1, 1, 2, 64), torch.zeros(1, 1, 2, 96))


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize(("start", "width"), [(0, 8), (8, 8), (4, 8), (10, 6), (0, 16)])
def test_a_slice_turns_and_the_rest_passes_through(start: int, width: int, pairing: Pairing) -> None:
    rope = posenc.RoPE(head_dim=16, rotary_dim=width, rotary_start=start, pairing=pairing)
    x = torch.randn(2, 3, 5, 16, dtype=torch.float64)
    turned = rope.rotate(x, 7)
    alone = posenc.RoPE(head_dim=width, pairing=pairing).rotate(x[..., start : start + width], 7)
    assert torch.equal(turned[..., start : start + width], alone)
    assert torch.equal(turned[..., :start], x[..., :start])
    assert torch.equal(turned[..., start + width :], x[..., start + width :])
    torch.testing.assert_close((x[0, 0, 0] @ rope.matrix(torch.tensor(7)).T), turned[0, 0, 0])


def test_a_start_alone_rotates_from_there_to_the_end() -> None:
    assert posenc.RoPE(head_dim=16, rotary_start=10).rotary_dim == 6


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize(
    ("seq_dim", "order"), [(-3, (0, 2, 1, 3)), (1, (0, 2, 1, 3)), (-4, (2, 0, 1, 3)), (0, (2, 0, 1, 3))]
)
def test_tokens_may_lie_along_another_dimension(seq_dim: int, order: tuple[int, ...], rows: bool) -> None:
    x = torch.randn(2, 3, 5, 8)
    ids = torch.tensor([[0, 1, 2, 3, 4], [9, 8, 7, 6, 5]]) if rows else torch.arange(5) * 3
    expected = posenc.RoPE(head_dim=8).rotate(x, ids).permute(order)
    assert torch.equal(posenc.RoPE(head_dim=8, seq_dim=seq_dim).rotate(x.permute(order), ids), expected)


def test_lower_ranks_are_taken_too() -> None:
    x = torch.randn(2, 3, 5, 8)
    plain, packed = posenc.RoPE(head_dim=8), posenc.RoPE(head_dim=8, seq_dim=-3)
    ids = torch.tensor([0, 1, 2, 0, 1])
    expected = plain.rotate(x, ids)
    assert torch.equal(plain.rotate(x[0], ids), expected[0])  # (heads, seq, head_dim)
    assert torch.equal(plain.rotate(x[0, 0], ids), expected[0, 0])  # (seq, head_dim)
    # (tokens, heads, head_dim)
    assert torch.equal(packed.rotate(x[0].transpose(0, 1), ids), expected[0].transpose(0, 1))
    rows = torch.stack((ids, ids + 1))
    assert torch.equal(plain.rotate(x[:, 0], rows), plain.rotate(x, rows)[:, 0])  # (batch, seq, head_dim)
    assert torch.equal(plain.rotate(x[None], ids), expected[None])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_inverse_turns_back(dtype: torch.dtype) -> None:
    yarn = posenc.YaRN(4, trained_length=64)
    for rope in (posenc.RoPE(head_dim=8), posenc.RoPE(head_dim=8, frequencies=yarn, pairing="interleaved")):
        x = torch.randn(2, 3, 5, 8).to(dtype)
        back = rope.inverse(rope.rotate(x, 1000), 1000)
        torch.testing.assert_close(back, x, rtol=0, atol=16 * torch.finfo(dtype).eps)
        assert not torch.allclose(rope.rotate(x, 1000), x, atol=0.1)


@pytest.mark.parametrize("parameter", ["rates", "log_scale"])
def test_learned_rates_have_gradients_and_move(parameter: str) -> None:
    rope = posenc.RoPE(head_dim=8, frequencies=LearnedRates(parameter=parameter))  # type: ignore[arg-type]
    theta = getattr(rope, parameter)
    x, ids = torch.randn(1, 2, 5, 8, dtype=torch.float64), torch.arange(5)
    before = rope.rotate(x, ids)
    rope.double()
    rope.forward = rope.rotate  # type: ignore[method-assign]
    assert torch.autograd.gradcheck(
        lambda value: torch.func.functional_call(rope, {parameter: value}, (x, ids)),
        (theta.detach().double().requires_grad_(),),
    )
    with torch.no_grad():
        theta += 0.1
    assert not torch.allclose(rope.rotate(x, ids), before)  # no table of the old rates is left
    rope.float().reset_parameters()
    assert torch.equal(rope.rotate(x, ids), before)


def test_each_sequence_of_a_batch_has_the_rates_of_its_own_length() -> None:
    rule = LongRoPE([1.0] * 4, [4.0] * 4, trained_length=8, attention_factor=1.1, long_attention_factor=1.3)
    rope = posenc.RoPE(head_dim=8, frequencies=rule)
    x = torch.randn(2, 1, 12, 8, dtype=torch.float64)
    ids = torch.stack((torch.arange(12), (torch.arange(12) - 6).clamp(min=0)))  # 12 tokens; 6 after padding
    both = rope.rotate(x, ids)
    for row in range(2):
        assert torch.equal(both[row], rope.rotate(x[row], ids[row]))
    long, short = (
        posenc.RoPE(
            head_dim=8, frequencies=posenc.frequencies.Custom(rule.inv_freq(8, length=n), attention_factor=factor)
        )
        for n, factor in ((12, 1.3), (6, 1.1))
    )
    torch.testing.assert_close(both[0], long.rotate(x[0], ids[0]))
    torch.testing.assert_close(both[1, :, 6:], short.rotate(x[1, :, 6:], ids[1, 6:]))


def test_each_document_of_a_pack_has_the_rates_of_its_own_length() -> None:
    rope = posenc.RoPE(head_dim=8, frequencies=DynamicNTK(2, trained_length=4))
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    packed = rope.rotate(x, torch.tensor([0, 1, 2, 0, 1, 2, 3, 4, 5]))
    assert torch.equal(packed[:, :3], rope.rotate(x[:, :3]))
    assert torch.equal(packed[:, 3:], rope.rotate(x[:, 3:]))


def test_a_length_can_be_given() -> None:
    rope = posenc.RoPE(head_dim=8, frequencies=DynamicNTK(2, trained_length=4))
    x = torch.randn(2, 1, 9, 8, dtype=torch.float64)
    q, k = rope.on_queries_keys(x[:, :, :3], x[:, :, :3], length=9)
    assert torch.equal(q, rope.rotate(x)[:, :, :3])
    assert torch.equal(q, k)
    rows = rope.rotate(x[:, :, :3], length=torch.tensor([9, 3]))
    assert torch.equal(rows[0], q[0])
    assert torch.equal(rows[1], rope.rotate(x[1, :, :3]))


def test_with_a_rule_that_depends_on_the_length_uncached_keys_decode_as_a_full_forward() -> None:
    rope = posenc.RoPE(head_dim=8, frequencies=DynamicNTK(2, trained_length=4))
    assert not rope.keys_cacheable
    assert not rope.relative
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    q, k = rope.on_queries_keys(x, x)
    step_q, step_k = rope.on_queries_keys(x[:, :, 8:], x, 8, k_positions=0)
    assert torch.equal(step_q, q[:, :, 8:])
    assert torch.equal(step_k, k)


def test_the_temperature_of_deepseek_reaches_attention_and_scores() -> None:
    rule = posenc.YaRN(40, trained_length=64, mscale=1.0, mscale_all_dim=1.0)
    rope, plain = (posenc.RoPE(head_dim=8, frequencies=f) for f in (rule, posenc.frequencies.Custom(rule.inv_freq(8))))
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    q, k = rope.on_queries_keys(x, x)
    assert torch.equal(q, plain.rotate(x))  # attention_factor is 1: all of it goes to the softmax scale
    factor = (0.1 * np.log(40) + 1) ** 2
    for scale in (None, 0.2):
        expected = posenc.attention(q, k, x, plain, causal=True, scale=(8**-0.5 if scale is None else scale) * factor)
        torch.testing.assert_close(posenc.attention(q, k, x, rope, causal=True, scale=scale), expected)
    scores = torch.randn(1, 2, 9, 9)
    torch.testing.assert_close(rope.on_scores(scores, None, None), (scores * factor).float())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_dim": 8, "rotary_start": 9}, "got rotary_dim -1"),
        ({"head_dim": 8, "rotary_dim": 4, "rotary_start": 5}, "got rotary_start 5 .*expected 0 to 4"),
        ({"head_dim": 8, "rotary_dim": 4, "rotary_start": -1}, "got rotary_start -1"),
        ({"head_dim": 8, "seq_dim": -1}, "got seq_dim -1, expected -2"),
        ({"head_dim": 8, "rotary_dim": 4, "frequencies": Proportional(0.5)}, "leave rotary_dim and rotary_start out"),
        ({"head_dim": 8, "frequencies": LongRoPE([1.0], [1.0], trained_length=9, factor=2)}, "got 1 factors for 8"),
        ({"head_dim": 8, "frequencies": posenc.frequencies.NTK(2), "rotary_dim": 2}, "expected at least 4"),
        ({"head_dim": 8, "numerics": "transformers", "frequencies": LearnedRates()}, "rounding of transformers"),
    ],
)
def test_a_contradiction_is_refused_when_it_is_built(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.RoPE(**options)  # type: ignore[arg-type]


def test_tokens_that_are_not_where_seq_dim_says_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(5, 2, 8\), expected tokens along dimension -4"):
        posenc.RoPE(head_dim=8, seq_dim=-4).rotate(torch.zeros(5, 2, 8))
    with pytest.raises(ValueError, match=r"positions: got 2 rows for a batch of 1"):
        posenc.RoPE(head_dim=8).rotate(torch.zeros(5, 8), torch.zeros(2, 5, dtype=torch.long))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize(
    "positions",
    [
        None,
        0,
        7,
        -1,
        True,
        2**53,
        torch.tensor([7]),
        torch.tensor([[7]]),
        torch.tensor([[7], [9]]),
        torch.tensor([7], dtype=torch.int32),
        torch.tensor([7], dtype=torch.uint8),
        torch.tensor([7], dtype=torch.uint16),
        torch.tensor([7.5]),
        torch.tensor([-1]),
        torch.tensor([True]),
        torch.tensor([2**53 + 1]),
        torch.tensor(7),
        torch.tensor([[[7]]]),
        torch.tensor([7, 8]),
        np.int64(7),
        7.0,
    ],
    ids=repr,
)
def test_the_short_way_of_decoding_gives_and_refuses_the_same(
    positions: posenc.positions.Positions, tokens: int, in_place: bool
) -> None:
    def turned(rope: posenc.RoPE) -> tuple[torch.Tensor, torch.Tensor] | Exception:
        try:
            return (rope.on_queries_keys_ if in_place else rope.on_queries_keys)(q.clone(), k.clone(), positions)
        except (TypeError, ValueError, RuntimeError) as refusal:
            return refusal

    q, k = torch.randn(2, 4, tokens, 8), torch.randn(2, 2, tokens, 8)
    rope = posenc.RoPE(head_dim=8)
    assert posenc.explain(rope.on_queries_keys, q, k).implementation == "cpu"  # this loads it
    short = turned(rope)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(posenc.RoPE, "_at_once", lambda *_: None)
        long = turned(rope)
    if isinstance(short, Exception) or isinstance(long, Exception):
        assert type(short) is type(long)
        assert str(short) == str(long)
    else:
        assert all(map(torch.equal, short, long))

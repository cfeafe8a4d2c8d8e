"""Rotations of queries and keys, against 50 digits, complex numbers, a matrix exponential and installed models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from posenc.oracle.queries_keys.rope import matrix, rotate

Array = npt.NDArray[np.float64]

GOLDEN = Path(__file__).parents[2] / "golden"
PAIRINGS = ["half", "interleaved"]


def golden(name: str) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = json.loads((GOLDEN / f"{name}.json").read_text())["values"]
    return values


def paper_inv_freq(head_dim: int, base: float = 10000.0) -> Array:
    return np.array([base ** (-2 * pair / head_dim) for pair in range(head_dim // 2)])


def random_x(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape)


def cosines_and_sines(positions: npt.ArrayLike, inv_freq: Array, pairing: str) -> tuple[Array, Array]:
    """What becomes of (1, 0) in every pair."""
    p, n = np.asarray(positions), len(inv_freq)
    first, second = (slice(0, n), slice(n, 2 * n)) if pairing == "half" else (slice(0, None, 2), slice(1, None, 2))
    x = np.zeros((len(p), 2 * n))
    x[:, first] = 1
    y = rotate(x, p, inv_freq=inv_freq, pairing=pairing)
    return y[:, first], y[:, second]


def test_a_quarter_turn_takes_a_b_to_minus_b_a() -> None:
    quarter = [np.pi / 2, np.pi / 2]
    half = rotate([[1.0, 2.0, 3.0, 4.0]], [1], inv_freq=quarter)
    np.testing.assert_allclose(half, [[-3, -4, 1, 2]], rtol=0, atol=1e-15)
    interleaved = rotate([[1.0, 2.0, 3.0, 4.0]], [1], inv_freq=quarter, pairing="interleaved")
    np.testing.assert_allclose(interleaved, [[-2, 1, -4, 3]], rtol=0, atol=1e-15)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_position_zero_changes_nothing(pairing: str) -> None:
    x = random_x(3, 8)
    np.testing.assert_array_equal(rotate(x, [0, 0, 0], inv_freq=paper_inv_freq(8), pairing=pairing), x)
    np.testing.assert_array_equal(matrix(0, inv_freq=paper_inv_freq(8), pairing=pairing), np.eye(8))


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_cosines_and_sines_are_those_of_50_digits(pairing: str) -> None:
    for entry in golden("cos_sin_50_digits"):
        inv_freq, position = float(entry["inv_freq"]), entry["position"]
        (cosine,), (sine,) = cosines_and_sines([position], np.array([inv_freq]), pairing)
        # inv_freq is rounded to float64, and so is its product with the position: half a unit in the last place each.
        bound = position * inv_freq * 2.0**-52 + 2.0**-52
        assert abs(cosine.item() - float(entry["cos"])) <= bound, entry
        assert abs(sine.item() - float(entry["sin"])) <= bound, entry


def test_interleaved_pairs_are_complex_numbers_times_a_complex_exponential() -> None:
    x, p, w = random_x(2, 3, 40, 16), np.arange(40) * 1000, paper_inv_freq(16)
    z = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * np.outer(p, w))
    y = rotate(x, p, inv_freq=w, pairing="interleaved")
    np.testing.assert_allclose(y[..., 0::2] + 1j * y[..., 1::2], z, rtol=0, atol=1e-14)


def test_half_pairs_are_complex_numbers_times_a_complex_exponential() -> None:
    x, p, w = random_x(2, 3, 40, 16), np.arange(40) * 1000, paper_inv_freq(16)
    z = (x[..., :8] + 1j * x[..., 8:]) * np.exp(1j * np.outer(p, w))
    y = rotate(x, p, inv_freq=w, pairing="half")
    np.testing.assert_allclose(y[..., :8] + 1j * y[..., 8:], z, rtol=0, atol=1e-14)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_rotating_is_multiplying_by_the_matrix(pairing: str) -> None:
    x, w = random_x(20, 16), paper_inv_freq(16)
    y = rotate(x, np.arange(20), inv_freq=w, pairing=pairing)
    for p in range(20):
        np.testing.assert_allclose(y[p], matrix(p, inv_freq=w, pairing=pairing) @ x[p], rtol=0, atol=1e-15)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("position", [1, -3, 0.5, 1000])
def test_the_matrix_is_the_exponential_of_a_skew_matrix(pairing: str, position: float) -> None:
    w = paper_inv_freq(16)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    generator = np.kron(turn, np.diag(w)) if pairing == "half" else np.kron(np.diag(w), turn)
    # i times a real skew matrix is Hermitian: i G = V diag(e) V*, so exp(p G) = V diag(exp(-i p e)) V*.
    e, vectors = np.linalg.eigh(1j * generator)
    exponential = (vectors * np.exp(-1j * position * e)) @ vectors.conj().T
    np.testing.assert_allclose(
        matrix(position, inv_freq=w, pairing=pairing), exponential, rtol=0, atol=1e-15 * max(10, 10 * abs(position))
    )


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_matrices_form_a_group_and_relate_two_positions_by_their_difference(pairing: str) -> None:
    w = paper_inv_freq(16)

    def r(p: float) -> Array:
        return matrix(p, inv_freq=w, pairing=pairing)

    np.testing.assert_allclose(r(5) @ r(12), r(17), rtol=0, atol=1e-14)
    np.testing.assert_allclose(r(5).T @ r(12), r(7), rtol=0, atol=1e-14)
    np.testing.assert_allclose(r(7).T, r(-7), rtol=0, atol=0)
    np.testing.assert_allclose(np.linalg.det(r(7)), 1, rtol=1e-14)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_scores_depend_on_the_distance_only(pairing: str) -> None:
    q, k, p, w = random_x(30, 16), random_x(31, 16)[1:], np.arange(30), paper_inv_freq(16)

    def scores(shift: int) -> Array:
        rotated = [rotate(x, p + shift, inv_freq=w, pairing=pairing) for x in (q, k)]
        return rotated[0] @ rotated[1].T

    np.testing.assert_allclose(scores(1000), scores(0), rtol=0, atol=1e-11)
    assert abs(scores(0) - q @ k.T).max() > 1


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_length_of_each_vector_is_kept(pairing: str) -> None:
    x = random_x(30, 16)
    y = rotate(x, 10.0 ** np.arange(30) / 1e10, inv_freq=paper_inv_freq(16), pairing=pairing)
    np.testing.assert_allclose((y**2).sum(-1), (x**2).sum(-1), rtol=1e-14)


def test_the_pairings_are_one_rotation_with_permuted_channels() -> None:
    x, p, w = random_x(30, 16), np.arange(30), paper_inv_freq(16)
    deinterleave = np.concatenate([np.arange(0, 16, 2), np.arange(1, 16, 2)])
    y = rotate(x, p, inv_freq=w, pairing="interleaved")
    np.testing.assert_array_equal(rotate(x[:, deinterleave], p, inv_freq=w, pairing="half"), y[:, deinterleave])
    assert abs(rotate(x, p, inv_freq=w, pairing="half") - y).max() > 0.1


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_channels_beyond_the_pairs_pass_through(pairing: str) -> None:
    x, p, w = random_x(30, 16), np.arange(30), paper_inv_freq(6)
    y = rotate(x, p, inv_freq=w, pairing=pairing)
    np.testing.assert_array_equal(y[:, 6:], x[:, 6:])
    np.testing.assert_array_equal(y[:, :6], rotate(x[:, :6], p, inv_freq=w, pairing=pairing))


def test_batched_positions_are_the_same_for_all_heads() -> None:
    x, w = random_x(2, 3, 5, 8), paper_inv_freq(8)
    positions = np.array([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]])
    y = rotate(x, positions, inv_freq=w)
    for b in range(2):
        np.testing.assert_array_equal(y[b], rotate(x[b], positions[b], inv_freq=w))
    np.testing.assert_array_equal(rotate(x[:, 0], positions, inv_freq=w), y[:, 0])


def test_the_input_is_not_modified() -> None:
    x = random_x(5, 8)
    before = x.copy()
    rotate(x, np.arange(5), inv_freq=paper_inv_freq(8))
    np.testing.assert_array_equal(x, before)


def test_an_unknown_pairing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 'half' or 'interleaved'"):
        rotate([[1.0, 0.0]], [0], inv_freq=[1.0], pairing="neox")
    with pytest.raises(ValueError, match="expected 'half' or 'interleaved'"):
        matrix(0, inv_freq=[1.0], pairing="neox")


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_decay_curve_is_that_of_roformer_figure_2(pairing: str) -> None:
    for entry in golden("roformer_decay"):
        cosine, sine = cosines_and_sines([entry["distance"]], paper_inv_freq(128), pairing)
        partial_sums = np.cumsum(cosine + 1j * sine, axis=-1)
        np.testing.assert_allclose(np.abs(partial_sums).mean(), float(entry["mean"]), rtol=1e-12)


@pytest.mark.parametrize("entry", golden("rope_base_bound"), ids=lambda e: f"{e['head_dim']}-{e['base']}")
def test_the_sum_of_cosines_turns_negative_where_it_should(entry: dict[str, Any]) -> None:
    first = entry["first_negative"]
    cosine, _ = cosines_and_sines(np.arange(first + 1), paper_inv_freq(entry["head_dim"], entry["base"]), "half")
    sums = cosine.sum(-1)
    assert (sums[:first] >= 0).all()
    np.testing.assert_allclose(sums[first - 1 :], [float(entry["one_before"]), float(entry["at"])], rtol=0, atol=1e-9)


def test_half_equals_llama() -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    x, w = random_x(2, 3, 32, 16), paper_inv_freq(16)
    angles = torch.arange(32, dtype=torch.float64)[:, None] * torch.from_numpy(np.concatenate([w, w]))
    q, _ = llama.apply_rotary_pos_emb(torch.from_numpy(x), torch.from_numpy(x), angles.cos()[None], angles.sin()[None])
    np.testing.assert_allclose(rotate(x, np.arange(32), inv_freq=w), q.numpy(), rtol=0, atol=1e-14)


def test_half_equals_llama_with_its_own_tables() -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(hidden_size=64, num_attention_heads=4)
    x = random_x(1, 3, 32, 16)
    cosine, sine = llama.LlamaRotaryEmbedding(config)(torch.from_numpy(x), torch.arange(32)[None])
    q, _ = llama.apply_rotary_pos_emb(torch.from_numpy(x), torch.from_numpy(x), cosine, sine)
    # Its angles, of up to 31 radians, are products of float32 numbers.
    np.testing.assert_allclose(rotate(x, np.arange(32), inv_freq=paper_inv_freq(16)), q.numpy(), rtol=0, atol=3e-5)


def test_interleaved_equals_gpt_j_rotating_a_part_of_each_head() -> None:
    gptj = pytest.importorskip("transformers.models.gptj.modeling_gptj")
    x = random_x(2, 3, 32, 24)
    sine, cosine = gptj.create_sinusoidal_positions(32, 16).chunk(2, dim=-1)
    # GPT-J has (batch, seq, heads, head_dim) here, and cuts off the part to rotate beforehand.
    q = gptj.apply_rotary_pos_emb(torch.from_numpy(x[..., :16]).transpose(1, 2), sine[None], cosine[None])
    expected = np.concatenate([q.transpose(1, 2).numpy(), x[..., 16:]], axis=-1)
    y = rotate(x, np.arange(32), inv_freq=paper_inv_freq(16), pairing="interleaved")
    np.testing.assert_allclose(y, expected, rtol=0, atol=3e-5)


def test_interleaved_equals_roformer() -> None:
    roformer = pytest.importorskip("transformers.models.roformer.modeling_roformer")
    x, w = random_x(2, 3, 32, 16), paper_inv_freq(16)
    angles = np.outer(np.arange(32), w)
    table = torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=-1))
    q, _ = roformer.RoFormerSelfAttention.apply_rotary_position_embeddings(
        table[None, None], torch.from_numpy(x), torch.from_numpy(x)
    )
    y = rotate(x, np.arange(32), inv_freq=w, pairing="interleaved")
    np.testing.assert_allclose(y, q.numpy(), rtol=0, atol=1e-14)

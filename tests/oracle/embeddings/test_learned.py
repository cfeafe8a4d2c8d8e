"""Rows of a table, against PyTorch's embedding and interpolation and NumPy's interp."""

import numpy as np
import pytest
import torch

from posenc.oracle.embeddings.learned import codes, resized


def test_a_position_gives_its_row() -> None:
    table = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(codes([2, 0, 3, 3], table=table), [[6, 7, 8], [0, 1, 2], [9, 10, 11], [9, 10, 11]])


def test_it_equals_the_embedding_of_pytorch() -> None:
    rng = np.random.default_rng(0)
    table, positions = rng.standard_normal((16, 6)), rng.integers(0, 16, (3, 5))
    expected = torch.nn.functional.embedding(torch.from_numpy(positions), torch.from_numpy(table)).numpy()
    np.testing.assert_array_equal(codes(positions, table=table), expected)
    np.testing.assert_array_equal(codes(positions.astype(np.float64), table=table), expected)


@pytest.mark.parametrize("position", [-1, 4, 1.5])
def test_a_position_without_a_row_is_refused(position: float) -> None:
    with pytest.raises(ValueError, match="has no row in a table of 4 rows"):
        codes([0, position], table=np.zeros((4, 3)))


@pytest.mark.parametrize(("n", "length"), [(16, 16), (16, 31), (16, 64), (16, 5), (16, 2), (2, 9), (7, 100)])
def test_resizing_equals_the_aligned_interpolation_of_pytorch_and_of_numpy(n: int, length: int) -> None:
    table = np.random.default_rng(0).standard_normal((n, 6))
    new = resized(table, length)
    by_torch = torch.nn.functional.interpolate(
        torch.from_numpy(table.T[None].copy()), size=length, mode="linear", align_corners=True
    )
    np.testing.assert_allclose(new, by_torch[0].numpy().T, rtol=0, atol=1e-14)
    by_numpy = [np.interp(np.linspace(0, n - 1, length), np.arange(n), column) for column in table.T]
    np.testing.assert_allclose(new, np.array(by_numpy).T, rtol=0, atol=1e-13)


def test_resizing_keeps_both_ends_exactly() -> None:
    table = np.random.default_rng(0).standard_normal((13, 6))
    for length in range(2, 60):
        new = resized(table, length)
        np.testing.assert_array_equal(new[0], table[0])
        np.testing.assert_array_equal(new[-1], table[-1])


def test_resizing_to_the_same_length_changes_nothing() -> None:
    table = np.random.default_rng(0).standard_normal((13, 6))
    np.testing.assert_array_equal(resized(table, 13), table)


def test_doubling_the_intervals_inserts_midpoints() -> None:
    np.testing.assert_array_equal(resized([[0.0], [1.0], [4.0]], 5), [[0], [0.5], [1], [2.5], [4]])


def test_a_table_of_one_row_is_repeated_and_a_single_new_row_is_the_first() -> None:
    np.testing.assert_array_equal(resized([[3.0, 4.0]], 3), [[3, 4]] * 3)
    np.testing.assert_array_equal(resized([[3.0, 4.0], [5.0, 6.0]], 1), [[3, 4]])

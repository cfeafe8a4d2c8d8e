"""Buckets against Hugging Face's T5 and the values of the survey; the bias against T5's own."""

import numpy as np
import pytest
import torch

from posenc.oracle.scores.t5 import bias, bucket

DISTANCES = [0, 1, 15, 16, 17, 18, 19, 20, 22, 25, 31, 32, 63, 64, 100, 112, 113, 127, 128, 1000]
BUCKETS = [0, 1, 15, 16, 16, 16, 17, 17, 18, 19, 21, 21, 26, 26, 30, 30, 31, 31, 31, 31]


def test_causal_buckets_are_those_of_the_golden_list() -> None:
    np.testing.assert_array_equal(bucket(DISTANCES, num_buckets=32, max_distance=128), BUCKETS)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (16, 64), (8, 20), (64, 1000)])
@pytest.mark.parametrize("direction", ["causal", "both"])
def test_buckets_are_those_of_t5(num_buckets: int, max_distance: int, direction: str) -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    n = torch.arange(-3000, 3000)
    theirs = t5.T5Attention._relative_position_bucket(
        -n, bidirectional=direction == "both", num_buckets=num_buckets, max_distance=max_distance
    )
    ours = bucket(n.numpy(), num_buckets=num_buckets, max_distance=max_distance, direction=direction)
    np.testing.assert_array_equal(ours, theirs.numpy())


def test_every_bucket_is_used_and_they_follow_in_order() -> None:
    found = bucket(np.arange(200), num_buckets=32, max_distance=128)
    np.testing.assert_array_equal(np.unique(found), np.arange(32))
    assert (np.diff(found) >= 0).all()


def test_the_bias_is_the_row_of_the_bucket_for_each_head() -> None:
    table = np.arange(32 * 3).reshape(32, 3)
    b = bias([20], np.arange(21), table=table, max_distance=128)
    assert b.shape == (3, 1, 21)
    assert b[2, 0, 20] == table[0, 2]
    assert b[1, 0, 0] == table[17, 1]

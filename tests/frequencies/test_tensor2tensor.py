"""The rule with both ends on the grid."""

import pytest

import posenc


@pytest.mark.parametrize("dim", [4, 64, 512])
def test_it_runs_from_one_to_one_over_base(dim: int) -> None:
    inv_freq = posenc.Tensor2Tensor(base=10_000).inv_freq(dim)
    assert inv_freq[0] == 1
    assert inv_freq[-1] == pytest.approx(1e-4, rel=1e-15)


def test_it_is_not_the_papers_rule() -> None:
    assert posenc.Geometric().inv_freq(64)[-1] == pytest.approx(10_000 ** (-62 / 64))


def test_one_pair_has_the_rate_of_one() -> None:
    assert posenc.Tensor2Tensor().inv_freq(2).tolist() == [1]

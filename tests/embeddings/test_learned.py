"""The learned table: its start, its end, and how it is stretched."""

import pytest
import torch

import posenc
from posenc.oracle.embeddings import learned as oracle


def test_it_starts_as_in_gpt_2() -> None:
    torch.manual_seed(0)
    table = posenc.Learned(dim=256, length=1024).table
    assert table.std().item() == pytest.approx(0.01, rel=0.02)
    assert abs(table.mean().item()) < 1e-4


def test_a_position_past_the_table_says_what_to_do() -> None:
    learned = posenc.Learned(dim=4, length=8)
    with pytest.raises(
        ValueError, match=r"got position 8, expected below 8, .* length=9 or more, or stretch .* resized\(9\)"
    ):
        learned.on_embeddings(torch.zeros(1, 9, 4))
    assert learned.resized(9).on_embeddings(torch.zeros(1, 9, 4)).shape == (1, 9, 4)


def test_a_position_between_two_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="fractional positions"):
        posenc.Learned(dim=4, length=8).on_embeddings(torch.zeros(1, 2, 4), torch.tensor([0.0, 0.5]))


@pytest.mark.parametrize("length", [1, 5, 8, 9, 16, 100])
def test_a_stretched_table_is_the_oracles(length: int) -> None:
    learned = posenc.Learned(dim=4, length=8).double()
    resized = learned.resized(length)
    expected = oracle.resized(learned.table.detach().numpy(), length)
    torch.testing.assert_close(resized.table.detach(), torch.from_numpy(expected))
    assert resized.length == resized.max_positions == length
    assert resized.table.dtype == learned.table.dtype
    assert resized.table.requires_grad


def test_stretching_keeps_both_ends_and_leaves_the_old_table_alone() -> None:
    learned = posenc.Learned(dim=4, length=8)
    before = learned.table.detach().clone()
    resized = learned.resized(20)
    assert torch.equal(resized.table[0], before[0])
    torch.testing.assert_close(resized.table[-1], before[-1])
    with torch.no_grad():
        resized.table.zero_()
    assert torch.equal(learned.table, before)


def test_only_the_rows_in_use_get_a_gradient() -> None:
    learned = posenc.Learned(dim=4, length=8)
    learned.on_embeddings(torch.zeros(1, 3, 4), 2).sum().backward()
    assert learned.table.grad is not None
    assert learned.table.grad.abs().sum(dim=-1).nonzero().flatten().tolist() == [2, 3, 4]


def test_a_table_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got length 0, expected at least 1 row"):
        posenc.Learned(dim=4, length=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_made_of_the_table_of_a_checkpoint(dtype: torch.dtype) -> None:
    """nanoGPT: x + wpe(pos)."""
    wpe = torch.nn.Embedding(7, 4, dtype=dtype)
    x = torch.randn(2, 5, 4, dtype=dtype)
    made = posenc.Learned.from_table(wpe.weight)
    assert torch.equal(made.on_embeddings(x), x + wpe(torch.arange(5)))
    assert torch.equal(posenc.Learned.from_table(wpe.weight[None]).table, wpe.weight)
    assert made.table is not wpe.weight
    assert (made.length, made.dim, made.table.dtype) == (7, 4, dtype)
    for table in (torch.zeros(7), torch.zeros(2, 7, 4), torch.zeros(7, 4, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"expected floats of shape \(rows, dim\)"):
            posenc.Learned.from_table(table)

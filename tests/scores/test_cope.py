"""CoPE: the authors' attention, counts that masks do not disturb, and decoding from cached keys alone."""

import json
from pathlib import Path

import pytest
import torch

import posenc

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "cope_attention.json").read_text())["values"]


@pytest.mark.parametrize("implementation", ["dense", "blocks"])
def test_the_output_is_the_authors(implementation: str) -> None:
    q, k, v = (torch.tensor(GOLDEN[name], dtype=torch.float64).view(1, 1, 7, 4) for name in "qkv")
    encoding = posenc.CoPE(num_heads=1, head_dim=4, length=4).double()
    encoding.load_state_dict({"table": torch.tensor(GOLDEN["table"]).view(4, 4)})
    y = posenc.attention(q, k, v, encoding, causal=True, implementation=implementation)
    torch.testing.assert_close(y.flatten(), torch.tensor(GOLDEN["out"], dtype=torch.float64), rtol=0, atol=1e-7)


def test_masked_keys_are_not_counted() -> None:
    """The mask takes every other key away: the result is that of the other half alone."""
    encoding = posenc.CoPE(num_heads=2, head_dim=8, length=5)
    torch.nn.init.normal_(encoding.table)
    q, k = torch.randn(1, 2, 1, 8), torch.randn(1, 2, 10, 8)
    masked = posenc.attention(q, k, k, encoding, mask=torch.arange(10) % 2 == 0)
    torch.testing.assert_close(masked, posenc.attention(q, k[:, :, ::2], k[:, :, ::2], encoding))


@pytest.mark.parametrize("implementation", ["dense", "blocks"])
def test_keys_after_the_query_are_not_counted_in_either_direction(implementation: str) -> None:
    """The formula sums the gates from j to i: a bidirectional model counts as a causal one, and later keys count 0."""
    encoding = posenc.CoPE(num_heads=2, head_dim=8, length=5).double()
    torch.nn.init.normal_(encoding.table)
    q, k, v = torch.randn(3, 1, 2, 400, 8, dtype=torch.float64)
    scores = q @ k.mT / 8**0.5
    before = torch.ones(400, 400, dtype=torch.bool).tril()
    causal = encoding.on_scores(scores.masked_fill(~before, -torch.inf), None, None, q=q, k=k)
    uncounted = scores + (q @ encoding.table[0])[..., None] / 8**0.5
    expected = torch.where(before, causal, uncounted)
    torch.testing.assert_close(encoding.on_scores(scores, None, None, q=q, k=k), expected)
    y = posenc.attention(q, k, v, encoding, implementation=implementation)
    torch.testing.assert_close(y, expected.softmax(-1) @ v)


def test_a_fresh_one_changes_nothing() -> None:
    q = torch.randn(1, 2, 6, 8)
    fresh = posenc.CoPE(num_heads=2, head_dim=8)
    torch.testing.assert_close(posenc.attention(q, q, q, fresh, causal=True), posenc.attention(q, q, q, causal=True))


def test_no_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="length 0, expected at least 1 each"):
        posenc.CoPE(num_heads=2, head_dim=8, length=0)


def test_counts_past_the_table_have_its_last_row() -> None:
    """Every gate is open, so counts from the last key back are 1, 2, 3, ... tokens, and the table ends at 2."""
    encoding = posenc.CoPE(num_heads=1, head_dim=4, length=3)
    torch.nn.init.normal_(encoding.table)
    q = torch.ones(1, 1, 5, 4)
    added = encoding.on_scores(torch.full((1, 1, 5, 5), 50.0), 0, 0, q=q, k=q)[0, 0, -1] - 50
    rows = 0.5 * encoding.table.sum(dim=-1)
    torch.testing.assert_close(added, rows[[2, 2, 2, 2, 1]], rtol=1e-4, atol=1e-5)

"""TUPE: the authors' bias, its scale, and a product that rides as channels."""

import json
from pathlib import Path

import pytest
import torch

import posenc

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "tupe_bias.json").read_text())["values"]


def golden() -> posenc.scores.TUPE:
    encoding = posenc.scores.TUPE(dim=8, num_heads=2, length=6).double()
    with torch.no_grad():
        encoding.table.copy_(torch.tensor(GOLDEN["table"]).view(6, 8))
        for name in ("q", "k"):
            projection = getattr(encoding, f"{name}_proj")
            projection.weight.copy_(torch.tensor(GOLDEN[f"{name}_weight"]).view(8, 8))
            projection.bias.copy_(torch.tensor(GOLDEN[f"{name}_bias"]))
    return encoding


def test_the_bias_is_the_authors() -> None:
    bias = golden().bias(torch.arange(6), torch.arange(6))
    torch.testing.assert_close(bias.flatten(), torch.tensor(GOLDEN["bias"], dtype=torch.float64), rtol=0, atol=1e-7)


def test_both_terms_are_divided_by_the_root_of_two_head_dims() -> None:
    encoding = golden()
    q = torch.randn(1, 2, 6, 4, dtype=torch.float64)
    scores = (q @ q.transpose(-1, -2)) / 8**0.5 + encoding.bias(torch.arange(6), torch.arange(6))
    torch.testing.assert_close(posenc.attention(q, q, q, encoding), scores.softmax(-1) @ q)


def test_a_position_past_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="got position 6, expected less than 6, the length of the table"):
        golden().bias(torch.arange(7), torch.arange(7))

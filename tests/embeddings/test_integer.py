"""The position itself."""

import torch

import posenc


def test_the_code_outgrows_the_embedding() -> None:
    x = torch.randn(1, 1000, 8)
    codes = posenc.Integer(dim=8).on_embeddings(x) - x
    assert codes[0, -1].norm() > 100 * x.norm(dim=-1).max()


def test_bfloat16_counts_to_256() -> None:
    codes = posenc.Integer(dim=2).codes(torch.arange(300)).to(torch.bfloat16)[:, 0]
    repeats = (codes[1:] == codes[:-1]).nonzero().flatten() + 1
    assert repeats[0] == 257


def test_positions_stay_exact_to_two_to_the_24_in_float32() -> None:
    x = posenc.Integer(dim=2).on_embeddings(torch.zeros(1, 1, 2), 2**24 - 1)
    assert x[0, 0, 0].item() == 2**24 - 1

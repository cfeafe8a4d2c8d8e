"""No encoding is the identity, everywhere and without a copy."""

import torch

import posenc


def test_every_hook_gives_back_what_it_got() -> None:
    x = torch.randn(1, 4, 3, 8)
    encoding = posenc.NoPE()
    assert encoding.on_embeddings(x) is x
    assert all(got is x for got in encoding.on_queries_keys(x, x))
    assert encoding.on_scores(x, None, None) is x


def test_without_an_encoding_bidirectional_attention_is_blind_to_order() -> None:
    q, k, v = torch.randn(3, 1, 2, 6, 8, dtype=torch.float64).unbind()
    shuffle = torch.randperm(6)
    encoding = posenc.NoPE()
    plain = posenc.attention(q, k, v, encoding)
    torch.testing.assert_close(posenc.attention(q, k[:, :, shuffle], v[:, :, shuffle], encoding), plain)


def test_with_a_causal_mask_it_is_not() -> None:
    """The mask alone tells a token how many came before: uniform attention to a marked first token gives 1/t."""
    k = q = torch.zeros(1, 1, 6, 8)
    v = torch.zeros(1, 1, 6, 1)
    v[:, :, 0] = 1
    y = posenc.attention(q, k, v, posenc.NoPE(), causal=True)
    torch.testing.assert_close(y.flatten(), 1 / torch.arange(1.0, 7.0))

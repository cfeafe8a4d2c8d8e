"""Scalable softmax: the paper's powers of n, its start, a model that has it."""

import pytest
import torch

import posenc
from posenc.oracle import ssmax as oracle


def test_attention_weighs_by_powers_of_n() -> None:
    warm = posenc.SSMax(num_heads=1, start=0.7)
    q, k = torch.randn(2, 1, 1, 12, 8, dtype=torch.float64)
    weights = posenc.attention(q, k, torch.eye(12, dtype=torch.float64)[None, None], warm, causal=True)
    for t in range(12):
        expected = oracle.weights((q[0, 0, t] @ k[0, 0, : t + 1].T / 8**0.5).numpy(), scale=warm.start)
        torch.testing.assert_close(weights[0, 0, t, : t + 1], torch.from_numpy(expected))


@pytest.mark.transformers_as_pinned
def test_affine_is_that_of_mistral_large_4() -> None:
    from transformers.models.mistral_large4.modeling_mistral_large4 import MistralLarge4TextSoftmaxScaling

    theirs = MistralLarge4TextSoftmaxScaling(num_heads=3)
    ours = posenc.SSMax(num_heads=3, form="affine")
    with torch.no_grad():
        for mine, other in ((ours.scale, theirs.scale), (ours.offset, theirs.bias)):
            other.copy_(torch.rand(3))
            mine.copy_(other)
    ids = torch.arange(20)[None] * 100
    expected = theirs(torch.ones(1, 3, 20, 1), ids, head_dim_first=True)
    torch.testing.assert_close(ours.temperature(ids).float(), expected)


def test_affine_starts_as_no_temperature_at_all() -> None:
    assert bool((posenc.SSMax(num_heads=2, form="affine").temperature(torch.arange(9)) == 1).all())


def test_its_scale_has_a_gradient() -> None:
    warm = posenc.SSMax(num_heads=2)
    q, k, v = torch.randn(3, 1, 2, 9, 8)
    posenc.attention(q, k, v, warm, causal=True).square().sum().backward()
    assert bool((warm.scale.grad != 0).all())


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="got num_heads 0"):
        posenc.SSMax(num_heads=0)
    with pytest.raises(ValueError, match="got form 'learned', expected one of"):
        posenc.SSMax(num_heads=2, form="learned")  # type: ignore[arg-type]

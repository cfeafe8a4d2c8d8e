"""FoX: an installed peer, a state that decodes, and sums that stay exact over many tokens."""

import pytest
import torch

import posenc


def test_the_bias_is_that_of_x_transformers() -> None:
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    theirs = x_transformers.DataDependentAlibi(dim=6, heads=3, causal=True, bias_init=0.5)
    encoding = posenc.Forgetting(dim=6, num_heads=3)
    encoding.gate.load_state_dict(theirs.to_forget_gates[0].state_dict())
    x, q = torch.randn(2, 8, 6), torch.randn(2, 3, 8, 2)
    bias = encoding.on_scores(torch.zeros(2, 3, 8, 8), None, None, q=q, k=q, state=encoding.carry(x))
    torch.testing.assert_close(bias, theirs(x).tril(), rtol=1e-5, atol=1e-5)


def test_the_state_grows_as_if_all_tokens_had_come_at_once() -> None:
    encoding = posenc.Forgetting(dim=6, num_heads=3)
    x = torch.randn(2, 9, 6)
    state = None
    for part in x.split((4, 1, 3, 1), dim=1):
        state = encoding.carry(part, state)
    torch.testing.assert_close(state, encoding.carry(x), rtol=1e-12, atol=1e-6)


def test_neighbours_far_down_a_long_run_are_told_apart() -> None:
    """After 2**17 tokens the sum is near -10**5, of which float32 keeps no thousandth."""
    encoding = posenc.Forgetting(dim=2, num_heads=1)
    state = encoding.carry(torch.zeros(1, 2**17, 2))
    q = torch.zeros(1, 1, 1, 2)
    k = torch.zeros(1, 1, 2**17, 2)
    bias = encoding.on_scores(torch.zeros(1, 1, 1, 2**17), 0, 0, q=q, k=k, state=state)
    step = torch.nn.functional.logsigmoid(encoding.gate.bias).item()
    torch.testing.assert_close(bias[0, 0, 0, -4:], step * torch.tensor([3.0, 2.0, 1.0, 0.0]), rtol=1e-6, atol=1e-6)


def test_attention_without_the_state_says_how_to_get_it() -> None:
    q = torch.zeros(1, 3, 4, 2)
    with pytest.raises(ValueError, match=r"got no state, .* state=encoding.carry\(x, state\)"):
        posenc.attention(q, q, q, posenc.Forgetting(dim=6, num_heads=3), causal=True)


def test_input_of_another_width_is_refused() -> None:
    encoding = posenc.Forgetting(dim=6, num_heads=3)
    with pytest.raises(ValueError, match=r"got x of shape \(1, 4, 5\), expected \(batch, seq, 6\)"):
        encoding.carry(torch.zeros(1, 4, 5))
    with pytest.raises(ValueError, match="got a state of shape"):
        encoding.carry(torch.zeros(1, 4, 6), torch.zeros(2, 3, 4))

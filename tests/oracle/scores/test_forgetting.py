"""The decay against x-transformers' module, and against ALiBi, which it contains."""

import numpy as np
import pytest
import torch

from posenc.oracle.scores import alibi
from posenc.oracle.scores.forgetting import bias, log_gates


def test_the_bias_is_that_of_x_transformers() -> None:
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    module = x_transformers.DataDependentAlibi(dim=6, heads=3, causal=True, bias_init=0.5).double()
    linear = module.to_forget_gates[0]
    x = torch.randn(2, 8, 6, dtype=torch.float64)
    theirs = module(x).detach().numpy()
    gates = log_gates(x.numpy(), weight=linear.weight.detach().numpy(), offset=linear.bias.detach().numpy())
    np.testing.assert_allclose(bias(gates), np.tril(theirs), rtol=0, atol=1e-12)


def test_a_constant_gate_is_alibi() -> None:
    slopes = alibi.slopes(8)
    gates = np.broadcast_to(-slopes[None, :, None], (1, 8, 10))
    expected = np.tril(alibi.bias(np.arange(10), np.arange(10), num_heads=8))
    np.testing.assert_allclose(bias(gates)[0], expected, rtol=0, atol=1e-14)

"""The referee of the frequency rules: the functions of the installed transformers."""

import numpy as np
import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HEAD_DIM = 64


@pytest.fixture
def agrees_with_transformers():
    """A check that rates and factor are those of transformers up to the rounding of its float32 arithmetic."""

    def check(rule, rope_type, parameters, *, base=10_000.0, length=None, max_positions=4096):
        config = LlamaConfig(
            hidden_size=4 * HEAD_DIM,
            num_attention_heads=4,
            max_position_embeddings=max_positions,
            rope_parameters={"rope_type": rope_type, "rope_theta": base, **parameters},
        )
        theirs, factor = ROPE_INIT_FUNCTIONS[rope_type](config, "cpu", seq_len=length)
        np.testing.assert_allclose(rule.inv_freq(HEAD_DIM, length=length), theirs.double().numpy(), rtol=2e-6, atol=0)
        assert rule.attention_factor_at(length) == pytest.approx(factor, rel=1e-12)

    return check

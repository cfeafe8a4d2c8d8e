"""A stack of blocks that is given another encoding."""

import pytest
import torch
from torch import Tensor

import posenc
from posenc.nn import Transformer

DIM, HEADS = 32, 4


def inputs(seq: int = 7) -> Tensor:
    return torch.randn(2, seq, DIM, generator=torch.Generator().manual_seed(seq))


def test_another_encoding_acts_in_every_layer_of_a_transformer_that_is_given_it() -> None:
    """It acted at the first place alone: a rule for longer texts that was assigned to a model changed nothing."""
    layers = posenc.PerLayer({"a": posenc.ALiBi(HEADS), "b": posenc.NoPE()}, pattern=["a", "b"], num_layers=2)
    longer = posenc.RoPE(head_dim=8, frequencies=posenc.YaRN(4, trained_length=8))
    x, start = inputs(), posenc.RoPE(head_dim=8)
    for other in (longer, posenc.Sinusoidal(DIM), layers, None):
        model, expected = Transformer(DIM, HEADS, 2, start), Transformer(DIM, HEADS, 2, other)
        expected.load_state_dict(model.state_dict())
        before = model(x)
        model.encoding = other
        assert torch.equal(model(x), expected(x))
        assert not torch.equal(model(x), before)
        model.encoding = start
        assert torch.equal(model(x), before)
    with pytest.raises(ValueError, match="an encoding for 3 layers, expected 2"):
        model.encoding = posenc.PerLayer({"a": start}, pattern=["a"], num_layers=3)
    assert model.encoding is start


def test_a_table_for_larger_images_is_given_to_the_model_that_learned_a_smaller_one() -> None:
    model = Transformer(DIM, HEADS, 2, posenc.scores.SwinBias(HEADS, window=(2, 3)))
    model.encoding = model.encoding.resized(3, 4)
    assert {block.self_attn.encoding for block in model.layers} == {model.encoding}
    assert model(inputs(seq=12)).shape == (2, 12, DIM)
    assert len([name for name, _ in model.named_parameters() if name.endswith("table")]) == 1

"""A stack of blocks that is given another encoding."""

import copy

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


ENCODINGS = {
    "none": posenc.NoPE(),
    "learned": posenc.Learned(16, length=8),
    "rope": posenc.RoPE(8),
    "t5": posenc.T5Bias(2),
    "fire": posenc.FIRE(2),
    "cope": posenc.CoPE(2, 8, length=4),
    "shaw": posenc.scores.Shaw(2, 8, reach=4),
    "deberta": posenc.scores.DeBERTa(16, 2),
    "transformer-xl": posenc.scores.TransformerXL(16, 2),
    "tupe": posenc.scores.TUPE(16, 2, length=8),
    "swin": posenc.scores.SwinBias(2, window=(1, 8)),
    "forgetting": posenc.Forgetting(16, 2),
    "inkling": posenc.scores.InklingBias(16, 2, rank=2, extent=4),
}


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("shape", [(0, 5, 16), (2, 0, 16), (0, 0, 16)], ids=str)
def test_no_rows_and_no_tokens_give_an_empty_result(encoding: posenc.Encoding, shape: tuple[int, int, int]) -> None:
    decoder = Transformer(16, 2, 1, copy.deepcopy(encoding), causal=True)
    ones = torch.ones(shape[:2], dtype=torch.long)
    for options in ({}, {"attention_mask": ones}, {"documents": ones}, {"cache": decoder.new_cache()}):
        x = torch.randn(shape, requires_grad="cache" not in options)
        y = decoder(x, **options)
        assert y.shape == shape
        if x.requires_grad:
            y.sum().backward()


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_a_step_without_tokens_changes_nothing(encoding: posenc.Encoding) -> None:
    decoder = Transformer(16, 2, 1, copy.deepcopy(encoding), causal=True).eval()
    x, real = torch.randn(2, 7, 16), torch.tensor([[1] * 7, [0, 0] + [1] * 5])
    with torch.no_grad():
        whole, cache = decoder(x, attention_mask=real), decoder.new_cache()
        parts = [
            decoder(x[:, rows], attention_mask=real[:, rows], cache=cache) for rows in (slice(3), slice(0), slice(3, 7))
        ]
    torch.testing.assert_close(torch.cat(parts, dim=1)[real.bool()], whole[real.bool()])

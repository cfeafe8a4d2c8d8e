"""Swin v2: the same output of its window attention, cosine and all, at its own window and a larger one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests import peers
from torch.nn import functional as F

import posenc
from posenc.oracle.scores import swin_v2 as oracle


@pytest.mark.parametrize(("window", "trained"), [((4, 4), None), ((6, 6), (4, 4))])
def test_the_output_is_that_of_the_attention_of_swin_v2(
    window: tuple[int, int], trained: tuple[int, int] | None
) -> None:
    swin_v2 = pytest.importorskip("transformers.models.swinv2.modeling_swinv2")
    config = SimpleNamespace(qkv_bias=True, attention_probs_dropout_prob=0.0)
    module = swin_v2.Swinv2SelfAttention(
        config, dim=12, num_heads=3, window_size=window, pretrained_window_size=list(trained or (0, 0))
    )
    encoding = posenc.scores.SwinV2Bias(num_heads=3, window=window, trained_window=trained)
    encoding.hidden.load_state_dict(module.continuous_position_bias_mlp[0].state_dict())
    encoding.out.load_state_dict(module.continuous_position_bias_mlp[2].state_dict())
    places = window[0] * window[1]
    x = torch.randn(2, places, 12)
    with torch.no_grad():
        (expected,) = module(x)[:1]
        q, k, v = (p(x).unflatten(-1, (3, 4)).transpose(1, 2) for p in (module.query, module.key, module.value))
        q = F.normalize(q, dim=-1) * module.logit_scale.clamp(max=4.6051702).exp()
        y = posenc.attention(q, F.normalize(k, dim=-1), v, encoding, scale=1.0)
    torch.testing.assert_close(y.transpose(1, 2).flatten(2), expected, rtol=1e-5, atol=1e-5)


def test_a_larger_window_agrees_where_the_smaller_one_was() -> None:
    small = posenc.scores.SwinV2Bias(num_heads=2, window=(4, 4))
    large = posenc.scores.SwinV2Bias(num_heads=2, window=(6, 6), trained_window=(4, 4))
    large.load_state_dict(small.state_dict())
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    at_small, at_large = (rows * 4 + columns).flatten(), (rows * 6 + columns).flatten()
    torch.testing.assert_close(large.bias(at_large, at_large), small.bias(at_small, at_small))


def test_no_hidden_units_are_refused() -> None:
    with pytest.raises(ValueError, match="got width 0, expected at least 1"):
        posenc.scores.SwinV2Bias(num_heads=2, width=0)


@pytest.mark.parametrize("kind", ["RelPosMlp", "WindowMultiHeadAttention"])
def test_the_form_of_the_paper_is_timms_cr(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "RelPosMlp":
        module = peers.timm("layers").RelPosMlp(window_size=(4, 6), num_heads=3, hidden_dim=16, mode="cr").eval()
        network, theirs = module.mlp, module.get_bias()[0]
    else:
        module = peers.timm("models.swin_transformer_v2_cr").WindowMultiHeadAttention(
            12, num_heads=3, window_size=(4, 6), meta_hidden_dim=16
        )
        network, theirs = module.eval().meta_mlp, module._relative_positional_encodings()[0]
    ours = posenc.scores.SwinV2Bias(num_heads=3, window=(4, 6), width=16, form="paper")
    ours.hidden.load_state_dict(network.fc1.state_dict())
    ours.out.load_state_dict(network.fc2.state_dict())
    places = torch.arange(24)
    torch.testing.assert_close(ours.bias(places, places), theirs, atol=1e-6, rtol=0)


def test_the_form_of_the_paper_has_the_oracles_bias() -> None:
    ours = posenc.scores.SwinV2Bias(num_heads=3, window=(3, 5), width=8, form="paper").double()
    state = {name.replace(".", "_"): values.numpy() for name, values in ours.state_dict().items()}
    places = torch.arange(15)
    expected = oracle.bias_of_the_paper(places.numpy(), places.numpy(), window=(3, 5), **state)
    np.testing.assert_allclose(ours.bias(places, places).detach().numpy(), expected, atol=1e-12)


def test_the_form_of_the_paper_has_no_trained_window() -> None:
    with pytest.raises(ValueError, match="whose offsets are counted in patches"):
        posenc.scores.SwinV2Bias(num_heads=2, window=(4, 4), trained_window=(4, 4), form="paper")
    with pytest.raises(ValueError, match="got form 'cr', expected one of"):
        posenc.scores.SwinV2Bias(num_heads=2, form="cr")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["code", "paper"])
def test_another_window_has_the_same_network_spaced_as_in_training(form: str) -> None:
    small = posenc.scores.SwinV2Bias(num_heads=2, window=(4, 4), form=form).double()
    trained = (4, 4) if form == "code" else None
    expected = posenc.scores.SwinV2Bias(num_heads=2, window=(6, 5), trained_window=trained, form=form).double()
    expected.load_state_dict(small.state_dict())
    places = torch.arange(30)
    once, twice = small.resized(6, 5), small.resized(9, 9).resized(6, 5)
    assert torch.equal(once.bias(places, places), expected.bias(places, places))
    assert torch.equal(twice.bias(places, places), expected.bias(places, places))
    with pytest.raises(ValueError, match=r"expected below 16.* use resized\(rows, columns\)"):
        small.bias(places, places)

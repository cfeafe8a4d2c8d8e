"""Encodings that differ from layer to layer."""

import json

import pytest
import torch

import posenc


def gemma_like() -> posenc.PerLayer:
    local = posenc.RoPE(head_dim=16)
    far = posenc.RoPE(head_dim=16, frequencies=posenc.frequencies.Proportional(0.25, base=1e6))
    return posenc.PerLayer({"sliding": local, "full": far}, pattern=["sliding"] * 5 + ["full"], num_layers=8)


def test_layers_of_a_name_share_an_encoding() -> None:
    layers = gemma_like()
    assert len(layers) == 8
    assert [layers.name(i) for i in range(8)] == ["sliding"] * 5 + ["full"] + ["sliding"] * 2
    assert layers[-1] is layers[0] is layers[7]
    assert layers[5] is layers[-3] is not layers[0]
    assert [layer is layers[5] for layer in layers] == [i == 5 for i in range(8)]
    assert layers.layers_of("full") == (5,)


def test_a_model_takes_each_layer_s_own() -> None:
    layers = gemma_like()
    x = torch.randn(1, 2, 7, 16)
    for index in (0, 5):
        q, _ = layers[index].on_queries_keys(x, x)
        assert torch.equal(q, layers[index].rotate(x))  # type: ignore[operator]
    assert not torch.equal(layers[0].on_queries_keys(x, x)[0], layers[5].on_queries_keys(x, x)[0])


def test_it_comes_back_from_json() -> None:
    layers = gemma_like()
    again = posenc.PerLayer.from_dict(json.loads(json.dumps(layers.to_dict())))
    assert again.to_dict() == layers.to_dict()


def test_weights_are_those_of_its_encodings() -> None:
    learned = posenc.RoPE(head_dim=16, frequencies=posenc.frequencies.LearnedRates())
    layers = posenc.PerLayer({"a": learned, "b": posenc.NoPE()}, pattern=["a", "b"], num_layers=4)
    assert list(layers.state_dict()) == ["encodings.a.log_scale"]


@pytest.mark.parametrize(
    ("pattern", "num_layers", "message"),
    [
        ([], 4, r"got the pattern \[\]"),
        (["a"], 4, r"for encodings named \['a', 'b'\], expected a pattern that contains each of these names"),
        (["a", "b", "c"], 4, "and no other"),
        (["a", "b"], 0, "got num_layers 0"),
    ],
)
def test_what_cannot_be_built_is_refused(pattern: list[str], num_layers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.PerLayer({"a": posenc.NoPE(), "b": posenc.NoPE()}, pattern=pattern, num_layers=num_layers)


def test_a_layer_past_the_last_is_refused() -> None:
    with pytest.raises(IndexError, match="got layer 8 of 8"):
        gemma_like()[8]

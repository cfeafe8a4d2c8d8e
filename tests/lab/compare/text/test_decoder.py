"""The decoder that all encodings share."""

import inspect

import pytest
import torch

import posenc
from posenc.catalogue import row
from posenc.lab.compare.text.config import ModelConfig
from posenc.lab.compare.text.decoder import Decoder, build
from posenc.lab.encodings.spec import parse

SIZES = ModelConfig(dim=16, num_layers=2, num_heads=2)


def asks_for_sizes_alone(name: str) -> bool:
    """Whether an encoding can be built without options of its own."""
    parameters = inspect.signature(row(name).load()).parameters.values()
    required = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
    return required <= {"dim", "num_heads", "head_dim", "length"}


NAMES = [name for name in posenc.names() if asks_for_sizes_alone(name)]


def decoder(spec: str, *, seed: int = 0) -> Decoder:
    return build(SIZES, parse(spec), vocabulary_size=32, length=8, seed=seed)


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_outside_the_encoding_are_the_same_for_every_encoding(name: str) -> None:
    expected = decoder("none").state_dict()
    weights = decoder(name).state_dict()
    assert {key: value for key, value in weights.items() if not key.startswith("encoding.")}.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(weights[key], value), key


def test_what_is_random_in_an_encoding_repeats_with_the_seed_and_is_no_copy_of_other_weights() -> None:
    one, again, other = decoder("learned"), decoder("learned"), decoder("learned", seed=1)
    assert torch.equal(one.encoding.table, again.encoding.table)
    assert not torch.equal(one.encoding.table, other.encoding.table)
    drawn = one.encoding.table.flatten() / one.encoding.std
    others = one.embedding.weight.flatten()[: len(drawn)] * SIZES.dim**0.5
    assert abs(torch.corrcoef(torch.stack((drawn, others)))[0, 1]) < 0.3


def test_another_seed_draws_other_weights() -> None:
    assert not torch.equal(decoder("none").embedding.weight, decoder("none", seed=1).embedding.weight)


def test_building_a_model_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    decoder("learned")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_token_sees_nothing_that_comes_after_it(name: str) -> None:
    tokens = torch.arange(8)[None]
    changed = tokens.clone()
    changed[0, 5:] = 31
    model = decoder(name)
    torch.testing.assert_close(model(changed)[:, :5], model(tokens)[:, :5])
    assert not torch.allclose(model(changed)[:, 5:], model(tokens)[:, 5:])


def test_every_hook_of_an_encoding_is_called() -> None:
    class Spy(posenc.Encoding):
        places = ("embeddings", "queries_keys", "scores")

        def __init__(self) -> None:
            super().__init__()
            self.calls: list[str] = []

        def on_embeddings(self, x, positions=None):
            self.calls.append("embeddings")
            return x

        def on_queries_keys(self, q, k, positions=None, *, k_positions=None):
            self.calls.append("queries_keys")
            return q, k

        def bias(self, q_positions, k_positions):
            self.calls.append("scores")
            return torch.zeros(2, len(q_positions), len(k_positions))

    model = Decoder(SIZES, vocabulary_size=32, encoding=Spy(), seed=0)
    model(torch.zeros(1, 4, dtype=torch.int64))
    assert model.encoding.calls == ["embeddings", *["queries_keys", "scores"] * SIZES.num_layers]


def test_embedding_and_output_are_one_matrix() -> None:
    names = [name for name, parameter in decoder("none").named_parameters() if parameter.shape == (32, SIZES.dim)]
    assert names == ["embedding.weight"]

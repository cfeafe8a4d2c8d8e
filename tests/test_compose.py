"""Several encodings as one."""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

import posenc


def test_each_hook_goes_to_the_part_that_acts_there() -> None:
    rope, alibi, sinusoidal = posenc.RoPE(head_dim=8), posenc.ALiBi(num_heads=2), posenc.Sinusoidal(dim=16)
    both = posenc.Compose(sinusoidal, rope, alibi)
    x, q = torch.randn(1, 5, 16), torch.randn(1, 2, 5, 8)
    assert torch.equal(both.on_embeddings(x), sinusoidal.on_embeddings(x))
    assert torch.equal(both.on_queries_keys(q, q)[1], rope.on_queries_keys(q, q)[1])
    scores = torch.randn(1, 2, 5, 5)
    assert torch.equal(both.on_scores(scores, None, None), alibi.on_scores(scores, None, None))
    assert both.places == ("embeddings", "queries_keys", "scores")


def test_it_is_relative_and_limited_as_its_parts_are() -> None:
    rope, alibi = posenc.RoPE(head_dim=8), posenc.ALiBi(num_heads=2)
    assert posenc.Compose(rope, alibi).relative
    assert not posenc.Compose(rope, posenc.Learned(dim=16, length=7)).relative
    assert posenc.Compose(rope, posenc.Learned(dim=16, length=7)).max_positions == 7
    assert posenc.Compose(rope, alibi).max_positions is None


def test_it_comes_back_from_json_with_its_weights() -> None:
    both = posenc.Compose(posenc.Learned(dim=16, length=7), posenc.RoPE(head_dim=8, pairing="interleaved"))
    again = posenc.from_dict(json.loads(json.dumps(both.to_dict())))
    again.load_state_dict(both.state_dict())
    x = torch.randn(1, 5, 16)
    assert torch.equal(again.on_embeddings(x), both.on_embeddings(x))
    assert repr(again) == repr(both)


def test_two_at_one_place_are_refused() -> None:
    with pytest.raises(ValueError, match="got two encodings that act on queries_keys"):
        posenc.Compose(posenc.RoPE(head_dim=8), posenc.RoPE(head_dim=8))
    with pytest.raises(ValueError, match="got 1 encodings, expected two or more"):
        posenc.Compose(posenc.RoPE(head_dim=8))
    with pytest.raises(TypeError, match="Compose: got a value of type list as an encoding"):
        posenc.Compose([posenc.RoPE(head_dim=8), posenc.ALiBi(num_heads=8)])  # type: ignore[arg-type]


def test_the_parts_of_a_composition_stay() -> None:
    """A temperature that was put in the place of a part was not applied, as the composition had none when built."""
    composed = posenc.Compose(posenc.RoPE(8), posenc.ALiBi(2))
    other = posenc.SSMax(num_heads=2)
    changes: list[Callable[[Any], object]] = [
        lambda parts: parts.__setitem__(1, other), lambda parts: parts.append(other), lambda parts: parts.pop(0),
        lambda parts: parts.extend([other]), lambda parts: parts.insert(0, other), lambda parts: parts.__delitem__(0),
        lambda parts: parts.__iadd__([other]),
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(TypeError, match=r"Compose: got another encoding .* build another one: Compose\(\*parts\)"):
            change(composed.encodings)
    assert [type(part).__name__ for part in composed.parts] == ["RoPE", "ALiBi"]
    again = pickle.loads(pickle.dumps(copy.deepcopy(composed)))
    assert again.to_dict() == composed.to_dict()
    assert [*posenc.Compose(posenc.RoPE(8), posenc.T5Bias(2)).state_dict()] == ["encodings.1.table"]
    assert [type(part).__name__ for part in composed.encodings[:1]] == ["RoPE"]

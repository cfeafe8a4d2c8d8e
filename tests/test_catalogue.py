"""Names, construction, and what is refused on the way."""

import json

import pytest
import torch

import posenc

OPTIONS: dict[str, dict[str, object]] = {
    **{name: {"length": 16} for name in ("learned", "normalized", "tupe")},
    "fope": {"trained_length": 64},
    "mrope": {"sections": (2, 3, 3)},
    "temperature": {"form": "llama4", "length": 8},
}


def test_names_follow_the_road() -> None:
    assert posenc.names() == (
        "none", "integer", "normalized", "binary", "sinusoidal", "sinusoidal_grid", "fourier", "timesteps",
        "learned", "learned_grid", "rope", "xpos", "axial", "mrope", "mixed", "fope", "pope", "shaw",
        "transformer_xl", "t5", "deberta", "tupe", "swin", "swin_v2", "levit", "decomposed", "alibi", "kerple",
        "sandwich", "fire", "cope", "forgetting", "inkling", "temperature", "ssmax",
    )  # fmt: skip


@pytest.mark.parametrize("name", posenc.names())
def test_the_same_model_code_runs_every_encoding(name: str) -> None:
    encoding = posenc.make(name, dim=64, num_heads=4, **OPTIONS.get(name, {}))
    x = encoding.on_embeddings(torch.randn(2, 10, 64))
    q = k = v = x.unflatten(-1, (4, 16)).transpose(1, 2)
    q, k = encoding.on_queries_keys(q, k)
    state = encoding.carry(x)
    assert posenc.attention(q, k, v, encoding, causal=True, state=state).shape == (2, 4, 10, 16)


@pytest.mark.parametrize("name", posenc.names())
def test_an_encoding_comes_back_from_json(name: str) -> None:
    encoding = posenc.make(name, dim=64, num_heads=4, **OPTIONS.get(name, {}))
    again = posenc.from_dict(json.loads(json.dumps(encoding.to_dict())))
    assert type(again) is type(encoding)
    assert repr(again) == repr(encoding)


@pytest.mark.parametrize(("wrong", "near"), [("ropee", "rope"), ("Alibi", "alibi"), ("sinusoid", "sinusoidal")])
def test_an_unknown_name_is_refused_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"no encoding is called '{wrong}'; did you mean '{near}'"):
        posenc.make(wrong, dim=64, num_heads=4)


def test_a_name_like_no_other_lists_all() -> None:
    with pytest.raises(ValueError, match=r"no encoding is called 'xyz'; expected one of none, integer"):
        posenc.make("xyz", dim=64, num_heads=4)


def test_options_are_checked_by_name() -> None:
    with pytest.raises(TypeError, match=r"RoPE: got base=500, expected frequencies"):
        posenc.make("rope", dim=64, num_heads=4, base=500)
    with pytest.raises(TypeError, match="Learned: the option 'length' is missing"):
        posenc.make("learned", dim=64, num_heads=4)
    with pytest.raises(ValueError, match="got dim 65 for 4 heads"):
        posenc.make("rope", dim=65, num_heads=4)
    with pytest.raises(ValueError, match="got rotary_dim 3 for head_dim 3"):
        posenc.make("rope", dim=12, num_heads=4)


def test_data_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="from_dict got name 'Mine', expected one of NoPE"):
        posenc.from_dict({"name": "Mine"})
    with pytest.raises(ValueError, match=r"from_dict got unknown keys \['theta'\]"):
        posenc.from_dict({"name": "RoPE", "head_dim": 8, "theta": 3})
    with pytest.raises(ValueError, match="got rule 'Frequencies', expected one of"):
        posenc.from_dict({"name": "RoPE", "head_dim": 8, "frequencies": {"rule": "Frequencies"}})

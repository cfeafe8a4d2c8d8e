"""An argument under another library's name, and a name that lives elsewhere, are answered with what to write."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import posenc
from posenc import frequencies

Q = torch.zeros(1, 2, 4, 64)


@pytest.mark.parametrize(
    ("call", "right"),
    [
        (lambda: posenc.RoPE(64, base=5e5), r"frequencies=Geometric\(base=...\)"),
        (lambda: posenc.XPos(64, theta=5e5), r"frequencies=Geometric\(base=...\)"),
        (lambda: posenc.RoPE(dim=64), "call it head_dim"),
        (lambda: posenc.RoPE(64, interleaved=True), 'pairing="interleaved"'),
        (lambda: posenc.RoPE(64, rotary_pct=0.5), "rotary_dim=..., the number of rotated channels"),
        (lambda: posenc.YaRN(4, original_max_position_embeddings=8192), "call it trained_length"),
        (lambda: posenc.YaRN(4, trained_length=8192, rope_theta=1e6), "call it base"),
        (lambda: frequencies.Linear(scaling_factor=4), "call it factor"),
        (lambda: posenc.Learned(64, max_len=512), "call it length"),
        (lambda: posenc.Sinusoidal(d_model=64), "call it dim"),
        (lambda: posenc.ALiBi(n_heads=8), "call it num_heads"),
        (lambda: posenc.T5Bias(8, bidirectional=True), 'direction="both"'),
        (lambda: posenc.MRoPE(16, mrope_section=(4, 2, 2)), "call it sections"),
        (lambda: posenc.Learned(64, block_size=512), "call it length"),  # nanoGPT
        (lambda: posenc.embeddings.LearnedGrid(64, grid_size=4), "call it grid"),
        (lambda: posenc.scores.SwinBias(4, window_size=7), "call it window"),
        (lambda: posenc.embeddings.FourierFeatures(64, axes=2), "call it coordinates"),
        (lambda: posenc.RoPE(64, traditional=True), 'pairing="interleaved"'),  # MLX
        (lambda: posenc.RoPE(64, seq_before_head_dim=True), r"seq_dim=-3 for \(batch, seq"),  # rotary-embedding-torch
        (lambda: posenc.RoPE(64, learned_freq=True), 'LearnedRates\\(parameter="rates"\\)'),
        (lambda: posenc.AxialRoPE(64, custom_freqs=[1.0]), r"frequencies=Custom\(rates\)"),
        (lambda: posenc.RoPE(64, base_rescale_factor=4.0), r"frequencies=NTK\(factor\)"),  # x-transformers
        (lambda: posenc.RoPE(64, rope_scaling={"rope_type": "llama3"}), "describe of posenc.integrations"),
        (lambda: posenc.RoPE(64, max_position_embeddings=4096), "leave it out: no table of it ends"),
        (lambda: posenc.RoPE(64, num_heads=8), "leave it out: all heads"),
        (lambda: posenc.RoPE(64, use_xpos=True), "posenc.XPos"),
        (lambda: posenc.ALiBi(8, max_seq_len=4096), "leave it out: no table of it ends"),
        (lambda: posenc.Sinusoidal(d_model=64, dropout=0.1, max_len=5000), "call it dim"),
        (lambda: posenc.Sinusoidal(64, max_len=5000), "leave it out: no table of it ends"),  # PyTorch's tutorial
        (lambda: posenc.Sinusoidal(64, dropout=0.1), "a torch.nn.Dropout after it"),
        (lambda: posenc.Learned(64, length=5, device="cpu"), r".to\(\) moves its parameters"),
        (lambda: posenc.make("rope", dim=64, num_heads=4, theta=5e5), r"frequencies=Geometric\(base=...\)"),
        (lambda: posenc.make("learned", dim=64, num_heads=4, context_length=512), "call it length"),
    ],
)
def test_other_libraries_names_are_answered_with_ours(call: Any, right: str) -> None:
    with pytest.raises(TypeError, match=f"got .*expected .*{right}"):
        call()


@pytest.mark.parametrize(
    ("encoding", "hooks"),
    [
        (posenc.RoPE(64), ["on_queries_keys"]),
        (posenc.Sinusoidal(64), ["on_embeddings"]),
        (posenc.ALiBi(2), [r"posenc.attention"]),
        (posenc.Compose(posenc.Sinusoidal(64), posenc.RoPE(64), posenc.T5Bias(2)), ["on_queries_keys", "attention"]),
        (posenc.NoPE(), ["none has to be called"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_encoding_that_is_called_as_a_layer_says_what_to_call(encoding: posenc.Encoding, hooks: list[str]) -> None:
    with pytest.raises(TypeError, match=f"{type(encoding).__name__}: got a call.*{'.*'.join(hooks)}"):
        encoding(Q, Q)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *[("rotary", "rope"), ("Rotary_Embedding", "rope"), ("absolute", "learned"), ("sincos", "sinusoidal")],
        *[("2d_rope", "axial"), ("relative", "t5"), ("t5-bias", "t5"), ("nope", "none"), ("fox", "forgetting")],
        *[("alibi_bias", "alibi"), ("learnt", "learned")],
    ],
)
def test_a_name_of_others_is_answered_with_ours(name: str, ours: str) -> None:
    """ "rotary" was answered with "binary", whose letters are nearer."""
    with pytest.raises(ValueError, match=f"no encoding is called '{name}'; did you mean '{ours}'"):
        posenc.make(name, dim=64, num_heads=4)


def test_an_unknown_name_is_left_to_python() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        posenc.RoPE(64, colour=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda: posenc.RoPE(64, frequencies=posenc.YaRN), r"the class YaRN as frequencies.*make one: YaRN\(...\)"),
        (lambda: posenc.AxialRoPE(64, frequencies="yarn"), "'yarn' as frequencies.*such as Geometric"),
        (lambda: posenc.Sinusoidal(64, frequencies=5), "a value of type int as frequencies"),
        (lambda: frequencies.LearnedRates("linear"), "'linear' as start"),
        (lambda: posenc.Compose(posenc.RoPE, posenc.ALiBi), r"the class RoPE.*make one: RoPE\(...\)"),
        (lambda: posenc.Compose(posenc.RoPE(64), "alibi"), "'alibi' as an encoding"),
        (lambda: posenc.attention(Q, Q, Q, posenc.ALiBi), "the class ALiBi as encoding"),
        (lambda: posenc.attention(Q, Q, Q, "alibi"), "'alibi' as encoding"),
        (
            lambda: posenc.PerLayer({"a": posenc.RoPE}, pattern=["a"], num_layers=1),
            r"the class RoPE as encodings\['a'\]",
        ),
        (lambda: posenc.make(posenc.RoPE, dim=64, num_heads=2), 'the class RoPE as the name.*such as "rope"'),
    ],
)
def test_a_class_or_a_string_in_an_objects_place_is_answered(call: Any, answer: str) -> None:
    with pytest.raises(TypeError, match=answer):
        call()


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("Linear", "it is posenc.frequencies.Linear"),
        ("accelerate", "it is posenc.integrations.transformers.accelerate"),
        ("Shaw", "it is posenc.scores.Shaw"),
        ("Rope", "did you mean posenc.RoPE"),
        ("apply_rotary_pos_emb", "it is posenc.RoPE here"),
        ("RelativePositionBias", "it is posenc.T5Bias here"),
        ("yarn", "did you mean posenc.YaRN"),
    ],
)
def test_a_name_that_lives_elsewhere_is_said_to(name: str, home: str) -> None:
    with pytest.raises(AttributeError, match=home):
        getattr(posenc, name)


def test_every_home_that_is_named_has_what_it_is_said_to_have() -> None:
    for home, names in posenc._ELSEWHERE.items():
        module = importlib.import_module(home)
        assert all(hasattr(module, name) for name in names.split()), home
    assert set(posenc._OF_OTHERS.values()) <= set(posenc.__all__)
    assert not hasattr(posenc, "no_such_name_at_all")
    public = set(frequencies.RULES) | {"Frequencies"}
    assert public <= set(posenc._ELSEWHERE["posenc.frequencies"].split()) | set(posenc.__all__)


def test_no_message_puts_an_article_before_the_name_of_a_type() -> None:
    """It would say "got a int"; a message says "got a value of type int"."""
    for file in Path(posenc.__file__).parent.rglob("*.py"):
        assert not re.findall(r"\ban? \{type\(\w+\)\.__name__", file.read_text(encoding="utf-8")), file

"""What a hurried caller gives in the place of a tensor or a number: refused by name, or taken as what it is."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import posenc
from posenc import catalogue
from posenc.encoding import EmbeddingEncoding, ScoreEncoding
from posenc.frequencies import Custom
from posenc.queries_keys._rotation import Rotation

Q = torch.randn(1, 4, 5, 16, generator=torch.Generator().manual_seed(0))
X = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(1))
FOREIGN = {"ndarray": np.zeros((1, 4, 5, 16)), "list": [[1.0]], "None": None}
ROTATIONS: dict[str, Callable[[], Any]] = {
    "rope": lambda: posenc.RoPE(16),
    "bshd": lambda: posenc.RoPE(16, seq_dim=-3),
    "xpos": lambda: posenc.XPos(16),
    "axial": lambda: posenc.AxialRoPE(16),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ROTATIONS)
def test_queries_and_keys_that_are_no_tensors(name: str, kind: str) -> None:
    rotation, foreign = ROTATIONS[name](), FOREIGN[kind]
    for call in (
        lambda: rotation.on_queries_keys(foreign, Q),
        lambda: rotation.on_queries_keys(Q, foreign),
        lambda: rotation.on_queries_keys(Q, foreign, 0, k_positions=0),
        lambda: rotation.rotate(foreign),
        lambda: rotation.on_queries_keys_(Q.clone(), foreign),
    ):
        with pytest.raises(TypeError, match=f"got .*{kind} for (q|k|x), expected a tensor"):
            call()


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_attention_of_what_is_no_tensor(place: int, kind: str) -> None:
    inputs: list[Any] = [Q, Q, Q]
    inputs[place] = FOREIGN[kind]
    for encoding in (None, posenc.ALiBi(4)):
        with pytest.raises(TypeError, match=f"attention: got .*{kind} for {'qkv'[place]}, expected a tensor"):
            posenc.attention(*inputs, encoding, causal=True)


@pytest.mark.parametrize("name", ["mask", "documents", "sinks"])
@pytest.mark.parametrize("given", [[0, 1], np.zeros(4)], ids=["list", "ndarray"])
def test_what_restricts_attention_and_is_no_tensor(name: str, given: Any) -> None:
    with pytest.raises(TypeError, match=f"attention: got a value of type {type(given).__name__} for {name}, expected"):
        posenc.attention(Q, Q, Q, **{name: given})


def test_causal_is_true_or_false() -> None:
    for given in ("no", 1, None, torch.tensor(True)):
        with pytest.raises(TypeError, match=r"attention: got causal .*, expected True or False"):
            posenc.attention(Q, Q, Q, causal=given)  # type: ignore[arg-type]
    for encoding in (None, posenc.ALiBi(4)):
        expected = posenc.attention(Q, Q, Q, encoding, causal=True)
        assert torch.equal(posenc.attention(Q, Q, Q, encoding, causal=np.bool_(True)), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", FOREIGN)
def test_embeddings_that_are_no_tensor(kind: str) -> None:
    for encoding in (posenc.Sinusoidal(64), posenc.Learned(64, length=8)):
        with pytest.raises(TypeError, match=f"got .*{kind} for x, expected a tensor"):
            encoding.on_embeddings(FOREIGN[kind])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"x has shape \(64,\), expected \(batch, seq, dim\)"):
            encoding.on_embeddings(X[0, 0])
        assert encoding.on_embeddings(X[0]).shape == (5, 64)


@pytest.mark.parametrize("positions", [4, [0, 1], range(4), np.arange(4)], ids=lambda value: type(value).__name__)
def test_a_bias_of_positions_that_are_no_tensor(positions: Any) -> None:
    for encoding in (posenc.ALiBi(4), posenc.KERPLE(4), posenc.FIRE(4)):
        with pytest.raises(TypeError, match=f"positions: got a value of type {type(positions).__name__}, expected a"):
            encoding.bias(positions, positions)


@pytest.mark.parametrize("implementation", ["auto", "eager"])
def test_a_negative_position_is_told_to_be_shifted(implementation: Any) -> None:
    """It was told to make a longer table."""
    rope = posenc.RoPE(16, implementation=implementation)
    for positions in (torch.arange(-3, 2), torch.arange(-3, 2)[None], torch.arange(-3.0, 2.0)):
        with pytest.raises(ValueError, match=r"got (position )?-3.*, expected 0 or above; shift all positions by 3"):
            rope.on_queries_keys(Q, Q, positions)


@pytest.mark.parametrize(
    "made",
    [
        posenc.RoPE(np.int64(16)),  # type: ignore[arg-type]
        posenc.RoPE(16, frequencies=posenc.YaRN(np.float32(4), trained_length=np.int64(64))),  # type: ignore[arg-type]
        posenc.RoPE(16, frequencies=Custom(np.geomspace(1, 0.01, 8))),
        posenc.AxialRoPE(16, order=tuple(np.array([1, 0]))),
        posenc.T5Bias(np.int64(4)),  # type: ignore[arg-type]
        posenc.ALiBi(4, strength=np.float32(0.25)),  # type: ignore[arg-type]
        posenc.Compose(posenc.RoPE(np.int32(16)), posenc.Temperature("llama4", length=np.int64(8192), strength=0.1)),  # type: ignore[arg-type]
    ],
    ids=lambda encoding: type(encoding).__name__,
)
def test_numbers_of_numpy_are_written_as_json(made: posenc.Encoding) -> None:
    """A config that was read by NumPy or pandas has them."""
    data = json.loads(json.dumps(made.to_dict()))
    again = type(made).from_dict(data)
    assert again.to_dict() == made.to_dict()


@pytest.mark.parametrize(
    ("built", "name", "value"),
    [
        (posenc.RoPE(16), "frequencies", posenc.YaRN(4, trained_length=32)),
        (posenc.RoPE(16), "pairing", "interleaved"),
        (posenc.RoPE(16), "seq_dim", -3),
        (posenc.AxialRoPE(16), "frequencies", posenc.Geometric(base=100)),
        (posenc.FoPE(16, num_heads=2, trained_length=64), "trained_length", 128),
        (posenc.Sinusoidal(16), "frequencies", posenc.Geometric(base=100)),
        (posenc.embeddings.SinusoidalGrid(16), "frequencies", posenc.Geometric(base=100)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, posenc.Encoding) else str(value),
)
def test_a_setting_that_was_read_when_it_was_built_cannot_be_assigned(
    built: posenc.Encoding, name: str, value: object
) -> None:
    """The tables stayed as they were, and nothing said so."""
    before = repr(built)
    with pytest.raises(AttributeError, match=rf"got another {name} for an encoding that is built.*with {name}=\.\.\."):
        setattr(built, name, value)
    assert repr(built) == before


def test_the_implementation_can_be_assigned() -> None:
    rope = posenc.RoPE(16)
    rope.implementation = "eager"
    assert posenc.explain(rope.on_queries_keys, Q, Q).implementation == "eager"


NEEDED: dict[str, dict[str, Any]] = {
    "normalized": {"length": 8}, "learned": {"length": 8}, "tupe": {"length": 8},
    "mrope": {"sections": (1, 1)}, "fope": {"trained_length": 8}, "temperature": {"form": "log", "length": 8},
}  # fmt: skip
MADE: dict[str, Any] = {
    name: catalogue.make(name, dim=16, num_heads=4, **NEEDED.get(name, {})) for name in catalogue.names()
}


def readers(encoding: Any) -> list[Callable[[Any], Any]]:
    """What reads tensors of positions without a hook."""
    if isinstance(encoding, EmbeddingEncoding):
        return [encoding.codes]
    if isinstance(encoding, Rotation):
        return [encoding.phases, encoding.matrix]
    if isinstance(encoding, ScoreEncoding):
        return [lambda positions: encoding.bias(positions, positions)]
    return [encoding.temperature] if encoding.scales_scores else []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.complex64], ids=str)
@pytest.mark.parametrize("name", [name for name, encoding in MADE.items() if readers(encoding)])
def test_positions_of_a_dtype_that_skips_some_are_refused_by_what_reads_them(name: str, dtype: torch.dtype) -> None:
    """In bfloat16 the positions 256 and 257 had one code."""
    encoding = MADE[name]
    positions = torch.arange(4) if (encoding.coordinates if hasattr(encoding, "coordinates") else 1) in (1, None) else (
        posenc.positions.grid(*[2] * encoding.coordinates)[0]
    )  # fmt: skip
    for read in readers(encoding):
        read(positions)
        with pytest.raises(TypeError, match=f"positions: got a {dtype} tensor, expected a tensor of whole numbers"):
            read(positions.to(dtype))


def test_a_refused_dtype_is_told_from_where_on_it_skips_numbers() -> None:
    for dtype, last in ((torch.bfloat16, 256), (torch.float16, 2048)):
        assert torch.tensor(float(last)).to(dtype) == last
        assert torch.tensor(float(last + 1)).to(dtype).item() != last + 1
        with pytest.raises(TypeError, match=rf"above {last}: keep positions in int64, or call \.float\(\)"):
            posenc.Sinusoidal(16).on_embeddings(X[..., :16], torch.arange(5).to(dtype))


@pytest.mark.parametrize("given", ["x", None, 2.5, True])
def test_a_size_that_is_no_whole_number_is_a_wrong_type(given: Any) -> None:
    with pytest.raises(TypeError, match=f"grid: got size {given!r}, expected a whole number of at least 1"):
        posenc.positions.grid(2, given)
    with pytest.raises(ValueError, match="grid: got size 0, expected a whole number of at least 1"):
        posenc.positions.grid(2, 0)

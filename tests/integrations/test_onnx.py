"""ONNX: the official cases of RotaryEmbedding, and every encoding run by onnxruntime."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import posenc
from posenc.integrations.onnx import export
from posenc.kernels.rotate.op import rotate
from posenc.testing.candidate import Candidate
from posenc.testing.compiled import Layer

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# onnxscript and torch's exporter call functions that NumPy, onnx and copyreg call deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

DIM, HEADS = 32, 4
OPTIONS: dict[str, dict[str, Any]] = {
    **{"normalized": {"length": 40}, "learned": {"length": 40}, "tupe": {"length": 40}},
    **{"swin": {"window": (2, 20)}, "swin_v2": {"window": (2, 20), "width": 4}, "learned_grid": {"grid": (5, 8)}},
    **{"cope": {"length": 8}, "fire": {"width": 4}, "mrope": {"sections": (2, 1, 1)}},
    "fope": {"trained_length": 40},
    **{"temperature": {"form": "log", "length": 4}, "levit": {"window": (2, 20)}, "decomposed": {"window": (2, 20)}},
}
ROTATIONS: dict[str, tuple[posenc.Encoding, int]] = {  # and how many nodes RotaryEmbedding turn q and k
    "half": (posenc.RoPE(head_dim=8), 2),
    "interleaved": (posenc.RoPE(head_dim=8, pairing="interleaved"), 2),
    "the first channels": (posenc.RoPE(head_dim=8, rotary_dim=4), 2),
    "channels in between": (posenc.RoPE(head_dim=8, rotary_dim=4, rotary_start=2), 2),
    "xpos": (posenc.XPos(head_dim=8), 2),
    "mrope": (posenc.MRoPE(head_dim=8, sections=(2, 1, 1)), 2),
    "rates of each head": (posenc.MixedRoPE(head_dim=8, num_heads=HEADS), 0),
}


def official_cases(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[dict[str, Any], list[np.ndarray], np.ndarray]]:
    """The cases that onnx ships for RotaryEmbedding: attributes, inputs and the output."""
    from onnx.backend.test.case.node import rotaryembedding

    cases = {}

    def kept(node: Any, inputs: list[np.ndarray], outputs: list[np.ndarray], name: str) -> None:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        cases[name] = (attributes, inputs, outputs[0])

    monkeypatch.setattr(rotaryembedding, "expect", kept)
    for name in dir(rotaryembedding.RotaryEmbedding):
        if name.startswith("export"):
            getattr(rotaryembedding.RotaryEmbedding, name)()
    return cases


def test_the_official_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = official_cases(monkeypatch)
    assert len(cases) == 8
    for name, (attributes, inputs, expected) in cases.items():
        x, cos, sin, *positions = (torch.from_numpy(value) for value in inputs)
        heads = attributes.get("num_heads")
        by_head, token_dim = (x, 2) if heads is None else (x.unflatten(-1, (heads, -1)), 1)
        for implementation in ("auto", "eager"):
            turned, _ = rotate(
                by_head,
                by_head[:, :0] if token_dim == 2 else by_head[:, :, :0],
                cos,
                sin,
                positions=positions[0] if positions else None,
                token_dim=token_dim,
                pairing="interleaved" if attributes.get("interleaved") else "half",
                implementation=implementation,  # type: ignore[arg-type]
            )
            torch.testing.assert_close(turned.reshape(x.shape), torch.from_numpy(expected), msg=name)


def run(program: Any, *inputs: Tensor) -> list[Tensor]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    named = {node.name: x.numpy() for node, x in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(y) for y in session.run(None, named)]


class Rotates(nn.Module):
    def __init__(self, encoding: posenc.Encoding) -> None:
        super().__init__()
        self.encoding = encoding

    def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoding.on_queries_keys(q, k, positions)


@pytest.mark.parametrize("name", ROTATIONS)
def test_a_rotation_is_one_node(name: str) -> None:
    encoding, count = ROTATIONS[name]
    model = Rotates(encoding).eval()

    def inputs(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k = torch.randn(2, HEADS, tokens, 8), torch.randn(2, HEADS, tokens, 8)
        return q, k, torch.arange(tokens).expand(2, -1) + 3

    dynamic = tuple({axis: torch.export.Dim.DYNAMIC} for axis in (2, 2, 1))
    program = export(model, inputs(5), dynamic_shapes=dynamic)
    assert [node.op_type for node in program.model.graph].count("RotaryEmbedding") == count
    for tokens in (5, 9):
        given = inputs(tokens)
        with torch.no_grad():
            expected = model(*given)
        torch.testing.assert_close(run(program, *given), list(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", posenc.names())
@pytest.mark.parametrize("by", [export, torch.onnx.export])
def test_every_encoding_is_the_same_in_onnxruntime(name: str, by: Callable[..., Any]) -> None:
    candidate = Candidate(posenc.make(name, dim=DIM, num_heads=HEADS, **OPTIONS.get(name, {})), None)
    layer = Layer(candidate).eval()
    first, *others = (candidate.embeddings(candidate.length(n), dtype=torch.float32) for n in (6, 11, 40))
    program = by(layer, (first,), opset_version=23, dynamic_shapes=({1: torch.export.Dim.DYNAMIC},), verbose=False)
    for x in (first, *others):
        with torch.no_grad():
            expected = layer(x)
        torch.testing.assert_close(run(program, x)[0], expected, rtol=1e-5, atol=1e-5)


def test_an_opset_without_the_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 23"):
        export(nn.Identity(), (torch.zeros(1),), opset_version=18)

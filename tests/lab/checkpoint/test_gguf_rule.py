"""The rule of a GGUF file goes to the layers that it is for: transformers reads a base and no more."""

from pathlib import Path
from typing import Any

import pytest

from posenc import RoPE
from posenc.frequencies import Frequencies, Geometric, Linear, YaRN
from posenc.integrations.transformers import describe
from posenc.lab.checkpoint import open as opening

transformers = pytest.importorskip("transformers")
LINEAR = {"type": "linear", "factor": 8.0}
YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 8192}


def write(path: Path, arch: str, base: float, scaling: dict[str, Any]) -> Path:
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")
    writer = gguf.GGUFWriter(path, arch)
    whole = {"block_count": 6, "context_length": 32768, "embedding_length": 256}
    for key, value in {**whole, "attention.head_count": 4, "attention.sliding_window": 1024}.items():
        writer.add_uint32(f"{arch}.{key}", value)
    for key, value in {"freq_base": base, **{f"scaling.{key}": value for key, value in scaling.items()}}.items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        add(f"{arch}.rope.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("arch", "model_type", "scaling", "windowed", "others"),
    [
        ("gemma3", "gemma3_text", LINEAR, Geometric(1e4), Linear(8, base=1e6)),
        ("gemma3", "gemma3_text", {}, Geometric(1e4), Geometric(1e6)),
        ("gemma2", "gemma2", LINEAR, Linear(8, base=1e6), Linear(8, base=1e6)),
        ("qwen3", "qwen3", YARN, None, YaRN(4, trained_length=8192, base=1e6)),
    ],
)
def test_the_rule_goes_to_the_layers_that_it_is_for(
    tmp_path: Path,
    arch: str,
    model_type: str,
    scaling: dict[str, Any],
    windowed: Frequencies | None,
    others: Frequencies,
) -> None:
    path = write(tmp_path / "model.gguf", arch, 1e6, scaling)
    sizes = {"num_hidden_layers": 6, "hidden_size": 256, "num_attention_heads": 4, "head_dim": 64}
    # As transformers makes it of the file.
    config = transformers.AutoConfig.for_model(model_type, rope_theta=1e6, max_position_embeddings=32768, **sizes)
    described = describe(opening._with_rule_of(path, config))
    rules = {
        layer: group.rotation.frequencies
        for group in described
        for layer in group.layers
        if isinstance(group.rotation, RoPE)
    }
    assert rules[5] == others
    assert rules[0] == (others if windowed is None else windowed)

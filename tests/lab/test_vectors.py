"""Golden vectors are what transformers' own modules compute, and a port that differs is told how."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import posenc
from posenc.lab.run.errors import RunError
from posenc.lab.vectors import verify, write

POSITIONS = (0, 1, 4095, 131071)
BASE: dict[str, Any] = {
    **{"hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 6, "max_position_embeddings": 131072},
    "rope_theta": 500000.0,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "llama": ({"rope_scaling": YARN}, "Llama"),
    "gpt_neox": ({"rotary_pct": 0.25, "rotary_emb_base": 10000}, "GPTNeoX"),
    "cohere": ({"layer_norm_eps": 1e-5}, "Cohere"),
    "glm4": ({"head_dim": 64, "partial_rotary_factor": 0.5}, "Glm4"),
    "gemma3_text": ({"head_dim": 64, "sliding_window": 512, "sliding_window_pattern": 6}, "Gemma3"),
    "qwen3_vl_text": (
        {"head_dim": 128, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        "Qwen3VLText",
    ),
}


def theirs(model_type: str, keys: dict[str, Any], name: str) -> Callable[..., Any]:
    """transformers' rotary module and function, as a port would be written."""
    transformers = pytest.importorskip("transformers")
    import importlib

    config = transformers.CONFIG_MAPPING[model_type].from_dict({**BASE, **keys, "model_type": model_type})
    module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    rotary = getattr(module, f"{name}RotaryEmbedding")(config).double()
    kinds = getattr(config, "layer_types", None)

    def rotate(q: Tensor, k: Tensor, positions: Tensor, layer: int) -> Any:
        ids = positions[None] if name != "Qwen3VLText" else positions[None, None].expand(3, 1, -1)
        options = {"layer_type": kinds[layer]} if hasattr(rotary, "sliding_attention_inv_freq") else {}
        cos, sin = rotary(q, ids, **options)
        width = cos.shape[-1]
        if model_type == "gpt_neox":  # its attention splits the head itself
            turned = module.apply_rotary_pos_emb(q[..., :width], k[..., :width], cos, sin)
            return [torch.cat((new, old[..., width:]), dim=-1) for new, old in zip(turned, (q, k), strict=True)]
        return module.apply_rotary_pos_emb(q, k, cos, sin)

    return rotate


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", CASES)
def test_the_vectors_are_what_transformers_computes(model_type: str, tmp_path: Path) -> None:
    keys, name = CASES[model_type]
    (tmp_path / "config.json").write_text(json.dumps({**BASE, **keys, "model_type": model_type}))
    written = write(tmp_path, tmp_path / "out", POSITIONS)
    verdicts = verify(tmp_path / "out", theirs(model_type, keys, name))
    assert len(verdicts) == len(written["kinds"]) == (2 if model_type == "gemma3_text" else 1)
    assert not any(verdict.differs for verdict in verdicts), [verdict.line() for verdict in verdicts]


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({**BASE, "model_type": "llama", "rope_scaling": YARN}))
    write(tmp_path, tmp_path / "out", (0, 1, 17, 4095))
    return tmp_path / "out"


RULE = posenc.YaRN(4.0, trained_length=32768, base=500000.0)


@pytest.mark.parametrize(
    ("rope", "shift", "words"),
    [
        (posenc.RoPE(64, frequencies=RULE), 0, ""),
        (posenc.RoPE(64, frequencies=RULE, pairing="interleaved"), 0, "pairs as 'interleaved', expected 'half'"),
        (posenc.RoPE(64, frequencies=posenc.Geometric(500000.0)), 0, "plain rates of base 500000 and no factor"),
        (
            posenc.RoPE(64, frequencies=posenc.YaRN(4.0, trained_length=32768, base=500000.0, attention_factor=1.0)),
            0,
            "lack the factor 1.13863",
        ),
        (posenc.RoPE(64, frequencies=RULE), 1, r"positions are \+1"),
        (None, 0, "leaves q and k unrotated"),
    ],
)
def test_a_port_is_told_what_it_does_wrong(llama: Path, rope: Any, shift: int, words: str) -> None:
    import re

    def port(q: Tensor, k: Tensor, positions: Tensor) -> Any:
        return (q, k) if rope is None else rope.on_queries_keys(q, k, positions + shift)

    (verdict,) = verify(llama, port)
    assert verdict.differs == bool(words)
    assert re.search(words, verdict.line())


def test_what_is_in_the_files(llama: Path) -> None:
    words = json.loads((llama / "vectors.json").read_text())
    numbers = np.load(llama / "vectors.npz")
    (kind,) = words["kinds"]
    assert kind["pairs"] == "pair c is channels (rotary_start + c, rotary_start + c + rotary_dim / 2)"
    assert kind["attention_factor"] == pytest.approx(1.138629, abs=1e-6)
    np.testing.assert_allclose(numbers["kind0.cos"][0], kind["attention_factor"])
    assert numbers["kind0.q"].dtype == np.float32
    assert numbers["kind0.q_after"].shape == (1, 2, 4, 64)
    assert "after[a] = before[a] cos - before[b] sin" in words["formula"]


def test_layers_without_rotation_and_temperatures_are_written(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = {**BASE, "model_type": "llama4_text", "num_hidden_layers": 4, "head_dim": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    written = write(tmp_path, tmp_path / "out", (0, 8191, 16384))
    rotated, still = written["kinds"]
    assert (rotated["rotates"], still["rotates"], still["layers"]) == (True, False, (3,))
    np.testing.assert_allclose(np.load(tmp_path / "out" / "vectors.npz")["kind1.temperature"][0], 1.0)


def test_what_cannot_be_written_or_compared_is_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not empty"):
        write(tmp_path, llama, (0,))
    with pytest.raises(ValueError, match="at least one, from 0 on"):
        write(tmp_path, tmp_path / "new", (-1,))
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "bloom", "hidden_size": 64, "n_head": 4, "n_layer": 2})
    )
    with pytest.raises(ValueError, match="no layers that rotate"):
        write(tmp_path, tmp_path / "new", (0,))
    assert not (tmp_path / "new").exists()
    with pytest.raises(RunError, match=r"there is no .*vectors\.json; give a folder that posenc vectors wrote"):
        verify(tmp_path, lambda q, k, positions: (q, k))
    with pytest.raises(ValueError, match="raised TypeError"):
        verify(llama, lambda q, k, positions: q + None)
    with pytest.raises(ValueError, match="expected q and k of"):
        verify(llama, lambda q, k, positions: (q,))


def test_a_mistake_that_is_not_known_says_where_to_look(llama: Path) -> None:
    (verdict,) = verify(llama, lambda q, k, positions: (2 * q, 3 * k))
    assert verdict.line().endswith(
        "none of the common mistakes gives these numbers; compare the formula with that in vectors.json"
    )


def test_json_says_whether_it_differs_and_nan_is_named(llama: Path) -> None:
    (wrong,) = verify(llama, lambda q, k, positions: (q * float("nan"), k))
    assert wrong.as_data()["differs"]
    assert wrong.line().endswith("its result holds NaN, expected finite numbers")
    (still,) = verify(llama, lambda q, k, positions: (q, k))
    assert still.as_data() == {
        **{"name": "kind0", "layers": still.layers, "errors": still.errors, "allowed": still.allowed},
        **{"reason": "it leaves q and k unrotated", "differs": True},
    }

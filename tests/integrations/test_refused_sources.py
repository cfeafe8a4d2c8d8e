"""What stands in the place of a model, a config or a file, and is none: refused with what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import posenc
from posenc.integrations import gguf
from posenc.integrations.transformers import accelerate, check, describe, extend, replace, to_transformers

transformers = pytest.importorskip("transformers")
RULE = posenc.YaRN(4, trained_length=2048)
ON_MODELS: list[Callable[[Any], object]] = [
    lambda model: extend(model, RULE), accelerate, check, lambda model: replace(model, posenc.NoPE()),
]  # fmt: skip


@pytest.mark.parametrize("call", ON_MODELS)
def test_what_is_to_be_loaded_first_is_told_so(call: Callable[[Any], object]) -> None:
    with pytest.raises(
        TypeError, match=r"got the class LlamaForCausalLM, .*; load one: LlamaForCausalLM\.from_pretrained"
    ):
        call(transformers.LlamaForCausalLM)
    for given in ("a/path", transformers.LlamaConfig()):
        with pytest.raises(
            TypeError, match="expected a model of transformers; load it first: a path, a name or a config"
        ):
            call(given)


@pytest.mark.parametrize("name", ["LlamaConfig", "LlamaForCausalLM"])
def test_a_class_is_no_config(name: str) -> None:
    """A config class ended in a message of Python about a missing self."""
    with pytest.raises(TypeError, match=rf"describe: got the class {name}, expected a model.*; make one: {name}\("):
        describe(getattr(transformers, name))


def test_a_length_in_quotes_is_no_length() -> None:
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=8
    )
    model = transformers.LlamaForCausalLM(config)
    with pytest.raises(ValueError, match="extend: got length '8192', expected a whole number"):
        extend(model, RULE, length="8192")  # type: ignore[arg-type]
    assert model.config.rope_parameters["rope_type"] == "default"


@pytest.mark.parametrize("given", [None, "rope"])
def test_what_is_no_description_is_not_written(given: Any) -> None:
    with pytest.raises(TypeError, match=r"to_transformers: got .* as described, expected .*; give an object, such as"):
        to_transformers(given)
    with pytest.raises(
        TypeError, match=r"to_transformers: got 'config\.json' as config, expected an instance of Mapping"
    ):
        to_transformers(posenc.RoPE(16), "config.json")  # type: ignore[arg-type]


def test_a_path_without_a_gguf_file(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    with pytest.raises(ValueError, match="there is no file of this name, expected a GGUF file"):
        gguf.describe(tmp_path / "none.gguf")
    with pytest.raises(ValueError, match="there is a folder of this name, expected a GGUF file"):
        gguf.describe(tmp_path)
    with pytest.raises(TypeError, match="got a value of type NoneType, expected the path of a GGUF file"):
        gguf.describe(None)  # type: ignore[arg-type]

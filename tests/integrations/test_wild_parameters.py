"""Rotary parameters in the wrong shape for their model, numbers that JSON has none for, and borrowed model types."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from posenc import RoPE
from posenc.frequencies import Geometric
from posenc.integrations.transformers import Description, describe
from posenc.integrations.transformers.description.config_class import default_parameters
from posenc.integrations.transformers.description.layers import is_nested

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_hidden_layers": 2,
    "max_position_embeddings": 32768,
}
FLAT = {"rope_type": "linear", "factor": 8.0, "rope_theta": 123456.0}
KINDS = ["sliding_attention", "full_attention"]


def rates(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The rates of the rotary module of a model, by kind of layer; the code fails where it cannot have them."""
    built = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    module = importlib.import_module(type(built).__module__.replace("configuration_", "modeling_"))
    cls = next(cls for name, cls in vars(module).items() if name.endswith("RotaryEmbedding") and "Vision" not in name)
    return {
        name.removesuffix("_inv_freq"): rate.double() for name, rate in cls(built).named_buffers() if "orig" not in name
    }


def agrees(described: Description, theirs: dict[str, torch.Tensor]) -> None:
    for group in described:
        assert isinstance(group.encoding, RoPE)
        ours = torch.from_numpy(group.encoding.frequencies.inv_freq(group.encoding.rotary_dim))
        torch.testing.assert_close(theirs[group.label], ours, rtol=3e-6, atol=0)


@pytest.mark.transformers_as_pinned("olmo3")
@pytest.mark.parametrize("model_type", ["gemma3_text", "olmo3", "gemma3n_text"])
def test_flat_parameters_that_a_class_leaves_beside_those_by_kind_are_not_read(model_type: str) -> None:
    """Gemma 3's class fills in both kinds of layer, and its model reads these: what the file says does nothing."""
    config = {"model_type": model_type, **SIZES, "layer_types": KINDS, "rope_parameters": dict(FLAT)}
    described = describe(config)
    assert [group.label for group in described] == KINDS
    agrees(described, rates(config))
    (said,) = described.unread
    assert said.startswith("rope_parameters: factor, rope_theta, rope_type, besides those by kind of layer")


@pytest.mark.transformers_as_pinned("laguna", "mellum")
@pytest.mark.parametrize("model_type", ["gemma4_text", "laguna", "mellum"])
def test_flat_parameters_for_a_model_that_reads_them_by_kind_alone_are_refused(model_type: str) -> None:
    config = {"model_type": model_type, **SIZES, "layer_types": KINDS, "rope_parameters": dict(FLAT)}
    with pytest.raises(KeyError):
        rates(config)
    with pytest.raises(
        ValueError, match=r"have no kinds of layers, and the model reads one entry for each kind; write"
    ):
        describe(config)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_flat_parameters_of_every_model_that_has_them_by_kind() -> None:
    """Each is refused where the model's own code fails, or read as that code reads it."""
    checked, differing = 0, []
    for model_type in sorted(transformers.CONFIG_MAPPING):
        if not is_nested(default_parameters(model_type)):
            continue
        config = {"model_type": model_type, "rope_parameters": dict(FLAT)}
        try:
            theirs = rates(config)
        except Exception:  # whatever its class or its module says
            theirs = {}
        try:
            agrees(describe(config), theirs)
        except ValueError:
            if theirs:
                differing.append(model_type)
        except (AssertionError, KeyError):
            differing.append(model_type)
        checked += 1
    assert differing == []
    assert checked > 15


def test_parameters_by_kind_for_a_model_that_has_one_rule_are_named() -> None:
    by_kind = {"full_attention": {"rope_type": "default", "rope_theta": 1e6}}
    config = {"model_type": "llama", **SIZES, "layer_types": ["full_attention"] * 2, "rope_parameters": by_kind}
    (group,) = describe(config)
    assert group.encoding.frequencies == Geometric(1e4)
    assert "not read: full_attention, which the rule 'default' does not have" in group.notes


@pytest.mark.parametrize("as_file", [True, False])
def test_numbers_that_transformers_5_writes_as_records(tmp_path: Path, as_file: bool) -> None:
    """It writes infinity as {"__float__": "Infinity"}; a Mamba's bound of its steps is one."""
    config = {
        "model_type": "bamba",
        **SIZES,
        "attn_layer_indices": [1],
        "time_step_limit": [0.0, {"__float__": "Infinity"}],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    described = describe(tmp_path if as_file else config)
    assert [group.layers for group in described] == [(1,)]
    assert described.unread == ()
    llama = {"model_type": "llama", **SIZES}
    for bad, shown in (("Infinity", "inf"), ("NaN", "nan")):
        with pytest.raises(ValueError, match=f"rope_theta is {shown}, of type float, expected a finite number"):
            describe({**llama, "rope_theta": {"__float__": bad}})
    with pytest.raises(ValueError, match=r"rope_theta is .*of type dict, expected a finite number"):
        describe({**llama, "rope_theta": {"__float__": "large"}})


def test_a_model_type_that_is_borrowed_for_other_code_is_said_to_be() -> None:
    """Draft models (EAGLE-3, DFlash) say llama or qwen3, and run code that transformers does not have."""
    draft = {"model_type": "llama", **SIZES, "rope_theta": 1e6, "architectures": ["LlamaForCausalLMEagle3"]}
    (group,) = describe(draft)
    assert any("architectures says LlamaForCausalLMEagle3" in note for note in group.notes)
    for known in (["LlamaForCausalLM"], [], None):
        (group,) = describe({**draft, "architectures": known})
        assert group.notes == ()
    # One for Qwen2.5-VL: transformers' Llama has no sections, and cannot run it.
    (group,) = describe({**draft, "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]}})
    assert group.encoding.frequencies == Geometric(1e6)
    assert group.notes[0].startswith("mrope_section is not read: llama of transformers has one position")


def test_a_trained_length_beside_the_parameters_that_its_class_does_not_read() -> None:
    config = {"model_type": "qwen2", **SIZES, "rope_theta": 1e6, "original_max_position_embeddings": 8192}
    with pytest.raises(
        ValueError, match=r"is 32768 in the rotary parameters, max_position_embeddings where none .* 8192"
    ):
        describe({**config, "rope_scaling": {"type": "yarn", "factor": 4.0}})


@pytest.mark.parametrize("base", [[], [1e4], [1e4] * 40])
def test_a_list_of_bases_for_a_tower_of_images_is_refused(base: list[float]) -> None:
    tower = {"model_type": "minimax_m3_vl_vision", "hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    text = {"model_type": "llama", **SIZES}
    whole = {"model_type": "llava", "text_config": text, "vision_config": {**tower, "rope_theta": base}}
    described = describe(whole)
    assert [group.part for group in described] == ["text_config"]
    assert any("rope_theta" in said for said in described.unread)

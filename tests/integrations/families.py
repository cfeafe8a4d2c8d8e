"""A small random instance of every model type of the installed transformers that rotates."""

import copy
import importlib
import inspect
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integrations.family_inputs import only_tokens, to_generate
from tests.integrations.family_sizes import small
from torch import nn


def rotary_model_types() -> list[str]:
    """Model types whose code has a function that rotates, or a module that makes tables for it."""
    import transformers

    found = []
    for model_type in sorted(transformers.CONFIG_MAPPING.keys()):
        module = modeling(model_type)
        if module is None or model_class(model_type) is None:
            continue
        if transformers.CONFIG_MAPPING[model_type].model_type != model_type:  # another name of that one
            continue
        source = inspect.getsource(module)
        if re.search(r"def _?(vision_)?apply_(rotary|multi\w*rope)|class \w*R(otary|OPE|ope)\w*Emb", source):
            found.append(model_type)
    return found


def modeling(model_type: str) -> Any:
    import transformers

    name = transformers.CONFIG_MAPPING[model_type].__module__.replace("configuration_", "modeling_")
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def model_class(model_type: str) -> Any:
    import transformers

    config = transformers.CONFIG_MAPPING[model_type]
    for mapping in (
        transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
        transformers.MODEL_FOR_MULTIMODAL_LM_MAPPING,
        transformers.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
        transformers.MODEL_MAPPING,
    ):
        try:
            found = mapping[config]
        except (KeyError, ValueError):  # none, or one that the installed version names and lacks
            continue
        return found[0] if isinstance(found, tuple) else found
    return None


def build(model_type: str) -> Any:
    """The model, with weights in which positions matter."""
    import transformers
    from transformers.modeling_outputs import MoeCausalLMOutputWithPast

    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
    if model_type == "llama4" and not hasattr(MoeCausalLMOutputWithPast, "image_outputs"):
        MoeCausalLMOutputWithPast.image_outputs = None  # outcomes.FAULTS
    cls = transformers.CONFIG_MAPPING[model_type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = cls(**small(cls, model_type))
        config._attn_implementation = "eager"
        torch.manual_seed(0)
        model = model_class(model_type)._from_config(config, attn_implementation="eager").eval()
    if hasattr(getattr(model, "generation_config", None), "max_denoising_steps"):
        model.generation_config.max_denoising_steps = 2
    if sum(parameter.numel() for parameter in model.parameters()) > 20_000_000:
        raise ValueError("still large")
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.15)
        elif "norm" not in name.lower():
            nn.init.normal_(parameter, std=0.05)
    return model


def run(model: Any, given: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Every tensor that a model gives, but for its cache."""
    torch.manual_seed(0)
    return _tensors(model(**copy.deepcopy(given)))


def _tensors(value: Any, name: str = "output") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {name: value}
    parts = value if isinstance(value, Mapping) else dict(enumerate(value)) if isinstance(value, (list, tuple)) else {}
    return {key: tensor for k, part in parts.items() for key, tensor in _tensors(part, f"{name}.{k}").items()}


def outputs(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Everything that must not change: outputs, gradients and what is generated in each way that the model knows."""
    found: dict[str, Any] = {}
    hidden = 5 if only_tokens(given) else 1  # an image is seen whole
    left = _masks(model, given, hidden)
    with torch.no_grad():
        found["outputs"] = run(model, given)
        if left:
            found["padded"] = run(model, given | left)
    model.zero_grad()
    made = [tensor for tensor in run(model, given).values() if tensor.requires_grad]
    draw = torch.Generator().manual_seed(1)
    sum((tensor * torch.randn(tensor.shape, generator=draw)).sum() for tensor in made).backward()
    found["gradients"] = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    if not model.can_generate():
        return found
    given = to_generate(model, given) | {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    whole, left = _masks(model, given, 0), _masks(model, given, hidden)
    ways: dict[str, dict[str, Any]] = {
        "greedy": whole,
        **({"left padding": left} if left else {}),
        "beams": {"num_beams": 3, **whole},
        "static cache": {"cache_implementation": "static", **whole},
    }
    for name, options in ways.items():
        torch.manual_seed(0)
        try:
            with torch.no_grad():
                result = model.generate(
                    **copy.deepcopy(given | options),
                    return_dict_in_generate=True,
                    output_logits=True,
                    disable_compile=True,
                )
        except Exception as error:  # some families have no static cache, or no beams
            found[name] = type(error).__name__
            continue
        found[name] = _tensors(result)
    return found


def _masks(model: Any, given: dict[str, Any], hidden: int) -> dict[str, torch.Tensor]:
    """A mask that hides the first tokens of the second row, where the model knows masks."""
    ids = given.get("input_ids")
    if ids is None or ids.ndim != 2 or "attention_mask" not in inspect.signature(model.forward).parameters:
        return {}
    mask = torch.ones_like(ids)
    mask[1, :hidden] = 0
    return {"attention_mask": mask}


def loaded(model: Any, folder: Path, given: dict[str, Any]) -> dict[str, torch.Tensor] | str:
    """What a new model gives that is made from a saved one; or what transformers says to that."""
    try:
        new = type(model).from_pretrained(folder, attn_implementation="eager")
    except (RuntimeError, ImportError) as error:
        return type(error).__name__
    with torch.no_grad():
        return run(new, given)


def compiled(model: Any, given: dict[str, Any]) -> dict[str, torch.Tensor] | str:
    """What a model gives that is compiled in one graph; or the error if it cannot be."""
    torch.compiler.reset()
    without_cache = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    try:
        with torch.no_grad():
            return run(torch.compile(model, backend="eager", fullgraph=True), given | without_cache)
    except Exception as error:  # dynamo, and what it runs, has many
        return type(error).__name__


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """How far the outputs are apart, of their largest value; 0 for the same bits."""
    assert before.keys() == after.keys()
    return {name: difference(before[name], after[name]) for name in before}


def difference(a: dict[str, torch.Tensor] | str, b: dict[str, torch.Tensor] | str) -> float:
    if isinstance(a, str) or isinstance(b, str):
        return 0.0 if a == b else math.inf
    assert a.keys() == b.keys()
    pairs = [(value, b[key]) for key, value in a.items() if value.numel()]
    if all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in pairs):
        return 0.0
    top = max(float(x.abs().nan_to_num().max()) for x, _ in pairs)
    return max(float((x - y).abs().nan_to_num().max()) for x, y in pairs) / top

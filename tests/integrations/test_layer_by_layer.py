"""Each layer of a live model turns its queries and keys as describe says: slice, pairing, sign, rates, or not at all.

Each attention is called twice with what it got in a run of the whole: as it is, and with functions that change nothing
in the place of those that rotate. The products of the queries and keys that it ends up with are compared with those
that posenc's encoding of that layer makes from the unrotated ones.
"""

import inspect
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.integrations import families
from tests.integrations.family_inputs import inputs, tokens
from torch import Tensor, nn

from posenc import Compose, MRoPE, NoPE, RoPE
from posenc.integrations.transformers import describe
from posenc.integrations.transformers.live.sites import Site, find_sites

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

#: One of each: slices, pairings, signs, kinds of layers, layers without rotation, several bases.
QUICK = (
    *("llama", "gpt_neox", "glm4", "cohere2", "deepseek_v3", "gemma3_text", "gemma4_text", "gpt_oss"),
    *("llama4_text", "minimax_m2", "modernbert", "nanochat", "olmo3", "phi3", "qwen2_vl_text", "qwen3_next", "smollm3"),
    *("bamba", "exaone4", "lfm2", "mistral4", "recurrent_gemma", "mllama"),
)


class CapturedError(Exception):
    """What an attention was about to multiply."""


def capture(module: Any, query: Tensor, key: Tensor, *_: Any, **__: Any) -> Any:
    raise CapturedError(query, key)


def unchanged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function in the place of one that rotates, which gives back what it was given."""

    def identity(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        names = list(inspect.signature(function).parameters)
        second = kwargs.get(names[1]) if len(names) > 1 else None
        if second is None and args and names[1] in ("k", "key", "xk", "key_states"):
            second = args[0]
        return x if names[1] not in ("k", "key", "xk", "key_states") else (x, second)

    return identity


def products(site: Site, args: Any, kwargs: Any, rotate: Callable[[Callable[..., Any]], Any]) -> tuple[Tensor, Tensor]:
    names = {name: rotate(function) for name, function in site.functions} | {"eager_attention_forward": capture}
    kwargs = kwargs | {name: None for name in ("past_key_values", "past_key_value", "cache") if name in kwargs}
    try:
        site.rebuilt(names).__get__(site.module)(*args, **kwargs)
    except CapturedError as found:
        return found.args
    raise NotImplementedError


def compared(model: Any, tokens: dict[str, Any]) -> dict[str, float]:
    """The largest difference of the products of each attention that can be asked, as a share of the largest product."""
    described = describe(model.config)
    configs = {"": model.config} | {
        part: model.config.get_text_config() if part == "text_config" else getattr(model.config, part, None)
        for part in {group.part for group in described}
        if part
    }
    sites = [site for site in find_sites(model) if site.method == "forward"]
    calls: dict[str, tuple[Any, Any]] = {}
    hooks = [
        site.module.register_forward_pre_hook(
            lambda module, args, kwargs, name=site.name: calls.setdefault(name, (args, dict(kwargs))) and None,
            with_kwargs=True,
        )
        for site in sites
    ]
    with torch.no_grad():
        model(**tokens)
    for hook in hooks:
        hook.remove()
    errors = {}
    for site in sites:
        config, index = getattr(site.module, "config", None), getattr(site.module, "layer_idx", None)
        numbers = re.findall(r"\.(\d+)\.", f".{site.name}.")
        index = int(numbers[-1]) if index is None and numbers else index
        parts = [part for part, own in configs.items() if own is config]
        groups = [group for group in described if group.part in parts and index in group.layers]
        if site.name not in calls or len(groups) != 1:
            continue
        encoding = groups[0].encoding.parts[0] if isinstance(groups[0].encoding, Compose) else groups[0].encoding
        if not isinstance(encoding, (RoPE, MRoPE, NoPE)):
            continue
        args, kwargs = calls[site.name]
        with torch.no_grad():
            try:
                q, k = products(site, args, kwargs, lambda function: function)
                plain_q, plain_k = products(site, args, kwargs, unchanged)
            except NotImplementedError:
                continue
        if q.shape[-2] == k.shape[-2]:  # cross-attention has no angles
            errors[site.name] = difference(encoding, (q, k), (plain_q, plain_k))
    return errors


def difference(encoding: Any, theirs: tuple[Tensor, Tensor], plain: tuple[Tensor, Tensor]) -> float:
    if not isinstance(encoding, NoPE):
        plain = encoding.on_queries_keys(*(x.float() for x in plain), torch.arange(plain[0].shape[-2]))
    scores = []
    for q, k in (theirs, plain):
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        scores.append(q.double() @ k.double().mT)
    return float((scores[0] - scores[1]).abs().max() / scores[0].abs().max())


def check(model_type: str) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = families.build(model_type)
        for module in model.modules():  # what Mistral Large 4 learns besides is as its own code makes it at first
            if type(module).__name__.endswith("SoftmaxScaling"):
                nn.init.zeros_(module.scale)
                nn.init.ones_(module.bias)
            if isinstance(getattr(module, "alpha", None), nn.Parameter) and hasattr(module, "inv_freq"):
                nn.init.zeros_(module.alpha)
        return compared(model, given(model))


def given(model: Any) -> dict[str, Any]:
    """Tokens alone, whose positions are known; or sounds and the like, if it takes no tokens."""
    accepted = inspect.signature(model.forward).parameters
    if "input_ids" not in accepted:
        return inputs(model)
    names = ["input_ids", *(["decoder_input_ids"] if getattr(model.config, "is_encoder_decoder", False) else [])]
    found: dict[str, Any] = {name: tokens() for name in names if name in accepted}
    return found | ({"use_cache": False} if "use_cache" in accepted else {})


#: What transformers 5.6, the oldest that is promised, does otherwise than the pinned one.
IN_OLD = {
    "bamba": "it rotates all of a head there, whatever share its config says",
    "qwen2_vl_text": "its attention cannot be called alone there, so that nothing is compared",
    "recurrent_gemma": "no call of a function that rotates is found in its code there",
}


@pytest.mark.parametrize("model_type", QUICK)
def test_a_layer_turns_as_described(model_type: str) -> None:
    if model_type in IN_OLD and tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 7):
        pytest.skip(IN_OLD[model_type])
    errors = check(model_type)
    assert errors
    assert {name: error for name, error in errors.items() if error > 1e-5} == {}


#: Where the products differ by something else than the rotation.
DIFFER = {
    "timesfm2_5": "a learned scale for each channel is multiplied after the rotation",
    "dory": "a learned scale for each channel is multiplied after the rotation",
    "hy_v4": "the module pairs halves of weights that are stored for neighbours; the description says so (FAULTS)",
}


@pytest.mark.slow
def test_every_layer_that_can_be_asked_turns_as_described() -> None:
    differing, asked = {}, 0
    for model_type in families.rotary_model_types():
        try:
            errors = check(model_type)
        except Exception:  # it takes other things than tokens, or is no encoding of posenc
            continue
        asked += bool(errors)
        if bad := {name: error for name, error in errors.items() if error > 1e-5}:
            differing[model_type] = bad
    assert differing.keys() <= DIFFER.keys(), differing
    assert asked > 190

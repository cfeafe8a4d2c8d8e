"""posenc's fused rotation in a live model."""

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from posenc.integrations.patch import Patch
from posenc.integrations.transformers.live.check import warn_of_findings
from posenc.integrations.transformers.live.exact_tables import exact_tables
from posenc.integrations.transformers.live.pretrained import pretrained
from posenc.integrations.transformers.live.sites import Site, find_sites, run, with_sites
from posenc.integrations.transformers.rotations.adapter import posenc_function
from posenc.integrations.transformers.rotations.form import Form
from posenc.integrations.transformers.rotations.recognise import pairs, recognise

Numerics = Literal["transformers", "exact"]

#: Models whose two channels of a pair may turn by different angles, which is no rotation.
_NO_ROTATION = {"hunyuan_vl_text": "the two channels of a pair read different coordinates of an image token"}


def accelerate(model: Any, *, numerics: Numerics = "transformers", inputs: Mapping[str, Any] | None = None) -> Patch:
    """Make a live model use posenc's fused rotation, forward and backward.

    In this model alone, posenc replaces the function that the attention calls to rotate queries and keys. Weights,
    config, caches and saved files do not change. First posenc calls the model's function on random numbers, to see how
    it rotates. Then it runs the model once on ``inputs``, makes every call with both functions, and compares the
    results. If all agree, it replaces the function.

    Args:
        model: a model of transformers, or one that wraps it (PEFT). Call this before ``torch.compile``.
        numerics: "transformers" uses the model's own tables: logits and gradients are equal bit for bit in float32. In
            bfloat16 and float16 they are equal within the model's rounding, which rounds each product. "exact" computes
            the tables in float64 and keeps them in float32, so that angles at long positions are right (and differ from
            the model's own).
        inputs: arguments of the model for the run that compares; by default five tokens. Parts that the run does not
            reach, such as a vision tower, do not change; ``Patch.description`` lists them.

    Returns:
        A :class:`Patch`.

    Raises:
        TypeError: no model of transformers.
        ValueError: a model without rotation, or with an unknown one; the error gives the reason, and the model is
            unchanged.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> model = LlamaForCausalLM(LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        ...                                      num_attention_heads=4, vocab_size=16))
        >>> ids = torch.arange(8)[None]
        >>> before = model(ids).logits
        >>> with accelerate(model) as patch:
        ...     bool((model(ids).logits == before).all())
        True
        >>> patch
        Patch('accelerate LlamaForCausalLM: 1 attention', undone)
    """
    inner: Any = pretrained(model, "accelerate")
    if numerics not in get_args(Numerics):
        raise ValueError(f"accelerate: got numerics {numerics!r}, expected one of {get_args(Numerics)}.")
    warn_of_findings(inner, "accelerate")
    refuse = f"accelerate: {type(inner).__name__} cannot be accelerated: "
    try:
        sites = find_sites(inner)
        forms, recognition = _forms(sites)
        called, tables = _compare(inner, sites, forms, recognition, inputs)
    except ValueError as error:
        raise ValueError(f"{refuse}{error}; nothing was changed.") from error
    kinds = {(type(site.module), site.method) for site in called}
    chosen = [site for site in sites if (type(site.module), site.method) in kinds]
    left = sorted({type(site.module).__name__ for site in sites if site not in chosen})
    count = f"{len(chosen)} attention{'s' if len(chosen) > 1 else ''}"
    patch = Patch(inner, f"accelerate {type(inner).__name__}: {count}" + (f"; as before: {left}" if left else ""))
    try:
        if numerics == "exact":
            exact_tables(patch, inner, tables)
        replaced: dict[Any, Callable[..., Any]] = {}
        ours = {function: posenc_function(form, keeps_dtype=numerics == "exact") for function, form in forms.items()}
        for site in chosen:
            key = (site.code, site.functions)
            if key not in replaced:
                replaced[key] = site.rebuilt({name: ours[function] for name, function in site.functions})
            patch.assign(site.module, site.method, MethodType(replaced[key], site.module))
    except ValueError as error:
        patch.roll_back()
        raise ValueError(f"{refuse}{error}; nothing was changed.") from error
    return patch.commit()


def _forms(sites: list[Site]) -> tuple[dict[Callable[..., Any], Form], dict[Callable[..., Any], str]]:
    """The form of each function, and of those without one why."""
    forms, unknown = {}, {}
    for function in {function for site in sites for _, function in site.functions}:
        try:
            forms[function] = recognise(function)
        except ValueError as error:
            unknown[function] = str(error)
    if not forms:
        raise ValueError("; ".join(unknown.values()))
    return forms, unknown


def _compare(
    model: Any,
    sites: list[Site],
    forms: Mapping[Callable[..., Any], Form],
    unknown: Mapping[Callable[..., Any], str],
    inputs: Mapping[str, Any] | None,
) -> tuple[list[Site], list[nn.Module]]:
    """Run the model with both rotations at every site: the sites that it reached, and the modules with tables."""
    reached: list[Site] = []
    tables: list[nn.Module] = []
    for module in model.modules():
        kind = str(getattr(getattr(module, "config", None), "model_type", ""))
        if kind in _NO_ROTATION:
            raise ValueError(f"in {kind!r} {_NO_ROTATION[kind]}, which is no rotation")
    hooks = [
        module.register_forward_hook(lambda module, *_: tables.append(module))
        for module in model.modules()
        if "otary" in type(module).__name__
    ]
    try:
        with with_sites(sites, lambda site, f: _both(f, forms.get(f), unknown.get(f, ""), site, reached)):
            run(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not reached:
        raise ValueError(
            "a forward pass of five tokens does not call its rotation; give inputs=..., arguments with which the "
            "forward pass calls it"
        )
    return reached, list(dict.fromkeys(tables))


def _both(
    theirs: Callable[..., Any], form: Form | None, reason: str, site: Site, reached: list[Site]
) -> Callable[..., Any]:
    ours = None if form is None else posenc_function(form)

    def call(*args: Any, **options: Any) -> Any:
        if ours is None:
            raise ValueError(reason)
        expected = theirs(*args, **options)
        try:
            results = pairs(expected, ours(*args, **options))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{site.name} calls its rotation function in a way that posenc does not know ({error})"
            ) from error
        for a, b in results:
            if a.shape != b.shape or a.dtype is not b.dtype or not close(a, b):
                raise ValueError(f"in {site.name} its function returns something other than a rotation by its tables")
            if a.numel() and not a.isfinite().any():
                raise ValueError(
                    f"in {site.name} its function returns no finite number, so posenc cannot compare results; use "
                    "check(model) to see whether the tables are set, or give other inputs=..."
                )
        reached.append(site)
        return expected

    return call


def close(a: Tensor, b: Tensor) -> bool:
    """Equal, but for products that were rounded one by one; NaN and infinity where the other has the same."""
    finite = a.isfinite() & b.isfinite()
    if not torch.equal(a[~finite].nan_to_num(nan=0.5), b[~finite].nan_to_num(nan=0.5)):
        return False
    a, b = a[finite], b[finite]
    largest = float(a.abs().max()) if a.numel() else 0.0
    return bool(((a - b).abs() <= 4 * torch.finfo(a.dtype).eps * max(largest, 1e-30)).all())

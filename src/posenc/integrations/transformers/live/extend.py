"""Another frequency rule in a live model, and in its config."""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from torch import nn

from posenc import Compose, MRoPE, RoPE
from posenc.frequencies import (
    NTK,
    DynamicNTK,
    Frequencies,
    Geometric,
    LearnedRates,
    LongRoPE,
    NTKAlpha,
    Proportional,
    Tensor2Tensor,
)
from posenc.frequencies.arguments import check_instance, check_number
from posenc.integrations.held import check_own
from posenc.integrations.patch import Patch
from posenc.integrations.transformers.description.description import Description, LayerGroup
from posenc.integrations.transformers.description.model_types import CORRECTS_SCORES, NEGATIVE
from posenc.integrations.transformers.description.reader import describe
from posenc.integrations.transformers.live import rebuild
from posenc.integrations.transformers.live.check import warn_of_findings
from posenc.integrations.transformers.live.coverage import rotation
from posenc.integrations.transformers.live.image_size import resize
from posenc.integrations.transformers.live.learned_table import interpolate
from posenc.integrations.transformers.live.pretrained import pretrained
from posenc.integrations.transformers.live.rates import rebuild_rates
from posenc.integrations.transformers.live.shorter import warn_if_shorter
from posenc.integrations.transformers.rules.write import write_rule

#: Keys beside the rule's own, which stay as they are.
_KEPT = ("partial_rotary_factor", "mrope_section", "mrope_interleaved", "interleaved", "xdrope_section")
_TEMPERATURE = ("llama_4_scaling_beta", "original_max_position_embeddings")

#: Kinds of layers that see no further than a window, which no rule need lengthen.
_WINDOWED = ("sliding", "chunked", "local", "main")


def extend(
    model: Any,
    rule: Frequencies | Literal["interpolate"] | None = None,
    *,
    length: int | None = None,
    size: tuple[int, int] | int | None = None,
    by: str | Frequencies = "bicubic",
    part: str | None = None,
) -> Patch:
    """Set the frequency rule of a live model, or the size of its images, in the model and in its config.

    transformers itself computes the rates from the new config, so the saved model computes the same without posenc. If
    a model has a rule for each kind of layer (Gemma 3), the rules of layers with a sliding window do not change. A
    model with its own code supports the rules of that code; ``extend`` compares the resulting rates with the rule and
    refuses a difference.

    A model of images (ViT, DeiT, CLIP, SigLIP, DINOv2, BEiT, VideoMAE, AST) takes images of one size, with a row of its
    table for each patch. ``size`` interpolates this table, and biases by offset, for another size.

    Args:
        model: a model of transformers, or one that wraps it (PEFT).
        rule: the frequency rule, with the base that the model has, as in
            ``YaRN(4, trained_length=32768, base=1e6)``; :class:`posenc.frequencies.Geometric` alone is another base.
            Or "interpolate", which stretches a learned table of positions (GPT-2, OPT, BERT) to ``length`` rows: the
            first and last row are kept, and rows between are interpolated linearly.
        length: the new longest context in tokens. It becomes ``max_position_embeddings``, but not for
            :class:`posenc.frequencies.DynamicNTK`, where this key is the trained length.
        size: (height, width) in pixels, or one number for both; for AST, mel bins and frames. Instead of a rule.
        by: how a table is interpolated: "bicubic" as transformers does it, "bilinear" (with antialias), or a convention
            of :meth:`posenc.embeddings.LearnedGrid.resized`, such as "timm"; or a frequency rule for a model that
            rotates by row and column (DINOv3); its tables are then interpolated bicubically.
        part: which part of a model whose config has several rotary ones, as :func:`describe` calls it.

    Returns:
        A :class:`Patch`; its ``undo()`` restores the model and its config.

    Warns:
        UserWarning: the model does not rotate as its config says; or the factor times the trained length is less than
            that of the model's own rule, so the context becomes shorter. The new rule replaces the old one.

    Raises:
        TypeError: no model of transformers.
        ValueError: a rule that transformers cannot express or that this model does not support; a model without a rule,
            or with an encoding that :func:`replace` put in. The model is unchanged.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from posenc import YaRN
        >>> config = LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1,
        ...                      vocab_size=16, max_position_embeddings=2048)
        >>> model = LlamaForCausalLM(config)
        >>> patch = extend(model, YaRN(4, trained_length=2048), length=8192)
        >>> model.config.max_position_embeddings, round(model.model.rotary_emb.attention_scaling, 3)
        (8192, 1.139)
        >>> patch.undo()
        >>> model.config.max_position_embeddings
        2048
    """
    inner = pretrained(model, "extend")
    check_own(inner, "extend", "undo() that patch first")
    if size is not None:
        if rule is not None or length is not None:
            raise ValueError(f"extend: got size {size!r} and rule {rule} or length {length}, expected only size.")
        return resize(inner, size, by, part)
    if rule == "interpolate":
        return interpolate(inner, length)
    if rule is None:
        raise ValueError("extend: got neither a rule nor a size, expected one: a frequency rule, or size=(448, 336).")
    check_instance("extend", "rule", rule, Frequencies, "YaRN(4, trained_length=8192)")
    if isinstance(rule, LearnedRates):
        raise ValueError(
            f"extend: got {rule}, expected a rule with fixed rates, because a config cannot store learned rates."
        )
    warn_of_findings(inner, "extend")
    groups = _rotary_groups(inner, part)
    config = _config_of(inner, groups[0].part)
    if isinstance(rule, NTKAlpha) and "hunyuan" not in str(config.model_type):
        rule = NTK(rule.alpha, base=rule.base)  # the same rates; the name is Hunyuan's
    chosen = _chosen(config, groups)
    warn_if_shorter(inner, chosen, rule)
    patch = Patch(inner, f"extend {type(inner).__name__} by {rule}")
    try:
        _set_rule(patch, inner, config, groups, chosen, rule, length)
    except Exception as error:
        patch.roll_back()
        if isinstance(error, ValueError):
            raise
        raise ValueError(
            f"extend: {type(inner).__name__} could not be built with {rule}: {type(error).__name__}: {error}"
        ) from error
    return patch.commit()


def _rotary_groups(model: Any, part: str | None) -> list[LayerGroup]:
    """The groups of layers that the rule is for: of one part, rotated by one position for each token or three."""
    described = _described(model)
    groups = [group for group in described if isinstance(rotation(group), (RoPE, MRoPE))]
    parts = list(dict.fromkeys(group.part for group in groups))
    if part is None:
        texts = [name for name in parts if name == "" or name.endswith("text_config")]
        parts = texts if len(parts) > 1 and len(texts) == 1 else parts
    else:
        parts = [name for name in parts if name == part]
    if not parts:
        found = ", ".join(sorted({type(group.encoding).__name__ for group in described}))
        raise ValueError(
            f"extend: got a model of type {described.model_type!r} with {found}"
            + ("" if part is None else f" and part {part!r}")
            + ', expected rotary layers of a text; a learned table takes "interpolate", and a model of images '
            "extend(model, size=(height, width))."
        )
    if len(parts) > 1:
        raise ValueError(f"extend: got a model with the rotary parts {parts}, expected one of them; give part=...")
    return [group for group in groups if group.part == parts[0]]


def _described(model: Any) -> Description:
    """What its config says. Its pairs, which the config of foreign code does not say, matter to no rate."""
    return describe(model, pairing="half")


def _config_of(model: Any, part: str) -> Any:
    config = model.config
    for name in part.split(".") if part else ():
        config = getattr(config, name)
    if not _parameters_of(config):
        raise ValueError(
            f"extend: the config of {config.model_type!r} has no rope_parameters, because the model's code fixes the "
            "rates, so the config cannot store another rule."
        )
    return config


def _parameters_of(config: Any) -> dict[str, Any]:
    """What the config says of the rule, if it can say one: older code may have a base alone."""
    parameters = getattr(config, "rope_parameters", None)
    if isinstance(parameters, Mapping) and parameters:
        return dict(parameters)
    base = vars(config).get("rope_theta")
    return {} if base is None else {"rope_type": "default", "rope_theta": base}


def _set_rule(
    patch: Patch,
    model: Any,
    config: Any,
    groups: list[LayerGroup],
    chosen: list[LayerGroup],
    rule: Frequencies,
    length: int | None,
) -> None:
    before = rebuild.build(model)
    parameters = _new_parameters(config, chosen, rule)
    same = _copies_of(model, config)
    for target in same:
        _set_parameters(patch, target, parameters, rule)
        _set_length(patch, target, rule, length)
    after = rebuild.build(model)
    rebuilt = rebuild_rates(patch, model, after)
    for (name, key), value in rebuild.differing_values(before, after).items():
        if name not in rebuilt and (name == "" or _has(model, name)):
            patch.assign(model.get_submodule(name), key, value)
    _check(model, rebuilt, groups, chosen, rule)


def _set_parameters(patch: Patch, config: Any, parameters: dict[str, Any], rule: Frequencies) -> None:
    """Write them where the config has them; older code reads the base from beside them."""
    base = parameters.get("rope_theta")
    if base is not None and "rope_theta" in vars(config):
        patch.assign(config, "rope_theta", base)
    if hasattr(config, "rope_parameters"):
        patch.assign(config, "rope_parameters", copy.deepcopy(parameters))
    elif parameters["rope_type"] != "default":
        raise ValueError(
            f"extend: got {rule}, and the config of {config.model_type!r} has rope_theta and no rope_parameters; give "
            "another base (Geometric, NTK)."
        )


def _chosen(config: Any, groups: list[LayerGroup]) -> list[LayerGroup]:
    """Those whose rule changes."""
    if len({group.label for group in groups}) == 1 or not any(group.label for group in groups):
        if groups[0].label.startswith(_WINDOWED):
            raise ValueError(
                f"extend: all rotary layers of this {config.model_type!r} model have a window ({groups[0].label}), "
                "expected some without a window; with windows alone there is nothing to extend."
            )
        return groups
    return [group for group in groups if not group.label.startswith(_WINDOWED)]


def _new_parameters(config: Any, chosen: list[LayerGroup], rule: Frequencies) -> dict[str, Any]:
    old = _parameters_of(config)
    if not any(group.label and group.label in old for group in chosen):
        return _rule_beside(old, chosen[0], config, rule)
    for group in chosen:
        old[group.label] = _rule_beside(dict(old[group.label]), group, config, rule)
    return old


def _rule_beside(old: dict[str, Any], group: LayerGroup, config: Any, rule: Frequencies) -> dict[str, Any]:
    """What was there, with the rule in place of the old one."""
    turning = rotation(group)
    if isinstance(turning.frequencies, Proportional) != isinstance(rule, Proportional):
        raise ValueError(
            f"extend: got {rule}, and {config.model_type!r} rotates by {turning.frequencies}, which counts its pairs "
            "over the whole head; give Proportional with the same share and with another base or factor."
        )
    _check_base(config, turning.frequencies, rule)
    trained_length = group.trained_length or getattr(config, "max_position_embeddings", None)
    written = write_rule(rule, rotary_dim=turning.rotary_dim, trained_length=trained_length)
    kept = _KEPT + (_TEMPERATURE if "llama_4_scaling_beta" in old else ())
    if "type" in old:  # its name before transformers 4.43, which foreign code may read still
        written["type"] = written["rope_type"]
    return {key: value for key, value in old.items() if key in kept} | written


def _check_base(config: Any, old: Frequencies, rule: Frequencies) -> None:
    """A rule that stretches rates starts from the model's base. Another base is a change of its own (Geometric)."""
    if isinstance(rule, (Geometric, Tensor2Tensor)) or (isinstance(rule, Proportional) and rule.factor == 1):
        return
    before, after = getattr(old, "base", None), getattr(rule, "base", None)
    if before is None or after is None or np.isclose(before, after, rtol=1e-9, atol=0):
        return
    raise ValueError(
        f"extend: got {rule}, and this {config.model_type!r} model rotates by {old}, expected a rule that starts from "
        f"its base; give base={before!r}, or change the base first: extend(model, Geometric({after!r}))."
    )


def _copies_of(model: nn.Module, config: Any) -> list[Any]:
    """The config, and copies of it that modules keep."""
    found = {id(config): config}
    for module in model.modules():
        own: Any = getattr(module, "config", None)
        if type(own) is type(config) and _parameters_of(own) == _parameters_of(config):
            found[id(own)] = own
    return list(found.values())


def _set_length(patch: Patch, config: Any, rule: Frequencies, length: int | None) -> None:
    trained = getattr(rule, "trained_length", None)
    if isinstance(rule, DynamicNTK):
        length = rule.trained_length
    if length is not None:
        check_number("extend", "length", length, whole=True)
        if length < (trained or 1):
            raise ValueError(f"extend: got length {length!r}, expected at least the trained length, {trained or 1}.")
        name = config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
        if getattr(config, name, None) != length:
            patch.assign(config, name, length)
    written = _parameters_of(config).get("original_max_position_embeddings")
    if written is not None and hasattr(config, "original_max_position_embeddings"):  # Phi-3, where it goes first
        patch.assign(config, "original_max_position_embeddings", written)


def _has(model: nn.Module, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def _check(
    model: Any, rebuilt: list[str], groups: list[LayerGroup], chosen: list[LayerGroup], rule: Frequencies
) -> None:
    """Is it the rule that was asked for, and nothing else?"""
    # By its layers: those that rotate and those that do not may have one label.
    now = {(group.part, group.layers): group for group in _described(model)}
    for group in groups:
        found = now.get((group.part, group.layers))
        if found is None or found.label != group.label:
            raise ValueError(f"extend: with {rule} the config no longer describes the same layers {group.label!r}.")
        if isinstance(group.encoding, Compose):
            temperatures = [
                [part.to_dict() for part in of.parts[1:]]
                for of in (group.encoding, found.encoding)
                if isinstance(of, Compose)
            ]
            if temperatures[1:] != temperatures[:1]:
                raise ValueError(
                    f"extend: {rule} would change the temperature of this model, which starts at the trained_length "
                    "of the rule; give the new rule the trained_length of the model's rule."
                )
    for group in chosen:
        _check_group(model, now[group.part, group.layers], rule)
    if not rebuilt and all(rotation(group).frequencies != rule for group in chosen):
        rates = rotation(chosen[0]).frequencies.inv_freq(rotation(chosen[0]).rotary_dim)
        if not np.allclose(abs(rates), rule.inv_freq(rotation(chosen[0]).rotary_dim), rtol=2e-6):
            raise ValueError(f"extend: no rotary module of {type(model).__name__} computes its rates from the config.")


def _check_group(model: Any, group: LayerGroup, rule: Frequencies) -> None:
    width = rotation(group).rotary_dim
    wanted, factor = rule.inv_freq(width), rule.attention_factor
    described = rotation(group).frequencies
    described = described.start if isinstance(described, LearnedRates) else described
    if not np.isclose(described.score_factor, rule.score_factor):
        raise ValueError(
            f"extend: {rule} multiplies the softmax scale by {rule.score_factor:.4g}, and this model's code would "
            f"multiply it by {described.score_factor:.4g}: "
            + (
                "write its temperature in the same form."
                if model.config.model_type in CORRECTS_SCORES
                else "its code does not read mscale_all_dim as DeepSeek's does."
            )
        )
    prefix = f"{group.label}_" if group.label else ""
    nearest = []
    for module in rebuild.rotary_modules(model).values():
        name = f"{prefix}inv_freq" if f"{prefix}inv_freq" in module._buffers else "inv_freq"
        rates = module._buffers.get(name)
        if rates is None or rates.shape != wanted.shape:
            continue
        scaling = getattr(module, f"{prefix}attention_scaling", getattr(module, "attention_scaling", 1.0))
        far = abs(rates.detach().cpu().double().numpy() / np.where(wanted == 0, 1, wanted) - (wanted != 0)).max()
        if far < 1e-5 and np.isclose(float(scaling), factor, rtol=1e-6):
            if rebuild.is_foreign(module):
                rebuild.check_angles(module, rule, width)
                return
            if _long_agrees(module, group, rule):
                return
        nearest.append(float(far))
    if not nearest:
        raise ValueError(
            f"extend: no module of {type(model).__name__} keeps {len(wanted)} rates as inv_freq, which posenc could "
            f"compare with {rule}; nothing was changed."
        )
    sign = " (turned by -angle)" if model.config.model_type in NEGATIVE else ""
    whose = "its own code" if rebuild.is_foreign(model) else "transformers"
    raise ValueError(
        f"extend: {whose} computes other rates for {rule} in {type(model).__name__}{sign}, with a relative "
        f"difference of {min(nearest):.3g}, or multiplies cos and sin by another factor than {factor:.4g}; nothing was "
        "changed."
    )


def _long_agrees(module: Any, group: LayerGroup, rule: Frequencies) -> bool:
    """Past the trained length too, where a rule has a second list there."""
    if not isinstance(rule, LongRoPE):
        return True
    parameters = module.config.rope_parameters
    return list(parameters.get(group.label, parameters)["long_factor"]) == list(
        rule.short_factors if rule.switch == "short" else rule.long_factors
    )

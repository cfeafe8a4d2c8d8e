"""The rule of the rates in a GGUF file, as llama.cpp computes it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from posenc.frequencies import Custom, Frequencies, Geometric, Linear, LongRoPE, NTKAlpha, YaRN
from posenc.integrations.gguf import architectures as of
from posenc.integrations.gguf.values import Values

Rule = tuple[Frequencies, int | None, tuple[str, ...]]


def is_ollamas(values: Values) -> bool:
    """Is this a file that Ollama's converter wrote, as far as its keys show it?"""
    return any(values.header.get(f"rope.{kind}.freq_base") is not None for kind in ("local", "global"))


def stored_base(values: Values) -> float | None:
    """The base that the file stores; Ollama's own files of Gemma 3 have another name for it."""
    default = of.OLLAMAS_BASE.get(values.arch) if is_ollamas(values) else None
    found: float | None = values.number("rope.freq_base", values.number("rope.global.freq_base", default))
    return found


def stored_local_base(values: Values) -> float | None:
    """The base of the layers with a window, likewise."""
    found: float | None = values.number("rope.freq_base_swa", values.number("rope.local.freq_base"))
    return found


def rule_of(values: Values, rotary_dim: int, *, base: float | None = None) -> Rule:
    """The rule of so many channels, the length that it was trained with, and what there is to note.

    Args:
        values: the metadata.
        rotary_dim: the rotated channels.
        base: another base than the stored one.

    Raises:
        ValueError: factors or a kind of scaling that no rule has; no trained length where the rule needs one.
    """
    rule, trained, notes = _rule(values, rotary_dim, base)
    attention_factor = round(float(values.number("rope.scaling.attn_factor", 1.0)), 7)  # stored in float32
    if attention_factor == 1 or isinstance(rule, LongRoPE):  # which has it already
        return rule, trained, notes
    if values.arch in of.RAISES_SCORES | of.NO_TEMPERATURE | of.LOCAL_BASE.keys():
        raise ValueError(
            f"{values.header.path} has rope.scaling.attn_factor {attention_factor:g}, expected 1, as in all "
            f"known files of the architecture {values.arch!r}; posenc does not support another factor for it."
        )
    if isinstance(rule, YaRN):
        notes = (*notes, f"attn_factor {attention_factor:g} multiplies cos and sin besides YaRN's own factor")
        return replace(rule, attention_factor=rule.attention_factor * attention_factor), trained, notes
    notes = (*notes, f"the rates of {rule}, and cos and sin times attn_factor {attention_factor:g}")
    return Custom(rule.inv_freq(rotary_dim).tolist(), attention_factor=attention_factor), trained, notes


def _rule(values: Values, rotary_dim: int, base: float | None) -> Rule:
    """The rule as it is without ``attn_factor``, but for LongRoPE's."""
    arch, path, longest = values.arch, values.header.path, values.whole("context_length")
    stored = stored_base(values) if base is None else base
    base = float(10_000.0 if stored is None else stored)
    factor = float(values.number("rope.scaling.factor", values.number("rope.scale_linear", 1.0)) or 1.0)
    kind = str(values.any("rope.scaling.type", "linear" if factor != 1 else "none"))
    trained = values.whole("rope.scaling.original_context_length", longest)
    notes: tuple[str, ...] = () if stored is not None else ("no base is stored: 10000 is understood",)
    if arch in of.YARN_BY_LENGTH and factor != 1:
        kind = "yarn" if values.header.get("rope.scaling.original_context_length") is not None else "linear"
    if factor == 1 and (missing := _ollamas_factor(values)) is not None:
        kind, factor = "linear", missing
        notes = (*notes, f"no factor is stored: {missing:g} is understood, as Ollama does, and as the model was made")
    if kind in ("linear", "yarn") and factor == 1:
        notes = (*notes, f"the scaling is {kind!r}, and its factor is 1 or not stored: it scales nothing")
    tensors = {name: values.header.numbers(name) for name in values.header.tensors if "rope_f" in name}
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise ValueError(f"{path} has rope.scaling.type {kind!r}, expected none, linear, yarn or longrope.")
    if "rope_freqs.weight" in tensors:
        if kind == "yarn":
            raise ValueError(f"{path} has rope_freqs.weight and YaRN, expected one of them.")
        slower = 1.0 if kind == "none" else factor
        rates = _divided(values, base, tensors["rope_freqs.weight"], rotary_dim) / slower
        notes += (f"base {base:g}, each rate divided by a stored factor" + (f" and {slower:g}" if slower != 1 else ""),)
        return Custom(rates.tolist()), trained, notes
    if "rope_factors_long.weight" in tensors and "rope_factors_short.weight" in tensors:
        return _longrope(values, tensors, base, trained, longest), trained, notes
    if kind == "longrope":
        raise ValueError(
            f"{path} has rope.scaling.type 'longrope' and no lists of factors, expected rope_factors_short and "
            "rope_factors_long."
        )
    if kind == "yarn":
        if trained is None:
            raise ValueError(f"{path} has no rope.scaling.original_context_length, expected the trained length.")
        options, ignored = _yarn_options(values, factor)
        return YaRN(factor, trained_length=trained, base=base, **options), trained, notes + ignored
    if arch == "hunyuan_vl" and (alpha := values.number("rope.scaling.alpha", 0.0)) > 0:
        return NTKAlpha(float(alpha), base=base), trained, notes
    if kind == "linear" and factor != 1:
        return Linear(factor, base=base), trained, notes
    return Geometric(base), trained, notes


def _ollamas_factor(values: Values) -> float | None:
    window, longest = values.number("attention.sliding_window"), values.whole("context_length")
    if not is_ollamas(values) or window is None or longest is None or window >= longest:
        return None
    return of.OLLAMAS_FACTOR.get(values.arch, {}).get(values.need("block_count"))


def _divided(values: Values, base: float, stored: Any, rotary_dim: int) -> Any:
    """The rates by base, each divided by its stored factor."""
    factors = stored[: rotary_dim // 2]
    if len(factors) < rotary_dim // 2 or not (np.isfinite(factors) & (factors > 0)).all():
        raise ValueError(
            f"{values.header.path}: rope_freqs.weight holds {len(factors)} from {factors.min(initial=np.inf):g}, "
            f"expected {rotary_dim // 2} numbers above 0; the file was altered."
        )
    rates = Geometric(base).inv_freq(rotary_dim) / factors
    return np.where(factors >= 1e29, 0.0, rates)  # how Gemma 4 says that a pair stands still


def _longrope(values: Values, tensors: dict[str, Any], base: float, trained: int | None, longest: int | None) -> Any:
    """Lists of factors: cos and sin are multiplied by the stored number, and by 1 where there is none."""
    if trained is None:
        raise ValueError(
            f"{values.header.path} has no rope.scaling.original_context_length, expected the trained length."
        )
    return LongRoPE(
        *(tensors[f"rope_factors_{name}.weight"].tolist() for name in ("short", "long")),
        trained_length=trained,
        factor=max(1.0, (longest or trained) / trained),
        base=base,
        attention_factor=float(values.number("rope.scaling.attn_factor", 1.0)),
    )


def _yarn_options(values: Values, factor: float) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The ramp and the temperature of YaRN, and what the file says of them that llama.cpp does not read."""
    arch = values.arch
    keys = ("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow")
    stored = [values.number(key) for key in keys]
    notes: list[str] = []
    if arch in of.STORED_BETAS:
        betas = [
            default if found is None else float(found)
            for default, found in zip(of.STORED_BETAS[arch], stored, strict=True)
        ]
    else:
        betas = list(of.BETAS)
        notes += [
            f"{key.rpartition('.')[2]} {found:g} is stored, and {own:g} computed with"
            for key, found, own in zip(keys, stored, betas, strict=True)
            if found is not None and found != own
        ]
    options: dict[str, Any] = dict(zip(("beta_fast", "beta_slow"), betas, strict=True))
    if arch == "gemma3" and is_ollamas(values):
        blend = values.number("rope.scaling.extrapolation_factor", 1.0)
        if blend != 1:
            raise ValueError(f"{values.header.path} has rope.scaling.extrapolation_factor {blend:g}, expected 1.")
        fast, slow = (values.number(f"rope.scaling.beta_{end}") for end in ("fast", "slow"))
        options = {"beta_fast": float(fast or 64.0), "beta_slow": float(slow or 1.0), "attention_factor": 1.0}
        return options, ()
    if arch == "grok" and (blend := values.number("rope.scaling.yarn_ext_factor", 1.0)) != 1:
        raise ValueError(f"{values.header.path} has rope.scaling.yarn_ext_factor {blend:g}, expected 1.")

    def g(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    stored_weight = values.number("rope.scaling.yarn_log_multiplier")
    read = arch in (of.RAISES_SCORES | of.DIVIDES_TEMPERATURE) - of.NO_MULTIPLIER
    if stored_weight is not None and not read:
        notes.append(f"yarn_log_multiplier {float(stored_weight):g}: not used")
    weight = round(float(stored_weight or 0.0), 7) if read else 0.0  # stored in float32
    if arch in of.NO_TEMPERATURE:
        options["attention_factor"] = 1.0
    elif arch == "deepseek2" and weight:
        options |= {"mscale": 10 * weight, "mscale_all_dim": 10 * weight}
    elif arch in of.RAISES_SCORES:
        options |= {"mscale_all_dim": 1.0, "attention_factor": g(1.0) / g(10 * weight)}
    elif weight:
        options["attention_factor"] = g(1.0) / g(weight)
    return options, tuple(notes)

"""Frequency rules as the rotary keys of a Hugging Face config."""

from collections.abc import Sequence
from typing import Any

from posenc.frequencies import (
    NTK,
    DynamicNTK,
    Frequencies,
    Geometric,
    Linear,
    Llama3,
    LongRoPE,
    NTKAlpha,
    Proportional,
    YaRN,
)


def write_rule(
    frequencies: Frequencies, *, rotary_dim: int | None = None, trained_length: int | None = None
) -> dict[str, Any]:
    """The ``rope_parameters`` that mean this rule to transformers.

    A rule without a name there is written as one that gives the same rates: NTK as the larger base, fixed rates of any
    other kind as ``longrope`` with one list for all lengths.

    Args:
        frequencies: the rule.
        rotary_dim: rotated channels of a head; needed for rules that are written by their rates.
        trained_length: tokens before any extension; ``longrope`` wants it, whatever its lists are.

    Raises:
        ValueError: a rule that transformers has no way to say.
    """
    match frequencies:
        case Geometric(base=base):
            return {"rope_type": "default", "rope_theta": base}
        case NTK():
            width = _need(rotary_dim, frequencies, "rotary_dim, on which the base depends: pass a whole encoding")
            frequencies.inv_freq(width)  # which refuses a single pair
            base = frequencies.base * float(frequencies.factor) ** (width / (width - 2))
            return {"rope_type": "default", "rope_theta": base}
        case Linear():
            return {"rope_type": "linear", "rope_theta": frequencies.base, "factor": float(frequencies.factor)}
        case NTKAlpha():
            return {
                "rope_type": "dynamic",
                "rope_theta": frequencies.base,
                "alpha": float(frequencies.alpha),
                "factor": 1.0,
            }
        case DynamicNTK():
            return {"rope_type": "dynamic", "rope_theta": frequencies.base, "factor": float(frequencies.factor)}
        case Llama3():
            return {
                "rope_type": "llama3",
                "rope_theta": frequencies.base,
                "factor": float(frequencies.factor),
                "low_freq_factor": float(frequencies.low_freq_factor),
                "high_freq_factor": float(frequencies.high_freq_factor),
                "original_max_position_embeddings": frequencies.trained_length,
            }
        case Proportional():
            return {
                "rope_type": "proportional",
                "rope_theta": frequencies.base,
                "partial_rotary_factor": float(frequencies.share),
                "factor": float(frequencies.factor),
            }
        case YaRN(ramp="code", clamp="channels"):
            return _write_yarn(frequencies)
        case LongRoPE():
            return _write_longrope(frequencies)
        case _:
            return _write_rates(frequencies, rotary_dim, trained_length)


def _need(value: int | None, frequencies: Frequencies, what: str) -> int:
    if value is None:
        raise ValueError(f"to_transformers: to write {frequencies} into a config, give {what}.")
    return value


def _write_yarn(rule: YaRN) -> dict[str, Any]:
    written: dict[str, Any] = {
        "rope_type": "yarn",
        "rope_theta": rule.base,
        "factor": float(rule.factor),
        "original_max_position_embeddings": rule.trained_length,
        "beta_fast": float(rule.beta_fast),
        "beta_slow": float(rule.beta_slow),
        "truncate": rule.ends == "rounded",
        "attention_factor": float(rule.attention_factor),
    }
    if rule.mscale_all_dim:
        written |= {"mscale": float(rule.mscale), "mscale_all_dim": float(rule.mscale_all_dim)}
    return written


def _write_longrope(rule: LongRoPE) -> dict[str, Any]:
    if rule.switch != "sequence":
        factors = rule.long_factors if rule.switch == "long" else rule.short_factors
        return _one_list(factors, rule.base, rule.trained_length, rule.attention_factor, rule.factor)
    written: dict[str, Any] = {
        "rope_type": "longrope",
        "rope_theta": rule.base,
        "short_factor": list(rule.short_factors),
        "long_factor": list(rule.long_factors),
        "original_max_position_embeddings": rule.trained_length,
        "attention_factor": float(rule.attention_factor),
    }
    if rule.factor is not None:
        written["factor"] = float(rule.factor)
    if rule.long_attention_factor is not None:
        del written["attention_factor"]
        written |= {"short_mscale": rule.attention_factor, "long_mscale": rule.long_attention_factor}
    return written


def _write_rates(rule: Frequencies, rotary_dim: int | None, trained_length: int | None) -> dict[str, Any]:
    """Rates that no formula of transformers gives, each as a factor of its own under a base."""
    if rule.depends_on_length or rule.score_factor != 1:
        raise ValueError(
            f"to_transformers: got {rule}, expected a rule that transformers has, or a rule with fixed rates that "
            "does not change the softmax scale."
        )
    width = _need(rotary_dim, rule, "rotary_dim, which sets the number of rates: pass a whole encoding")
    rates = rule.inv_freq(width)
    if not (rates > 0).all():
        raise ValueError(
            f"to_transformers: got {rule}, expected rates above 0; transformers divides rates by factors, and no "
            "factor gives a rate of zero or below."
        )
    length = getattr(rule, "trained_length", None) or trained_length
    length = _need(length, rule, "the trained length: pass the config, whose max_position_embeddings holds it")
    base = float(getattr(rule, "base", 10_000.0))
    factors = Geometric(base).inv_freq(width) / rates
    return _one_list(factors.tolist(), base, length, rule.attention_factor, getattr(rule, "factor", None))


def _one_list(
    factors: Sequence[float], base: float, trained_length: int, attention_factor: float, factor: float | None
) -> dict[str, Any]:
    """``longrope`` that never changes its list."""
    return {
        "rope_type": "longrope",
        "rope_theta": base,
        "short_factor": list(factors),
        "long_factor": list(factors),
        "original_max_position_embeddings": trained_length,
        "attention_factor": float(attention_factor),
        "factor": float(factor or 1.0),  # read only where there is no attention_factor
    }

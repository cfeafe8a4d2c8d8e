"""A warning before a rule makes the context of a model shorter than its own rule has made it."""

import math
import warnings
from typing import Any

from posenc.frequencies import DynamicNTK, Frequencies, Geometric, LearnedRates
from posenc.integrations.transformers.description.description import LayerGroup
from posenc.integrations.transformers.live.coverage import rotation


def warn_if_shorter(model: Any, groups: list[LayerGroup], rule: Frequencies) -> None:
    """Warn if the factor of a rule times the trained length is less than that of the model's own rule.

    A rule replaces the model's, so its factor counts from the trained length. That of a linear rule whose config has no
    ``original_max_position_embeddings`` may be ``max_position_embeddings`` or a part of it: then the trained length of
    the new rule is taken for both.
    """
    if isinstance(rule, DynamicNTK):  # it follows the text to any length
        return
    for group in groups:
        turning = rotation(group)
        old = turning.frequencies.start if isinstance(turning.frequencies, LearnedRates) else turning.frequencies
        stated, given = getattr(old, "trained_length", None), getattr(rule, "trained_length", None)
        before = stated or given or group.trained_length
        if before is None:
            continue
        after = given or before
        had, gets = _factor(old, old, turning.rotary_dim), _factor(rule, old, turning.rotary_dim)
        if had > 1 and gets * after < had * before * (1 - 1e-6):
            warnings.warn(
                f"extend: the context of {type(model).__name__} becomes shorter: {old} reaches {had:g} x {before:.0f} "
                f"= {had * before:.0f} tokens, and {rule} reaches {gets:g} x {after:.0f} = {gets * after:.0f}. The new "
                "rule replaces the old one, and its factor counts from the trained length; for a longer context give a "
                f"factor above {had * before / after:g}. undo() of the patch restores the old rule.",
                stacklevel=3,
            )
            return


def _factor(rule: Frequencies, own: Frequencies, width: int) -> float:
    """By how much a rule stretches the context: its factor, or by how much its slowest rate is below the model's."""
    stated, base = getattr(rule, "factor", None) or getattr(rule, "alpha", None), getattr(own, "base", None)
    if stated is not None or base is None:
        return float(stated or math.nan)
    slowest = abs(rule.inv_freq(width, length=getattr(rule, "trained_length", 0) + 1)[-1])
    return float(Geometric(base).inv_freq(width)[-1] / slowest) if slowest else math.inf

"""Lists the frequency rules to try for a model and a length, with names such as "yarn:2", "base:500000"."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from posenc.frequencies import (
    NTK,
    DynamicNTK,
    Frequencies,
    Geometric,
    Linear,
    Llama3,
    LongRoPE,
    NTKAlpha,
    NTKMixed,
    Proportional,
    YaRN,
)

Setting = Frequencies | Literal["interpolate"] | None

_BUILT_ON_A_BASE = (Geometric, Linear, NTK, NTKAlpha, NTKMixed, DynamicNTK, YaRN, Llama3, LongRoPE)


@dataclass(frozen=True)
class Candidate:
    """A frequency rule to try.

    Attributes:
        name: its name: "none", "linear:2", "ntk:2", "dynamic:2", "yarn:2", "yarn-paper:2", "llama3:2",
            "base:500000", "longrope", "interpolate". :func:`candidates` reads it back as the same rule, except for
            "longrope", which has no formula.
        rule: the argument of ``integrations.transformers.extend``; None for the untouched model.
        present: the model's own rule, if it is rotary.
    """

    name: str
    rule: Setting
    present: Frequencies | None = None

    def measured(self, length: int) -> Setting:
        """The rule that is set while a text of ``length`` tokens is measured.

        This is the rule itself, unless it depends on the length. One forward pass over n tokens gives all of them
        the rates for n, so the rule is fixed at these rates: dynamic NTK becomes NTK with the factor that it has at n,
        and LongRoPE gets its list for n twice. The numbers at short positions are then those within a long text. A
        text that is itself short would get the rates for its own length: within the trained length, the model's own.
        """
        rule = self.present if self.rule is None else self.rule
        if not isinstance(rule, Frequencies) or not rule.depends_on_length:
            return self.rule
        if isinstance(rule, DynamicNTK):
            stretch = rule.factor * max(length, rule.trained_length) / rule.trained_length - (rule.factor - 1)
            return NTK(stretch, base=rule.base)
        if isinstance(rule, LongRoPE):
            factors = rule.long_factors if length > rule.trained_length else rule.short_factors
            return dataclasses.replace(
                rule,
                short_factors=factors,
                long_factors=factors,
                attention_factor=float(rule.attention_factor_at(length)),
                long_attention_factor=None,
            )
        raise ValueError(
            f"Candidate: got {type(rule).__name__}, whose rates depend on the length in a way that posenc does not "
            "know, expected DynamicNTK or LongRoPE."
        )


def plain(rule: Setting) -> Any:
    """The rule as plain data, for JSON."""
    return rule.to_dict() if isinstance(rule, Frequencies) else rule


def base_of(present: Frequencies | None) -> float:
    """The base of a model's rule.

    Raises:
        ValueError: the rule has no base, or not for all channels, so a search is not possible.
    """
    if not isinstance(present, _BUILT_ON_A_BASE):
        raise ValueError(
            "--search: the search finds factors that divide rates of the form base^(-2c/d), and this model has no "
            "base; leave --search out."
        )
    return float(present.base)


def candidates(
    *, present: Frequencies | None, trained_length: int, length: int, wanted: Sequence[str] | None = None
) -> list[Candidate]:
    """List the rules to try so that a model trained on ``trained_length`` tokens reads ``length`` tokens.

    The factors are s = length / trained_length, rounded up to hundredths, and the power of two above it: rules that
    keep some pairs, such as NTK, reach less far than their factor. Up to that power, a larger base alone is written as
    NTK; "base" goes further, to the square of that power, where released long-context models have their bases.

    Args:
        present: the model's rule, whose base the candidates keep; None for a learned table.
        trained_length: tokens before any extension.
        length: the wanted length in tokens.
        wanted: names, with a number ("yarn:4") or without ("yarn", for all default factors). All that apply by
            default.

    Returns:
        Each rule once, in the order of ``wanted``; without a default factor that the model already has.

    Raises:
        ValueError: a length with no loss beyond the trained length; an unknown name; a number for a rule without one,
            or one that the rule refuses; a rule that does not apply to the model; "longrope", which :func:`longrope`
            makes.

    Example:
        >>> tried = candidates(present=Geometric(100_000.0), trained_length=8192, length=12288)
        >>> [candidate.name for candidate in tried][:6]
        ['none', 'linear:1.5', 'ntk:1.5', 'ntk:2', 'dynamic:2', 'yarn:1.5']
        >>> candidates(present=Geometric(), trained_length=4096, length=8192, wanted=["linear"])[0].rule
        Linear(factor=2, base=10000.0)
    """
    if length < trained_length + 2:  # the last token has no loss
        raise ValueError(
            f"--to: got {length}, expected at least {trained_length + 2}: the model was trained with {trained_length} "
            "tokens, and needs no rule to read as many."
        )
    makers = _makers(present, trained_length)
    numbers = _numbers(present, trained_length, length)
    found: dict[str, Candidate] = {}
    for name in makers if wanted is None else wanted:
        kind, colon, number = name.partition(":")
        if kind not in makers:
            raise ValueError(_unknown(kind, makers, present))
        if kind not in numbers:
            if colon:
                raise ValueError(f"--rules: got {name!r}, expected {kind!r} alone, because this rule takes no number.")
            found[kind] = Candidate(kind, makers[kind](0), present)
            continue
        for value in [_read(name, number)] if colon else numbers[kind]:
            label, rule = f"{kind}:{value!r}", makers[kind](value)
            if colon or rule != present:  # which is "none"
                found[label] = Candidate(label, rule, present)
    return list(found.values())


def longrope(factors: Sequence[float], *, present: Frequencies | None, trained_length: int, factor: float) -> Candidate:
    """Make the candidate for the factors of a search, one for each pair.

    The list is used twice, so that the rule does not depend on the length and cached keys stay valid. cos and sin are
    not scaled: scaling needs further training. The untrained SmolLM2-135M, probed at gaps of 7680 and 15872
    for twice its length, loses 0.02 to 0.04 nats by YaRN's temperature, with factors of YaRN, NTK and a search alike.
    """
    rule = LongRoPE(
        factors,
        factors,
        trained_length=trained_length,
        factor=factor,
        base=base_of(present),
        attention_factor=1.0,
    )
    return Candidate("longrope", rule, present)


def _numbers(present: Frequencies | None, trained_length: int, length: int) -> dict[str, list[float]]:
    """The default numbers for each kind of rule."""
    # Rounded up: the name is short, and the rule reaches the length.
    need = _whole(math.ceil(100 * length / trained_length - 1e-9) / 100)
    more = 2 ** (math.floor(math.log2(need)) + 1)
    both = [need, more]
    numbers: dict[str, list[float]] = {
        "linear": [need],
        "ntk": both,
        "dynamic": [2],  # it follows the length for any factor; configs have 2
        "yarn": both,
        "yarn-paper": both,
        "llama3": both,
        "base": [],
    }
    if present is not None and hasattr(present, "base"):
        numbers["base"] = [_whole(float(f"{present.base * more**2:.2g}"))]
    return numbers


def _makers(present: Frequencies | None, trained_length: int) -> dict[str, Callable[[float], Setting]]:
    """How each kind of rule that applies to the model is built from its number."""
    makers: dict[str, Callable[[float], Setting]] = {"none": lambda _: None}
    if present is None:
        return {**makers, "interpolate": lambda _: "interpolate"}
    if isinstance(present, Proportional):  # other rules would rotate the pairs that it does not rotate
        share, base = present.share, present.base
        return {
            **makers,
            "linear": lambda s: Proportional(share, base=base, factor=s),
            "base": lambda b: Proportional(share, base=b),
        }
    if not isinstance(present, _BUILT_ON_A_BASE):
        return makers
    base = present.base
    return {
        **makers,
        "linear": lambda s: Linear(s, base=base),
        "ntk": lambda s: NTK(s, base=base),
        "dynamic": lambda s: DynamicNTK(s, trained_length=trained_length, base=base),
        "yarn": lambda s: _yarn(present, s, trained_length),
        "yarn-paper": lambda s: dataclasses.replace(
            _yarn(present, s, trained_length), ramp="paper", ends="rounded", clamp="channels"
        ),
        "llama3": lambda s: _llama3(present, s, trained_length),
        "base": Geometric,
    }


def _yarn(present: Frequencies, factor: float, trained_length: int) -> YaRN:
    """YaRN; for a model that has YaRN, with its ramp, and with its temperature if that is not the formula's."""
    if not isinstance(present, YaRN):
        return YaRN(factor, trained_length=trained_length, base=base_of(present))
    formula = dataclasses.replace(present, attention_factor=None)  # type: ignore[arg-type]  # None: the formula
    stated = None if present.attention_factor == formula.attention_factor else present.attention_factor
    return dataclasses.replace(present, factor=factor, attention_factor=stated)  # type: ignore[arg-type]


def _llama3(present: Frequencies, factor: float, trained_length: int) -> Llama3:
    if isinstance(present, Llama3):
        return dataclasses.replace(present, factor=factor)
    return Llama3(factor, trained_length=trained_length, base=base_of(present))


def _read(name: str, number: str) -> float:
    try:
        return _whole(float(number))
    except ValueError:
        raise ValueError(
            f"--rules: got {name!r}, expected a number after the colon, such as {name.partition(':')[0]}:2."
        ) from None


def _whole(number: float) -> float:
    return int(number) if math.isfinite(number) and number == int(number) else number


def _unknown(kind: str, makers: dict[str, Callable[[float], Setting]], present: Frequencies | None) -> str:
    model = "a learned table" if present is None else type(present).__name__
    if kind == "longrope":
        return (
            "--rules: got 'longrope', whose factors come from a search, not from a formula; use --search, or leave "
            "longrope out."
        )
    known = _makers(Geometric(), 1024).keys() | {"interpolate"}
    if kind in known:
        return f"--rules: got {kind!r}, which does not apply to {model}; expected one of {', '.join(sorted(makers))}."
    near = difflib.get_close_matches(kind, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"--rules: got {kind!r}, expected one of {', '.join(sorted(makers))}{hint}"
